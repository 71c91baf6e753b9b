// A tier upgrade at its time, the start of a month: the database looks again whether the member still qualifies.
import { EVENTS, NAMES } from "../names.ts";
import { MAX_LOOKS, MAX_SKEW_MS, seconds, until, waits } from "../waits.ts";
import { ask, type Context, dataOf, eventOf, RETRIES, textOf } from "./context.ts";

export function tierUpgrade({ inngest, ledger, limits, concurrency }: Context) {
  const names = NAMES.tierUpgrade;
  return inngest.createFunction(
    {
      id: names.id,
      name: "Scheduled tier upgrade",
      triggers: [{ event: EVENTS.tierUpgradeScheduled }],
      retries: RETRIES,
      // All upgrades of a program are due at the same instant; this is what spreads them.
      concurrency: [{ limit: concurrency }, { limit: 1, key: "event.data.merchant_id + '/' + event.data.user_id" }],
      throttle: { limit: 100, period: "1s" },
    },
    async ({ event, step }) => {
      const data = dataOf(event);
      const key = textOf(data, "effect_key");
      const dueAt = textOf(data, "due_at");

      const plan = await step.run(names.plan, () => ask(async () => waits(dueAt, await ledger.now(), limits)));
      if (plan === null) return { outcome: "left_to_sweeper" };
      for (const instant of plan) await step.sleepUntil(names.due, instant);

      for (let look = 1; ; look++) {
        const upgraded = await step.run(names.upgrade, () =>
          ask(async () => {
            // Asked for too early it answers nothing, as if there were nothing to do. So the time is read before.
            const wait_ms = until(dueAt, await ledger.now());
            return { wait_ms, announcements: wait_ms > 0 ? [] : await ledger.upgradeTier(key) };
          }),
        );
        if (upgraded.wait_ms > MAX_SKEW_MS || (upgraded.wait_ms > 0 && look === MAX_LOOKS)) {
          return { outcome: "left_to_sweeper" };
        }
        if (upgraded.wait_ms > 0) {
          await step.sleep(names.skew, seconds(upgraded.wait_ms));
          continue;
        }
        if (upgraded.announcements.length === 0) return { outcome: "unchanged" };
        await step.sendEvent(names.announce, upgraded.announcements.map((announcement) => eventOf(announcement, data)));
        const ids = upgraded.announcements.map(({ id }) => id);
        await step.run(names.announced, () => ask(() => ledger.announced(ids)));
        return { outcome: "announced" };
      }
    },
  );
}
