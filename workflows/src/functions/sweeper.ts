// Settles what its own run did not: the run was lost, cancelled, had failed too often, or may not live long enough.
import { NAMES } from "../names.ts";
import { type Announcement, LedgerError } from "../ledger.ts";
import { ask, type Context, eventOf, RETRIES } from "./context.ts";

/** Keys of one step: few enough that it ends within seconds. */
const BATCH = 50;
/** Batches of one sweep; the next one goes on. */
const BATCHES = 20;

export function sweeper({ inngest, ledger, log }: Context) {
  const names = NAMES.sweeper;
  return inngest.createFunction(
    {
      id: names.id,
      name: "Sweeper of overdue effects",
      triggers: [{ cron: "*/5 * * * *" }],
      retries: RETRIES,
      concurrency: 1,
    },
    async ({ step }) => {
      let swept = 0;
      let failed = 0;
      for (let batch = 0; batch < BATCHES; batch++) {
        const keys = await step.run(names.find, () => ask(() => ledger.dueEffects(BATCH)));
        if (keys.length === 0) break;

        const outcome = await step.run(names.settle, async () => {
          const announcements: Announcement[] = [];
          const errors: unknown[] = [];
          for (const key of keys) {
            // One effect that cannot be settled does not keep the others waiting. It comes again, ever later.
            try {
              announcements.push(...(await ledger.settle(key)).announcements);
            } catch (error) {
              errors.push(error);
              log.warn(`an effect cannot be settled: ${error instanceof Error ? error.message : "unknown"}`);
            }
          }
          // Not one, and something else than the effects is wrong: a step that fails is tried again.
          const passing = errors.find((error) => !(error instanceof LedgerError && error.permanent));
          if (errors.length === keys.length && keys.length > 1 && passing !== undefined) throw passing;
          return { failed: errors.length, announcements };
        });
        swept += keys.length - outcome.failed;
        failed += outcome.failed;

        if (outcome.announcements.length > 0) {
          await step.sendEvent(names.announce, outcome.announcements.map((announcement) => eventOf(announcement)));
          const ids = outcome.announcements.map(({ id }) => id);
          await step.run(names.announced, () => ask(() => ledger.announced(ids)));
        }
        if (keys.length < BATCH) break;
      }
      return { swept, failed };
    },
  );
}
