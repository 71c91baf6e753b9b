// The environment, as typed settings, or every problem at once. Values are never shown: they are secrets or hold some.
import type { PoolConfig } from "pg";
import { databaseOf } from "./postgres.ts";
import type { Limits } from "./waits.ts";

export interface Settings {
  mode: "connect" | "http";
  database: PoolConfig;
  http: { host: string; port: number };
  limits: Limits;
  concurrency: number;
  logLevel: "debug" | "info" | "warn" | "error";
}

/** What this process reads. The SDK itself reads those that begin with INNGEST_ and name no limit. */
export const VARIABLES = [
  "DATABASE_URL",
  "MODE",
  "HTTP_ADDR",
  "INNGEST_EVENT_KEY",
  "INNGEST_SIGNING_KEY",
  "INNGEST_SIGNING_KEY_FALLBACK",
  "INNGEST_ENV",
  "INNGEST_DEV",
  "INNGEST_BASE_URL",
  "INNGEST_SERVE_ORIGIN",
  "INNGEST_MAX_SLEEP_DAYS",
  "INNGEST_MAX_RUN_DAYS",
  "WORKFLOWS_CONCURRENCY",
  "LOG_LEVEL",
] as const;

export class SettingsError extends Error {
  readonly problems: string[];

  constructor(problems: string[]) {
    super(problems.join("\n"));
    this.problems = problems;
  }
}

export function settings(environment: Record<string, string | undefined>): Settings {
  const problems: string[] = [];
  const given = (name: (typeof VARIABLES)[number]) => environment[name] || undefined;

  function choice<T extends string>(name: (typeof VARIABLES)[number], choices: readonly T[], usual: T): T {
    const value = given(name) ?? usual;
    const found = choices.find((one) => one === value);
    if (found === undefined) problems.push(`${name} is none of ${choices.join(", ")}`);
    return found ?? usual;
  }
  function whole(name: (typeof VARIABLES)[number], usual: number, least: number, most: number): number {
    const value = given(name);
    if (value === undefined) return usual;
    const number = Number(value);
    if (!Number.isInteger(number) || number < least || number > most) {
      problems.push(`${name} is no whole number from ${least} to ${most}`);
    }
    return number;
  }

  let database: PoolConfig = {};
  const url = given("DATABASE_URL");
  if (url === undefined) {
    problems.push("DATABASE_URL is missing");
  } else {
    try {
      database = databaseOf(url);
    } catch (error) {
      // What the URL parser says would quote the URL.
      const why = error instanceof TypeError ? "no URL" : error instanceof Error ? error.message : "unreadable";
      problems.push(`DATABASE_URL: ${why}`);
    }
  }

  const mode = choice("MODE", ["connect", "http"], "connect");
  const dev = given("INNGEST_DEV");
  if (dev === undefined || dev === "0" || dev === "false") {
    for (const name of ["INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY"] as const) {
      if (given(name) === undefined) problems.push(`${name} is missing (only with INNGEST_DEV it may be)`);
    }
  }

  const address = /^(?:\[([0-9a-f:]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(given("HTTP_ADDR") ?? "127.0.0.1:3000");
  const port = Number(address?.[3]);
  if (address === null || port > 65_535) problems.push("HTTP_ADDR is no address and port");

  const maxSleepDays = whole("INNGEST_MAX_SLEEP_DAYS", 7, 1, 366);
  const maxRunDays = whole("INNGEST_MAX_RUN_DAYS", 30, 1, 366);
  const concurrency = whole("WORKFLOWS_CONCURRENCY", 5, 1, 100);
  const logLevel = choice("LOG_LEVEL", ["debug", "info", "warn", "error"], "info");

  if (problems.length > 0) throw new SettingsError(problems);
  return {
    mode,
    database,
    http: { host: address?.[1] ?? address?.[2] ?? "127.0.0.1", port },
    limits: { maxSleepDays, maxRunDays },
    concurrency,
    logLevel,
  };
}
