// A real Inngest server in dev mode, started for a test or there already; and a world whose time is the real one.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Database, SentEvent } from "../database.ts";
import type { World } from "../world.ts";

const START_MS = 60_000;
const PATIENCE_MS = 30_000;
const POLL_MS = 200;

export interface Server {
  url: string;
  close(): Promise<void>;
}

export async function server(): Promise<Server> {
  const given = process.env["INNGEST_TEST_URL"];
  if (given !== undefined && given !== "") return { url: given.replace(/\/$/, ""), close: async () => {} };
  const binary = process.env["INNGEST_TEST_BIN"];
  assert.ok(binary, "neither INNGEST_TEST_URL nor INNGEST_TEST_BIN: run `make test-inngest`");

  const folder = mkdtempSync(join(tmpdir(), "crm-inngest-"));
  const logs = openSync(join(folder, "log"), "a");
  const [port, gateway] = [await freePort(), await freePort()];
  const args = ["dev", "--host", "127.0.0.1", "--port", String(port), "--connect-gateway-port", String(gateway), "--no-discovery", "--no-poll"];
  const child = spawn(binary, args, { cwd: folder, stdio: ["ignore", logs, logs], env: { ...process.env, DO_NOT_TRACK: "1" } });
  const exited = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  try {
    await eventually(START_MS, async () => {
      assert.equal(child.exitCode, null, "the server ended");
      assert.ok((await fetch(`${url}/health`)).ok);
    });
  } catch (error) {
    child.kill("SIGKILL");
    throw new Error(`the server does not start:\n${readFileSync(join(folder, "log"), "utf8").slice(-2000)}`, { cause: error });
  }
  return {
    url,
    async close() {
      child.kill("SIGTERM");
      const late = setTimeout(10_000, undefined, { ref: false }).then(() => child.kill("SIGKILL"));
      await Promise.race([exited, late]);
      await exited;
      rmSync(folder, { recursive: true });
    },
  };
}

export class RealWorld implements World {
  /** Due times are whole seconds, and a server needs a moment. */
  readonly dayMs = 1_500;
  readonly db: Database;
  readonly #url: string;

  constructor(db: Database, url: string) {
    this.db = db;
    this.#url = url;
  }

  async send(...events: SentEvent[]): Promise<void> {
    const response = await fetch(`${this.#url}/e/test`, { method: "POST", body: JSON.stringify(events) });
    assert.equal(response.status, 200, await response.clone().text());
  }

  async pass(ms: number): Promise<void> {
    await setTimeout(ms);
  }

  eventually(check: () => Promise<void>): Promise<void> {
    return eventually(PATIENCE_MS, check);
  }

  /** Its schedule is every five minutes: it is called, at a time that the database believes. */
  async sweep(): Promise<void> {
    await this.#offset("21 minutes");
    const response = await fetch(`${this.#url}/invoke/crm-event-processors-sweeper`, { method: "POST", body: '{"data":{}}' });
    assert.equal(response.status, 200, await response.clone().text());
    await this.eventually(async () => {
      const overdue = await this.db.rows(
        "select from crm_events.effects where state = 'pending' and coalesce(due_at, updated_at) < crm_events.clock() - interval '15 minutes'",
      );
      assert.equal(overdue.length, 0);
    });
    await this.#offset("0");
  }

  async received(name: string): Promise<Pick<SentEvent, "id" | "data">[]> {
    const response = await fetch(`${this.#url}/v1/events?limit=50&name=${encodeURIComponent(name)}`);
    assert.equal(response.status, 200);
    return ((await response.json()) as { data: Pick<SentEvent, "id" | "data">[] }).data;
  }

  async #offset(interval: string): Promise<void> {
    await this.db.rows(
      "insert into crm_events.settings (name, value) values ('clock_offset', $1) on conflict (name) do update set value = excluded.value",
      [interval],
    );
  }
}

export async function eventually(patienceMs: number, check: () => Promise<void>): Promise<void> {
  const limit = Date.now() + patienceMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > limit) throw error;
    }
    await setTimeout(POLL_MS);
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
