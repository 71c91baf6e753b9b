//! An explanation for machines: one JSON object a line, fields always in the same order. Never a control character.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use super::verdict::{DeadLetter, Explanation, Fate, Verdict, control_name};
use crate::debezium::Op;
use crate::inert::clean;

#[derive(Serialize)]
struct Object<'a> {
    line: u64,
    topic: Option<&'a str>,
    partition: Option<i32>,
    offset: Option<i64>,
    outcome: &'static str,
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_line: Option<Bad<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<Dead<'a>>,
    consumers: Vec<Decided<'a>>,
}

#[derive(Serialize)]
struct Bad<'a> {
    column: Option<usize>,
    problem: &'a str,
}

#[derive(Serialize)]
struct Dead<'a> {
    queue: &'a str,
    reason: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
struct Decided<'a> {
    consumer: &'static str,
    decision: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<Dead<'a>>,
}

pub(in crate::cli) fn write(out: &mut impl Write, line: u64, explanation: &Explanation) -> io::Result<()> {
    let facts = &explanation.facts;
    let mut object = Object {
        line,
        topic: explanation.topic.as_deref(),
        partition: explanation.partition,
        offset: explanation.offset,
        outcome: explanation.outcome().name(),
        reasons: explanation.reasons(),
        table: facts.table.as_deref(),
        op: facts.op.map(letter),
        row_id: facts.row_id.as_deref(),
        version: facts.version.as_deref(),
        commit_ms: facts.commit_ms,
        control: None,
        bad_line: None,
        dead_letter: None,
        consumers: Vec::new(),
    };
    match &explanation.fate {
        Fate::BadLine(bad) => {
            object.bad_line = Some(Bad {
                column: bad.column,
                problem: &bad.problem,
            });
        }
        Fate::Control(control) => object.control = Some(control_name(*control)),
        Fate::Dead(dead) => object.dead_letter = Some(Dead::from(dead)),
        Fate::Decided(verdicts) => {
            for (consumer, verdict) in verdicts {
                object.consumers.push(decided(consumer.name(), verdict)?);
            }
        }
    }
    let text = serde_json::to_string(&object)?;
    // Whatever is escaped here stands inside a string, where the escape means the same.
    writeln!(out, "{}", clean(&text))
}

fn decided<'a>(consumer: &'static str, verdict: &'a Verdict) -> serde_json::Result<Decided<'a>> {
    let mut decided = Decided {
        consumer,
        decision: verdict.decision(),
        reason: verdict.reason(),
        effect_key: None,
        claim: None,
        event: None,
        dead_letter: None,
    };
    match verdict {
        Verdict::Ignore(_) => {}
        Verdict::Deliver(delivery) => {
            decided.effect_key = Some(&delivery.effect_key);
            decided.claim = Some(&delivery.claim);
            decided.event = Some(serde_json::from_str(&delivery.event)?);
        }
        Verdict::Refuse(dead) => decided.dead_letter = Some(Dead::from(dead)),
    }
    Ok(decided)
}

impl<'a> From<&'a DeadLetter> for Dead<'a> {
    fn from(dead: &'a DeadLetter) -> Self {
        Self {
            queue: &dead.queue,
            reason: dead.reason,
            detail: &dead.detail,
        }
    }
}

const fn letter(op: Op) -> &'static str {
    match op {
        Op::Create => "c",
        Op::Update => "u",
        Op::Delete => "d",
        Op::Read => "r",
        Op::Truncate => "t",
    }
}
