//! The dedupe store.

use crate::dedupe::DedupeError;
use crate::dedupe::redis::survey::Seen;
use crate::doctor::catalogue::{Area, REDIS_AUTH, REDIS_EVICTS, REDIS_MEMORY, REDIS_UNREACHABLE};
use crate::doctor::finding::{Finding, Verdicts};

use super::bytes;

/// One claim, as `MEMORY USAGE` has it (Redis 7, a key of 90 characters: 168), with its share of the tables.
const CLAIM_BYTES: i64 = 250;
/// Changes a second that a store should have room for: more than the busiest hour of the worker that this one replaced.
const FEW: i64 = 50;
const DEFAULT_WINDOW_S: u64 = 300;

#[must_use]
pub fn judge(seen: &Result<Seen, DedupeError>, window_s: u64) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let seen = match seen {
        Ok(seen) => seen,
        Err(error @ DedupeError::Configuration(_)) => {
            let finding = Finding::failed(REDIS_AUTH, "Redis does not take REDIS_URL's user, password or database");
            verdicts.push(
                finding
                    .saw(error.to_string())
                    .fix("Correct REDIS_URL: user, password, number of the database, version 7"),
            );
            verdicts.rest_after(&[Area::Redis], REDIS_AUTH);
            return verdicts;
        }
        Err(error @ DedupeError::Unavailable(_)) => {
            let finding = Finding::failed(
                REDIS_UNREACHABLE,
                "Redis does not answer: nothing is claimed, and intake waits",
            );
            let fix = "Check host and port of REDIS_URL, the network, and whether the server runs: `redis-cli -u \"$REDIS_URL\" ping`";
            verdicts.push(finding.saw(error.to_string()).fix(fix));
            verdicts.rest_after(&[Area::Redis], REDIS_UNREACHABLE);
            return verdicts;
        }
    };
    let answers = Finding::ok(REDIS_UNREACHABLE, "Redis answers");
    match &seen.may_write {
        Ok(()) => {
            verdicts.push(answers);
            verdicts.push(Finding::ok(REDIS_AUTH, "a key was set, for a second"));
        }
        Err(error @ DedupeError::Configuration(_)) => {
            verdicts.push(answers);
            let finding = Finding::failed(REDIS_AUTH, "the user of REDIS_URL may not set a key");
            verdicts.push(finding.saw(error.to_string()).fix("ACL SETUSER <user> +set ~*"));
        }
        Err(error @ DedupeError::Unavailable(_)) => {
            let finding = Finding::failed(
                REDIS_UNREACHABLE,
                "Redis answers, and takes no key: nothing is claimed, and intake waits",
            );
            verdicts.push(finding.saw(error.to_string()).fix(
                "READONLY: REDIS_URL names a replica, correct it; OOM: more memory; MISCONF: its disk is full; LOADING: wait",
            ));
            verdicts.rest_of(&[REDIS_AUTH], REDIS_UNREACHABLE);
        }
    }
    verdicts.push(evicts(seen));
    verdicts.push(memory(seen, window_s));
    verdicts
}

fn evicts(seen: &Seen) -> Finding {
    let fix =
        "CONFIG SET maxmemory-policy noeviction; or a Redis for claims alone (on Render: maxmemoryPolicy: noeviction)";
    match seen.policy.as_deref() {
        Some("noeviction") => Finding::ok(REDIS_EVICTS, "maxmemory-policy is noeviction"),
        None => Finding::unknown(
            REDIS_EVICTS,
            "Redis does not tell its maxmemory-policy: make sure that it is noeviction",
        ),
        Some(policy) => {
            let lost = seen.evicted.unwrap_or(0);
            let what = if lost > 0 {
                format!("Redis threw {lost} keys away to make room: what they knew is delivered again")
            } else {
                "Redis throws keys away when its memory is full: what they knew is delivered again".to_owned()
            };
            let can = seen.limit_bytes.is_some_and(|limit| limit > 0);
            Finding::graded(REDIS_EVICTS, can || lost > 0, what)
                .saw(format!("maxmemory-policy is {policy}"))
                .fix(fix)
        }
    }
}

fn memory(seen: &Seen, window_s: u64) -> Finding {
    let (Some(used), Some(limit)) = (seen.used_bytes, seen.limit_bytes) else {
        return Finding::unknown(REDIS_MEMORY, "Redis does not tell its memory (INFO)");
    };
    if limit <= 0 {
        return Finding::ok(REDIS_MEMORY, format!("{} are used, without a limit", bytes(used)));
    }
    let (used_text, limit_text) = (bytes(used), bytes(limit));
    let keys = seen.keys.map(|keys| format!("{keys} keys; ")).unwrap_or_default();
    if used >= limit / 10 * 8 {
        let what = "Redis is almost full: when it is, it takes no claim, and intake waits";
        return Finding::graded(REDIS_MEMORY, used >= limit / 100 * 95, what)
            .saw(format!("{keys}{used_text} of {limit_text}"))
            .fix(format!(
                "CONFIG SET maxmemory {}; or remember for a shorter time: DEDUP_WINDOW_SECS is {window_s}",
                2 * limit
            ));
    }
    let fits = (limit - used) / CLAIM_BYTES / i64::try_from(window_s.max(1)).unwrap_or(i64::MAX);
    let evidence = format!("{keys}{used_text} of {limit_text}, a window of {window_s} s");
    if fits < FEW {
        let what =
            format!("Redis is small for its window: it is full at {fits} changes a second, and then takes no claim");
        return Finding::warning(REDIS_MEMORY, what).saw(evidence).fix(format!(
            "A larger Redis, or DEDUP_WINDOW_SECS={DEFAULT_WINDOW_S} as is the default"
        ));
    }
    let what = format!("room for {fits} changes a second over the whole window");
    Finding::ok(REDIS_MEMORY, what).saw(evidence)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::doctor::finding::Severity;

    fn seen() -> Seen {
        Seen {
            policy: Some("noeviction".to_owned()),
            used_bytes: Some(10 << 20),
            limit_bytes: Some(100 << 20),
            evicted: Some(0),
            keys: Some(3),
            may_write: Ok(()),
        }
    }

    fn judged(change: impl FnOnce(&mut Seen)) -> Verdicts {
        let mut seen = seen();
        change(&mut seen);
        judge(&Ok(seen), 300)
    }

    #[test]
    fn what_is_well_is_said_of_every_id() {
        let verdicts = judged(|_| {});
        assert_eq!((troubles(&verdicts), verdicts.findings().len()), (vec![], 4));
    }

    #[test]
    fn a_store_that_is_away_or_refuses_us_explains_the_rest() {
        for (error, name) in [
            (DedupeError::Unavailable("x".to_owned()), "redis.unreachable"),
            (DedupeError::Configuration("x".to_owned()), "redis.auth"),
        ] {
            let verdicts = judge(&Err(error.clone()), 300);
            assert_eq!(troubles(&verdicts), [(name, Severity::Failed)]);
        }
        let read_only = judged(|seen| seen.may_write = Err(DedupeError::Unavailable("READONLY".to_owned())));
        assert_eq!(troubles(&read_only), [("redis.unreachable", Severity::Failed)]);
        assert_eq!(of(&read_only, REDIS_AUTH).severity, Severity::NotVerifiable);
        let denied = judged(|seen| seen.may_write = Err(DedupeError::Configuration("NOPERM".to_owned())));
        assert_eq!(troubles(&denied), [("redis.auth", Severity::Failed)]);
    }

    #[test]
    fn keys_that_may_be_thrown_away_and_memory_that_runs_out_are_told() {
        let policy = |seen: &mut Seen| seen.policy = Some("allkeys-lru".to_owned());
        assert_eq!(troubles(&judged(policy)), [("redis.evicts", Severity::Failed)]);
        let roomy = judged(|seen| {
            policy(seen);
            seen.limit_bytes = Some(0);
        });
        assert_eq!(troubles(&roomy), [("redis.evicts", Severity::Warning)]);
        for (used, severity) in [(79, Severity::Ok), (80, Severity::Warning), (95, Severity::Failed)] {
            assert_eq!(
                of(&judged(|seen| seen.used_bytes = Some(used << 20)), REDIS_MEMORY).severity,
                severity,
                "{used}"
            );
        }
        for unknown in [judged(|seen| seen.policy = None), judged(|seen| seen.used_bytes = None)] {
            let blind = unknown
                .findings()
                .iter()
                .filter(|one| one.severity == Severity::NotVerifiable);
            assert_eq!((blind.count(), troubles(&unknown)), (1, vec![]));
        }
    }
}
