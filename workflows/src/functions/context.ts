// What the functions share: the SDK's client, the database and what the plan allows; and how a call of the database
// becomes the outcome of a step.
import { type Inngest, NonRetriableError } from "inngest";
import type { Announcement, JsonObject, Ledger } from "../ledger.ts";
import { LedgerError } from "../ledger.ts";
import type { Log } from "../log.ts";
import type { Limits } from "../waits.ts";

export interface Context {
  inngest: Inngest;
  ledger: Ledger;
  limits: Limits;
  log: Log;
  /** Steps at a time over all runs of a function. The plan at Inngest bounds it: more than it has is refused at sync. */
  concurrency: number;
}

/** The most Inngest has; back-off grows to hours, so that an outage of a day is outlived. */
export const RETRIES = 20;

/** The SDK types the payload of an event it has no schema for as anything. */
export function dataOf(event: { data?: unknown }): JsonObject {
  const { data } = event;
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    throw new NonRetriableError("the event has no data");
  }
  return data as JsonObject;
}

export function textOf(data: JsonObject, field: string): string {
  const value = data[field];
  if (typeof value !== "string") throw new NonRetriableError(`the event has no ${field}`);
  return value;
}

/** Asks the database. What is wrong for ever is not asked again; whatever else fails is, by Inngest. */
export async function ask<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof LedgerError && error.permanent) throw new NonRetriableError(error.message);
    throw error;
  }
}

/** Version of every event's shape (schemas/inngest). */
const EVENT_VERSION = "2026-11-22.1";

export interface OutgoingEvent {
  id: string;
  name: string;
  ts: number;
  v: string;
  data: JsonObject;
}

/** `cause`: the data of the event that led to it, whose trace it is then said to be of. */
export function eventOf(announcement: Announcement, cause: JsonObject = {}): OutgoingEvent {
  const { id, name, ts_ms } = announcement;
  const { traceparent } = cause;
  const data = typeof traceparent === "string" ? { ...announcement.data, traceparent } : announcement.data;
  return { id, name, ts: ts_ms, v: EVENT_VERSION, data };
}
