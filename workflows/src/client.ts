// The SDK's client, the same in production and in tests.
import { Inngest } from "inngest";
import type { Log } from "./log.ts";
import { APP } from "./names.ts";

/** Keys and addresses come from the environment (INNGEST_...), unless a dev server is named here. */
export function client(logger: Log, devServer?: string): Inngest {
  return new Inngest({
    id: APP,
    logger,
    // Each step is remembered by Inngest before the next one begins: what was booked is known to be.
    checkpointing: false,
    aiMetadata: false,
    ...(devServer === undefined ? {} : { isDev: true, baseUrl: devServer }),
  });
}
