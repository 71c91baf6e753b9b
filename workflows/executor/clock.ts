// A clock that runs with the real one, plus an offset that only grows; and what waits for a time on it.

export interface Wait {
  at: number;
  wake: () => void;
}

export class VirtualClock {
  #offsetMs = 0;
  #waits: Wait[] = [];
  readonly #moved: (offsetMs: number) => Promise<void>;

  /** `moved` takes every new offset, to whoever must agree on the time. */
  constructor(moved: (offsetMs: number) => Promise<void> = async () => {}) {
    this.#moved = moved;
  }

  now(): number {
    return Date.now() + this.#offsetMs;
  }

  /** Never back. */
  async moveTo(at: number): Promise<void> {
    const ahead = at - this.now();
    if (ahead <= 0) return;
    this.#offsetMs += ahead;
    await this.#moved(this.#offsetMs);
  }

  /** Also what is due already: only an advance wakes anything. */
  wait(at: number, wake: () => void): void {
    this.#waits.push({ at, wake });
    // Those of one instant stay in their order.
    this.#waits.sort((a, b) => a.at - b.at);
  }

  get waiting(): number {
    return this.#waits.length;
  }

  first(): number | undefined {
    return this.#waits[0]?.at;
  }

  /** Takes what waits for a time up to this one. */
  due(at: number): Wait[] {
    const count = this.#waits.findIndex((wait) => wait.at > at);
    return this.#waits.splice(0, count === -1 ? this.#waits.length : count);
  }
}

/** The same numbers for the same seed; from 0 up to 1. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
