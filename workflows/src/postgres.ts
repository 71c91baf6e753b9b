// The ledger over Postgres: takes a URL, calls the functions of the schema crm_events and nothing else. Statements have
// no name and no session state, so a pooler in transaction mode may stand between.
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import { Pool, type PoolConfig } from "pg";
import {
  type Announcement,
  type Applied,
  type JsonObject,
  type Ledger,
  LedgerError,
  type Outcome,
  type Settled,
  type Swept,
} from "./ledger.ts";
import type { Log } from "./log.ts";

/** Longer than the functions wait for a lock (20 s): the server gives up first, and leaves nobody waiting there. */
const QUERY_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;

export class PgLedger implements Ledger {
  readonly #pool: Pool;

  constructor(database: PoolConfig, connections: number, log: Log) {
    this.#pool = new Pool({
      ...database,
      max: connections,
      application_name: "crm-workflows",
      query_timeout: QUERY_TIMEOUT_MS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      idleTimeoutMillis: 60_000,
      keepAlive: true,
    });
    // An idle connection that breaks; the next call opens another.
    this.#pool.on("error", (error) => log.warn(`a connection broke: ${describe(error)}`));
  }

  async now(): Promise<number> {
    const [row] = await this.#ask<{ now_ms: number }>(
      "select (extract(epoch from crm_events.clock()) * 1000)::float8 as now_ms",
      [],
    );
    return only(row).now_ms;
  }

  applyAward(data: JsonObject): Promise<Applied> {
    return this.#one<Applied>("select crm_events.apply_award($1::jsonb) as answer", [JSON.stringify(data)]);
  }

  settleAward(effectKey: string): Promise<Settled> {
    return this.#one<Settled>("select crm_events.settle_award($1::text) as answer", [effectKey]);
  }

  settleGrant(data: JsonObject): Promise<Outcome> {
    return this.#one<Outcome>("select crm_events.settle_grant($1::jsonb) as answer", [JSON.stringify(data)]);
  }

  settleCode(data: JsonObject): Promise<Outcome> {
    return this.#one<Outcome>("select crm_events.settle_code($1::jsonb) as answer", [JSON.stringify(data)]);
  }

  async upgradeTier(effectKey: string): Promise<Announcement[]> {
    const rows = await this.#ask<Announcement>(
      "select id, name, ts_ms, data from crm_events.upgrade_tier($1::text)",
      [effectKey],
    );
    return rows.map(announcement);
  }

  async announced(ids: string[]): Promise<void> {
    await this.#ask("select crm_events.announced($1::text[])", [ids]);
  }

  async dueEffects(max: number): Promise<string[]> {
    const rows = await this.#ask<{ key: string }>("select key from crm_events.due_effects($1::int) as key", [max]);
    return rows.map(({ key }) => key);
  }

  async settle(effectKey: string): Promise<Swept> {
    const answer = await this.#one<Outcome & { announcements?: Announcement[] }>(
      "select crm_events.settle($1::text) as answer",
      [effectKey],
    );
    return { outcome: answer.outcome, announcements: (answer.announcements ?? []).map(announcement) };
  }

  /** Ends when all connections are closed. */
  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #one<T>(statement: string, values: unknown[]): Promise<T> {
    const [row] = await this.#ask<{ answer: T }>(statement, values);
    return only(row).answer;
  }

  async #ask<T>(statement: string, values: unknown[]): Promise<T[]> {
    try {
      // The text alone: with a name it would be prepared for a session that the pooler may not give us again.
      const { rows } = await this.#pool.query(statement, values);
      return rows as T[];
    } catch (error) {
      throw new LedgerError(`the database: ${describe(error)}`, isPermanent(error));
    }
  }
}

function only<T>(row: T | undefined): T {
  if (row === undefined) throw new LedgerError("the database answered no row", false);
  return row;
}

/** A bigint comes as text, and a column may bring more than is sent on. */
function announcement({ id, name, ts_ms, data }: Announcement): Announcement {
  return { id, name, ts_ms: Number(ts_ms), data };
}

function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The message and the detail of an error may quote a row: only the code is ever shown. */
function describe(error: unknown): string {
  const code = codeOf(error);
  if (code !== undefined) return /^[0-9A-Z]{5}$/.test(code) ? `SQLSTATE ${code}` : code;
  const message = error instanceof Error ? error.message : "";
  return /timeout|terminated|ended/i.test(message) ? "no answer in time, or the connection ended" : "unknown error";
}

/** SQLSTATE 22, 23 and P0: wrong for this row, whenever it is asked. */
function isPermanent(error: unknown): boolean {
  return /^(22|23|P0)[0-9A-Z]{3}$/.test(codeOf(error) ?? "");
}

/**
 * What to connect to. TLS is verified, certificate and host name, unless the host is this machine or the URL itself says
 * `sslmode=disable`. `sslrootcert` names a file with the authority of a server whose certificate no public one signed.
 */
export function databaseOf(url: string): PoolConfig {
  const parsed = new URL(url);
  if (parsed.protocol !== "postgres:" && parsed.protocol !== "postgresql:") throw new Error("no postgres:// URL");
  if (parsed.hostname === "") throw new Error("no host");
  const host = decodeURIComponent(parsed.hostname).replace(/^\[(.*)\]$/, "$1");
  const database = decodeURIComponent(parsed.pathname.slice(1));
  if (database === "") throw new Error("no database");
  return {
    host,
    port: parsed.port === "" ? 5432 : Number(parsed.port),
    user: decodeURIComponent(parsed.username),
    password: decodeURIComponent(parsed.password),
    database,
    ssl: tlsOf(host, parsed.searchParams),
  };
}

function tlsOf(host: string, parameters: URLSearchParams): false | ConnectionOptions {
  for (const name of parameters.keys()) {
    if (name !== "sslmode" && name !== "sslrootcert") throw new Error(`parameter ${name} is not known`);
  }
  const mode = parameters.get("sslmode");
  const authority = parameters.get("sslrootcert");
  if (mode !== null && !["disable", "require", "verify-ca", "verify-full"].includes(mode)) {
    throw new Error("sslmode is neither disable nor require, verify-ca or verify-full");
  }
  const loopback = ["localhost", "127.0.0.1", "::1"].includes(host);
  if (mode === "disable" || (mode === null && authority === null && loopback)) return false;
  // Whatever the mode is called: TLS that is not verified protects from nobody.
  return { rejectUnauthorized: true, ...(authority === null ? {} : { ca: readFileSync(authority, "utf8") }) };
}
