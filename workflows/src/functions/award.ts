// An award: written down when it is decided, booked when it is due. The event says what the purchase is worth in all;
// the database compares with the row and with what was booked. So it does not matter how often this runs, in which
// order, or whether it is cancelled: the target of the current row is what ends up in the wallet.
import { EVENTS, NAMES } from "../names.ts";
import { MAX_LOOKS, MAX_SKEW_MS, seconds, until, waits } from "../waits.ts";
import { ask, type Context, dataOf, RETRIES, textOf } from "./context.ts";

/** Only a newer change of the same purchase ends a sleeping run. It saves a look at the row and carries no correctness. */
const NEWER = "event.data.purchase_id == async.data.purchase_id && async.data.as_of_ms > event.data.as_of_ms";

export function award({ inngest, ledger, limits, concurrency }: Context) {
  const names = NAMES.award;
  return inngest.createFunction(
    {
      id: names.id,
      name: "Award of a purchase",
      triggers: [{ event: EVENTS.awardScheduled }, { event: EVENTS.awardCancelled }],
      cancelOn: [
        { event: EVENTS.awardScheduled, if: NEWER },
        { event: EVENTS.awardCancelled, if: NEWER },
      ],
      retries: RETRIES,
      // One step at a time a member: they would wait for each other's wallet lock anyway, on a connection each.
      concurrency: [{ limit: concurrency }, { limit: 1, key: "event.data.basis.merchant_id + '/' + event.data.basis.user_id" }],
      // A backlog starts this many runs a second; those that sleep wake by the concurrency above.
      throttle: { limit: 100, period: "1s" },
    },
    async ({ event, step }) => {
      const data = dataOf(event);
      const key = textOf(data, "effect_key");

      const applied = await step.run(names.apply, () =>
        ask(async () => {
          const { outcome, due_at } = await ledger.applyAward(data);
          const goesOn = outcome === "applied" || outcome === "unchanged";
          return { outcome, waits: goesOn ? waits(due_at, await ledger.now(), limits) : [] };
        }),
      );
      // The newer change has its own event; a row that is gone earns nothing.
      if (applied.outcome !== "applied" && applied.outcome !== "unchanged") return { outcome: applied.outcome };
      if (applied.waits === null) return { outcome: "left_to_sweeper" };
      for (const instant of applied.waits) await step.sleepUntil(names.due, instant);

      for (let look = 1; ; look++) {
        const settled = await step.run(names.settle, () =>
          ask(async () => {
            const { outcome, due_at } = await ledger.settleAward(key);
            const wait_ms = outcome === "not_due" && due_at !== null ? until(due_at, await ledger.now()) : 0;
            return { outcome, wait_ms };
          }),
        );
        if (settled.outcome !== "not_due") return { outcome: settled.outcome };
        // A later due time by newer rules: whoever applied it waits for it.
        if (settled.wait_ms > MAX_SKEW_MS || look === MAX_LOOKS) return { outcome: "left_to_sweeper" };
        await step.sleep(names.skew, seconds(settled.wait_ms));
      }
    },
  );
}
