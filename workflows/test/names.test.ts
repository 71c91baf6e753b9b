// A second copy of what src/names.ts says: whoever changes an id or a step's name has to do it here as well, and to read
// that runs which sleep for a month go by them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { EVENTS } from "../src/names.ts";
import { registration } from "../executor/protocol.ts";
import { client } from "../src/client.ts";
import { functions } from "../src/functions/index.ts";
import { log } from "../src/log.ts";
import { event } from "./database.ts";
import { inVirtualWorld } from "./world.ts";

const DAY_MS = 86_400_000;

test("step_names_are_frozen", () =>
  inVirtualWorld(async (world) => {
    const seen = (id: string) =>
      world.executor.runs.filter(({ fn }) => fn.id === id).flatMap(({ stepNames }) => stepNames);

    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1", { delayMs: 10 * DAY_MS }));
    await world.pass(11 * DAY_MS);
    assert.deepEqual(seen("crm-event-processors-award"), ["apply", "due", "due", "settle"]);

    await world.db.purchase("p2");
    await world.db.rows(`select crm_events.evaluate_tiers(jsonb_build_array(jsonb_build_object('merchant_id', 'm1',
      'user_id', 'u-p2', 'effect_key', 'tier:m1:u-p2', 'program_rev', 1, 'as_of_ms', 1790000000000, 'rules', jsonb_build_object(
        'metric', 'spend', 'window', '{"kind":"lifetime"}'::jsonb, 'time_zone', 'UTC', 'timing', 'start_of_next_month',
        'ladder', '[{"name":"gold","threshold":"50"}]'::jsonb), 'triggers', jsonb_build_array(jsonb_build_object(
          'table', 'purchase_ledger', 'row_id', 'p2', 'version', '1', 'op', 'c', 'at', crm_events.clock(),
          'due_at', crm_events.clock() + interval '2 days', 'lowers', false)))))`);
    const { data } = await world.db.one<{ data: { effect_key: string; due_at: string } }>(
      "update crm_events.announcements set announced_at = crm_events.clock() returning data",
    );
    await world.send(event(EVENTS.tierUpgradeScheduled, "t1", data));
    await world.pass(3 * DAY_MS);
    assert.deepEqual(seen("crm-event-processors-tier-upgrade"), ["plan", "due", "upgrade", "announce", "announced"]);

    await world.send(
      event(EVENTS.rewardGranted, "g1", { effect_key: "grant:none", claim_id: "none", source: "mission_claim" }),
      event(EVENTS.codeRedeemed, "c1", { effect_key: "code:none", code_id: "none" }),
    );
    assert.deepEqual(seen("crm-event-processors-grant"), ["settle"]);
    assert.deepEqual(seen("crm-event-processors-code"), ["settle"]);

    await world.db.rows(`update crm_events.effects set state = 'pending', due_at = crm_events.clock() where kind = 'award'`);
    await world.sweep();
    assert.deepEqual(seen("crm-event-processors-sweeper"), ["find", "settle"]);
  }));

test("the waits for a clock that is behind have a name as well", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    const change = await world.db.decided("p1", { delayMs: DAY_MS });
    await world.send(change);
    // The due time moves by three minutes, and no newer event came in to cancel.
    await world.db.rows("update crm_events.effects set due_at = due_at + interval '3 minutes'");
    await world.pass(DAY_MS + 60_000);
    await world.pass(4 * 60_000);
    assert.deepEqual(world.executor.runs[0]?.stepNames, ["apply", "due", "settle", "skew", "settle"]);
    assert.deepEqual(world.outcomes("award"), ["settled"]);
  }));

type Registered = { id: string; triggers: { event?: string }[]; concurrency?: { key?: string } | { key?: string }[] };

/** What Inngest is told when the functions are registered. */
function registered(): Registered[] {
  const quiet = log("error", () => {});
  const inngest = client(quiet, "http://127.0.0.1:1");
  const all = functions({ inngest, ledger: {} as never, limits: { maxSleepDays: 7, maxRunDays: 30 }, log: quiet, concurrency: 5 });
  return all.flatMap((fn) => fn["getConfig"]({ baseUrl: new URL("http://127.0.0.1/"), appPrefix: inngest.id }));
}

type Shape = { required?: string[]; properties?: Record<string, Shape>; oneOf?: Shape[] };

/** Whether every event of this shape has it. */
function carries(shape: Shape | undefined, [field, ...rest]: string[]): boolean {
  if (field === undefined || shape === undefined) return shape !== undefined;
  if (shape.oneOf !== undefined) return shape.oneOf.every((one) => carries(one, [field, ...rest]));
  return shape.required?.includes(field) === true && carries(shape.properties?.[field], rest);
}

test("what a concurrency key names is in every event that starts the function", () => {
  let named = 0;
  for (const { id, triggers, concurrency } of registered()) {
    const keys = [concurrency ?? []].flat().flatMap(({ key }) => key ?? []);
    for (const name of triggers.flatMap(({ event }) => event ?? [])) {
      const file = new URL(`../../schemas/inngest/${name.replace("/", ".")}.schema.json`, import.meta.url);
      const schema: Shape = JSON.parse(readFileSync(file, "utf8"));
      for (const [path] of keys.join(" ").matchAll(/(?<=\bevent\.)\w+(\.\w+)*/g)) {
        assert.ok(carries(schema, path.split(".")), `${id}: ${name} has no ${path}`);
        named++;
      }
    }
  }
  assert.equal(named, 11, "merchant and member in each of five events, a key of its own in the sixth");
});

test("ids, triggers and what ends a run are what Inngest has known from the first day", async () => {
  const found = registration(JSON.stringify({ functions: registered() }));
  const newer = "event.data.purchase_id == async.data.purchase_id && async.data.as_of_ms > event.data.as_of_ms";
  assert.deepEqual(
    found.map(({ id, triggers, cancel, retries }) => ({ id, triggers, cancel, retries })),
    [
      {
        id: "crm-event-processors-award",
        triggers: [{ event: "loyalty/award.scheduled" }, { event: "loyalty/award.cancelled" }],
        cancel: [
          { event: "loyalty/award.scheduled", if: newer },
          { event: "loyalty/award.cancelled", if: newer },
        ],
        retries: 20,
      },
      { id: "crm-event-processors-tier-upgrade", triggers: [{ event: "loyalty/tier_upgrade.scheduled" }], cancel: [], retries: 20 },
      {
        id: "crm-event-processors-grant",
        triggers: [{ event: "loyalty/reward.granted" }, { event: "loyalty/reward.revoked" }],
        cancel: [],
        retries: 20,
      },
      { id: "crm-event-processors-code", triggers: [{ event: "loyalty/code.redeemed" }], cancel: [], retries: 20 },
      { id: "crm-event-processors-sweeper", triggers: [{ cron: "*/5 * * * *" }], cancel: [], retries: 20 },
    ],
  );
});
