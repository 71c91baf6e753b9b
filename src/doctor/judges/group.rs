//! The group: who works, for which consumers, and how far it is.

use std::collections::BTreeMap;

use crate::doctor::catalogue::{
    Area, GROUP_CONSUMER_SET, GROUP_ELSEWHERE, GROUP_EMPTY, GROUP_LAG, GROUP_OUTSIDE_LOG, GROUP_UNREADABLE,
    TOPIC_MISSING, TOPIC_UNREADABLE,
};
use crate::doctor::finding::{Finding, Verdicts};
use crate::kafka::{Committed, Grant, Look, Members, Seen, Unseen};
use crate::progress::{ConsumerSet, Halt, Notice, Orders, Start};

/// A lag that a burst leaves for a moment is no trouble.
const LAG: i64 = 1000;

#[must_use]
pub fn judge(seen: &Seen, group: &str, consumers: ConsumerSet) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let refused = matches!(seen.committed, Err(Unseen::Refused)) || matches!(seen.members, Err(Unseen::Refused));
    if refused {
        let grant = Grant::Join(group.to_owned());
        let finding = Finding::failed(GROUP_UNREADABLE, format!("the account of KAFKA_API_KEY lacks {grant}"));
        let finding = finding.saw("the brokers answer GROUP_AUTHORIZATION_FAILED");
        verdicts.push(finding.fix(grant.command()));
        verdicts.rest_after(&[Area::Group], GROUP_UNREADABLE);
        return verdicts;
    }
    verdicts.push(of_members(&seen.members, group));
    verdicts.push(of_rivals(&seen.elsewhere, group));
    match &seen.committed {
        Ok(committed) => {
            verdicts.push(Finding::ok(
                GROUP_UNREADABLE,
                format!("group {group} may be asked about"),
            ));
            let is_worked_on = seen.members.as_ref().is_ok_and(|members| !members.members.is_empty());
            verdicts.append(of_progress(committed, group, consumers, is_worked_on));
        }
        // A group can be asked about only with the help of a topic.
        Err(Unseen::Unknown(why)) if seen.topics.iter().all(|topic| topic.visible.is_err()) => {
            // Hidden, or not there.
            let is_hidden = seen.topics.iter().any(|topic| topic.visible == Err(Unseen::Refused));
            let first = if is_hidden { TOPIC_UNREADABLE } else { TOPIC_MISSING };
            verdicts.rest(&[Area::Group], &format!("{} first: {why}", first.name()));
        }
        Err(Unseen::Unknown(why)) => verdicts.rest(&[Area::Group], why),
        Err(Unseen::Refused) => verdicts.rest_after(&[Area::Group], GROUP_UNREADABLE),
    }
    verdicts
}

fn of_members(members: &Look<Members>, group: &str) -> Finding {
    match members {
        Ok(members) if members.members.is_empty() => {
            let state = if members.state.is_empty() {
                "unknown to Kafka"
            } else {
                &members.state
            };
            Finding::failed(GROUP_EMPTY, format!("nobody is in group {group}: no worker runs"))
                .saw(format!("the group is {state}, without a member"))
                .fix(
                    "Start the worker: `crm-event-processors run`. If it was started, its exit code and its last log line say \
                     why it is gone: docs/runbook.md#exit-codes",
                )
        }
        Ok(members) => {
            let count = members.members.len();
            let what = format!("{count} in group {group}, which is {}", members.state);
            Finding::ok(GROUP_EMPTY, what).saw(members.members.join(", "))
        }
        Err(Unseen::Unknown(why)) => Finding::unknown(GROUP_EMPTY, why),
        Err(Unseen::Refused) => Finding::unknown(GROUP_EMPTY, "the account may not ask"),
    }
}

fn of_rivals(elsewhere: &Look<Vec<String>>, group: &str) -> Finding {
    match elsewhere {
        Ok(groups) if groups.is_empty() => Finding::ok(
            GROUP_ELSEWHERE,
            "none of these consumers has its progress in another group",
        ),
        Ok(groups) => {
            let named = groups.join(", ");
            Finding::failed(
                GROUP_ELSEWHERE,
                format!("a consumer that is to run in {group} has its progress in {named}: the worker refuses to start"),
            )
            .saw(format!("{named} has committed offsets"))
            .fix(
                "Leave that consumer out of CONSUMERS here, or run the CONSUMERS that it had; to move it back: stop that group, reset this \
                 one to its offsets (kafka-consumer-groups --reset-offsets), delete it",
            )
        }
        Err(Unseen::Unknown(why)) => Finding::unknown(GROUP_ELSEWHERE, why),
        Err(Unseen::Refused) => Finding::unknown(GROUP_ELSEWHERE, "the account may not ask"),
    }
}

fn of_progress(committed: &[Committed], group: &str, consumers: ConsumerSet, is_worked_on: bool) -> Verdicts {
    let (mut gaps, mut newer, mut absent, mut doubtful) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
    let mut lag: BTreeMap<&str, i64> = BTreeMap::new();
    for one in committed {
        let found = &one.found;
        let place = format!("{}/{}", one.topic, one.partition);
        let next = found
            .committed
            .as_ref()
            .map_or(found.begin, |committed| committed.offset);
        *lag.entry(&one.topic).or_default() += (found.end - next).max(0);
        match Start::decide(found, consumers.reading(&one.topic), &Orders::default()) {
            Err(halt @ Halt::OutsideTheLog { .. }) => gaps.push(format!("{place}: {halt}")),
            Err(halt @ Halt::NewerFrame { .. }) => newer.push(format!("{place}: {halt}")),
            Ok((_, notices)) => {
                for notice in notices {
                    match notice {
                        Notice::Absent { name, watermark } => {
                            absent.entry(name).or_insert_with(|| format!("{place} at {watermark}"));
                        }
                        Notice::Ignored(_) => doubtful.push(format!("{place}: {notice}")),
                        Notice::New(_) | Notice::Dropped { .. } | Notice::GapAccepted { .. } => {}
                    }
                }
            }
        }
    }
    let mut verdicts = Verdicts::default();
    verdicts.push(of_set(group, &newer, &absent, &doubtful));
    verdicts.push(if gaps.is_empty() {
        Finding::ok(GROUP_OUTSIDE_LOG, "every committed offset lies in its log")
    } else {
        Finding::failed(GROUP_OUTSIDE_LOG, format!("{} partitions are halted: records are missing", gaps.len()))
            .saw(gaps.join("; "))
            .fix(
                "Ask the connector to snapshot the ledgers again (docs/runbook.md#halted-partition), then start the worker once \
                 with --accept-gap",
            )
    });
    let total: i64 = lag.values().sum();
    let by_topic: Vec<String> = lag
        .iter()
        .filter(|(_, lag)| **lag > 0)
        .map(|(topic, lag)| format!("{topic}: {lag}"))
        .collect();
    verdicts.push(if total <= LAG {
        Finding::ok(GROUP_LAG, format!("{total} records are not read yet"))
    } else {
        let fix = if is_worked_on {
            "Look whether it falls: `crm-event-processors check --only group`, twice, a minute apart; if not, docs/runbook.md#lag-grows"
        } else {
            "Start the worker: nobody is in the group"
        };
        Finding::warning(GROUP_LAG, format!("{total} records are not read yet")).saw(by_topic.join(", ")).fix(fix)
    });
    verdicts
}

fn of_set(group: &str, newer: &[String], absent: &BTreeMap<Box<str>, String>, doubtful: &[String]) -> Finding {
    if !newer.is_empty() {
        return Finding::failed(
            GROUP_CONSUMER_SET,
            format!("a later version of the worker wrote the progress of {group}"),
        )
        .saw(newer.join("; "))
        .fix("Deploy that version again: this one halts these partitions");
    }
    if !absent.is_empty() {
        let names: Vec<&str> = absent.keys().map(AsRef::as_ref).collect();
        let places: Vec<String> = absent
            .iter()
            .map(|(name, place)| format!("{name} in {place}"))
            .collect();
        let dropped: Vec<String> = names.iter().map(|name| format!("--drop-consumer {name}")).collect();
        let what = format!(
            "{} worked in {group}, is not configured here, and holds what is committed",
            names.join(", ")
        );
        let fix = format!(
            "Deploy the release or the CONSUMERS that run it; or, if it is gone for good, start once with `crm-event-processors \
             run {}`, which gives up what it has not read",
            dropped.join(" ")
        );
        return Finding::warning(GROUP_CONSUMER_SET, what)
            .saw(places.join("; "))
            .fix(fix);
    }
    if !doubtful.is_empty() {
        return Finding::warning(
            GROUP_CONSUMER_SET,
            "what was committed says nothing of consumers: they begin at the offset",
        )
        .saw(doubtful.join("; "))
        .fix("Nothing, once: the next commit mends it. Again and again: somebody else commits for this group");
    }
    Finding::ok(
        GROUP_CONSUMER_SET,
        "every consumer that worked in the group is configured here",
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::consumers::Consumer;
    use crate::doctor::finding::Severity;
    use crate::progress::{self, Found, frame};

    fn frame(names: &[(&str, i64)]) -> String {
        frame::write(&names.iter().map(|(name, mark)| ((*name).into(), *mark)).collect())
    }

    fn partition(offset: i64, end: i64, metadata: &str) -> Committed {
        Committed {
            topic: "crm.public.codes".to_owned(),
            partition: 2,
            found: Found {
                committed: Some(progress::Committed {
                    offset,
                    metadata: metadata.to_owned(),
                }),
                begin: 10,
                end,
            },
            safe_from: None,
        }
    }

    fn seen(members: Look<Members>, committed: Look<Vec<Committed>>) -> Seen {
        Seen {
            brokers: 1,
            topics: Vec::new(),
            members,
            committed,
            elsewhere: Ok(Vec::new()),
        }
    }

    fn judged(members: Look<Members>, committed: Look<Vec<Committed>>) -> Verdicts {
        judge(&seen(members, committed), "g", Consumer::ALL.into_iter().collect())
    }

    fn working() -> Look<Members> {
        Ok(Members {
            state: "Stable".to_owned(),
            members: vec!["crm-event-processors/0.1.0 at 10.0.0.1".to_owned()],
        })
    }

    #[test]
    fn a_worker_that_reads_is_well_and_one_that_is_gone_is_not() {
        let done = || Ok(vec![partition(20, 20, &frame(&[("marketplace", 20)]))]);
        let verdicts = judged(working(), done());
        assert_eq!(troubles(&verdicts), []);
        for id in [
            GROUP_UNREADABLE,
            GROUP_EMPTY,
            GROUP_ELSEWHERE,
            GROUP_CONSUMER_SET,
            GROUP_OUTSIDE_LOG,
            GROUP_LAG,
        ] {
            assert_eq!(of(&verdicts, id).severity, Severity::Ok);
        }
        for state in ["", "Empty", "Dead"] {
            let nobody = Members {
                state: state.to_owned(),
                members: Vec::new(),
            };
            let verdicts = judged(Ok(nobody), done());
            assert_eq!(troubles(&verdicts), [("group.empty", Severity::Failed)]);
        }
    }

    #[test]
    fn a_group_that_may_not_be_asked_about_is_named_with_its_grant() {
        for (members, committed) in [
            (working(), Err(Unseen::Refused)),
            (Err(Unseen::Refused), Ok(Vec::new())),
        ] {
            let verdicts = judged(members, committed);
            assert_eq!(troubles(&verdicts), [("group.unreadable", Severity::Failed)]);
            let fix = of(&verdicts, GROUP_UNREADABLE).fix.expect("a fix");
            assert!(fix.ends_with("--operations read --consumer-group g"), "{fix}");
            assert_eq!(of(&verdicts, GROUP_EMPTY).what, "group.unreadable first");
        }
        let late = Err(Unseen::Unknown("late".to_owned()));
        assert_eq!(
            of(&judged(working(), late), GROUP_LAG).severity,
            Severity::NotVerifiable
        );
    }

    #[test]
    fn a_consumer_that_has_its_progress_elsewhere_keeps_the_worker_from_starting() {
        let rivals = |elsewhere| {
            let seen = Seen {
                elsewhere,
                ..seen(working(), Ok(Vec::new()))
            };
            of(&judge(&seen, "g", Consumer::ALL.into_iter().collect()), GROUP_ELSEWHERE)
        };
        let found = rivals(Ok(vec!["g-tier".to_owned()]));
        assert_eq!(found.severity, Severity::Failed);
        assert!(found.what.contains("g-tier"), "{found:?}");
        assert_eq!(rivals(Err(Unseen::Refused)).severity, Severity::NotVerifiable);
    }

    #[test]
    fn what_is_committed_tells_of_gaps_of_other_consumers_and_of_lag() {
        let known = frame(&[("marketplace", 20)]);
        let other = frame(&[("marketplace", 25), ("gift", 20)]);
        for (one, id, severity) in [
            (partition(9, 20, &known), GROUP_OUTSIDE_LOG, Severity::Failed),
            (partition(21, 20, &known), GROUP_OUTSIDE_LOG, Severity::Failed),
            (partition(20, 30, &other), GROUP_CONSUMER_SET, Severity::Warning),
            (
                partition(20, 20, "somebody else's"),
                GROUP_CONSUMER_SET,
                Severity::Warning,
            ),
            (partition(20, 1021, &known), GROUP_LAG, Severity::Warning),
        ] {
            let verdicts = judged(working(), Ok(vec![one]));
            assert_eq!(troubles(&verdicts), [(id.name(), severity)]);
        }
        let verdicts = judged(working(), Ok(vec![partition(20, 30, &other)]));
        let fix = of(&verdicts, GROUP_CONSUMER_SET).fix.expect("a fix");
        assert!(fix.contains("--drop-consumer gift"), "{fix}");
        assert_eq!(
            of(&judged(working(), Ok(vec![partition(20, 1020, &known)])), GROUP_LAG).severity,
            Severity::Ok
        );
    }
}
