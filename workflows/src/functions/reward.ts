// Grants and redeemed codes: one step each, applied and settled in one transaction.
import { EVENTS, NAMES } from "../names.ts";
import { ask, type Context, dataOf, RETRIES } from "./context.ts";

export function grant({ inngest, ledger, concurrency }: Context) {
  const names = NAMES.grant;
  return inngest.createFunction(
    {
      id: names.id,
      name: "Grant of a claim or a referral",
      triggers: [{ event: EVENTS.rewardGranted }, { event: EVENTS.rewardRevoked }],
      retries: RETRIES,
      concurrency: [{ limit: concurrency }, { limit: 1, key: "event.data.merchant_id + '/' + event.data.user_id" }],
      throttle: { limit: 100, period: "1s" },
    },
    async ({ event, step }) => {
      const data = dataOf(event);
      return await step.run(names.settle, () =>
        ask(async () => ({ outcome: (await ledger.settleGrant(data)).outcome })),
      );
    },
  );
}

export function code({ inngest, ledger, concurrency }: Context) {
  const names = NAMES.code;
  return inngest.createFunction(
    {
      id: names.id,
      name: "Fulfilment of a redeemed code",
      triggers: [{ event: EVENTS.codeRedeemed }],
      retries: RETRIES,
      // By code: it may have no member.
      concurrency: [{ limit: concurrency }, { limit: 1, key: "event.data.code_id" }],
      throttle: { limit: 100, period: "1s" },
    },
    async ({ event, step }) => {
      const data = dataOf(event);
      return await step.run(names.settle, () =>
        ask(async () => ({ outcome: (await ledger.settleCode(data)).outcome })),
      );
    },
  );
}
