// The double behaves as Inngest where our functions depend on it, and refuses what it does not know.
import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../executor/clock.ts";
import { last } from "../executor/cron.ts";
import { intake } from "../executor/events.ts";
import { Executor } from "../executor/executor.ts";
import { evaluate } from "../executor/expression.ts";
import { registration, wake } from "../executor/protocol.ts";
import { listen } from "../executor/server.ts";

test("a request is accepted up to its first bad event", () => {
  const good = { name: "a", data: {}, id: "1", ts: 1_790_000_000_000, v: "1" };
  assert.deepEqual(intake(JSON.stringify(good)), { events: [good] });
  assert.deepEqual(intake(JSON.stringify([good, { data: {} }, good])), { events: [good], error: "an event has no name" });
  assert.deepEqual(intake("{"), { events: [], error: "no JSON" });
  const refused: [unknown, string][] = [
    [{ name: "Inngest/x" }, "the name is reserved"],
    [{ name: "a", data: [] }, "data is no object"],
    [{ name: "a", ts: 1 }, "ts is no time in ms"],
    [{ name: "a", ts: 1_790_000_000_000.5 }, "ts is no time in ms"],
    [{ name: "a", id: 1 }, "id or v is no text"],
    ["a", "no event"],
  ];
  for (const [event, error] of refused) assert.equal(intake(JSON.stringify(event)).error, error);
});

test("conditions are computed, and what is not understood is refused", () => {
  const scope = { event: { data: { id: "7", n: 1 } }, async: { data: { id: "7", n: 2 } } };
  const expected: [string, boolean][] = [
    ["event.data.id == async.data.id && async.data.n > event.data.n", true],
    ["event.data.id == async.data.id && async.data.n < event.data.n", false],
    ["async.data.n <= 2 || event.data.n == 9", true],
    ["(event.data.n == 9 || event.data.n == 1) && event.data.id != 'x'", true],
    ["event.data.id == 7", false],
    ["event.data.missing == async.data.missing", false],
    ["event.data.missing != 1", true],
  ];
  for (const [expression, value] of expected) assert.equal(evaluate(expression, scope), value, expression);
  for (const odd of ["event.data.id in ['7']", "event.data.n + 1 == 2", "has(event.data.id)", "event.data.id", "other.x == 1", "event.data.id < 7", "event.data == 1", "(event.data.n == 1"]) {
    assert.throws(() => evaluate(odd, scope), Error, odd);
  }
});

test("schedules and sleeps are understood, or refused", () => {
  const noon = Date.parse("2026-11-21T12:03:30Z");
  assert.equal(last("*/5 * * * *", noon), Date.parse("2026-11-21T12:00:00Z"));
  assert.equal(last("30 4 * * *", noon), Date.parse("2026-11-21T04:30:00Z"));
  assert.throws(() => last("0 0 1 * *", noon));
  assert.throws(() => last("1-5 * * * *", noon));
  assert.equal(wake("1h30m")(0), 5_400_000);
  assert.equal(wake("2026-11-21T12:03:30.000Z")(0), noon);
  assert.throws(() => wake("tomorrow"));
});

test("a setting of a function that the double does not have is refused", () => {
  const fn = { id: "a", name: "a", triggers: [{ event: "x" }], steps: { step: { runtime: { type: "http", url: "http://x" }, retries: { attempts: 3 } } } };
  assert.equal(registration(JSON.stringify({ functions: [fn] })).length, 1);
  for (const more of [{ debounce: {} }, { idempotency: "x" }, { triggers: [{ event: "x", expression: "true" }] }, { cancel: [{ event: "x", timeout: "1h" }] }]) {
    assert.throws(() => registration(JSON.stringify({ functions: [{ ...fn, ...more }] })));
  }
});

test("the clock goes forward only, and only an advance wakes", async () => {
  const moves: number[] = [];
  const clock = new VirtualClock(async (offset) => void moves.push(offset));
  const start = clock.now();
  await clock.moveTo(start + 1_000_000);
  await clock.moveTo(start);
  assert.ok(clock.now() >= start + 1_000_000);
  assert.equal(moves.length, 1);
  const woken: string[] = [];
  clock.wait(3, () => woken.push("c"));
  clock.wait(1, () => woken.push("a"));
  clock.wait(1, () => woken.push("b"));
  assert.equal(clock.first(), 1);
  for (const { wake: run } of clock.due(2)) run();
  assert.deepEqual(woken, ["a", "b"]);
  assert.equal(clock.waiting, 1);
});

test("functions that do not answer are called again until they were called often enough", async () => {
  const executor = new Executor();
  executor.register([{ id: "f", name: "f", triggers: [{ event: "x" }], cancel: [], retries: 3, url: "http://127.0.0.1:1/" }]);
  executor.accept([{ name: "x", data: {} }]);
  await executor.idle();
  assert.equal(executor.runs[0]?.status, "running");
  await executor.advance(86_400_000);
  assert.deepEqual([executor.runs[0]?.status, executor.runs[0]?.calls], ["failed", 4]);
});

test("an executor that accepts only runs nothing, also later", async () => {
  const executor = new Executor();
  const server = await listen(executor, 0);
  try {
    const post = async (path: string, body: unknown) => {
      const response = await fetch(server.url + path, { method: "POST", body: JSON.stringify(body) });
      return { status: response.status, body: await response.json() };
    };
    executor.register([{ id: "f", name: "f", triggers: [{ event: "x" }], cancel: [], retries: 0, url: "http://127.0.0.1:1/" }]);
    assert.deepEqual(await post("/settings", { accept_only: true }), { status: 200, body: { accept_only: true, cron: true, lose_answers: 0 } });
    assert.equal((await post("/settings", { other: true })).status, 500);
    const accepted = await post("/e/key", [{ name: "x", id: "1" }, { name: "x", id: "2" }]);
    assert.equal(accepted.status, 200);
    assert.equal((accepted.body as { ids: string[] }).ids.length, 2);
    assert.equal((await post("/e/key", [{ name: "x", id: "3" }, {}])).status, 400);
    await post("/settings", { accept_only: false });
    await post("/clock/advance", { ms: 3_600_000 });
    assert.deepEqual(await (await fetch(`${server.url}/runs`)).json(), []);
    const events = (await (await fetch(`${server.url}/events`)).json()) as { id: string }[];
    assert.deepEqual(events.map(({ id }) => id), ["1", "2", "3"]);
    await post("/e/key", { name: "x", id: "4" });
    await executor.idle();
    assert.equal(executor.runs.length, 1);
  } finally {
    await server.close();
  }
});
