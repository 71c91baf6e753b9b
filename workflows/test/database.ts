// A database of its own for a test, as `migrate` makes it, on the server of the stack; and what stands in for the
// application and for the worker: rows, and the events that the worker would send for them.
import { readFileSync, readdirSync } from "node:fs";
import { Client, Pool } from "pg";
import type { JsonObject } from "../src/ledger.ts";
import { EVENTS } from "../src/names.ts";

const ROOT = new URL("../../", import.meta.url);
export const MERCHANT = "m1";
/** A login of the role that the workflows have in production, and no more than that. */
const LOGIN = "workflows_test";

export interface SentEvent {
  id: string;
  name: string;
  ts: number;
  v: string;
  data: JsonObject;
}

/** An address of stack/.run/env. */
export function stack(name: string): string {
  let env: string;
  try {
    env = readFileSync(new URL("stack/.run/env", ROOT), "utf8");
  } catch {
    throw new Error("no stack: `stack/with-stack ...`, or `stack/up --only postgres` before");
  }
  const found = new RegExp(`^${name}=(.*)$`, "m").exec(env)?.[1];
  if (found === undefined) throw new Error(`stack/.run/env has no ${name}`);
  return found;
}

/** A lock, since files of tests run side by side: whoever comes second finds the template made. */
const TEMPLATE_LOCK = 7_203_001;

async function template(): Promise<string> {
  const folder = new URL("schemas/postgres/", ROOT);
  const files = readdirSync(folder).filter((name) => name.endsWith(".sql")).sort();
  const text = files.map((name) => readFileSync(new URL(name, folder), "utf8"));
  const { createHash } = await import("node:crypto");
  const name = `workflows_${createHash("sha256").update(text.join("\0")).digest("hex").slice(0, 12)}`;
  const server = new Client({ connectionString: stack("POSTGRES_URL") });
  await server.connect();
  try {
    await server.query("select pg_advisory_lock($1)", [TEMPLATE_LOCK]);
    const { rowCount } = await server.query("select from pg_database where datname = $1 and datistemplate", [name]);
    if (rowCount === 0) {
      await server.query(`drop database if exists ${name}`);
      await server.query(`create database ${name}`);
      const made = new Client({ connectionString: at(name) });
      await made.connect();
      try {
        for (const statements of text) await made.query(statements);
        await made.query(`do $$ begin
          if not exists (select from pg_roles where rolname = '${LOGIN}') then
            -- The owner is a member, to end the sessions that are left when a database goes.
            create role ${LOGIN} login password '${LOGIN}' in role crm_workflows role current_user;
          end if; end $$`);
      } finally {
        await made.end();
      }
      await server.query(`alter database ${name} is_template true`);
    }
  } finally {
    await server.end();
  }
  return name;
}

function at(database: string, user?: string): string {
  const url = new URL(stack("POSTGRES_URL"));
  url.pathname = `/${database}`;
  if (user !== undefined) url.username = url.password = user;
  return url.href;
}

let databases = 0;

export class Database {
  readonly name: string;
  /** As the workflows come in. */
  readonly url: string;
  /** As the owner does. */
  readonly ownerUrl: string;
  readonly #pool: Pool;
  #asOf = Date.now();

  private constructor(name: string) {
    this.name = name;
    this.url = at(name, LOGIN);
    this.ownerUrl = at(name);
    this.#pool = new Pool({ connectionString: this.ownerUrl, max: 3 });
    this.#pool.on("error", () => {});
  }

  static async create(): Promise<Database> {
    const source = await template();
    const name = `workflows_test_${process.pid}_${databases++}`;
    await Database.#server(`create database ${name} template ${source}`);
    return new Database(name);
  }

  async drop(): Promise<void> {
    await this.#pool.end();
    await Database.#server(`drop database ${this.name} with (force)`);
  }

  static async #server(statement: string): Promise<void> {
    const client = new Client({ connectionString: stack("POSTGRES_URL") });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  }

  async rows<T>(statement: string, values: unknown[] = []): Promise<T[]> {
    return (await this.#pool.query(statement, values)).rows as T[];
  }

  async one<T>(statement: string, values: unknown[] = []): Promise<T> {
    const [row] = await this.rows<T>(statement, values);
    if (row === undefined) throw new Error(`no row: ${statement}`);
    return row;
  }

  /** A purchase, completed now unless the columns say otherwise. */
  async purchase(id: string, columns: Record<string, unknown> = {}): Promise<void> {
    const { at: moment } = await this.one<{ at: Date }>("select crm_events.clock() as at");
    const row = { user_id: `u-${id}`, merchant_id: MERCHANT, final_amount: "100", status: "completed", earn_currency: true, created_at: moment, completed_at: moment, ...columns };
    await this.insert("purchase_ledger", { id, ...row });
  }

  async insert(table: string, row: Record<string, unknown>): Promise<void> {
    const names = Object.keys(row);
    await this.rows(
      `insert into public.${table} (${names.join(", ")}) values (${names.map((_, n) => `$${n + 1}`).join(", ")})`,
      Object.values(row),
    );
  }

  async change(table: string, id: string, columns: Record<string, unknown>): Promise<void> {
    const names = Object.keys(columns);
    await this.rows(`update public.${table} set ${names.map((name, n) => `${name} = $${n + 2}`).join(", ")} where id = $1`, [
      id,
      ...Object.values(columns),
    ]);
  }

  /** What the worker decides for the purchase as it is now: a point for each whole unit that is left. */
  async decided(id: string, rule: { delayMs?: number; policy?: string; rev?: number } = {}): Promise<SentEvent> {
    const { basis, earned_ms } = await this.one<{ basis: JsonObject; earned_ms: number }>(
      `select jsonb_build_object('user_id', user_id, 'merchant_id', merchant_id, 'final_amount', final_amount::text,
         'refunded_amount', coalesce(refunded_amount, 0)::text, 'status', status, 'earn_currency', earn_currency,
         'created_at', crm_events.rfc3339(created_at), 'completed_at', crm_events.rfc3339(completed_at)) as basis,
         (extract(epoch from coalesce(completed_at, created_at)) * 1000)::float8 as earned_ms
       from public.purchase_ledger where id = $1`,
      [id],
    );
    const eligible = ["completed", "partially_refunded"].includes(String(basis["status"]));
    const points = eligible ? Math.max(0, Math.floor(Number(basis["final_amount"]) - Number(basis["refunded_amount"]))) : 0;
    const asOf = this.#asOf++;
    const data: JsonObject = {
      purchase_id: id,
      effect_key: `award:${id}`,
      target_points: String(points),
      program_rev: rule.rev ?? 1,
      refund_policy: rule.policy ?? "unlimited",
      basis,
      as_of_ms: asOf,
      reason: points > 0 ? "earned" : "refunded",
    };
    if (points > 0) data["due_at"] = new Date(earned_ms + (rule.delayMs ?? 0)).toISOString();
    return event(points > 0 ? EVENTS.awardScheduled : EVENTS.awardCancelled, `currency:${id}:${asOf}`, data);
  }

  async booked(member: string): Promise<{ kind: string; amount: number }[]> {
    return await this.rows("select kind, amount::int from public.wallet_ledger where user_id = $1 order by created_at, id", [member]);
  }

  async balance(member: string): Promise<number> {
    const { sum } = await this.one<{ sum: number }>(
      "select coalesce(sum(amount), 0)::int as sum from public.wallet_ledger where user_id = $1",
      [member],
    );
    return sum;
  }

  async state(effectKey: string): Promise<string | undefined> {
    const [row] = await this.rows<{ state: string }>("select state from crm_events.effects where effect_key = $1", [effectKey]);
    return row?.state;
  }
}

export function event(name: string, id: string, data: JsonObject): SentEvent {
  return { id, name, ts: Date.now() - 1, v: "2026-11-22.1", data };
}
