// Whatever happens to a purchase, in whatever order its events run, however often, and whatever is lost on the way: what
// is booked in the end is what the row is worth. Seeds of schedules that failed once belong in SEEDS.
import assert from "node:assert/strict";
import { test } from "node:test";
import { random } from "../executor/clock.ts";
import type { SentEvent } from "./database.ts";
import { VirtualWorld } from "./world.ts";

const DAY_MS = 86_400_000;
const PURCHASES = 12;
const given = process.env["SEED"];
const SEEDS = given === undefined ? [1, 2, 3] : [Number(given)];

for (const seed of SEEDS) test(`what is booked converges to what the rows are worth: SEED=${seed}`, () => converges(seed));

async function converges(seed: number): Promise<void> {
  const chance = random(seed);
  const one = <T>(choices: readonly T[]): T => choices[Math.floor(chance() * choices.length)] as T;
  let lossy = true;
  const world = await VirtualWorld.create({
    seed,
    fault: () => (lossy && chance() < 0.3 ? one(["lose", "refuse"] as const) : "none"),
  });
  try {
    const sent: SentEvent[] = [];
    const ids = Array.from({ length: PURCHASES }, (_, n) => `p${n}`);
    for (const id of ids) await world.db.purchase(id, { user_id: `u-${id}`, status: one(["pending", "completed"]) });

    for (let turn = 0; turn < 8; turn++) {
      for (const id of ids) {
        if (chance() < 0.5) await world.db.change("purchase_ledger", id, change(one, chance));
        const decided = await world.db.decided(id, { delayMs: one([0, 0, DAY_MS, 9 * DAY_MS]) });
        // An event the worker sent and Inngest never ran: the reconciler sends it again, at the end here.
        if (chance() < 0.8) sent.push(decided);
      }
      // Old ones again, under their own id and as a heal; some of this turn only later.
      const again = Array.from({ length: 3 }, () => one(sent)).filter((event) => event !== undefined);
      const now = sent.filter(() => chance() < 0.4);
      await world.send(...now, ...again, ...again.map((event) => ({ ...event, id: `${event.id}#h${turn}` })));
      if (chance() < 0.5) await world.pass(chance() * 2 * DAY_MS);
    }

    // The last word about each row, through the same losses; then time, and a sweeper for whatever failed for good.
    const last: SentEvent[] = [];
    for (const id of ids) last.push(await world.db.decided(id, { delayMs: DAY_MS }));
    await world.send(...last);
    await world.pass(10 * DAY_MS);
    lossy = false;
    await world.send(...last.map((event) => ({ ...event, id: `${event.id}#h9` })));
    await world.pass(2 * DAY_MS);
    await world.sweep();

    for (const [n, id] of ids.entries()) {
      const target = Number(last[n]?.data["target_points"]);
      assert.equal(await world.db.balance(`u-${id}`), target, `${id} after seed ${seed}`);
      const effect = await world.db.one<{ state: string; booked: number }>(
        "select state, booked::int from crm_events.effects where effect_key = $1",
        [`award:${id}`],
      );
      assert.deepEqual(effect, { state: "settled", booked: target }, `${id} after seed ${seed}`);
    }
  } finally {
    await world.end();
  }
}

function change(one: <T>(choices: readonly T[]) => T, chance: () => number): Record<string, unknown> {
  const status = one(["completed", "completed", "partially_refunded", "refunded", "cancelled"]);
  const refunded = status === "refunded" ? 100 : status === "partially_refunded" ? Math.floor(chance() * 99) : 0;
  return { status, refunded_amount: refunded };
}
