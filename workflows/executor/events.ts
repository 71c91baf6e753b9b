// Takes the body of POST /e/:key, gives the events Inngest would accept of it, and what it would answer.

export interface Accepted {
  name: string;
  data: Record<string, unknown>;
  id?: string;
  ts?: number;
  v?: string;
}

export interface Intake {
  events: Accepted[];
  /** Why the event after these was refused, and with it the rest of the request. */
  error?: string;
}

const MAX_EVENTS = 5_000;
const MIN_TS = Date.UTC(1980, 0, 1);
const MAX_TS = Date.UTC(2100, 0, 1);

export function intake(body: string): Intake {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return { events: [], error: "no JSON" };
  }
  const given = Array.isArray(parsed) ? parsed : [parsed];
  const events: Accepted[] = [];
  for (const one of given) {
    const found = events.length < MAX_EVENTS ? event(one) : "more than 5000 events";
    if (typeof found === "string") return { events, error: found };
    events.push(found);
  }
  return { events };
}

function event(given: unknown): Accepted | string {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return "no event";
  const { name, data, id, ts, v } = given as Record<string, unknown>;
  if (typeof name !== "string" || name === "") return "an event has no name";
  if (name.toLowerCase().startsWith("inngest/")) return "the name is reserved";
  if (data !== undefined && (typeof data !== "object" || data === null || Array.isArray(data))) return "data is no object";
  if (ts !== undefined && (typeof ts !== "number" || !Number.isInteger(ts) || ts < MIN_TS || ts > MAX_TS)) {
    return "ts is no time in ms";
  }
  if ((id !== undefined && typeof id !== "string") || (v !== undefined && typeof v !== "string")) return "id or v is no text";
  return {
    name,
    data: (data ?? {}) as Record<string, unknown>,
    // Inngest takes an empty id for none.
    ...(id === undefined || id === "" ? {} : { id }),
    ...(ts === undefined ? {} : { ts }),
    ...(v === undefined ? {} : { v }),
  };
}
