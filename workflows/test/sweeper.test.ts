import assert from "node:assert/strict";
import { test } from "node:test";
import { inVirtualWorld } from "./world.ts";

test("one effect that cannot be settled does not keep the others waiting", () =>
  inVirtualWorld(async (world) => {
    for (const id of ["p1", "p2", "p3"]) {
      await world.db.purchase(id);
      const { data } = await world.db.decided(id);
      await world.db.rows("select crm_events.apply_award($1::jsonb)", [JSON.stringify(data)]);
    }
    // Its entry would be refused.
    await world.db.rows("alter table public.wallet_ledger add check (user_id <> 'u-p2')");
    await world.sweep();
    assert.deepEqual(
      [await world.db.balance("u-p1"), await world.db.balance("u-p2"), await world.db.balance("u-p3")],
      [100, 0, 100],
    );
    assert.ok(world.executor.runs.some(({ output }) => JSON.stringify(output) === JSON.stringify({ swept: 2, failed: 1 })));

    await world.db.rows("alter table public.wallet_ledger drop constraint wallet_ledger_user_id_check");
    await world.pass(30 * 60_000);
    await world.sweep();
    assert.equal(await world.db.balance("u-p2"), 100);
  }));

test("where the database refuses everything the sweep fails and is tried again", () =>
  inVirtualWorld(async (world) => {
    for (const id of ["p1", "p2"]) {
      await world.db.purchase(id);
      const { data } = await world.db.decided(id);
      await world.db.rows("select crm_events.apply_award($1::jsonb)", [JSON.stringify(data)]);
    }
    await world.db.rows("revoke execute on function crm_events.settle(text) from crm_workflows");
    await world.sweep();
    assert.equal(await world.db.balance("u-p1"), 0);
    await world.db.rows("grant execute on function crm_events.settle(text) to crm_workflows");
    // The same run, with the keys that it holds.
    await world.pass(3_600_000);
    assert.deepEqual([await world.db.balance("u-p1"), await world.db.balance("u-p2")], [100, 100]);
  }));

test("effects that are all wrong for ever end no sweep: it goes on with the next ones, and they come again later", () =>
  inVirtualWorld(async (world) => {
    await world.db.rows(`insert into public.purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at)
      select 'p' || n, 'u' || n, 'm1', 10, 'completed', true, crm_events.clock() - interval '1 day' + n * interval '1 second'
      from generate_series(1, 60) n`);
    await world.db.rows(`select crm_events.apply_award(jsonb_build_object('effect_key', 'award:' || id, 'purchase_id', id,
      'target_points', '10', 'program_rev', 1, 'as_of_ms', 1, 'due_at', crm_events.rfc3339(created_at), 'basis', to_jsonb(purchase)))
      from public.purchase_ledger purchase`);
    // The first batch, all of it.
    await world.db.rows("alter table public.wallet_ledger add check (substr(user_id, 2)::int > 50)");
    world.executor.settings.cron = true;
    await world.pass(6 * 60_000);
    assert.deepEqual(world.executor.runs.map(({ status, output }) => ({ status, output })), [
      { status: "completed", output: { swept: 10, failed: 50 } },
    ]);
  }));

test("more effects than one batch are settled in one sweep", () =>
  inVirtualWorld(async (world) => {
    await world.db.rows(`insert into public.purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at)
      select 'p' || n, 'u' || n, 'm1', 10, 'completed', true, crm_events.clock() - interval '1 day' from generate_series(1, 120) n`);
    await world.db.rows(`select crm_events.apply_award(jsonb_build_object('effect_key', 'award:' || id, 'purchase_id', id,
      'target_points', '10', 'program_rev', 1, 'as_of_ms', 1, 'due_at', crm_events.rfc3339(created_at), 'basis', to_jsonb(purchase)))
      from public.purchase_ledger purchase`);
    world.executor.settings.cron = true;
    await world.pass(6 * 60_000);
    const { sum } = await world.db.one<{ sum: number }>("select sum(amount)::int as sum from public.wallet_ledger");
    assert.equal(sum, 1200);
    assert.deepEqual(world.executor.runs.map(({ stepNames }) => stepNames.length).sort(), [6]);
  }));
