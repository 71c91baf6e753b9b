// The protocol between Inngest and its SDK over HTTP, as far as our functions use it. Takes a call, gives what the SDK
// answered as one of few outcomes; knows no run and no clock.

/** What the SDK says of a function when it registers. */
export interface FunctionConfig {
  id: string;
  name: string;
  triggers: ({ event: string } | { cron: string })[];
  cancel: { event: string; if?: string }[];
  retries: number;
  url: string;
}

export type Memo = { data: unknown } | { error: unknown } | null;

export interface Call {
  url: string;
  /** `step`: go on where the memos end; else the id of a step that was planned. */
  stepId: string;
  event: unknown;
  steps: Record<string, Memo>;
  runId: string;
  attempt: number;
  maxAttempts: number;
}

export type Op =
  | { op: "ran"; id: string; name: string; data: unknown }
  | { op: "failed"; id: string; name: string; error: unknown; retry: boolean }
  | { op: "planned"; id: string; name: string }
  | { op: "sleep"; id: string; name: string; until: (nowMs: number) => number };

export type Answer =
  | { kind: "ops"; ops: Op[] }
  | { kind: "done"; output: unknown }
  | { kind: "error"; error: unknown; retry: boolean };

/** Not implemented here. Said loudly, wherever it is found. */
export class Unknown extends Error {}

const KNOWN = new Set(["id", "name", "triggers", "steps", "cancel", "concurrency", "throttle"]);

/** The body of POST /fn/register. */
export function registration(body: string): FunctionConfig[] {
  const { functions } = JSON.parse(body) as { functions: Record<string, unknown>[] };
  return functions.map((given) => {
    const { id, name, triggers, cancel, steps } = given as {
      id: string;
      name: string;
      triggers: FunctionConfig["triggers"];
      cancel?: (FunctionConfig["cancel"][number] & { timeout?: unknown; match?: unknown })[];
      steps: Record<string, { runtime: { type: string; url: string }; retries: { attempts: number } }>;
    };
    for (const key of Object.keys(given)) if (!KNOWN.has(key)) throw new Unknown(`${id}: setting ${key}`);
    for (const trigger of triggers) {
      if (Object.keys(trigger).some((key) => key !== "event" && key !== "cron")) throw new Unknown(`${id}: its trigger`);
    }
    for (const one of cancel ?? []) {
      if (one.timeout !== undefined || one.match !== undefined) throw new Unknown(`${id}: its cancelOn`);
    }
    const step = steps["step"];
    if (step === undefined || step.runtime.type !== "http") throw new Unknown(`${id}: is not called over HTTP`);
    return { id, name, triggers, cancel: cancel ?? [], retries: step.retries.attempts, url: step.runtime.url };
  });
}

export async function call(given: Call): Promise<Answer> {
  const url = new URL(given.url);
  url.searchParams.set("stepId", given.stepId);
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", "x-inngest-server-kind": "dev" },
    body: JSON.stringify({
      version: 2,
      event: given.event,
      events: [given.event],
      steps: given.steps,
      ctx: {
        run_id: given.runId,
        attempt: given.attempt,
        max_attempts: given.maxAttempts,
        disable_immediate_execution: false,
        use_api: false,
        stack: { stack: Object.keys(given.steps), current: Object.keys(given.steps).length },
      },
    }),
  });
  const text = await response.text();
  const retry = response.headers.get("x-inngest-no-retry") !== "true";
  const body: unknown = parsed(text);
  if (response.headers.get("x-inngest-sdk") === null) return { kind: "error", error: "not the SDK", retry: true };
  switch (response.status) {
    case 200:
      return { kind: "done", output: body };
    case 206:
      if (!Array.isArray(body)) throw new Unknown("206 without a list");
      return { kind: "ops", ops: body.map((one) => op(one as Record<string, unknown>, retry)) };
    default:
      return { kind: "error", error: body, retry };
  }
}

function op(given: Record<string, unknown>, retry: boolean): Op {
  const id = String(given["id"]);
  const name = String(given["displayName"] ?? given["name"]);
  switch (given["op"]) {
    case "StepRun":
    case "Step":
      return { op: "ran", id, name, data: given["data"] ?? null };
    case "StepError":
      return { op: "failed", id, name, error: given["error"], retry };
    case "StepFailed":
      return { op: "failed", id, name, error: given["error"], retry: false };
    case "StepPlanned":
      return { op: "planned", id, name };
    case "Sleep":
      return { op: "sleep", id, name, until: wake(String(given["name"])) };
    default:
      throw new Unknown(`operation ${String(given["op"])}`);
  }
}

const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** `1h30m` from now, or an instant. */
export function wake(text: string): (nowMs: number) => number {
  if (/^(\d+(ms|[smhdw]))+$/.test(text)) {
    let total = 0;
    for (const [, count, unit] of text.matchAll(/(\d+)(ms|[smhdw])/g)) total += Number(count) * (UNITS[unit ?? ""] ?? NaN);
    return (nowMs) => nowMs + total;
  }
  const at = Date.parse(text);
  if (Number.isNaN(at)) throw new Unknown(`sleep of ${text}`);
  return () => at;
}

function parsed(text: string): unknown {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return text;
  }
}
