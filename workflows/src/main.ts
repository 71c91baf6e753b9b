// Puts the parts together and ends them again. Exit codes: 0 told to end, 70 the connection to Inngest ended by itself or
// never came, or the port is taken, 78 configuration.
import { connect } from "inngest/connect";
import { client } from "./client.ts";
import { functions } from "./functions/index.ts";
import { serveHttp } from "./http.ts";
import { log } from "./log.ts";
import { PgLedger } from "./postgres.ts";
import { type Settings, SettingsError, settings } from "./settings.ts";

/** A step that takes longer is repeated by Inngest. Below the platform's own patience (render.yaml). */
const DRAIN_MS = 25_000;

const write = (line: string) => void process.stdout.write(line);

async function main(): Promise<number> {
  let chosen: Settings;
  try {
    chosen = settings(process.env);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    for (const problem of error.problems) process.stderr.write(`${problem}\n`);
    return 78;
  }

  const logger = log(chosen.logLevel, write);
  const ledger = new PgLedger(chosen.database, chosen.concurrency + 1, logger);
  const inngest = client(logger);
  const all = functions({ inngest, ledger, log: logger, limits: chosen.limits, concurrency: chosen.concurrency });

  const told = new Promise<"told">((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve("told"));
  });

  let ended: "told" | "closed";
  let close: () => Promise<void>;
  if (chosen.mode === "http") {
    const serving = await serveHttp(inngest, all, ledger, chosen.http);
    logger.info(`serving on port ${serving.port}`);
    close = () => serving.close();
    ended = await told;
  } else {
    // Dialling goes on until it succeeds, so we may be told to end before.
    const dialling = connect({ apps: [{ client: inngest, functions: all }], handleShutdownSignals: [] });
    const connection = await Promise.race([dialling, told]);
    if (connection === "told") {
      logger.info("ended before the connection was there");
      return 0;
    }
    logger.info("connected");
    close = () => connection.close();
    ended = await Promise.race([told, connection.closed.then(() => "closed" as const)]);
  }

  logger.info(ended === "told" ? "draining" : "the connection to Inngest ended");
  const limit = new Promise<"late">((resolve) => setTimeout(resolve, DRAIN_MS, "late").unref());
  if ((await Promise.race([close(), limit])) === "late") logger.warn("steps are still running; Inngest repeats them");
  await Promise.race([ledger.close(), limit]);
  return ended === "told" ? 0 : 70;
}

function failed(error: unknown): number {
  log("error", write).error("it cannot run:", error instanceof Error ? error : "unknown error");
  return 70;
}

// The SDK keeps timers and a thread of its own.
process.exit(await main().catch(failed));
