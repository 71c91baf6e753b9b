//! An explanation for people: what the record is, then a block a consumer and effect, aligned; a summary at the end. No colours.
//! Never prints a control character from outside.

use std::fmt;
use std::io::{self, Write};

use jiff::Timestamp;

use super::message::BadLine;
use super::verdict::{DeadLetter, Explanation, Facts, Fate, Outcome, Verdict};
use crate::debezium::{Control, Op};
use crate::inert::{self, clean};

/// Where the blocks of all consumers begin.
const MARGIN: &str = "              ";

/// How many records ended how.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// In the order of [`Outcome::ALL`].
    counts: [u64; Outcome::ALL.len()],
}

pub(in crate::cli) fn write(out: &mut impl Write, line: u64, explanation: &Explanation) -> io::Result<()> {
    write!(out, "line {line}")?;
    if let Fate::BadLine(bad) = &explanation.fate {
        return bad_line(out, bad);
    }
    match &explanation.topic {
        Some(topic) => write!(out, "  {}", clean(topic))?,
        None if explanation.bare => write!(out, "  bare envelope, topic unknown")?,
        None => write!(out, "  topic unknown")?,
    }
    if let Some(partition) = explanation.partition {
        write!(out, " [{partition}]")?;
    }
    if let Some(offset) = explanation.offset {
        write!(out, " @{offset}")?;
    }
    if let Some(key) = &explanation.key {
        write!(out, "  key {}", shown_key(key))?;
    }
    writeln!(out)?;
    change(out, &explanation.facts)?;
    match &explanation.fate {
        Fate::BadLine(_) => {}
        Fate::Control(control) => writeln!(out, "  control: {}", meaning(*control))?,
        Fate::Dead(dead) => {
            writeln!(out, "  dead letter for every consumer: {}", dead.reason)?;
            dead_letter(out, "    ", dead)?;
        }
        Fate::Decided(verdicts) => {
            for (consumer, decided) in verdicts {
                verdict(out, consumer.name(), decided)?;
            }
        }
    }
    writeln!(out)
}

fn bad_line(out: &mut impl Write, bad: &BadLine) -> io::Result<()> {
    if let Some(column) = bad.column {
        write!(out, ", column {column}")?;
    }
    writeln!(out, "  bad line\n  {}\n", clean(&bad.problem))
}

/// `create of purchase_ledger, row p-1, committed 2026-..., version 26461504`
fn change(out: &mut impl Write, facts: &Facts) -> io::Result<()> {
    let (Some(op), Some(table)) = (facts.op, &facts.table) else {
        return Ok(());
    };
    write!(out, "  {} of {}", word(op), clean(table))?;
    if let Some(row_id) = &facts.row_id {
        write!(out, ", row {}", clean(row_id))?;
    }
    if let Some(time) = facts.commit_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        write!(out, ", committed {time}")?;
    }
    if let Some(version) = &facts.version {
        write!(out, ", version {version}")?;
    }
    writeln!(out)
}

fn verdict(out: &mut impl Write, consumer: &str, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "  {consumer:<12}{:<9}{}", verdict.decision(), verdict.reason())?;
    match verdict {
        Verdict::Ignore(_) => Ok(()),
        Verdict::Refuse(dead) => dead_letter(out, MARGIN, dead),
        Verdict::Deliver(delivery) => {
            writeln!(out, "{MARGIN}effect   {}", clean(&delivery.effect_key))?;
            writeln!(out, "{MARGIN}claim    {}", clean(&delivery.claim))?;
            writeln!(out, "{MARGIN}event    {}", pretty(&delivery.event, MARGIN))
        }
    }
}

fn dead_letter(out: &mut impl Write, margin: &str, dead: &DeadLetter) -> io::Result<()> {
    writeln!(out, "{margin}to       {}", clean(&dead.queue))?;
    writeln!(out, "{margin}because  {}", clean(&dead.detail))
}

/// A key as a header line shows it: whole if it is short text, else by its size.
fn shown_key(key: &[u8]) -> String {
    const LONGEST: usize = 80;
    match std::str::from_utf8(key) {
        Err(_) => format!("of {} bytes, not UTF-8", key.len()),
        Ok(text) if text.len() > LONGEST => format!("of {} bytes", key.len()),
        Ok(text) => clean(text),
    }
}

/// Lays compact JSON out over lines. Unlike a value tree it keeps the order of the fields and every digit.
pub(super) fn pretty(json: &str, margin: &str) -> String {
    let mut out = String::with_capacity(json.len().saturating_mul(2));
    let mut depth = 0_usize;
    let (mut in_text, mut escaped) = (false, false);
    let mut characters = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(margin);
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if in_text {
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            inert::push(&mut out, character);
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                match characters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth = depth.saturating_add(1);
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                in_text = other == '"';
                out.push(other);
            }
        }
    }
    out
}

const fn word(op: Op) -> &'static str {
    match op {
        Op::Create => "create (c)",
        Op::Update => "update (u)",
        Op::Delete => "delete (d)",
        Op::Read => "snapshot read (r)",
        Op::Truncate => "truncate (t)",
    }
}

const fn meaning(control: Control) -> &'static str {
    match control {
        Control::Tombstone => "tombstone (no value; follows a delete), acknowledged without a decision",
        Control::Heartbeat => "heartbeat of the connector, acknowledged without a decision",
        Control::Transaction => "transaction marker of the connector, acknowledged without a decision",
        Control::Signal => "row of the connector's signal table, acknowledged without a decision",
        Control::Message => "logical decoding message, acknowledged without a decision",
    }
}

impl Summary {
    pub(super) fn add(&mut self, explanation: &Explanation) {
        let outcome = explanation.outcome();
        for (count, counted) in self.counts.iter_mut().zip(Outcome::ALL) {
            *count = count.saturating_add(u64::from(outcome == counted));
        }
    }

    /// Whether something would be dead-lettered or could not be read.
    pub(super) fn has_findings(&self) -> bool {
        let mut counted = self.counts.iter().zip(Outcome::ALL);
        counted.any(|(count, outcome)| *count > 0 && outcome >= Outcome::DeadLetter)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        write!(f, "{all} {}", if all == 1 { "line" } else { "lines" })?;
        for (index, (count, outcome)) in self.counts.iter().zip(Outcome::ALL).enumerate() {
            let gap = if index == 0 { ":" } else { "," };
            write!(f, "{gap} {count} {}", outcome.name())?;
        }
        Ok(())
    }
}
