// Times of a cron trigger, in UTC: minutes and hours as *, */n or a number; the other fields must be *.

const MINUTE_MS = 60_000;

/** The first time after this one. */
export function next(expression: string, afterMs: number): number {
  const { minute, hour } = fields(expression);
  for (let at = (Math.floor(afterMs / MINUTE_MS) + 1) * MINUTE_MS; ; at += MINUTE_MS) {
    const date = new Date(at);
    if (minute(date.getUTCMinutes()) && hour(date.getUTCHours())) return at;
  }
}

/** The last time up to this one. */
export function last(expression: string, upToMs: number): number {
  const { minute, hour } = fields(expression);
  for (let at = Math.floor(upToMs / MINUTE_MS) * MINUTE_MS; ; at -= MINUTE_MS) {
    const date = new Date(at);
    if (minute(date.getUTCMinutes()) && hour(date.getUTCHours())) return at;
  }
}

function fields(expression: string) {
  const parts = expression.trim().split(/\s+/);
  const [minute = "", hour = "", ...rest] = parts;
  if (parts.length !== 5 || rest.some((part) => part !== "*")) throw new Error(`cron not understood: ${expression}`);
  return { minute: field(minute, 59), hour: field(hour, 23) };
}

function field(text: string, most: number): (value: number) => boolean {
  if (text === "*") return () => true;
  const every = /^\*\/(\d+)$/.exec(text)?.[1];
  if (every !== undefined && Number(every) > 0) return (value) => value % Number(every) === 0;
  if (/^\d+$/.test(text) && Number(text) <= most) return (value) => value === Number(text);
  throw new Error(`cron field not understood: ${text}`);
}
