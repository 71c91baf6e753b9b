// The executor as a process (README). Ends on SIGTERM and SIGINT, or when it met something that it does not know.
import { parseArgs } from "node:util";
import { databaseClock } from "./database.ts";
import { Executor } from "./executor.ts";
import { listen, sync } from "./server.ts";

const PATIENCE_MS = 60_000;

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "8288" },
    seed: { type: "string" },
    "workflows-url": { type: "string" },
    "database-url": { type: "string" },
  },
});

const database = values["database-url"] === undefined ? undefined : databaseClock(values["database-url"]);
const executor = new Executor({
  ...(values.seed === undefined ? {} : { seed: Number(values.seed) }),
  ...(database === undefined ? {} : { clockMoved: database.moved }),
});
const server = await listen(executor, Number(values.port));
process.stdout.write(`${server.url}\n`);

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => {
    void server.close().then(async () => {
      await database?.close();
      process.exit(0);
    });
  });
}

if (values["workflows-url"] !== undefined) await syncPatiently(values["workflows-url"]);

async function syncPatiently(url: string): Promise<void> {
  const limit = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const functions = await sync(executor, url);
      process.stdout.write(`registered ${functions.join(", ")}\n`);
      return;
    } catch (error) {
      // Not there yet.
      if (!(error instanceof TypeError) || Date.now() > limit) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
