//! The stages, each on one record again and again. Runs under callgrind, which counts what happens in [`counted_stage`].

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use crm_event_processors::consumers::{Consumer, Decision, Effect, Rules, decide};
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::inngest::EventBatch;
use crm_event_processors::loyalty::Programs;
use crm_event_processors::record::{Header, Headers, RecordView};
use crm_event_processors::rows::{Routed, route};
use jiff::Timestamp;
use serde::Deserialize;

use super::records::{PROGRAM, Writer};

/// Each stage works on so many records, all the same, and as often before anything is counted.
pub(crate) const RECORDS: u32 = 100;

/// 2026-11-20T12:00:00Z
const NOW_MS: i64 = 1_795_176_000_000;

/// In the order in which they run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    Decode,
    Route,
    /// By all five consumers.
    Decide,
    /// Whatever they decided to send.
    Serialise,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] = [Self::Decode, Self::Route, Self::Decide, Self::Serialise];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Route => "route",
            Self::Decide => "decide",
            Self::Serialise => "serialise",
        }
    }
}

/// A record: one of the benchmark, or a recorded one.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    from: From,
}

enum From {
    Benchmark { wrapped: bool },
    Recorded { file: &'static str, line: usize },
}

macro_rules! recorded {
    ($file:literal) => {
        include_str!(concat!("../../tests/fixtures/debezium/3.6.3.Final/", $file, ".jsonl"))
    };
}

const PURCHASES: &str = recorded!("purchase_stream");
const WRAPPED: &str = recorded!("schema_payload");
const OTHERS: &str = recorded!("other_ledgers");
const GRANTS: &str = recorded!("grants");

pub(crate) const CASES: [Case; 11] = [
    benchmark("benchmark bare", false),
    benchmark("benchmark wrapped", true),
    of("purchase completed", PURCHASES, 1),
    of("purchase refunded in part", PURCHASES, 2),
    of("purchase refunded", PURCHASES, 3),
    of("purchase completed, wrapped", WRAPPED, 1),
    of("wallet entry", OTHERS, 0),
    of("form", OTHERS, 2),
    of("mission claim", GRANTS, 0),
    of("referral qualified", GRANTS, 4),
    of("code redeemed", GRANTS, 7),
];

const fn benchmark(name: &'static str, wrapped: bool) -> Case {
    Case {
        name,
        from: From::Benchmark { wrapped },
    }
}

const fn of(name: &'static str, file: &'static str, line: usize) -> Case {
    Case {
        name,
        from: From::Recorded { file, line },
    }
}

/// As it was recorded; headers are names and values in turn.
#[derive(Debug, Deserialize)]
struct Message {
    topic: String,
    #[serde(default)]
    headers: Vec<Option<String>>,
    key: Option<String>,
    payload: Option<String>,
}

impl Case {
    fn is_other(&self) -> bool {
        matches!(self.from, From::Recorded { file, .. } if file == OTHERS)
    }

    fn message(&self) -> anyhow::Result<Message> {
        match self.from {
            From::Benchmark { wrapped } => {
                let mut writer = Writer::new(wrapped)?;
                let (key, value) = writer.write(1)?;
                Ok(Message {
                    topic: "crm.public.purchase_ledger".to_owned(),
                    headers: Vec::new(),
                    key: Some(key.to_owned()),
                    payload: Some(value.to_owned()),
                })
            }
            From::Recorded { file, line } => {
                let line = file.lines().nth(line).context("a recorded line")?;
                Ok(serde_json::from_str(line)?)
            }
        }
    }
}

/// What callgrind looks for by this name.
#[inline(never)]
fn counted_stage(work: &mut dyn FnMut()) {
    for _ in 0..RECORDS {
        work();
    }
}

/// Once for the caches, the allocator's and the decoder's among them, and once for the count.
fn warm_and_count(mut work: impl FnMut()) {
    for _ in 0..RECORDS {
        work();
    }
    counted_stage(&mut work);
}

/// Every case, every stage; says what kind of machine it sees.
pub(crate) fn run() -> anyhow::Result<()> {
    // In the benchmark's program neither a wallet entry nor a form counts for anything.
    let other = PROGRAM.replace(r#""metric": "spend""#, r#""metric": "points""#);
    let other = other.replace(
        r#"{"kind": "purchase_total"}"#,
        r#"{"kind": "form", "form_id": "form-1"}"#,
    );
    ensure!(
        other.contains("points") && other.contains("form-1"),
        "the program is another one"
    );
    let rules = |program: &str| anyhow::Ok(Rules::new(Arc::new(Programs::from_json(program)?), None));
    let (purchases, others) = (rules(PROGRAM)?, rules(&other)?);
    for case in &CASES {
        let rules = if case.is_other() { &others } else { &purchases };
        stages(case, rules).with_context(|| case.name)?;
    }
    println!("{}", machine());
    Ok(())
}

fn stages(case: &Case, rules: &Rules) -> anyhow::Result<()> {
    let message = case.message()?;
    let headers: Vec<Header<'_>> = message
        .headers
        .chunks(2)
        .map(|pair| Header {
            name: pair.first().and_then(Option::as_deref).unwrap_or_default(),
            value: pair.get(1).and_then(Option::as_deref).map(str::as_bytes),
        })
        .collect();
    let record = RecordView {
        topic: &message.topic,
        partition: 0,
        offset: 1,
        timestamp_ms: None,
        key: message.key.as_deref().map(str::as_bytes),
        value: message.payload.as_deref().map(str::as_bytes),
        headers: Headers(&headers),
    };
    let now = Timestamp::from_millisecond(NOW_MS)?;

    let mut decoder = Decoder::default();
    warm_and_count(|| drop(black_box(decoder.decode(black_box(&record)))));
    let Decoded::Change(change) = decoder.decode(&record)? else {
        anyhow::bail!("not a change");
    };

    warm_and_count(|| drop(black_box(route(record.topic, black_box(&change), DecimalMode::Text))));
    let Routed::Row(row) = route(record.topic, &change, DecimalMode::Text)? else {
        anyhow::bail!("not a row");
    };

    warm_and_count(|| {
        for consumer in Consumer::ALL {
            drop(black_box(decide(consumer, black_box(&row), rules, now)));
        }
    });
    let mut effects: Vec<Effect> = Vec::new();
    for consumer in Consumer::ALL {
        match decide(consumer, &row, rules, now) {
            Decision::Deliver(found) => effects.extend(found),
            Decision::Ignore(_) => {}
            refused => anyhow::bail!("refused: {refused:?}"),
        }
    }
    let mut batch = EventBatch::default();
    warm_and_count(|| {
        for effect in &effects {
            batch.push(black_box(&effect.event), NOW_MS);
        }
        // About as many as a request has.
        if batch.len() >= 100 {
            black_box(std::mem::take(&mut batch));
        }
    });
    ensure!(!effects.is_empty(), "a record that leads to nothing");
    Ok(())
}

/// Libraries look at the same when they choose among their ways.
pub(crate) fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let offers = if std::arch::is_x86_feature_detected!("avx2") {
        " with AVX2"
    } else {
        ""
    };
    #[cfg(not(target_arch = "x86_64"))]
    let offers = "";
    format!("{}{offers}", std::env::consts::ARCH)
}
