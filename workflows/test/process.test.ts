// The service as a process, with Inngest's executor as another one.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { Database } from "./database.ts";

const SERVICE = new URL("../src/main.ts", import.meta.url).pathname;
const EXECUTOR = new URL("../executor/main.ts", import.meta.url).pathname;

interface Process {
  child: ChildProcess;
  /** The first line that matches. */
  line(pattern: RegExp): Promise<RegExpExecArray>;
  errors(): string;
}

function start(script: string, args: string[], environment: Record<string, string>): Process {
  const child = spawn(process.execPath, [script, ...args], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  let errors = "";
  let heard = () => {};
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    heard();
  });
  child.stderr.on("data", (data) => (errors += String(data)));
  child.once("exit", () => heard());
  return {
    child,
    errors: () => errors,
    async line(pattern) {
      for (;;) {
        for (const line of lines) {
          const found = pattern.exec(line);
          if (found !== null) return found;
        }
        if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended: ${errors}`);
        await new Promise<void>((resolve) => (heard = resolve));
      }
    },
  };
}

async function ended({ child }: Process): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return child.exitCode;
}

test("without its settings it says so and ends with 78", async () => {
  const service = start(SERVICE, [], { MODE: "http" });
  assert.equal(await ended(service), 78);
  assert.match(service.errors(), /DATABASE_URL is missing/);
});

test("where the port is taken it says so as it logs, and ends with 70", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  try {
    const { port } = taken.address() as { port: number };
    const service = start(SERVICE, [], {
      DATABASE_URL: "postgres://u@127.0.0.1:1/x",
      INNGEST_DEV: "http://127.0.0.1:1",
      MODE: "http",
      HTTP_ADDR: `127.0.0.1:${port}`,
    });
    const [line] = await service.line(/"level":"error".*/);
    assert.match(line, /EADDRINUSE/);
    assert.equal(await ended(service), 70);
    assert.equal(service.errors(), "");
  } finally {
    taken.close();
  }
});

test("told to end before Inngest was ever reached it ends", async () => {
  const service = start(SERVICE, [], { DATABASE_URL: "postgres://u@127.0.0.1:1/x", INNGEST_DEV: "http://127.0.0.1:1", LOG_LEVEL: "debug" });
  // The SDK says that it cannot connect; by then signals are listened to.
  await service.line(/level/);
  service.child.kill("SIGTERM");
  assert.equal(await ended(service), 0);
});

test("in production a call that Inngest did not sign runs nothing, and without its database it is not ready", async () => {
  const service = start(SERVICE, [], {
    DATABASE_URL: "postgres://u@127.0.0.1:1/x",
    INNGEST_EVENT_KEY: "event-key",
    INNGEST_SIGNING_KEY: "signkey-prod-00",
    MODE: "http",
    HTTP_ADDR: "127.0.0.1:0",
  });
  try {
    const [, port] = await service.line(/serving on port (\d+)/);
    const url = `http://127.0.0.1:${port}`;
    const body = JSON.stringify({ version: 2, event: { name: "x", data: {} }, events: [], steps: {}, ctx: { run_id: "r", attempt: 0 } });
    const call = { method: "POST", headers: { "content-type": "application/json" }, body };
    assert.equal((await fetch(`${url}/api/inngest?fnId=crm-event-processors-sweeper&stepId=step`, call)).status, 401);
    assert.equal((await fetch(`${url}/readyz`)).status, 503);
    assert.equal((await fetch(`${url}/livez`)).status, 200);
    assert.equal((await fetch(`${url}/other`)).status, 404);
  } finally {
    service.child.kill("SIGTERM");
    assert.equal(await ended(service), 0);
  }
});

test("a run goes on after a kill -9 between its steps, and a SIGTERM ends with 0", async () => {
  const db = await Database.create();
  const processes: Process[] = [];
  try {
    const executor = start(EXECUTOR, ["--port", "0", "--database-url", db.ownerUrl], {});
    processes.push(executor);
    const [, url] = await executor.line(/^(http:.*)$/);
    const post = async (path: string, body: unknown) => {
      const response = await fetch(`${url}${path}`, { method: "POST", body: JSON.stringify(body) });
      assert.equal(response.status, 200, await response.clone().text());
      return response.json();
    };
    const service = async () => {
      const started = start(SERVICE, [], { DATABASE_URL: db.url, INNGEST_DEV: String(url), MODE: "http", HTTP_ADDR: "127.0.0.1:0" });
      processes.push(started);
      const [, port] = await started.line(/serving on port (\d+)/);
      await post("/sync", { url: `http://127.0.0.1:${port}/api/inngest` });
      assert.equal((await fetch(`http://127.0.0.1:${port}/livez`)).status, 200);
      assert.equal((await fetch(`http://127.0.0.1:${port}/readyz`)).status, 200);
      return started;
    };
    const first = await service();
    await db.purchase("p1");
    await post("/e/key", await db.decided("p1", { delayMs: 86_400_000 }));
    await fetch(`${url}/idle`);
    assert.equal(await db.state("award:p1"), "pending");

    first.child.kill("SIGKILL");
    await ended(first);
    await post("/clock/advance", { ms: 86_400_000 + 5_000 });
    assert.equal(await db.balance("u-p1"), 0);

    const second = await service();
    await post("/clock/advance", { ms: 600_000 });
    assert.equal(await db.balance("u-p1"), 100);

    second.child.kill("SIGTERM");
    assert.equal(await ended(second), 0);
  } finally {
    for (const { child } of processes) child.kill("SIGKILL");
    for (const process of processes) await ended(process);
    await db.drop();
  }
});
