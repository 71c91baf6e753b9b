// One JSON object a line, on standard output. Never a payload: of an error its name and message, of the SDK's objects
// nothing else.

export interface Log {
  debug(...parts: unknown[]): void;
  info(...parts: unknown[]): void;
  warn(...parts: unknown[]): void;
  error(...parts: unknown[]): void;
}

const LEVELS = ["debug", "info", "warn", "error"] as const;
type Level = (typeof LEVELS)[number];

export function log(least: Level, write: (line: string) => void): Log {
  const at = (level: Level) => (...parts: unknown[]) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
    write(`${JSON.stringify({ time: new Date().toISOString(), level, message: parts.map(said).join(" ") })}\n`);
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** The SDK hands over texts, errors, and objects that hold an error beside ids and payloads. */
function said(part: unknown): string {
  if (typeof part === "string") return part;
  if (part instanceof Error) return `${part.name}: ${part.message}`;
  if (typeof part === "object" && part !== null && "err" in part) return said(part.err);
  return "";
}
