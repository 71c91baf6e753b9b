import { after, before, describe, test } from "node:test";
import { random } from "../executor/clock.ts";
import { SCENARIOS } from "./scenarios.ts";
import { VirtualWorld, type WorldOptions } from "./world.ts";

const HOUR_MS = 3_600_000;

function scenarios(options: WorldOptions): void {
  let world: VirtualWorld;
  before(async () => {
    world = await VirtualWorld.create(options);
  });
  after(() => world.end());
  for (const [n, { name, run }] of SCENARIOS.entries()) test(name, () => run(world, `s${n}`));
}

describe("in the order in which events come", () => scenarios({}));

describe("in another order, while calls and answers are lost", () => {
  const chance = random(20_261_121);
  scenarios({
    seed: 20_261_121,
    fault: () => (chance() < 0.25 ? "lose" : chance() < 0.1 ? "refuse" : "none"),
    patienceMs: HOUR_MS,
  });
});
