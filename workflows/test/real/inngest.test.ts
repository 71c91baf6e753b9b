// The scenarios with a real Inngest server between: called by it over HTTP, and connected to it.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { Database } from "../database.ts";
import { SCENARIOS } from "../scenarios.ts";
import { type Functions, serveFunctions } from "../world.ts";
import { RealWorld, type Server, eventually, server } from "./server.ts";

function scenarios(world: () => RealWorld, prefix: string): void {
  for (const [n, { name, run }] of SCENARIOS.entries()) {
    // Ids of events count for the whole server, which may have seen an earlier test.
    test(name, () => run(world(), `${prefix}${Date.now().toString(36)}${n}`));
  }
}

describe("called over HTTP", () => {
  let inngest: Server;
  let db: Database;
  let served: Functions;
  before(async () => {
    inngest = await server();
    db = await Database.create();
    served = await serveFunctions(db.url, inngest.url);
    const response = await fetch(served.url, { method: "PUT" });
    assert.equal(response.status, 200, await response.text());
  });
  after(async () => {
    await served?.close();
    await inngest?.close();
    await db?.drop();
  });
  scenarios(() => new RealWorld(db, inngest.url), "h");
});

describe("over Connect", () => {
  let inngest: Server;
  let db: Database;
  let service: ChildProcess;
  before(async () => {
    inngest = await server();
    db = await Database.create();
    const main = new URL("../../src/main.ts", import.meta.url).pathname;
    service = spawn(process.execPath, [main], {
      env: { DATABASE_URL: db.url, INNGEST_DEV: inngest.url, MODE: "connect" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    service.stdout?.on("data", (data) => (said += String(data)));
    await eventually(30_000, async () => assert.match(said, /"connected"/));
  });
  after(async () => {
    service?.kill("SIGTERM");
    if (service !== undefined && service.exitCode === null) await once(service, "exit");
    assert.equal(service?.exitCode, 0, "the service did not end by itself");
    await inngest?.close();
    await db?.drop();
  });
  scenarios(() => new RealWorld(db, inngest.url), "c");
});
