// What a scenario runs in: a database, the real functions, and an Inngest: the executor or a real server.
import assert from "node:assert/strict";
import { client } from "../src/client.ts";
import { functions } from "../src/functions/index.ts";
import { PATH, type Serving, serveHttp } from "../src/http.ts";
import { log } from "../src/log.ts";
import { PgLedger, databaseOf } from "../src/postgres.ts";
import { databaseClock } from "../executor/database.ts";
import { Executor, type Options } from "../executor/executor.ts";
import { type Listening, listen, sync } from "../executor/server.ts";
import { Database, type SentEvent } from "./database.ts";

export interface World {
  readonly db: Database;
  /** As long as a day may last here. */
  readonly dayMs: number;
  send(...events: SentEvent[]): Promise<void>;
  /** Waits for this long, and for what was to happen meanwhile. */
  pass(ms: number): Promise<void>;
  /** Holds as soon as everything that can run has run. */
  eventually(check: () => Promise<void>): Promise<void>;
  /** Lets the sweeper find what is overdue now. */
  sweep(): Promise<void>;
  /** Every event that came in by this name. */
  received(name: string): Promise<Pick<SentEvent, "id" | "data">[]>;
}

/** The functions as they are in production, served over HTTP in this process. */
export interface Functions {
  url: string;
  close(): Promise<void>;
}

export async function serveFunctions(databaseUrl: string, inngestUrl: string, limits = { maxSleepDays: 7, maxRunDays: 30 }): Promise<Functions> {
  const quiet = log("error", (line) => process.stderr.write(line));
  const ledger = new PgLedger(databaseOf(databaseUrl), 5, quiet);
  const inngest = client(quiet, inngestUrl);
  const all = functions({ inngest, ledger, limits, log: log("error", () => {}), concurrency: 5 });
  const serving: Serving = await serveHttp(inngest, all, ledger, { host: "127.0.0.1", port: 0 });
  return {
    url: `http://127.0.0.1:${serving.port}${PATH}`,
    async close() {
      await serving.close();
      await ledger.close();
    },
  };
}

export type WorldOptions = Omit<Options, "clockMoved"> & {
  limits?: { maxSleepDays: number; maxRunDays: number };
  /** How long what fails may go on being tried before something must hold. */
  patienceMs?: number;
};

export class VirtualWorld implements World {
  readonly dayMs = 86_400_000;
  readonly db: Database;
  readonly executor: Executor;
  readonly url: string;
  readonly #patienceMs: number;
  readonly #ends: (() => Promise<void>)[];

  private constructor(db: Database, executor: Executor, server: Listening, patienceMs: number, ends: (() => Promise<void>)[]) {
    this.db = db;
    this.executor = executor;
    this.url = server.url;
    this.#patienceMs = patienceMs;
    this.#ends = ends;
  }

  static async create(options: WorldOptions = {}): Promise<VirtualWorld> {
    const db = await Database.create();
    const clock = databaseClock(db.ownerUrl);
    const executor = new Executor({ ...options, clockMoved: clock.moved });
    // Nothing is swept unless the test says so: else it would hide a run that does not settle.
    executor.settings.cron = false;
    const server = await listen(executor, 0);
    const served = await serveFunctions(db.url, server.url, options.limits);
    await sync(executor, served.url);
    return new VirtualWorld(db, executor, server, options.patienceMs ?? 0, [() => served.close(), () => server.close(), () => clock.close(), () => db.drop()]);
  }

  async end(): Promise<void> {
    for (const end of this.#ends) await end();
  }

  async send(...events: SentEvent[]): Promise<void> {
    const response = await fetch(`${this.url}/e/test`, { method: "POST", body: JSON.stringify(events) });
    assert.equal(response.status, 200);
    await this.executor.idle();
  }

  pass(ms: number): Promise<void> {
    return this.executor.advance(ms);
  }

  async eventually(check: () => Promise<void>): Promise<void> {
    if (this.#patienceMs > 0) await this.executor.advance(this.#patienceMs);
    else await this.executor.idle();
    await check();
  }

  async sweep(): Promise<void> {
    this.executor.settings.cron = true;
    // An effect is given out again after a quarter of an hour at the earliest: an answer that is lost costs that much.
    for (let sweeps = this.#patienceMs > 0 ? 10 : 1; sweeps > 0; sweeps--) await this.executor.advance(21 * 60_000);
    this.executor.settings.cron = false;
  }

  async received(name: string): Promise<Pick<SentEvent, "id" | "data">[]> {
    const named = this.executor.events.filter((event) => event.name === name);
    return named.map(({ id, data }) => ({ id: id ?? "", data: data as SentEvent["data"] }));
  }

  /** Outputs of the runs of a function, in the order they were scheduled. */
  outcomes(functionId: string): unknown[] {
    return this.executor.runs
      .filter(({ fn }) => fn.id === `crm-event-processors-${functionId}`)
      .map(({ status, output }) => (status === "completed" ? (output as { outcome: string }).outcome : status));
  }
}

/** Runs a test in a world of its own. */
export async function inVirtualWorld(
  test: (world: VirtualWorld) => Promise<void>,
  options: WorldOptions = {},
): Promise<void> {
  const world = await VirtualWorld.create(options);
  try {
    await test(world);
  } finally {
    await world.end();
  }
}
