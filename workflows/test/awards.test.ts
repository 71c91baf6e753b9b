import assert from "node:assert/strict";
import { test } from "node:test";
import { EVENTS } from "../src/names.ts";
import { event } from "./database.ts";
import { inVirtualWorld } from "./world.ts";

const DAY_MS = 86_400_000;

test("a newer change ends the sleeping run of an older one", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1", { delayMs: 3 * DAY_MS }));
    await world.db.change("purchase_ledger", "p1", { status: "refunded", refunded_amount: "100" });
    await world.send(await world.db.decided("p1"));
    assert.deepEqual(world.outcomes("award"), ["cancelled", "settled"]);
    assert.deepEqual(await world.db.booked("u-p1"), []);
  }));

test("an older change, one of another purchase, and the same one again end no run", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1", { status: "pending", completed_at: null });
    const older = await world.db.decided("p1");
    await world.db.change("purchase_ledger", "p1", { status: "completed" });
    const change = await world.db.decided("p1", { delayMs: 3 * DAY_MS });
    await world.send(change);
    await world.db.purchase("p2");
    await world.send(older, await world.db.decided("p2"), { ...change, id: "another" });
    assert.deepEqual(world.outcomes("award"), ["running", "stale", "settled", "running"]);
    await world.pass(4 * DAY_MS);
    assert.deepEqual(world.outcomes("award"), ["settled", "stale", "settled", "unchanged"]);
    assert.deepEqual(await world.db.booked("u-p1"), [{ kind: "earn", amount: 100 }]);
  }));

test("a change in the same request as its newer one settles as the newer one says", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    const purchase = await world.db.decided("p1");
    await world.db.change("purchase_ledger", "p1", { status: "partially_refunded", refunded_amount: "40" });
    const refund = await world.db.decided("p1");
    await world.send(purchase, refund);
    // Inngest cancels nothing here: both events came in before the run was scheduled.
    assert.deepEqual(world.outcomes("award"), ["stale", "settled"]);
    assert.equal(await world.db.balance("u-p1"), 60);
  }));

test("an event sent again within a day starts no second run, and a day later one that changes nothing", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    const change = await world.db.decided("p1");
    await world.send(change, change);
    await world.pass(DAY_MS - 60_000);
    await world.send(change);
    assert.deepEqual(world.outcomes("award"), ["settled"]);
    await world.pass(2 * 60_000);
    await world.send(change);
    assert.deepEqual(world.outcomes("award"), ["settled", "unchanged"]);
    assert.equal(await world.db.balance("u-p1"), 100);
  }));

test("a settlement whose answer is lost is not booked again", () =>
  inVirtualWorld(
    async (world) => {
      await world.db.purchase("p1");
      await world.send(await world.db.decided("p1"));
      // apply and settle have both been done; Inngest knows of neither yet.
      assert.deepEqual(world.outcomes("award"), ["running"]);
      await world.pass(10 * 60_000);
      assert.deepEqual(world.outcomes("award"), ["unchanged"]);
      assert.deepEqual(await world.db.booked("u-p1"), [{ kind: "earn", amount: 100 }]);
      assert.equal(world.executor.runs[0]?.calls, 5);
    },
    { fault: (run) => (run.attempt === 0 && run.calls < 4 ? "lose" : "none") },
  ));

test("the refund policy of the event decides what is taken back", () =>
  inVirtualWorld(async (world) => {
    for (const policy of ["only_pending", "within_balance", "unlimited"]) {
      await world.db.purchase(policy);
      await world.send(await world.db.decided(policy, { policy }));
      await world.db.insert("wallet_ledger", { user_id: `u-${policy}`, merchant_id: "m1", amount: -70, kind: "spend", created_at: new Date() });
      await world.db.change("purchase_ledger", policy, { status: "refunded", refunded_amount: "100" });
      await world.send(await world.db.decided(policy, { policy }));
    }
    assert.equal(await world.db.balance("u-only_pending"), 30);
    assert.equal(await world.db.balance("u-within_balance"), 0);
    assert.equal(await world.db.balance("u-unlimited"), -70);
  }));

test("an award whose member changed after it was booked waits for a person", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1"));
    await world.db.change("purchase_ledger", "p1", { user_id: "somebody-else", final_amount: "150" });
    await world.send(await world.db.decided("p1"));
    assert.deepEqual(world.outcomes("award"), ["settled", "review"]);
    assert.equal(await world.db.balance("somebody-else"), 0);
    assert.equal(await world.db.state("award:p1"), "review");
  }));

test("an award of a purchase that is not there ends", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    const change = await world.db.decided("p1");
    await world.db.rows("delete from public.purchase_ledger");
    await world.send(change);
    assert.deepEqual(world.outcomes("award"), ["missing_row"]);
  }));

test("newer rules that award later are waited for by their own run", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1", { delayMs: DAY_MS }));
    const later = await world.db.decided("p1", { delayMs: 5 * DAY_MS, rev: 2 });
    // As if it did not cancel the first: Inngest may lose a cancellation.
    later.data["as_of_ms"] = 0;
    await world.send(later);
    await world.pass(2 * DAY_MS);
    assert.deepEqual(world.outcomes("award"), ["left_to_sweeper", "running"]);
    assert.equal(await world.db.balance("u-p1"), 0);
    await world.pass(4 * DAY_MS);
    assert.deepEqual(world.outcomes("award"), ["left_to_sweeper", "settled"]);
    assert.equal(await world.db.balance("u-p1"), 100);
  }));

test("a wait longer than one sleep may last is slept in parts", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1", { delayMs: 17 * DAY_MS }));
    await world.pass(16 * DAY_MS);
    assert.equal(await world.db.balance("u-p1"), 0);
    await world.pass(2 * DAY_MS);
    assert.equal(await world.db.balance("u-p1"), 100);
    assert.deepEqual(world.executor.runs[0]?.stepNames, ["apply", "due", "due", "due", "settle"]);
  }));

test("an award due after the longest run is left to the sweeper, which settles it when it is due", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    await world.send(await world.db.decided("p1", { delayMs: 40 * DAY_MS }));
    assert.deepEqual(world.outcomes("award"), ["left_to_sweeper"]);
    await world.sweep();
    assert.equal(await world.db.balance("u-p1"), 0);
    await world.pass(40 * DAY_MS);
    assert.equal(await world.db.balance("u-p1"), 0);
    await world.sweep();
    assert.equal(await world.db.balance("u-p1"), 100);
  }));

test("an event that is no award fails at once", () =>
  inVirtualWorld(async (world) => {
    await world.send(event(EVENTS.awardScheduled, "odd", { effect_key: 7 }));
    assert.deepEqual(world.outcomes("award"), ["failed"]);
    assert.equal(world.executor.runs[0]?.calls, 1);
  }));

test("what the database refuses for ever is not asked again", () =>
  inVirtualWorld(async (world) => {
    await world.db.purchase("p1");
    const change = await world.db.decided("p1");
    change.data["target_points"] = "many";
    await world.send(change);
    await world.pass(60_000);
    assert.deepEqual(world.outcomes("award"), ["failed"]);
    assert.equal(world.executor.runs[0]?.calls, 2);
  }));
