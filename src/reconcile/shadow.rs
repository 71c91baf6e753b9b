//! A shadow's decisions beside what the running system did: takes lines and what is known, gives where the two differ.
//!
//! Per fact the newest line counts. The other side is the table `effects`, the wallet's entries of a purchase where `effects`
//! knows nothing of it, or a list of what another worker sent. Tiers and missions are evaluated, not decided: their lines
//! are counted and not compared. Bases are not compared either: a line holds no columns. It asks nobody and sends nothing.

use std::collections::BTreeMap;
use std::io::BufRead;

use jiff::Timestamp;
use serde_json::Value;

use super::balance::Difference;
use crate::consumers::{Consumer, EffectKey, Reason};
use crate::inngest::Side;
use crate::rows::{RowId, Table};
use crate::shadow::{Line, Said};

/// What a shadow wrote down, fact by fact.
#[derive(Debug, Default)]
pub struct Shadow {
    pub lines: usize,
    facts: BTreeMap<String, Fact>,
    /// Lines that ask for an evaluation.
    evaluations: usize,
    /// From when to when the lines of each table are, ms.
    windows: BTreeMap<&'static str, (i64, i64)>,
    findings: Vec<Difference>,
}

/// The newest decision about one fact.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fact {
    consumer: &'static str,
    /// Commit time and offset: which line is the newest.
    at: (i64, i64),
    says: Says,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Says {
    /// 0: nothing is to be.
    Target {
        target: i64,
        due_ms: Option<i64>,
    },
    /// Older than the cut-off: whatever there is, is none of ours.
    NotOurs,
    Dead(String),
}

/// What the running system did.
#[derive(Debug, Default)]
pub struct System(BTreeMap<String, Known>);

/// What it did about one fact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// `None`: something, it does not say how much.
    pub target: Option<i64>,
    /// `None` where it does not say.
    pub due_ms: Option<i64>,
    /// When it last changed.
    pub changed_ms: Option<i64>,
    /// The change that it is about.
    pub of_ms: Option<i64>,
    pub table: Option<Table>,
    /// Points in the wallet: they are there only when they are due.
    pub booked_when_due: bool,
}

/// How the two stand to each other.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    pub lines: usize,
    /// Facts that either side knows.
    pub facts: usize,
    pub agree: usize,
    /// They differ, and one of them is younger than the grace.
    pub in_flight: usize,
    /// Not due yet where only what is due can be seen.
    pub scheduled: usize,
    /// Older than the cut-off.
    pub not_ours: usize,
    /// Known to the system alone, and older than the shadow's lines.
    pub unseen: usize,
    /// Lines of tiers and missions.
    pub not_compared: usize,
    pub findings: Vec<Difference>,
}

/// How one fact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Agrees,
    InFlight,
    Scheduled,
    NotOurs,
    Unseen,
    OnlyShadow,
    OnlySystem,
    Differs,
    Dead,
}

/// When it is asked, and what is younger than this is on its way.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    pub now_ms: i64,
    pub grace_ms: i64,
}

impl Shadow {
    /// Reads one more file. A last line without an end is what a crash left of it: its record was not finished.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, name: &str, mut from: impl BufRead) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut number = 0_usize;
        loop {
            bytes.clear();
            if from.read_until(b'\n', &mut bytes)? == 0 || bytes.last() != Some(&b'\n') {
                return Ok(());
            }
            number += 1;
            match serde_json::from_slice::<Line<'_>>(&bytes) {
                Ok(line) => self.take(&line),
                Err(_) => self.find("unreadable", None, format!("{name}:{number}"), None),
            }
        }
    }

    fn take(&mut self, line: &Line<'_>) {
        self.lines += 1;
        let consumer = Consumer::ALL.into_iter().find(|one| one.name() == line.consumer);
        let table = line.table.as_deref().and_then(Table::from_name);
        let place = || format!("{}/{}:{}", line.topic, line.partition, line.offset);
        let (Some(consumer), Some(table), Some(commit_ms)) = (consumer, table, line.commit_ms) else {
            // It could not be decoded or routed: whatever it is about, nobody decides it.
            self.find("dead", None, place(), Some(line.reason.to_string()));
            return;
        };
        let window = self.windows.entry(table.name()).or_insert((commit_ms, commit_ms));
        *window = (window.0.min(commit_ms), window.1.max(commit_ms));
        if line.outcome != Said::Dead && line.effect_key.is_some() && line.target.is_none() {
            self.evaluations += 1;
            return;
        }
        let says = match line.outcome {
            Said::Dead => Says::Dead(line.reason.to_string()),
            _ if line.reason == Reason::BeforeCutOff.as_str() => Says::NotOurs,
            // What was fulfilled stays: it says nothing new.
            _ if line.reason == Reason::RedeemedBefore.as_str() => return,
            Said::Deliver | Said::Ignore => Says::Target {
                target: line.target.unwrap_or_default(),
                due_ms: line.due_at.as_deref().and_then(ms_of),
            },
        };
        let at = (commit_ms, line.offset);
        let keys = match (&line.effect_key, &line.row_id) {
            (Some(key), _) => vec![key.to_string()],
            (None, Some(row_id)) => keys_of(consumer, table, row_id),
            (None, None) => Vec::new(),
        };
        if keys.is_empty() && line.outcome == Said::Dead {
            self.find("dead", Some(consumer.name()), place(), Some(line.reason.to_string()));
        }
        for key in keys {
            let fact = Fact {
                consumer: consumer.name(),
                at,
                says: says.clone(),
            };
            match self.facts.get_mut(&key) {
                Some(known) if known.at > at => {}
                Some(known) => *known = fact,
                None => drop(self.facts.insert(key, fact)),
            }
        }
    }

    /// Whether a line tells of this fact.
    #[must_use]
    pub fn tells_of(&self, key: &str) -> bool {
        self.facts.contains_key(key)
    }

    /// Where the two differ.
    #[must_use]
    pub fn compare(self, system: &System, grace: Grace) -> Comparison {
        let mut comparison = Comparison {
            lines: self.lines,
            not_compared: self.evaluations,
            ..Comparison::default()
        };
        for (key, fact) in &self.facts {
            let known = system.0.get(key);
            comparison.count(place(fact, known, grace), key, Some(fact), known);
        }
        for (key, known) in system.0.iter().filter(|(key, _)| !self.facts.contains_key(*key)) {
            if known.is_something() {
                comparison.count(self.place_unknown(known, grace), key, None, Some(known));
            }
        }
        comparison.findings.extend(self.findings);
        comparison.findings.sort();
        comparison
    }

    /// Of what no line tells. What is older than the lines lies before the log's begin, what is younger the shadow has not
    /// read yet.
    fn place_unknown(&self, known: &Known, grace: Grace) -> Place {
        if grace.is_young(known.changed_ms) {
            return Place::InFlight;
        }
        let window = known.table.and_then(|table| self.windows.get(table.name()));
        match (known.of_ms, known.table, window) {
            // Nothing tells when it was.
            (None, _, _) | (_, None, _) => Place::OnlySystem,
            (Some(_), Some(_), None) => Place::Unseen,
            (Some(of_ms), Some(_), Some((first, last))) if of_ms < *first || of_ms > *last => Place::Unseen,
            (Some(_), Some(_), Some(_)) => Place::OnlySystem,
        }
    }

    fn find(&mut self, kind: &'static str, consumer: Option<&'static str>, subject: String, detail: Option<String>) {
        self.findings.push(Difference {
            kind,
            consumer,
            subject,
            detail,
        });
    }
}

impl System {
    /// What a worker sent: a line of JSON each, `{"name", "data": {"effect_key" or "purchase_id", "target_points"}}`, in the
    /// order of sending. The last line about a fact counts. Gives the numbers of lines that are not understood.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(from: impl BufRead) -> std::io::Result<(Self, Vec<usize>)> {
        let (mut system, mut unreadable) = (Self::default(), Vec::new());
        for (number, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str(&line).ok().as_ref().and_then(sent) {
                Some(Sent::About(key, known)) => drop(system.0.insert(key, known)),
                // An evaluation: nothing to be compared.
                Some(Sent::Evaluation) => {}
                None => unreadable.push(number + 1),
            }
        }
        Ok((system, unreadable))
    }

    pub fn knows(&mut self, key: String, known: Known) {
        self.0.insert(key, known);
    }

    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

impl Known {
    fn is_something(&self) -> bool {
        self.target != Some(0)
    }
}

impl Comparison {
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.findings.is_empty()
    }

    /// Lines of the other side that say nothing we can read.
    pub fn not_understood(&mut self, lines: &[usize]) {
        let finding = |line: &usize| Difference {
            kind: "unreadable",
            consumer: None,
            subject: format!("against:{line}"),
            detail: None,
        };
        self.findings.extend(lines.iter().map(finding));
        self.findings.sort();
    }

    fn count(&mut self, place: Place, key: &str, fact: Option<&Fact>, known: Option<&Known>) {
        self.facts += 1;
        let kind = match place {
            Place::Agrees => return self.agree += 1,
            Place::InFlight => return self.in_flight += 1,
            Place::Scheduled => return self.scheduled += 1,
            Place::NotOurs => return self.not_ours += 1,
            Place::Unseen => return self.unseen += 1,
            Place::OnlyShadow => "only_shadow",
            Place::OnlySystem => "only_system",
            Place::Differs => "differs",
            Place::Dead => "dead",
        };
        self.findings.push(Difference {
            kind,
            consumer: fact.map(|fact| fact.consumer),
            subject: key.to_owned(),
            detail: Some(detail(fact, known)),
        });
    }
}

impl Grace {
    fn is_young(self, at_ms: Option<i64>) -> bool {
        at_ms.is_some_and(|at_ms| self.now_ms.saturating_sub(at_ms) < self.grace_ms)
    }
}

fn place(fact: &Fact, known: Option<&Known>, grace: Grace) -> Place {
    let is_young = grace.is_young(Some(fact.at.0)) || known.is_some_and(|known| grace.is_young(known.changed_ms));
    let (target, due_ms) = match &fact.says {
        Says::NotOurs => return Place::NotOurs,
        Says::Dead(_) => return Place::Dead,
        Says::Target { target, due_ms } => (*target, *due_ms),
    };
    let is_something = known.is_some_and(Known::is_something);
    let other_due = match (due_ms, known.and_then(|known| known.due_ms)) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false,
    };
    let is_booked_when_due = known.is_none_or(|known| known.booked_when_due);
    let agrees = match known.map(|known| known.target) {
        None => target == 0,
        // Something, and it does not say how much.
        Some(None) => target != 0 && !other_due,
        Some(Some(theirs)) => theirs == target && (target == 0 || !other_due),
    };
    // What is due later shows in no wallet yet. Where `effects` would know it, it is asked first.
    let is_later = due_ms.is_some_and(|due_ms| grace.now_ms.saturating_sub(due_ms) < grace.grace_ms);
    match (agrees, is_young) {
        (true, _) => Place::Agrees,
        (false, true) => Place::InFlight,
        (false, false) if !is_something && is_later && is_booked_when_due => Place::Scheduled,
        (false, false) if known.is_none() => Place::OnlyShadow,
        (false, false) if target == 0 => Place::OnlySystem,
        (false, false) => Place::Differs,
    }
}

/// What each side says, for a person. Ids and numbers only.
fn detail(fact: Option<&Fact>, known: Option<&Known>) -> String {
    let due = |due_ms: Option<i64>| {
        let at = due_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.map_or_else(String::new, |at| format!(" due {at}"))
    };
    let shadow = match fact.map(|fact| &fact.says) {
        None => "no line".to_owned(),
        Some(Says::NotOurs) => "older than the cut-off".to_owned(),
        Some(Says::Dead(reason)) => format!("dead letter, {reason}"),
        Some(Says::Target { target, due_ms }) => format!("{target}{}", due(*due_ms)),
    };
    let system = match known.map(|known| (known.target, known.due_ms)) {
        None => "nothing".to_owned(),
        Some((None, due_ms)) => format!("something{}", due(due_ms)),
        Some((Some(target), due_ms)) => format!("{target}{}", due(due_ms)),
    };
    format!("shadow {shadow}, system {system}")
}

/// The facts of a row about which nothing is to be done. Tiers and missions have none of their own.
fn keys_of(consumer: Consumer, table: Table, row_id: &str) -> Vec<String> {
    let Some(row) = RowId::new(row_id) else {
        return Vec::new();
    };
    let keys = match (consumer, table) {
        (Consumer::Currency, Table::PurchaseLedger) => vec![EffectKey::award(&row)],
        (Consumer::Reward, Table::MissionClaims) => vec![EffectKey::grant(&row)],
        (Consumer::Reward, Table::ReferralLedger) => {
            vec![
                EffectKey::referral(&row, Side::Referrer),
                EffectKey::referral(&row, Side::Referee),
            ]
        }
        (Consumer::Marketplace, Table::Codes) => vec![EffectKey::code(&row)],
        _ => Vec::new(),
    };
    keys.into_iter().map(|key| key.as_str().to_owned()).collect()
}

enum Sent {
    About(String, Known),
    Evaluation,
}

/// The kinds of facts that are compared, as their keys begin, with the table of their rows where it is one alone.
const COMPARED: [(&str, Table); 4] = [
    ("award:", Table::PurchaseLedger),
    ("grant:", Table::MissionClaims),
    ("referral:", Table::ReferralLedger),
    ("code:", Table::Codes),
];

/// The table of the rows of a fact that is compared.
#[must_use]
pub fn table_of(key: &str) -> Option<Table> {
    COMPARED
        .iter()
        .find(|(begin, _)| key.starts_with(begin))
        .map(|(_, table)| *table)
}

/// One event as somebody sent it. Ours name the effect; another worker's must name the purchase.
fn sent(event: &Value) -> Option<Sent> {
    let name = event.get("name")?.as_str()?;
    let data = event.get("data")?;
    let key = match data.get("effect_key").and_then(Value::as_str) {
        Some(key) => key.to_owned(),
        None => EffectKey::award(&RowId::new(&text(data.get("purchase_id")?)?)?)
            .as_str()
            .to_owned(),
    };
    let Some(table) = table_of(&key) else {
        return Some(Sent::Evaluation);
    };
    let is_off = ["cancelled", "revoked"].iter().any(|word| name.ends_with(word));
    let target = ["target_points", "target", "points"]
        .iter()
        .find_map(|field| data.get(field));
    let target = match target {
        _ if is_off => Some(0),
        Some(target) => Some(text(target)?.parse().ok()?),
        None if table == Table::PurchaseLedger => None,
        // A grant is one or none.
        None => Some(1),
    };
    let as_of_ms = data.get("as_of_ms").or_else(|| event.get("ts")).and_then(Value::as_i64);
    let known = Known {
        target,
        due_ms: data.get("due_at").and_then(Value::as_str).and_then(ms_of),
        changed_ms: as_of_ms,
        of_ms: as_of_ms,
        table: Some(table),
        booked_when_due: false,
    };
    Some(Sent::About(key, known))
}

/// A text, or a whole number as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn ms_of(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
#[path = "shadow_tests.rs"]
mod tests;
