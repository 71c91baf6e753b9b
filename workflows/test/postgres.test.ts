// The ledger over a real server: its certificate, a pooler in transaction mode, and what an error may say.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "pg";
import { LedgerError } from "../src/ledger.ts";
import { log } from "../src/log.ts";
import { PgLedger, databaseOf } from "../src/postgres.ts";
import { Database, stack } from "./database.ts";

async function asked<T>(url: string, ask: (ledger: PgLedger) => Promise<T>): Promise<T> {
  const ledger = new PgLedger(databaseOf(url), 2, log("error", () => {}));
  try {
    return await ask(ledger);
  } finally {
    await ledger.close();
  }
}

async function inDatabase(run: (db: Database) => Promise<void>): Promise<void> {
  const db = await Database.create();
  try {
    await run(db);
  } finally {
    await db.drop();
  }
}

test("a server whose certificate nobody vouches for is not talked to", () =>
  inDatabase(async (db) => {
    const now = (parameters: string) => asked(`${db.url}${parameters}`, (ledger) => ledger.now());
    await assert.rejects(now("?sslmode=require"), (error: unknown) => error instanceof LedgerError && !error.permanent);
    assert.ok((await now(`?sslmode=verify-full&sslrootcert=${encodeURIComponent(stack("POSTGRES_CA_FILE"))}`)) > 0);
  }));

test("an error names its SQLSTATE, whether it is for ever, and no value of the row", () =>
  inDatabase(async (db) => {
    await db.purchase("p1");
    const { data } = await db.decided("p1");
    await asked(db.url, async (ledger) => {
      const failed = async (call: Promise<unknown>) => {
        const error = await call.then(() => undefined, (reason: unknown) => reason);
        assert.ok(error instanceof LedgerError);
        return { message: error.message, permanent: error.permanent };
      };
      assert.deepEqual(await failed(ledger.applyAward({ ...data, target_points: "SECRET" })), {
        message: "the database: SQLSTATE 22P02",
        permanent: true,
      });
      await db.rows("revoke execute on function crm_events.settle_award(text) from crm_workflows");
      assert.deepEqual(await failed(ledger.settleAward("award:p1")), { message: "the database: SQLSTATE 42501", permanent: false });
    });
    await assert.rejects(asked(db.url.replace(/:\d+\//, ":1/"), (ledger) => ledger.now()), /the database: ECONNREFUSED/);
  }));

test("a row that somebody else holds for long is asked for again, later", () =>
  inDatabase(async (db) => {
    await db.purchase("p1");
    const { data } = await db.decided("p1");
    await asked(db.url, (ledger) => ledger.applyAward(data));
    await db.rows("alter function crm_events.settle_award(text) set lock_timeout = '50ms'");
    const application = new Client({ connectionString: db.ownerUrl });
    await application.connect();
    try {
      await application.query("begin; update public.purchase_ledger set metadata = '{}' where id = 'p1'");
      await assert.rejects(
        asked(db.url, (ledger) => ledger.settleAward("award:p1")),
        (error: unknown) => error instanceof LedgerError && error.message === "the database: SQLSTATE 55P03" && !error.permanent,
      );
    } finally {
      await application.end();
    }
    assert.equal((await asked(db.url, (ledger) => ledger.settleAward("award:p1"))).outcome, "settled");
  }));

test("the role of the workflows calls its functions and writes nothing itself", () =>
  inDatabase(async (db) => {
    const client = new Client({ connectionString: db.url });
    await client.connect();
    try {
      for (const statement of [
        "insert into public.wallet_ledger (user_id, merchant_id, amount, kind, created_at) values ('u', 'm', 1, 'earn', now())",
        "select * from public.purchase_ledger",
        "update crm_events.effects set booked = 0",
        "update crm_events.settings set value = ''",
        "select crm_events.evaluate_tiers('[]')",
      ]) {
        await assert.rejects(client.query(statement), { code: "42501" }, statement);
      }
    } finally {
      await client.end();
    }
  }));

test("a pooler in transaction mode may stand between", () =>
  inDatabase(async (db) => {
    const pooler = new URL(stack("POOLER_URL"));
    pooler.pathname = `/${db.name}`;
    await db.purchase("p1");
    const { data } = await db.decided("p1");
    // More clients than it has sessions: each call may meet another one.
    await Promise.all(
      Array.from({ length: 8 }, () =>
        asked(pooler.href, async (ledger) => {
          for (let n = 0; n < 5; n++) {
            await Promise.all([ledger.applyAward(data), ledger.now()]);
            await ledger.settleAward("award:p1");
          }
        }),
      ),
    );
    assert.equal(await db.balance("u-p1"), 100);
  }));
