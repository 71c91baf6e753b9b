// The executor behind HTTP: Inngest's own endpoints, as far as our parts use them, and those that control it (README).
import { type IncomingMessage, type Server, createServer } from "node:http";
import { intake } from "./events.ts";
import type { Executor, Run, Stored } from "./executor.ts";
import { registration } from "./protocol.ts";

export interface Listening {
  url: string;
  close(): Promise<void>;
}

export async function listen(executor: Executor, port: number): Promise<Listening> {
  const server = createServer((request, response) => {
    answer(executor, request).then(
      ({ status, body }) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body)),
      (error: unknown) => {
        const said = error instanceof Error ? error.message : String(error);
        response.writeHead(500, { "content-type": "application/json" }).end(JSON.stringify({ error: said }));
      },
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return { url: `http://127.0.0.1:${portOf(server)}`, close: () => closing(server) };
}

/** Tells the workflows at this address to register, and gives the ids of their functions. */
export async function sync(executor: Executor, url: string): Promise<string[]> {
  const response = await fetch(url, { method: "PUT" });
  if (!response.ok) throw new Error(`the workflows answer ${response.status} to a sync: ${await response.text()}`);
  return executor.functions.map(({ id }) => id);
}

type Reply = { status: number; body: unknown };
const ok = (body: unknown): Reply => ({ status: 200, body });

async function answer(executor: Executor, request: IncomingMessage): Promise<Reply> {
  const path = (request.url ?? "").split("?", 1)[0] ?? "";
  const body = await read(request);
  if (request.method === "POST" && /^\/e\/[^/]+$/.test(path)) {
    const { events, error } = intake(body);
    const ids = executor.accept(events);
    return error === undefined ? ok({ ids, status: 200 }) : { status: 400, body: { ids, status: 400, error } };
  }
  switch (`${request.method} ${path}`) {
    case "POST /fn/register":
      executor.register(registration(body));
      return ok({ ok: true, status: 200, modified: true });
    case "POST /sync":
      return ok({ functions: await sync(executor, (JSON.parse(body) as { url: string }).url) });
    case "POST /clock/advance":
      await executor.advanceTo(target(executor, JSON.parse(body)));
      return ok({ now: time(executor.clock.now()) });
    case "GET /idle": {
      await executor.idle();
      const next = executor.clock.first();
      return ok({ now: time(executor.clock.now()), waiting: executor.clock.waiting, next: next === undefined ? null : time(next) });
    }
    case "GET /runs":
      return ok(executor.runs.map(shown));
    case "GET /events":
      return ok(executor.events.map(stored));
    case "POST /settings":
      return ok(settings(executor, JSON.parse(body)));
    case "GET /health":
      return ok({ status: 200 });
    default:
      return { status: 404, body: { error: "not found" } };
  }
}

function target(executor: Executor, { ms, to }: { ms?: unknown; to?: unknown }): number {
  const at = ms === undefined ? (typeof to === "string" ? Date.parse(to) : to) : executor.clock.now() + Number(ms);
  if (typeof at !== "number" || !Number.isFinite(at)) throw new Error("neither ms nor to is a time");
  return at;
}

function settings(executor: Executor, given: Record<string, unknown>): unknown {
  for (const [name, value] of Object.entries(given)) {
    if (name === "accept_only" && typeof value === "boolean") executor.settings.acceptOnly = value;
    else if (name === "cron" && typeof value === "boolean") executor.settings.cron = value;
    else if (name === "lose_answers" && typeof value === "number") executor.settings.loseAnswers = value;
    else throw new Error(`setting ${name} is not known, or not with this value`);
  }
  const { acceptOnly, cron, loseAnswers } = executor.settings;
  return { accept_only: acceptOnly, cron, lose_answers: loseAnswers };
}

function shown(run: Run): unknown {
  return {
    run_id: run.runId,
    function_id: run.fn.id,
    event: { id: run.event.id ?? run.event.internalId, name: run.event.name },
    status: run.status,
    steps: run.stepNames,
    attempts: run.calls,
    output: run.output ?? null,
    error: run.error ?? null,
    scheduled_at: time(run.scheduledAt),
    ended_at: run.endedAt === undefined ? null : time(run.endedAt),
  };
}

function stored({ internalId, id, name, ts, data, at }: Stored): unknown {
  return { internal_id: internalId, id: id ?? null, name, ts: ts ?? null, data, at: time(at) };
}

const time = (ms: number) => new Date(ms).toISOString();

async function read(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString("utf8");
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return address.port;
}

function closing(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
