// What must hold whichever Inngest calls the functions: the executor (scenarios.test.ts) and a real server
// (real/inngest.test.ts) run the same. Each has rows of its own; `id` is what makes them its own.
import assert from "node:assert/strict";
import { EVENTS } from "../src/names.ts";
import { MERCHANT, type SentEvent, event } from "./database.ts";
import type { World } from "./world.ts";

export interface Scenario {
  name: string;
  run(world: World, id: string): Promise<void>;
}

const earned = (amount: number) => ({ kind: "earn", amount });
const takenBack = (amount: number) => ({ kind: "clawback", amount: -amount });

/** The member's entries, whenever everything has run. */
async function booked(world: World, id: string, entries: { kind: string; amount: number }[]): Promise<void> {
  await world.eventually(async () => {
    assert.deepEqual(await world.db.booked(`u-${id}`), entries);
    assert.equal(await world.db.state(`award:${id}`), "settled");
  });
}

async function pending(world: World, id: string): Promise<void> {
  await world.eventually(async () => assert.equal(await world.db.state(`award:${id}`), "pending"));
  assert.deepEqual(await world.db.booked(`u-${id}`), []);
}

export const SCENARIOS: Scenario[] = [
  {
    name: "an award that is due at once is booked at once",
    async run(world, id) {
      await world.db.purchase(id);
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100)]);
    },
  },
  {
    name: "an award is booked when it is due and not before",
    async run(world, id) {
      await world.db.purchase(id);
      await world.send(await world.db.decided(id, { delayMs: 3 * world.dayMs }));
      await pending(world, id);
      await world.pass(4 * world.dayMs);
      await booked(world, id, [earned(100)]);
    },
  },
  {
    name: "a purchase refunded before its award is due earns nothing",
    async run(world, id) {
      await world.db.purchase(id);
      await world.send(await world.db.decided(id, { delayMs: 3 * world.dayMs }));
      await pending(world, id);
      await world.db.change("purchase_ledger", id, { status: "refunded", refunded_amount: "100" });
      await world.send(await world.db.decided(id));
      await booked(world, id, []);
      await world.pass(4 * world.dayMs);
      await booked(world, id, []);
    },
  },
  {
    name: "what a refunded purchase has earned is taken back",
    async run(world, id) {
      await world.db.purchase(id);
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100)]);
      await world.db.change("purchase_ledger", id, { status: "refunded", refunded_amount: "100" });
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100), takenBack(100)]);
    },
  },
  {
    name: "partial refunds take back their part, before and after the award",
    async run(world, id) {
      await world.db.purchase(id);
      const delayMs = 2 * world.dayMs;
      await world.send(await world.db.decided(id, { delayMs }));
      await world.db.change("purchase_ledger", id, { status: "partially_refunded", refunded_amount: "30.50" });
      await world.send(await world.db.decided(id, { delayMs }));
      await pending(world, id);
      await world.pass(3 * world.dayMs);
      await booked(world, id, [earned(69)]);
      await world.db.change("purchase_ledger", id, { refunded_amount: "80" });
      await world.send(await world.db.decided(id, { delayMs }));
      await booked(world, id, [earned(69), takenBack(49)]);
    },
  },
  {
    name: "a purchase that is refunded and completed again is worth what it is worth in the end",
    async run(world, id) {
      await world.db.purchase(id);
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100)]);
      await world.db.change("purchase_ledger", id, { status: "refunded", refunded_amount: "100" });
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100), takenBack(100)]);
      await world.db.change("purchase_ledger", id, { status: "completed", refunded_amount: "0", final_amount: "120" });
      await world.send(await world.db.decided(id));
      await booked(world, id, [earned(100), takenBack(100), earned(120)]);
    },
  },
  {
    name: "the same change sent again, with the same id and with another one, books nothing again",
    async run(world, id) {
      await world.db.purchase(id);
      const sent = await world.db.decided(id);
      await world.send(sent);
      await booked(world, id, [earned(100)]);
      await world.send(sent, { ...sent, id: `${sent.id}#h1` });
      // One more award behind the repeats, so that there is something to wait for.
      await world.db.purchase(`${id}-last`);
      await world.send(await world.db.decided(`${id}-last`));
      await booked(world, `${id}-last`, [earned(100)]);
      await booked(world, id, [earned(100)]);
    },
  },
  {
    name: "a refund that overtakes its purchase is what counts",
    async run(world, id) {
      await world.db.purchase(id);
      const purchase = await world.db.decided(id);
      await world.db.change("purchase_ledger", id, { status: "refunded", refunded_amount: "100" });
      const refund = await world.db.decided(id);
      await world.send(refund);
      await booked(world, id, []);
      await world.send(purchase);
      await booked(world, id, []);
    },
  },
  {
    name: "an older change that comes late does not end the run of a newer one",
    async run(world, id) {
      await world.db.purchase(id, { status: "pending", completed_at: null });
      const older = await world.db.decided(id);
      await world.db.change("purchase_ledger", id, { status: "completed" });
      await world.send(await world.db.decided(id, { delayMs: 3 * world.dayMs }));
      await pending(world, id);
      await world.send(older);
      await world.pass(4 * world.dayMs);
      await booked(world, id, [earned(100)]);
    },
  },
  {
    name: "a scheduled tier upgrade takes place at its time and is announced once",
    async run(world, id) {
      const { scheduled, key } = await scheduledUpgrade(world, id, "600");
      const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
      await world.send({ ...scheduled, data: { ...scheduled.data, traceparent } });
      await world.pass(4 * world.dayMs);
      await world.eventually(async () => {
        assert.deepEqual(await tierOf(world, id), { tier: "gold" });
        assert.deepEqual(await unannounced(world, key), []);
      });
      assert.equal(await announcements(world, id), 1);
      const told = (await world.received("loyalty/tier.upgraded")).filter((sent) => sent.id.includes(`u-${id}:`));
      assert.deepEqual(new Set(told.map((sent) => sent.data["traceparent"])), new Set([traceparent]));
    },
  },
  {
    name: "a scheduled tier upgrade that is no longer deserved does not take place",
    async run(world, id) {
      const { scheduled, key } = await scheduledUpgrade(world, id, "600");
      await world.send(scheduled);
      await world.db.change("purchase_ledger", id, { status: "refunded", refunded_amount: "600" });
      await world.pass(4 * world.dayMs);
      await world.eventually(async () => assert.equal(await world.db.state(key), "settled"));
      assert.deepEqual(await tierOf(world, id), { tier: null });
    },
  },
  {
    name: "a claim is granted once and revoked when the row says so",
    async run(world, id) {
      await world.db.insert("mission_claims", { id, user_id: `u-${id}`, merchant_id: MERCHANT, mission_id: "ten", status: "claimed" });
      await world.send(claim(EVENTS.rewardGranted, id, "claimed", 1));
      await world.eventually(async () => assert.deepEqual(await grant(world, `grant:${id}`), { state: "settled", booked: 1 }));
      await world.db.change("mission_claims", id, { status: "revoked" });
      await world.send(claim(EVENTS.rewardRevoked, id, "revoked", 2), claim(EVENTS.rewardGranted, id, "claimed", 3));
      await world.eventually(async () => assert.deepEqual(await grant(world, `grant:${id}`), { state: "settled", booked: 0 }));
    },
  },
  {
    name: "both sides of a qualified referral are granted",
    async run(world, id) {
      const row = { referrer_user_id: `a-${id}`, referee_user_id: `b-${id}`, merchant_id: MERCHANT, status: "qualified" };
      await world.db.insert("referral_ledger", { id, ...row, created_at: new Date() });
      await world.send(
        ...(["referrer", "referee"] as const).map((side) =>
          event(EVENTS.rewardGranted, `reward:${id}:${side}`, {
            effect_key: `referral:${id}:${side}`,
            source: "referral",
            referral_id: id,
            side,
            merchant_id: MERCHANT,
            user_id: side === "referrer" ? row.referrer_user_id : row.referee_user_id,
            basis: row,
            program_rev: 0,
            as_of_ms: Date.now(),
            reason: "qualified",
          }),
        ),
      );
      await world.eventually(async () => {
        assert.deepEqual(await grant(world, `referral:${id}:referrer`), { state: "settled", booked: 1 });
        assert.deepEqual(await grant(world, `referral:${id}:referee`), { state: "settled", booked: 1 });
      });
    },
  },
  {
    name: "a redeemed code is fulfilled once, with or without a member",
    async run(world, id) {
      const redeemedAt = new Date("2026-02-03T04:05:06Z");
      await world.db.insert("codes", { id, code: "SECRET", merchant_id: MERCHANT, status: "redeemed", redeemed_at: redeemedAt });
      const data = {
        effect_key: `code:${id}`,
        code_id: id,
        merchant_id: MERCHANT,
        user_id: null,
        redeemed_at: redeemedAt.toISOString(),
        basis: { merchant_id: MERCHANT, user_id: null, status: "redeemed", redeemed_at: redeemedAt.toISOString() },
        as_of_ms: Date.now(),
        reason: "redeemed",
      };
      await world.send(event(EVENTS.codeRedeemed, `code:${id}:1`, data), event(EVENTS.codeRedeemed, `code:${id}:2`, data));
      await world.eventually(async () => assert.deepEqual(await grant(world, `code:${id}`), { state: "settled", booked: 1 }));
    },
  },
  {
    name: "the sweeper settles an award whose run was lost",
    async run(world, id) {
      await world.db.purchase(id);
      const { data } = await world.db.decided(id);
      await world.db.rows("select crm_events.apply_award($1::jsonb)", [JSON.stringify(data)]);
      await world.sweep();
      await booked(world, id, [earned(100)]);
    },
  },
  {
    name: "the sweeper makes an upgrade whose run was lost, and announces it",
    async run(world, id) {
      const { key } = await scheduledUpgrade(world, id, "600");
      await world.pass(4 * world.dayMs);
      await world.sweep();
      await world.eventually(async () => {
        assert.deepEqual(await tierOf(world, id), { tier: "gold" });
        assert.deepEqual(await unannounced(world, key), []);
      });
      assert.equal(await announcements(world, id), 1);
    },
  },
];

/** A member who qualifies now for a tier three days ahead; the event the worker sends then, marked as announced. */
async function scheduledUpgrade(world: World, id: string, amount: string): Promise<{ scheduled: SentEvent; key: string }> {
  await world.db.purchase(id, { final_amount: amount });
  const key = `tier:${MERCHANT}:u-${id}`;
  const { now } = await world.db.one<{ now: Date }>("select crm_events.clock() as now");
  const rules = {
    metric: "spend",
    window: { kind: "lifetime" },
    time_zone: "Europe/Berlin",
    timing: "start_of_next_month",
    ladder: [{ name: "gold", threshold: "500" }],
  };
  const trigger = { table: "purchase_ledger", row_id: id, version: "1", op: "c", at: now, due_at: new Date(now.getTime() + 3 * world.dayMs), lowers: false };
  const [announcement] = await world.db.rows<{ id: string; name: string; data: SentEvent["data"] }>(
    "select id, name, data from crm_events.evaluate_tiers($1::jsonb)",
    [JSON.stringify([{ merchant_id: MERCHANT, user_id: `u-${id}`, effect_key: key, program_rev: 1, as_of_ms: Date.now(), rules, triggers: [trigger] }])],
  );
  assert.equal(announcement?.name, EVENTS.tierUpgradeScheduled);
  await world.db.rows("select crm_events.announced($1::text[])", [[announcement.id]]);
  return { scheduled: event(announcement.name, announcement.id, announcement.data), key };
}

async function tierOf(world: World, id: string): Promise<{ tier: string | null }> {
  return await world.db.one("select tier from crm_events.tier_state where user_id = $1", [`u-${id}`]);
}

/** Sent again after a lost answer it has the same id. */
async function announcements(world: World, id: string): Promise<number> {
  const received = await world.received("loyalty/tier.upgraded");
  return new Set(received.map((sent) => sent.id).filter((sent) => sent.includes(`u-${id}:`))).size;
}

async function unannounced(world: World, key: string): Promise<unknown[]> {
  return await world.db.rows("select id from crm_events.announcements where effect_key = $1 and announced_at is null", [key]);
}

async function grant(world: World, key: string): Promise<unknown> {
  const [row] = await world.db.rows("select state, booked::int from crm_events.effects where effect_key = $1", [key]);
  return row;
}

function claim(name: string, id: string, status: string, n: number): SentEvent {
  const basis = { user_id: `u-${id}`, merchant_id: MERCHANT, mission_id: "ten", status, period: null };
  return event(name, `reward:${id}:${n}`, {
    effect_key: `grant:${id}`,
    source: "mission_claim",
    claim_id: id,
    merchant_id: MERCHANT,
    user_id: `u-${id}`,
    mission_id: "ten",
    basis,
    program_rev: 0,
    as_of_ms: Date.now(),
    reason: status,
  });
}
