import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { log } from "../src/log.ts";
import { databaseOf } from "../src/postgres.ts";
import { SettingsError, VARIABLES, settings } from "../src/settings.ts";
import { seconds, until, waits } from "../src/waits.ts";

const DATABASE_URL = "postgres://someone:hidden@db.example/crm";
const complete = { DATABASE_URL, INNGEST_EVENT_KEY: "e", INNGEST_SIGNING_KEY: "s" };

test("all problems are said at once, and no value with them", () => {
  assert.throws(
    () => settings({ DATABASE_URL: "hidden", MODE: "hidden", HTTP_ADDR: "hidden", INNGEST_MAX_RUN_DAYS: "hidden", WORKFLOWS_CONCURRENCY: "0", LOG_LEVEL: "hidden" }),
    (error: unknown) => {
      assert.ok(error instanceof SettingsError);
      assert.equal(error.problems.length, 8);
      assert.doesNotMatch(error.message, /hidden/);
      return true;
    },
  );
});

test("what is not given is what suits the smallest plan", () => {
  const { mode, limits, http, concurrency } = settings(complete);
  assert.deepEqual({ mode, limits, http, concurrency }, {
    mode: "connect",
    limits: { maxSleepDays: 7, maxRunDays: 30 },
    http: { host: "127.0.0.1", port: 3000 },
    concurrency: 5,
  });
  assert.deepEqual(settings({ ...complete, HTTP_ADDR: "[::]:80" }).http, { host: "::", port: 80 });
});

test("keys are needed unless there is a dev server", () => {
  assert.throws(() => settings({ DATABASE_URL }), /INNGEST_EVENT_KEY/);
  assert.throws(() => settings({ DATABASE_URL, INNGEST_DEV: "0" }), /INNGEST_SIGNING_KEY/);
  settings({ DATABASE_URL, INNGEST_DEV: "http://127.0.0.1:8288" });
});

test("TLS is verified unless the host is this machine or the URL says there is none", () => {
  const ssl = (url: string) => databaseOf(url).ssl;
  assert.deepEqual(ssl("postgres://u:p@db.example/crm"), { rejectUnauthorized: true });
  assert.deepEqual(ssl("postgres://u:p@db.example/crm?sslmode=require"), { rejectUnauthorized: true });
  assert.deepEqual(ssl("postgres://u:p@127.0.0.1/crm?sslmode=verify-full"), { rejectUnauthorized: true });
  assert.equal(ssl("postgres://u:p@127.0.0.1/crm"), false);
  assert.equal(ssl("postgres://u:p@[::1]/crm"), false);
  assert.equal(ssl("postgres://u:p@db.example/crm?sslmode=disable"), false);
  for (const odd of ["sslmode=prefer", "sslmode=no-verify", "options=x"]) assert.throws(() => ssl(`postgres://u:p@db.example/crm?${odd}`));
  assert.deepEqual(databaseOf("postgres://a%40b:c%2Fd@db.example:6543/crm"), {
    host: "db.example", port: 6543, user: "a@b", password: "c/d", database: "crm", ssl: { rejectUnauthorized: true },
  });
});

test("waits are rounded up to whole seconds, cut into sleeps, and none where there is nothing to wait for", () => {
  const limits = { maxSleepDays: 7, maxRunDays: 30 };
  const now = Date.parse("2026-03-01T00:00:00.500Z");
  const expected: [string | null, string[] | null][] = [
    [null, []],
    ["2026-02-28T00:00:00Z", []],
    ["2026-03-01T00:00:00.500Z", []],
    // A microsecond later is later.
    ["2026-03-01T00:00:00.500001Z", ["2026-03-01T00:00:01.000Z"]],
    ["2026-03-01T01:00:00+01:00", []],
    // As the database writes a whole second; it is no second more.
    ["2026-03-05T00:00:00.000000Z", ["2026-03-05T00:00:00.000Z"]],
    ["2026-03-05T00:00:00.000100Z", ["2026-03-05T00:00:01.000Z"]],
    ["2026-03-05T00:00:00.123000001Z", ["2026-03-05T00:00:01.000Z"]],
    ["2026-03-05T00:00:00Z", ["2026-03-05T00:00:00.000Z"]],
    ["2026-03-10T00:00:00Z", ["2026-03-08T00:00:00.500Z", "2026-03-10T00:00:00.000Z"]],
    ["2026-03-30T22:00:00Z", ["2026-03-08T00:00:00.500Z", "2026-03-15T00:00:00.500Z", "2026-03-22T00:00:00.500Z", "2026-03-29T00:00:00.500Z", "2026-03-30T22:00:00.000Z"]],
    ["2026-03-30T23:30:00Z", null],
  ];
  for (const [dueAt, instants] of expected) assert.deepEqual(waits(dueAt, now, limits), instants, String(dueAt));
  assert.throws(() => waits("soon", now, limits), RangeError);
  assert.equal(until("2026-03-01T00:00:02Z", now), 1500);
  assert.equal(until("2026-03-01T00:00:02.000000Z", now), 1500);
  assert.equal(until("2026-03-01T00:00:02.000001Z", now), 1501);
  assert.equal(until("2026-02-01T00:00:02Z", now), 0);
  assert.equal(seconds(1500), "3s");
});

test("logs name an error and show no payload", () => {
  const lines: string[] = [];
  const logger = log("info", (line) => void lines.push(line));
  logger.debug("unheard");
  logger.error({ err: new TypeError("it broke"), event: { data: { code: "SECRET" } } }, "while running");
  logger.warn({ data: "SECRET" });
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? "", /TypeError: it broke while running/);
  assert.doesNotMatch(lines.join(""), /SECRET|unheard/);
});

test("every variable is in the blueprint and in the README, and no other is", () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const service = read("render.yaml").split("    name: crm-workflows\n")[1]?.split("\nenvVarGroups:")[0] ?? "";
  const known = [...VARIABLES].sort();
  assert.deepEqual([...service.matchAll(/(?:- key|# not set): (\w+)/g)].map(([, name]) => name).sort(), known);
  const table = read("workflows/README.md").split("## Settings")[1]?.split("\n## ")[0] ?? "";
  const rows = table.split("\n").filter((line) => line.startsWith("| `"));
  const named = rows.flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map(([, name]) => name));
  assert.deepEqual(named.sort(), known);
});
