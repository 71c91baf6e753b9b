// Keeps events, runs and their memoised steps, and calls the functions: what Inngest's server does, on a virtual clock,
// one call at a time. Takes events and moves of the clock; gives runs.
import { VirtualClock, random } from "./clock.ts";
import { last } from "./cron.ts";
import type { Accepted } from "./events.ts";
import { evaluate } from "./expression.ts";
import { type Answer, type Call, type FunctionConfig, type Memo, type Op, call } from "./protocol.ts";

export interface Stored extends Accepted {
  internalId: string;
  /** Its place among events and runs: what Inngest reads off the time in its ids. */
  seq: number;
  at: number;
}

export interface Run {
  runId: string;
  fn: FunctionConfig;
  event: Stored;
  seq: number;
  status: "running" | "completed" | "failed" | "cancelled";
  steps: Record<string, Memo>;
  stepNames: string[];
  /** Failures of the step that is next. */
  attempt: number;
  /** Calls in all. */
  calls: number;
  output?: unknown;
  error?: unknown;
  scheduledAt: number;
  endedAt?: number;
}

/** What happens to a call: nothing, it does not reach the functions, or its answer is lost. */
export type Fault = "none" | "refuse" | "lose";

export interface Options {
  /** Take what could run in a random order. Without: as it came. */
  seed?: number;
  clockMoved?: (offsetMs: number) => Promise<void>;
  fault?: (run: Run) => Fault;
}

export interface Settings {
  acceptOnly: boolean;
  cron: boolean;
  loseAnswers: number;
}

const DAY_MS = 86_400_000;

export class Executor {
  readonly clock: VirtualClock;
  readonly events: Stored[] = [];
  readonly runs: Run[] = [];
  readonly settings: Settings = { acceptOnly: false, cron: true, loseAnswers: 0 };
  #functions: FunctionConfig[] = [];
  /** Until when an event id starts no other run of a function. */
  readonly #seen = new Map<string, number>();
  /** The last tick of each schedule that is behind us. */
  readonly #ticks = new Map<string, number>();
  #ready: (() => Promise<void>)[] = [];
  #working: Promise<void> | null = null;
  #broken: unknown;
  #advancing: Promise<void> = Promise.resolve();
  #seq = 0;
  readonly #fault: (run: Run) => Fault;
  readonly #random: (() => number) | undefined;

  constructor(options: Options = {}) {
    this.clock = new VirtualClock(options.clockMoved);
    this.#fault = options.fault ?? (() => "none");
    this.#random = options.seed === undefined ? undefined : random(options.seed);
  }

  get functions(): readonly FunctionConfig[] {
    return this.#functions;
  }

  /** The functions of the app from now on. Runs go on with the names they have. */
  register(functions: FunctionConfig[]): void {
    for (const { id, triggers } of functions) {
      for (const trigger of triggers) {
        if (!("cron" in trigger)) continue;
        const tick = last(trigger.cron, this.clock.now());
        if (!this.#ticks.has(id)) this.#ticks.set(id, tick);
      }
    }
    for (const run of this.runs) run.fn = functions.find(({ id }) => id === run.fn.id) ?? run.fn;
    this.#functions = functions;
  }

  /** Gives the ids that Inngest answers with. */
  accept(events: Accepted[]): string[] {
    return events.map((event) => {
      const seq = this.#seq++;
      const internalId = `01${String(seq).padStart(24, "0")}`;
      const stored: Stored = { ...event, internalId, seq, at: this.clock.now() };
      this.events.push(stored);
      if (!this.settings.acceptOnly) this.#soon(async () => this.#handle(stored));
      return internalId;
    });
  }

  /** Ends when nothing can run unless the clock moves. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working;
    if (this.#broken !== undefined) throw this.#broken;
  }

  /** Moves the clock there, waking what waits at its own time. One advance at a time. */
  advanceTo(to: number): Promise<void> {
    const next = this.#advancing.then(() => this.#advance(to));
    this.#advancing = next.catch(() => {});
    return next;
  }

  advance(ms: number): Promise<void> {
    return this.advanceTo(this.clock.now() + ms);
  }

  async #advance(to: number): Promise<void> {
    await this.idle();
    for (;;) {
      const first = this.clock.first();
      const at = first !== undefined && first <= to ? first : to;
      await this.#tickUpTo(at);
      await this.clock.moveTo(at);
      for (const { wake } of this.clock.due(at)) wake();
      await this.idle();
      const next = this.clock.first();
      if (at === to && (next === undefined || next > to)) return;
    }
  }

  /** Schedules fire at their last tick only. */
  async #tickUpTo(at: number): Promise<void> {
    for (const fn of this.#functions) {
      for (const trigger of fn.triggers) {
        if (!("cron" in trigger)) continue;
        const tick = last(trigger.cron, Math.max(at, this.clock.now()));
        if (tick <= (this.#ticks.get(fn.id) ?? tick)) continue;
        this.#ticks.set(fn.id, tick);
        if (!this.settings.cron) continue;
        await this.clock.moveTo(tick);
        const seq = this.#seq++;
        const event: Stored = {
          name: "inngest/scheduled.timer",
          data: { cron: trigger.cron },
          internalId: `01${String(seq).padStart(24, "0")}`,
          seq,
          at: this.clock.now(),
        };
        this.#schedule(fn, event);
        await this.idle();
      }
    }
  }

  #handle(event: Stored): void {
    // Runs that were scheduled after the event came in do not see it, as at Inngest.
    for (const run of this.runs) {
      if (run.status !== "running" || run.seq > event.seq) continue;
      const cancels = run.fn.cancel.some(
        ({ event: name, if: condition }) =>
          name === event.name && (condition === undefined || evaluate(condition, { event: run.event, async: event })),
      );
      if (cancels) this.#end(run, "cancelled");
    }
    for (const fn of this.#functions) {
      if (!fn.triggers.some((trigger) => "event" in trigger && trigger.event === event.name)) continue;
      if (event.id !== undefined) {
        const key = `${fn.id} ${event.id}`;
        const until = this.#seen.get(key);
        if (until !== undefined && until > this.clock.now()) continue;
        this.#seen.set(key, this.clock.now() + DAY_MS);
      }
      this.#schedule(fn, event);
    }
  }

  #schedule(fn: FunctionConfig, event: Stored): void {
    const seq = this.#seq++;
    const run: Run = {
      runId: `run-${seq}`,
      fn,
      event,
      seq,
      status: "running",
      steps: {},
      stepNames: [],
      attempt: 0,
      calls: 0,
      scheduledAt: this.clock.now(),
    };
    this.runs.push(run);
    const start = () => this.#soon(() => this.#call(run, "step"));
    if (event.ts !== undefined && event.ts > this.clock.now()) this.clock.wait(event.ts, start);
    else start();
  }

  async #call(run: Run, stepId: string): Promise<void> {
    if (run.status !== "running") return;
    run.calls += 1;
    const answer = await this.#answer(run, {
      url: run.fn.url,
      stepId,
      event: {
        id: run.event.id ?? run.event.internalId,
        name: run.event.name,
        data: run.event.data,
        ts: run.event.ts ?? run.event.at,
        ...(run.event.v === undefined ? {} : { v: run.event.v }),
      },
      steps: run.steps,
      runId: run.runId,
      attempt: run.attempt,
      maxAttempts: run.fn.retries + 1,
    });
    switch (answer.kind) {
      case "done":
        run.output = answer.output;
        this.#end(run, "completed");
        break;
      case "error":
        if (answer.retry && this.#again(run, stepId)) break;
        run.error = answer.error;
        this.#end(run, "failed");
        break;
      case "ops":
        for (const op of answer.ops) this.#op(run, stepId, op);
    }
  }

  async #answer(run: Run, given: Call): Promise<Answer> {
    const lost = { kind: "error", error: "no answer", retry: true } as const;
    let fault = this.#fault(run);
    if (fault === "none" && this.settings.loseAnswers > 0) {
      this.settings.loseAnswers -= 1;
      fault = "lose";
    }
    if (fault === "refuse") return lost;
    try {
      const answer = await call(given);
      return fault === "lose" ? lost : answer;
    } catch (error) {
      // fetch fails with a TypeError: nobody there, or the connection broke.
      if (error instanceof TypeError) return lost;
      throw error;
    }
  }

  #op(run: Run, stepId: string, op: Op): void {
    const goOn = () => this.#soon(() => this.#call(run, "step"));
    switch (op.op) {
      case "ran":
        this.#memo(run, op, { data: op.data });
        goOn();
        break;
      case "failed":
        if (op.retry && this.#again(run, stepId)) break;
        this.#memo(run, op, { error: op.error });
        goOn();
        break;
      case "planned":
        this.#soon(() => this.#call(run, op.id));
        break;
      case "sleep":
        this.clock.wait(op.until(this.clock.now()), () => {
          if (run.status !== "running") return;
          this.#memo(run, op, null);
          goOn();
        });
    }
  }

  #memo(run: Run, { id, name }: { id: string; name: string }, memo: Memo): void {
    run.steps[id] = memo;
    run.stepNames.push(name);
    run.attempt = 0;
  }

  /** False when it was tried often enough. */
  #again(run: Run, stepId: string): boolean {
    if (run.attempt >= run.fn.retries) return false;
    const backOff = Math.min(10_000 * 2 ** run.attempt, 3_600_000);
    run.attempt += 1;
    this.clock.wait(this.clock.now() + backOff, () => this.#soon(() => this.#call(run, stepId)));
    return true;
  }

  #end(run: Run, status: Run["status"]): void {
    run.status = status;
    run.endedAt = this.clock.now();
  }

  #soon(job: () => Promise<void>): void {
    this.#ready.push(job);
    this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    // Jobs never begin inside the call that made them.
    await Promise.resolve();
    try {
      while (this.#ready.length > 0) {
        const at = this.#random === undefined ? 0 : Math.floor(this.#random() * this.#ready.length);
        const [job] = this.#ready.splice(at, 1);
        await job?.();
      }
    } catch (error) {
      this.#broken = error;
      this.#ready = [];
    } finally {
      this.#working = null;
    }
  }
}
