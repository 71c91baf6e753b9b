//! The books: takes the ledgers as they are, gives how every fact of them stands, and whether the wallet has what was booked.
//!
//! The decisions and the comparison are those of a pass, but it counts everything and notes nothing. Asked to, it sends what
//! is missing through the pipeline's way, whatever the time: an operator wants it now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::send::{Outbox, Sent, announcer};
use super::state::{Verdict, Way, adds_nothing, decide, newest_ms, read};
use crate::consumers::{Consumer, Decision, Effect, Proof, Rules};
use crate::postgres::{Announcement, Books, EffectState, Ledger, LedgerError, LedgerRow, Standing, Unbalanced};
use crate::rows::Table;

/// What is asked.
pub struct Question {
    pub books: Books,
    pub ledger: Arc<dyn Ledger>,
    pub rules: Arc<Rules>,
    pub consumers: Vec<Consumer>,
    /// Only rows that have a time of this instant or later.
    pub since: Option<Timestamp>,
    /// What is younger is on its way.
    pub grace_ms: i64,
    pub now: Timestamp,
    /// Sends what is missing.
    pub redeliver: Option<Outbox>,
}

/// How everything stands.
#[derive(Debug, Default, serde::Serialize)]
pub struct Balance {
    pub rows: usize,
    /// By consumer.
    pub counts: BTreeMap<&'static str, Counts>,
    pub findings: Vec<Difference>,
    pub unbalanced: Vec<Unbalanced>,
    /// Claims and codes without a time that nothing is known of: taken as older than the cut-off. No finding.
    pub without_time: usize,
    /// Events accepted now, because it was asked for.
    pub redelivered: usize,
    /// Tiers, and rows for their missions, that the database evaluated now; what follows from it is among the events.
    pub evaluated: usize,
    /// Why not all of it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// The facts of one consumer: each is eligible, and stands in one of the other columns.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub eligible: usize,
    pub settled: usize,
    pub scheduled: usize,
    pub in_flight: usize,
    pub overdue: usize,
    pub missing: usize,
    pub differs: usize,
    pub stale: usize,
    pub dead: usize,
    pub review: usize,
    /// Announcements that nobody has sent for a minute; not among the facts.
    pub unsent: usize,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Difference {
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<&'static str>,
    /// The effect key, or `<table>:<id>` of a row.
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How one fact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Settled,
    Scheduled,
    InFlight,
    Overdue,
    Missing,
    Differs,
    Stale,
    Dead,
    Review,
}

/// Rows and effects of one call.
const PAGE: i32 = 400;
const UNSENT_S: i32 = 60;
/// More than anybody reads; JSON has them all.
const MOST_ANNOUNCEMENTS: i32 = 100_000;

impl Place {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Scheduled => "scheduled",
            Self::InFlight => "in_flight",
            Self::Overdue => "overdue",
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Stale => "stale",
            Self::Dead => "dead",
            Self::Review => "review",
        }
    }

    /// Where a fact stands; `None` if it is no fact: nothing to do, or none of ours.
    #[must_use]
    pub fn of(
        verdict: Verdict,
        state: Option<&EffectState>,
        is_dead: bool,
        age_ms: Option<i64>,
        grace_ms: i64,
    ) -> Option<Self> {
        let is_young = age_ms.is_some_and(|age_ms| age_ms < grace_ms);
        let is_in = |name: &str| state.is_some_and(|state| state.state == name);
        match verdict {
            Verdict::NotOurs | Verdict::Nothing => None,
            _ if is_in("review") => Some(Self::Review),
            Verdict::Known => Some(match state.and_then(|state| state.overdue_ms) {
                Some(overdue_ms) if overdue_ms < grace_ms => Self::InFlight,
                Some(_) => Self::Overdue,
                None if is_in("pending") => Self::Scheduled,
                None => Self::Settled,
            }),
            Verdict::Missing | Verdict::Differs if is_dead => Some(Self::Dead),
            Verdict::Missing | Verdict::Differs if is_young => Some(Self::InFlight),
            Verdict::Missing => Some(Self::Missing),
            Verdict::Differs if state.is_some_and(|state| state.stale_at.is_some()) => Some(Self::Stale),
            Verdict::Differs => Some(Self::Differs),
        }
    }

    const fn is_finding(self) -> bool {
        !matches!(self, Self::Settled | Self::Scheduled | Self::InFlight)
    }

    const fn is_redelivered(self) -> bool {
        matches!(self, Self::Missing | Self::Differs | Self::Stale)
    }
}

impl Counts {
    fn count(&mut self, place: Place) {
        self.eligible += 1;
        let column = match place {
            Place::Settled => &mut self.settled,
            Place::Scheduled => &mut self.scheduled,
            Place::InFlight => &mut self.in_flight,
            Place::Overdue => &mut self.overdue,
            Place::Missing => &mut self.missing,
            Place::Differs => &mut self.differs,
            Place::Stale => &mut self.stale,
            Place::Dead => &mut self.dead,
            Place::Review => &mut self.review,
        };
        *column += 1;
    }
}

impl Balance {
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.findings.is_empty() && self.unbalanced.is_empty()
    }
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

/// Walks the ledgers. `looked` is told of every page: the table, and how many rows more.
///
/// # Errors
/// The database fails.
pub async fn balance(question: &Question, looked: &(dyn Fn(Table, usize) + Sync)) -> Result<Balance, LedgerError> {
    let mut walk = Walk {
        question,
        looked,
        members: BTreeSet::new(),
        balance: Balance::default(),
    };
    for consumer in &question.consumers {
        walk.balance.counts.insert(consumer.name(), Counts::default());
    }
    let reads = |table: &Table| question.consumers.iter().any(|consumer| consumer.reads(*table));
    for table in Table::ALL.into_iter().filter(reads) {
        match question.since {
            Some(since) => walk.since(table, since).await?,
            None => walk.all(table).await?,
        }
    }
    walk.unsent().await?;
    walk.rejected().await?;
    walk.balance.unbalanced = question.books.unbalanced().await?;
    walk.balance.findings.sort();
    Ok(walk.balance)
}

struct Walk<'a> {
    question: &'a Question,
    looked: &'a (dyn Fn(Table, usize) + Sync),
    /// Whose tier was looked at: a member has many rows.
    members: BTreeSet<String>,
    balance: Balance,
}

/// A decided effect with the age of its row.
struct Decided {
    consumer: Consumer,
    effect: Effect,
    age_ms: Option<i64>,
    /// The row adds nothing to the sum of a tier.
    idle: bool,
}

impl Walk<'_> {
    async fn all(&mut self, table: Table) -> Result<(), LedgerError> {
        let mut after: Option<String> = None;
        loop {
            let rows = self.question.books.page(table, after.as_deref(), PAGE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.id.clone());
            self.look(table, rows).await?;
        }
    }

    async fn since(&mut self, table: Table, since: Timestamp) -> Result<(), LedgerError> {
        let mut after = None;
        loop {
            let books = &self.question.books;
            let (rows, ended) = books
                .recent(table, since.as_millisecond(), after.as_ref(), PAGE)
                .await?;
            if ended.is_none() {
                return Ok(());
            }
            after = ended;
            self.look(table, rows).await?;
        }
    }

    async fn look(&mut self, table: Table, rows: Vec<LedgerRow>) -> Result<(), LedgerError> {
        let count = rows.len();
        self.balance.rows += count;
        let mut decided = Vec::new();
        for row in rows {
            let change = match read(table, &row) {
                Ok(change) => change,
                Err(problem) => {
                    self.find("unreadable", None, format!("{table}:{}", row.id), Some(problem));
                    continue;
                }
            };
            let age_ms = newest_ms(&change.row).map(|newest_ms| row.read_at_ms.saturating_sub(newest_ms));
            for consumer in self
                .question
                .consumers
                .iter()
                .copied()
                .filter(|consumer| consumer.reads(table))
            {
                match decide(consumer, &change, &self.question.rules, self.question.now) {
                    Decision::Ignore(_) => {}
                    Decision::Refuse(refusal) => {
                        let subject = format!("{table}:{}", row.id);
                        self.find("refused", Some(consumer), subject, Some(refusal.to_string()));
                    }
                    Decision::RefuseIfKnown(refusal, key) => {
                        if self.question.ledger.knows(&key).await? {
                            self.find("refused", Some(consumer), key.to_string(), Some(refusal.to_string()));
                        }
                    }
                    Decision::Deliver(effects) => {
                        let rules = &self.question.rules;
                        let idle = consumer == Consumer::Tier && adds_nothing(&change, rules, self.question.now);
                        decided.extend(effects.into_iter().map(|effect| Decided {
                            consumer,
                            effect,
                            age_ms,
                            idle,
                        }));
                    }
                }
            }
        }
        for chunk in decided.chunks(usize::try_from(PAGE).unwrap_or(1)) {
            self.place(chunk).await?;
        }
        (self.looked)(table, count);
        Ok(())
    }

    async fn place(&mut self, decided: &[Decided]) -> Result<(), LedgerError> {
        let question = self.question;
        let verdicts = verdicts(&*question.ledger, decided.iter().map(|one| &one.effect)).await?;
        let keys: Vec<&str> = decided.iter().map(|one| one.effect.key.as_str()).collect();
        let states = question.books.states(&keys).await?;
        let effects: Vec<&Effect> = decided.iter().map(|one| &one.effect).collect();
        let dead = question.books.still_dead(&effects).await?;
        let mut missing: BTreeMap<Consumer, Vec<Effect>> = BTreeMap::new();
        for ((one, verdict), is_dead) in decided.iter().zip(verdicts).zip(dead) {
            let key = one.effect.key.as_str();
            let state = states.get(key);
            let is_tier = Way::of(&one.effect) == Way::Tiers;
            let verdict = match verdict {
                // Whether it is evaluated is all that one row can tell of a tier.
                Verdict::Missing | Verdict::Differs | Verdict::Known if is_tier => match state {
                    Some(state) if state.state != "missing" => Verdict::Known,
                    // A member who has only such rows has no tier to be evaluated: a purchase that was never paid, points spent.
                    _ if one.idle => Verdict::Nothing,
                    _ => Verdict::Missing,
                },
                other => other,
            };
            if verdict == Verdict::NotOurs && one.age_ms.is_none() {
                self.balance.without_time += 1;
            }
            let Some(place) = Place::of(verdict, state, is_dead, one.age_ms, question.grace_ms) else {
                continue;
            };
            if is_tier && !self.members.insert(key.to_owned()) {
                continue;
            }
            self.balance.counts.entry(one.consumer.name()).or_default().count(place);
            if place.is_finding() {
                let detail = state.and_then(|state| state.dead_reason.clone().or_else(|| review(state)));
                self.find(place.name(), Some(one.consumer), key.to_owned(), detail);
            }
            if place.is_redelivered() {
                missing.entry(one.consumer).or_default().push(one.effect.clone());
            }
        }
        self.redeliver(missing).await
    }

    async fn redeliver(&mut self, missing: BTreeMap<Consumer, Vec<Effect>>) -> Result<(), LedgerError> {
        let Some(outbox) = &self.question.redeliver else {
            return Ok(());
        };
        let ledger = &*self.question.ledger;
        for (consumer, effects) in missing {
            if self.balance.stopped.is_some() {
                return Ok(());
            }
            let borrowed: Vec<&Effect> = effects.iter().collect();
            let announcements = match effects.first().map(Way::of) {
                Some(Way::Tiers) => ledger.evaluate_tiers(&borrowed).await?,
                Some(Way::Progress) => ledger.record_progress(&borrowed).await?,
                Some(Way::Event) | None => {
                    // An id that was never sent: Inngest may know the others, and have run nothing.
                    let mark = format!("r{}", self.question.now.as_millisecond());
                    let effects: Vec<Effect> = effects.into_iter().map(|effect| effect.marked(&mark)).collect();
                    let sent = outbox.send(consumer, &effects).await;
                    self.sent(consumer, sent);
                    continue;
                }
            };
            self.balance.evaluated += borrowed.len();
            self.announce(&announcements).await?;
        }
        Ok(())
    }

    async fn announce(&mut self, announcements: &[Announcement]) -> Result<(), LedgerError> {
        let Some(outbox) = &self.question.redeliver else {
            return Ok(());
        };
        for consumer in [Consumer::Tier, Consumer::Mission] {
            let of_it = announcements.iter().filter(|one| announcer(&one.name) == consumer);
            let of_it: Vec<&Announcement> = of_it.collect();
            let is_asked = !of_it.is_empty() && self.question.consumers.contains(&consumer);
            if is_asked && self.balance.stopped.is_none() {
                let mut sent = outbox.announce(&*self.question.ledger, consumer, &of_it).await?;
                // They are marked, and found with those that were rejected before.
                sent.rejected.clear();
                self.sent(consumer, sent);
            }
        }
        Ok(())
    }

    fn sent(&mut self, consumer: Consumer, sent: Sent) {
        self.balance.redelivered += sent.accepted;
        for (key, detail) in sent.rejected.into_iter().chain(sent.unknown) {
            self.find("rejected", Some(consumer), key, Some(detail));
        }
        // What the target does not take now it takes of no later page either.
        self.balance.stopped = sent.stopped;
    }

    async fn unsent(&mut self) -> Result<(), LedgerError> {
        let unsent = self.question.books.unsent(UNSENT_S, MOST_ANNOUNCEMENTS).await?;
        for announcement in &unsent {
            let consumer = announcer(&announcement.name);
            if self.question.consumers.contains(&consumer) {
                self.balance.counts.entry(consumer.name()).or_default().unsent += 1;
                self.find("unsent", Some(consumer), announcement.id.to_string(), None);
            }
        }
        self.announce(&unsent).await
    }

    /// Rejected before, and noted nowhere else.
    async fn rejected(&mut self) -> Result<(), LedgerError> {
        for rejected in self.question.books.rejected().await? {
            let consumer = announcer(&rejected.name);
            if self.question.consumers.contains(&consumer) {
                self.find("rejected", Some(consumer), rejected.id, Some(rejected.reason));
            }
        }
        Ok(())
    }

    fn find(&mut self, kind: &'static str, consumer: Option<Consumer>, subject: String, detail: Option<String>) {
        self.balance.findings.push(Difference {
            kind,
            consumer: consumer.map(Consumer::name),
            subject,
            detail,
        });
    }
}

/// How `effects` stands to each of these decisions. What is older than the cut-off, and known by another key, is compared
/// under its own as well.
///
/// # Errors
/// The database fails.
pub async fn verdicts<'a>(
    ledger: &dyn Ledger,
    effects: impl Iterator<Item = &'a Effect>,
) -> Result<Vec<Verdict>, LedgerError> {
    let effects: Vec<&Effect> = effects.collect();
    let standings = ledger.compare(&effects).await?;
    let mut own = Vec::new();
    let mut verdicts = Vec::new();
    for (place, (effect, standing)) in effects.iter().zip(standings).enumerate() {
        let elsewhere = matches!(&effect.proof, Proof::IfKnown(key) if *key != effect.key);
        if elsewhere && standing != Standing::Absent {
            let effect = Effect {
                proof: Proof::Nothing,
                ..(*effect).clone()
            };
            own.push((place, effect));
        }
        verdicts.push(Verdict::of(effect, standing));
    }
    let again: Vec<&Effect> = own.iter().map(|(_, effect)| effect).collect();
    if !again.is_empty() {
        let standings = ledger.compare(&again).await?;
        for ((place, effect), standing) in own.iter().zip(standings) {
            if let Some(verdict) = verdicts.get_mut(*place) {
                *verdict = Verdict::of(effect, standing);
            }
        }
    }
    Ok(verdicts)
}

/// What a person is asked to look at.
fn review(state: &EffectState) -> Option<String> {
    state.detail.get("review")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_MS: i64 = 900_000;

    fn state(state: &str, overdue_ms: Option<i64>, stale: bool) -> EffectState {
        EffectState {
            effect_key: "award:p".to_owned(),
            kind: "award".to_owned(),
            source_table: None,
            source_id: None,
            merchant_id: "m".to_owned(),
            user_id: None,
            state: state.to_owned(),
            basis: None,
            target: 0,
            booked: 0,
            program_rev: 0,
            refund_policy: None,
            due_at: None,
            settled_at: None,
            stale_at: stale.then(|| "then".to_owned()),
            dead_reason: None,
            missed_since: None,
            heals: 0,
            healed_at: None,
            next_attempt_at: None,
            updated_at: "then".to_owned(),
            overdue_ms,
            detail: serde_json::Value::Null,
        }
    }

    #[test]
    fn every_fact_stands_in_one_place() {
        let (old, young) = (Some(GRACE_MS), Some(GRACE_MS - 1));
        for (verdict, state, is_dead, age_ms, place) in [
            (Verdict::NotOurs, None, false, old, None),
            (Verdict::Nothing, Some(state("settled", None, false)), false, old, None),
            (
                Verdict::Known,
                Some(state("settled", None, false)),
                false,
                old,
                Some(Place::Settled),
            ),
            (
                Verdict::Known,
                Some(state("pending", None, false)),
                false,
                old,
                Some(Place::Scheduled),
            ),
            (
                Verdict::Known,
                Some(state("pending", young, false)),
                false,
                old,
                Some(Place::InFlight),
            ),
            (
                Verdict::Known,
                Some(state("pending", old, false)),
                false,
                old,
                Some(Place::Overdue),
            ),
            (
                Verdict::Known,
                Some(state("review", None, false)),
                false,
                old,
                Some(Place::Review),
            ),
            (Verdict::Missing, None, false, young, Some(Place::InFlight)),
            (Verdict::Missing, None, false, old, Some(Place::Missing)),
            // A row without a time may be of any age: it is not excused.
            (Verdict::Missing, None, false, None, Some(Place::Missing)),
            (
                Verdict::Missing,
                Some(state("dead", None, false)),
                true,
                young,
                Some(Place::Dead),
            ),
            (
                Verdict::Differs,
                Some(state("settled", None, true)),
                false,
                old,
                Some(Place::Stale),
            ),
            (
                Verdict::Differs,
                Some(state("settled", None, false)),
                false,
                old,
                Some(Place::Differs),
            ),
        ] {
            let found = Place::of(verdict, state.as_ref(), is_dead, age_ms, GRACE_MS);
            assert_eq!(found, place, "{verdict:?} {state:?}");
        }
    }
}
