// All functions of the app. Each takes an event of schemas/inngest, asks the database and waits; none decides anything.
import { award } from "./award.ts";
import type { Context } from "./context.ts";
import { code, grant } from "./reward.ts";
import { sweeper } from "./sweeper.ts";
import { tierUpgrade } from "./tier_upgrade.ts";

export function functions(context: Context) {
  return [award(context), tierUpgrade(context), grant(context), code(context), sweeper(context)];
}
