// Pure: when to look again. All times are the database's.

const DAY_MS = 86_400_000;

/** What the plan at Inngest allows. */
export interface Limits {
  maxSleepDays: number;
  maxRunDays: number;
}

/** A clock that is this much behind is waited for; whatever is due later than that has a run of its own or the sweeper. */
export const MAX_SKEW_MS = 600_000;
/** How often a run looks again. */
export const MAX_LOOKS = 5;

/**
 * The instants to sleep until, one after the other: none if it is due already; null if a run may not live that long,
 * then the sweeper settles it. Whole seconds, rounded up: Inngest knows no finer ones, and too early is not due. Only what
 * is still ahead is rounded: an award that is due at once does not wait for the next second.
 */
export function waits(dueAt: string | null, nowMs: number, limits: Limits): string[] | null {
  if (dueAt === null) return [];
  if (instant(dueAt) <= nowMs) return [];
  const dueMs = Math.ceil(instant(dueAt) / 1000) * 1000;
  // An hour for the queue, before the first step and after the last sleep.
  if (dueMs - nowMs > limits.maxRunDays * DAY_MS - 3_600_000) return null;
  const found: string[] = [];
  const longest = limits.maxSleepDays * DAY_MS;
  for (let at = nowMs + longest; at < dueMs; at += longest) found.push(new Date(at).toISOString());
  found.push(new Date(dueMs).toISOString());
  return found;
}

/** How long until then; 0 if it has passed. */
export function until(dueAt: string, nowMs: number): number {
  return Math.max(0, Math.ceil(instant(dueAt)) - nowMs);
}

/** Seconds to sleep for a wait of this length, and one more, so that a second look is enough. */
export function seconds(waitMs: number): string {
  return `${Math.ceil(waitMs / 1000) + 1}s`;
}

function instant(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new RangeError("a due time is no RFC 3339 time");
  // Date.parse cuts microseconds off: a wait must not end before them. Six zeros are none.
  return /\.\d{3}\d*[1-9]/.test(text) ? ms + 1 : ms;
}
