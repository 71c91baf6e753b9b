// What the functions need of the database. Each call is one function of the schema crm_events, one statement,
// idempotent: a step that runs again changes nothing again.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface Applied {
  outcome: "applied" | "unchanged" | "stale" | "outdated" | "missing_row";
  due_at: string | null;
}

export interface Settled {
  outcome: "settled" | "not_due" | "stale" | "review" | "unchanged" | "unknown";
  due_at: string | null;
}

export interface Outcome {
  outcome: string;
}

/** An event that the database wrote down in the transaction that led to it. */
export interface Announcement {
  id: string;
  name: string;
  ts_ms: number;
  data: JsonObject;
}

export interface Swept extends Outcome {
  announcements: Announcement[];
}

export interface Ledger {
  /** The database's time, in ms. It decides what is due; this machine's clock decides nothing. */
  now(): Promise<number>;
  applyAward(data: JsonObject): Promise<Applied>;
  settleAward(effectKey: string): Promise<Settled>;
  settleGrant(data: JsonObject): Promise<Outcome>;
  settleCode(data: JsonObject): Promise<Outcome>;
  /** Everything that is to be announced about this key and was not yet. */
  upgradeTier(effectKey: string): Promise<Announcement[]>;
  announced(ids: string[]): Promise<void>;
  /** Unsettled effects that are overdue; each is given out again only later. */
  dueEffects(max: number): Promise<string[]>;
  settle(effectKey: string): Promise<Swept>;
}

/** A call that failed. Its message names the SQLSTATE and no value of a row: it is shown by Inngest and in logs. */
export class LedgerError extends Error {
  override readonly name = "LedgerError";
  /** Wrong for this row for ever: asking again does not help. */
  readonly permanent: boolean;

  constructor(message: string, permanent: boolean) {
    super(message);
    this.permanent = permanent;
  }
}
