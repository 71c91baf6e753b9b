use super::super::tests::{of, troubles};
use super::*;
use crate::config::Secret;
use crate::doctor::finding::Severity;
use crate::kafka::Members;
use crate::progress::{self, Found};

pub(crate) fn connection(key: bool) -> Connection {
    Connection {
        bootstrap_servers: "b:9092".to_owned(),
        security_protocol: "PLAINTEXT".to_owned(),
        api_key: key.then(|| Secret::new("sentinel-key")),
        api_secret: key.then(|| Secret::new("sentinel-secret")),
        ca_file: None,
    }
}

fn topic(name: &str, role: Role) -> Topic {
    let limit = if role == Role::Source { 1 << 20 } else { 2 << 20 };
    Topic {
        name: name.to_owned(),
        role,
        visible: Ok(Visible::There {
            partitions: 6,
            offline: Vec::new(),
        }),
        right: Some(Right::Granted),
        settings: Ok(Settings {
            retention_ms: Some(WEEK_MS),
            retention_bytes: Some(-1),
            cleanup_policy: Some("delete".to_owned()),
            max_message_bytes: Some(limit),
        }),
    }
}

fn seen() -> Seen {
    Seen {
        brokers: 3,
        topics: vec![
            topic("crm.public.codes", Role::Source),
            topic("crm.dlq.tier", Role::DeadLetters),
        ],
        members: Ok(Members {
            state: "Stable".to_owned(),
            members: vec!["w at h".to_owned()],
        }),
        committed: Ok(vec![committed(100, 100)]),
        elsewhere: Ok(Vec::new()),
    }
}

fn committed(offset: i64, end: i64) -> Committed {
    Committed {
        topic: "crm.public.codes".to_owned(),
        partition: 0,
        found: Found {
            committed: Some(progress::Committed {
                offset,
                metadata: String::new(),
            }),
            begin: 0,
            end,
        },
        safe_from: Some(50),
    }
}

/// Changes what is well, and gives what is said of it.
fn judged(change: impl FnOnce(&mut Seen), key: bool) -> Verdicts {
    let mut seen = seen();
    change(&mut seen);
    judge(&Ok(seen), &connection(key))
}

#[test]
fn what_is_well_is_said_of_every_id() {
    for key in [true, false] {
        let verdicts = judged(|_| {}, key);
        assert_eq!(troubles(&verdicts), []);
        for id in crate::doctor::catalogue::ALL
            .iter()
            .filter(|id| id.area() == Area::Kafka)
        {
            assert_eq!(of(&verdicts, *id).severity, Severity::Ok, "{id:?}");
        }
    }
}

#[test]
fn a_trouble_on_the_way_is_named_and_explains_the_rest() {
    let text = || "cause".to_owned();
    for (trouble, id) in [
        (Trouble::Name(text()), KAFKA_DNS),
        (Trouble::Silent(text()), KAFKA_UNREACHABLE),
        (Trouble::Settings(text()), KAFKA_TLS),
        (
            Trouble::Tls {
                cause: text(),
                mend: text(),
            },
            KAFKA_TLS,
        ),
        (
            Trouble::Key {
                cause: text(),
                mend: text(),
            },
            KAFKA_AUTH,
        ),
    ] {
        let verdicts = judge(&Err(trouble), &connection(true));
        assert_eq!(troubles(&verdicts), [(id.name(), Severity::Failed)]);
        let rest = of(&verdicts, TOPIC_MISSING);
        assert_eq!(rest.what, format!("{} first", id.name()));
        assert!(!format!("{verdicts:?}").contains("sentinel"));
    }
}

#[test]
fn a_missing_topic_comes_with_the_command_that_makes_it() {
    let missing = |seen: &mut Seen| {
        seen.topics
            .iter_mut()
            .for_each(|topic| topic.visible = Ok(Visible::Missing));
    };
    let verdicts = judged(missing, true);
    let fix = of(&verdicts, TOPIC_MISSING).fix.expect("a fix");
    assert!(
        fix.starts_with("confluent kafka topic create crm.public.codes --partitions 6\n"),
        "{fix}"
    );
    assert_eq!(of(&verdicts, DLQ_MISSING).severity, Severity::Failed);
    let fix = of(&judged(missing, false), DLQ_MISSING).fix.expect("a fix");
    assert!(
        fix.starts_with(
            "kafka-topics --bootstrap-server b:9092 --create --topic crm.dlq.tier --partitions 1 --config max.message.bytes=1114112\n"
        ),
        "{fix}"
    );
}

#[test]
fn a_grant_that_is_missing_comes_with_the_command_that_gives_it() {
    for hidden in [true, false] {
        let verdicts = judged(
            |seen| {
                for topic in &mut seen.topics {
                    match hidden {
                        true => (topic.visible, topic.right) = (Err(Unseen::Refused), None),
                        false => topic.right = Some(Right::Refused),
                    }
                }
            },
            true,
        );
        for (id, command) in [
            (TOPIC_UNREADABLE, "--operations read --topic crm.public.codes"),
            (DLQ_UNWRITABLE, "--operations write --topic crm.dlq.tier"),
        ] {
            let finding = of(&verdicts, id);
            assert_eq!(finding.severity, Severity::Failed);
            let fix = finding.fix.expect("a fix");
            assert!(fix.contains(command), "{fix}");
            assert_eq!(fix.contains("TOPIC_PREFIX"), hidden);
        }
        assert_eq!(
            of(&verdicts, TOPIC_MISSING).severity,
            if hidden { Severity::NotVerifiable } else { Severity::Ok },
            "hidden is not missing, and not there either"
        );
    }
}

#[test]
fn a_right_that_nobody_could_try_is_not_taken_for_granted() {
    let verdicts = judged(
        |seen| seen.topics[1].right = Some(Right::Unknown("late".to_owned())),
        true,
    );
    assert_eq!(of(&verdicts, DLQ_UNWRITABLE).severity, Severity::NotVerifiable);
    let late = Err(Unseen::Unknown("late".to_owned()));
    let verdicts = judged(|seen| seen.topics[0].visible = late, true);
    assert_eq!(of(&verdicts, TOPIC_MISSING).severity, Severity::NotVerifiable);
}

#[test]
fn a_partition_that_nobody_leads_is_named() {
    let verdicts = judged(
        |seen| {
            seen.topics[0].visible = Ok(Visible::There {
                partitions: 2,
                offline: vec![1],
            });
        },
        false,
    );
    assert_eq!(troubles(&verdicts), [("topic.offline", Severity::Failed)]);
}

#[test]
fn retention_is_compared_with_a_weekend_and_with_what_is_not_read_yet() {
    let retention = |ms: i64, next: i64| {
        judged(
            |seen| {
                let settings = seen.topics[0].settings.as_mut().expect("known");
                settings.retention_ms = Some(ms);
                seen.committed = Ok(vec![committed(next, 100)]);
            },
            true,
        )
    };
    for (ms, next, severity) in [
        (WEEK_MS, 100, Severity::Ok),
        (WEEK_MS, 50, Severity::Ok),
        (-1, 0, Severity::Ok),
        (SHORT_MS, 100, Severity::Ok),
        (SHORT_MS - 1, 100, Severity::Warning),
        (WEEK_MS, 49, Severity::Failed),
    ] {
        let finding = of(&retention(ms, next), TOPIC_RETENTION);
        assert_eq!(finding.severity, severity, "{ms} {next}: {finding:?}");
    }
    let finding = of(&retention(WEEK_MS, 20), TOPIC_RETENTION);
    assert_eq!(finding.evidence.as_deref(), Some("partition 0: 30 from offset 20 on"));
    let fix = finding.fix.expect("a fix");
    assert!(
        fix.starts_with("confluent kafka topic update crm.public.codes --config retention.ms="),
        "{fix}"
    );
    let blind: [fn(&mut Seen); 4] = [
        |seen| seen.committed = Err(Unseen::Refused),
        |seen| {
            let mut lagging = committed(20, 100);
            lagging.safe_from = None;
            seen.committed = Ok(vec![lagging]);
        },
        |seen| seen.topics[0].settings.as_mut().expect("known").retention_ms = None,
        |seen| seen.topics[0].settings = Err(Unseen::Unknown("late".to_owned())),
    ];
    for change in blind {
        assert_eq!(
            of(&judged(change, true), TOPIC_RETENTION).severity,
            Severity::NotVerifiable
        );
    }
    let short_of: [fn(&mut Settings); 2] = [
        |settings| settings.retention_bytes = Some(1 << 30),
        |settings| settings.cleanup_policy = Some("compact".to_owned()),
    ];
    for change in short_of {
        let verdicts = judged(|seen| change(seen.topics[0].settings.as_mut().expect("known")), true);
        assert_eq!(troubles(&verdicts), [("topic.retention", Severity::Warning)]);
    }
    let verdicts = judged(|seen| seen.topics[0].settings = Err(Unseen::Refused), true);
    let finding = of(&verdicts, TOPIC_RETENTION);
    assert_eq!(finding.severity, Severity::NotVerifiable);
    assert!(finding.fix.expect("a fix").contains("--operations describe-configs"));
}

#[test]
fn a_topic_that_would_lose_letters_is_named_with_its_settings() {
    let settings: [fn(&mut Settings); 3] = [
        |settings| settings.cleanup_policy = Some("compact,delete".to_owned()),
        |settings| settings.max_message_bytes = Some(1 << 20),
        |settings| settings.retention_ms = Some(1000),
    ];
    for change in settings {
        let verdicts = judged(|seen| change(seen.topics[1].settings.as_mut().expect("known")), false);
        assert_eq!(troubles(&verdicts), [("dlq.settings", Severity::Warning)]);
    }
}

#[test]
fn topics_of_which_the_same_is_to_be_said_stand_together() {
    let small = |seen: &mut Seen| {
        for name in ["crm.dlq.tier", "crm.dlq.decode"] {
            let mut topic = topic(name, Role::DeadLetters);
            topic.settings.as_mut().expect("known").max_message_bytes = Some(1 << 20);
            seen.topics.push(topic);
        }
        seen.topics[1] = topic("crm.dlq.mission", Role::DeadLetters);
    };
    let finding = of(&judged(small, true), DLQ_SETTINGS);
    assert_eq!(
        finding.evidence.as_deref(),
        Some(
            "crm.dlq.tier, crm.dlq.decode: it takes 1.0 MiB, and a letter is a record of up to 1.0 MiB and its reason"
        )
    );
    let fix = finding.fix.expect("a fix");
    assert_eq!(
        fix.lines().collect::<Vec<_>>(),
        ["tier", "decode"]
            .map(|queue| format!("confluent kafka topic update crm.dlq.{queue} --config max.message.bytes=1114112"))
    );
}
