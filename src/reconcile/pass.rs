//! One pass: announcements that nobody sent, effects that somebody noted, the last two days, and a part of the rest.
//!
//! Takes rows page by page, gives a [`Report`]. What the database does not take of a page is halved until the culprit stands
//! alone and is a finding; what Inngest does not take now is left to the next pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::balance::verdicts;
use super::send::{Outbox, Sent, announcer};
use super::state::{Way, decide, newest_ms, read};
use super::{GRACE_MS, Reconciler};
use crate::consumers::{Consumer, Decision, Effect, EffectKey, Proof, Rules};
use crate::postgres::{Announcement, LedgerError, LedgerRow};
use crate::rows::Table;

/// What a pass did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows decided again.
    pub rows: usize,
    /// Events sent once more.
    pub heals: usize,
    /// Announcements sent.
    pub announced: usize,
    pub findings: BTreeSet<Finding>,
    /// Effects that are due for longer than a quarter of an hour: the sweeper's.
    pub overdue: i64,
}

/// Something that only a person can mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub kind: Kind,
    /// The effect, `<table>:<id>` of a row, or the table.
    pub subject: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sent four times over a day, and nothing came of it.
    Exhausted,
    /// Inngest will never take it.
    Rejected,
    /// The row cannot be read, or the database cannot work on it; or on what of a table a pass looks at.
    Unreadable,
    /// An effect whose row is gone.
    RowGone,
}

/// The most events and announcements that a pass sends.
const MAX_SENT: i32 = 1000;
/// Rows and effects of one call.
const PAGE: i32 = 400;
/// Rows of each ledger that a pass looks at whatever their age.
const ROLLING_PAGES: usize = 10;
const WINDOW_MS: i64 = 48 * 60 * 60 * 1000;
/// How old an announcement is that its own sender has given up.
const UNSENT_S: i32 = 60;
/// Findings that are logged one by one.
const MOST_LOGGED: usize = 20;

impl Kind {
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Rejected, Self::Unreadable, Self::RowGone];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::RowGone => "row_gone",
        }
    }
}

/// An effect that is to be compared.
struct Candidate {
    consumer: Consumer,
    effect: Effect,
    read_at_ms: i64,
    /// The newest time in its row.
    newest_ms: Option<i64>,
}

struct Pass<'a> {
    reconciler: &'a Reconciler,
    outbox: Outbox,
    consumers: Vec<Consumer>,
    rules: Arc<Rules>,
    now: Timestamp,
    /// Inngest does not take anything now.
    stopped: bool,
    /// How many may still be sent.
    left: usize,
    report: Report,
}

/// Why rows are looked at.
#[derive(Clone, Copy)]
enum Because<'a> {
    /// Somebody noted these effects; the other effects of their rows are not asked for.
    Suspect(&'a BTreeSet<String>),
    /// They are new. A tier that was evaluated since then is left alone.
    New,
    /// It is their turn.
    Turn,
}

pub(super) async fn run(reconciler: &Reconciler, consumers: Vec<Consumer>) -> Result<Report, LedgerError> {
    // A program that was not read yet would look like none.
    let rules = tokio::select! {
        biased;
        () = reconciler.shutdown.cancelled() => return Ok(Report::default()),
        rules = reconciler.ports.rules.newer_than(Instant::now()) => rules,
    };
    let mut pass = Pass {
        reconciler,
        outbox: Outbox::from(&reconciler.ports),
        consumers,
        rules,
        now: reconciler.ports.clock.now(),
        stopped: false,
        left: usize::try_from(MAX_SENT).unwrap_or(0),
        report: Report::default(),
    };
    let ended = pass.look_around().await;
    // What was found is told even if the pass could not go on.
    pass.tell(ended.is_ok());
    ended.map(|()| pass.report)
}

impl Pass<'_> {
    async fn look_around(&mut self) -> Result<(), LedgerError> {
        self.report.overdue = self.reconciler.books.overdue().await?;
        self.reconciler.ports.telemetry.overdue(self.report.overdue);
        let unsent = self.reconciler.books.unsent(UNSENT_S, MAX_SENT).await?;
        self.announce(&unsent).await?;
        let looked = self.suspects().await;
        self.survive("effects", looked)?;
        for table in self.tables() {
            let looked = self.window(table).await;
            self.survive(table.name(), looked)?;
        }
        for table in self.tables() {
            let looked = self.roll(table).await;
            self.survive(table.name(), looked)?;
        }
        Ok(())
    }

    /// What the database cannot answer of one table is told, and keeps the others from nothing.
    fn survive(&mut self, table: &str, looked: Result<(), LedgerError>) -> Result<(), LedgerError> {
        match looked {
            Err(error @ (LedgerError::Rejected(_) | LedgerError::TooLong(_) | LedgerError::Unknown(_))) => {
                tracing::warn!(table, %error, "the database cannot give what is to be looked at");
                self.find(Kind::Unreadable, table.to_owned());
                Ok(())
            }
            Err(error @ (LedgerError::Unavailable(_) | LedgerError::Configuration(_))) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Between pages: nobody wants the process to end, and nobody else has begun.
    async fn goes_on(&self) -> Result<bool, LedgerError> {
        Ok(!self.is_ending() && self.reconciler.keep_lease().await?)
    }

    fn is_ending(&self) -> bool {
        self.reconciler.shutdown.is_cancelled()
    }

    fn tables(&self) -> Vec<Table> {
        let reads = |table: &Table| self.consumers.iter().any(|consumer| consumer.reads(*table));
        Table::ALL.into_iter().filter(reads).collect()
    }

    /// What somebody noted: stale, missing, overdue.
    async fn suspects(&mut self) -> Result<(), LedgerError> {
        let suspects = self.reconciler.books.suspects(MAX_SENT).await?;
        let mut by_table: BTreeMap<Table, BTreeSet<&str>> = BTreeMap::new();
        for suspect in &suspects {
            by_table.entry(suspect.table).or_default().insert(&suspect.row_id);
        }
        let keys: BTreeSet<String> = suspects.iter().map(|suspect| suspect.effect_key.clone()).collect();
        for (table, ids) in by_table {
            if !self.tables().contains(&table) {
                continue;
            }
            let ids: Vec<&str> = ids.into_iter().collect();
            let rows = self.reconciler.books.rows_of(table, &ids).await?;
            for gone in ids.iter().filter(|id| rows.iter().all(|row| row.id != **id)) {
                self.find(Kind::RowGone, format!("{table}:{gone}"));
            }
            self.look(table, rows, Because::Suspect(&keys)).await?;
        }
        Ok(())
    }

    /// What is new.
    async fn window(&mut self, table: Table) -> Result<(), LedgerError> {
        let since_ms = self.now.as_millisecond().saturating_sub(WINDOW_MS);
        let mut after = None;
        while self.goes_on().await? {
            let books = &self.reconciler.books;
            let (rows, ended) = books.recent(table, since_ms, after.as_ref(), PAGE).await?;
            if ended.is_none() {
                break;
            }
            after = ended;
            self.look(table, rows, Because::New).await?;
        }
        Ok(())
    }

    /// A few pages of the whole ledger; the next pass goes on behind them.
    async fn roll(&mut self, table: Table) -> Result<(), LedgerError> {
        let name = format!("reconciler:{}:{table}", self.reconciler.group);
        let books = &self.reconciler.books;
        let mut after = books.bookmark(&name).await?;
        for _ in 0..ROLLING_PAGES {
            if !self.goes_on().await? {
                return Ok(());
            }
            let rows = books.page(table, after.as_deref(), PAGE).await?;
            after = rows.last().map(|row| row.id.clone());
            self.look(table, rows, Because::Turn).await?;
            if self.is_ending() {
                // Perhaps not all of it was looked at.
                return Ok(());
            }
            books.turn_page(&name, after.as_deref()).await?;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Decides these rows again and does what is missing.
    async fn look(&mut self, table: Table, rows: Vec<LedgerRow>, because: Because<'_>) -> Result<(), LedgerError> {
        self.report.rows += rows.len();
        let mut candidates = Vec::new();
        for row in rows {
            let change = match read(table, &row) {
                Ok(change) => change,
                Err(problem) => {
                    tracing::debug!(%table, id = row.id, problem, "a row that cannot be read");
                    self.find(Kind::Unreadable, format!("{table}:{}", row.id));
                    continue;
                }
            };
            for consumer in self.consumers.iter().copied().filter(|consumer| consumer.reads(table)) {
                // What is refused is in the dead letters.
                let Decision::Deliver(effects) = decide(consumer, &change, &self.rules, self.now) else {
                    continue;
                };
                candidates.extend(effects.into_iter().map(|effect| Candidate {
                    consumer,
                    effect,
                    read_at_ms: row.read_at_ms,
                    newest_ms: newest_ms(&change.row),
                }));
            }
        }
        if let Because::Suspect(keys) = because {
            candidates.retain(|candidate| keys.contains(candidate.effect.key.as_str()));
        }
        let size = usize::try_from(PAGE).unwrap_or(1);
        let starts = (0..candidates.len()).step_by(size);
        let mut parts: VecDeque<Range<usize>> = starts
            .map(|start| start..(start + size).min(candidates.len()))
            .collect();
        while let Some(part) = parts.pop_front().filter(|_| !self.is_ending()) {
            let chosen = candidates.get(part.clone()).unwrap_or_default();
            match self.settle(chosen, because).await {
                Err(LedgerError::Rejected(_) | LedgerError::TooLong(_) | LedgerError::Unknown(_)) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.push_front(middle..part.end);
                    parts.push_front(part.start..middle);
                }
                Err(error @ (LedgerError::Rejected(_) | LedgerError::TooLong(_) | LedgerError::Unknown(_))) => {
                    for candidate in chosen {
                        tracing::warn!(effect = %candidate.effect.key, %error, "the database cannot work on it");
                        self.find(Kind::Unreadable, candidate.effect.key.to_string());
                    }
                }
                Err(error @ (LedgerError::Unavailable(_) | LedgerError::Configuration(_))) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn settle(&mut self, candidates: &[Candidate], because: Because<'_>) -> Result<(), LedgerError> {
        let (mut heals, mut tiers, mut missions, mut settled) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let is_compared = |candidate: &&Candidate| {
            Way::of(&candidate.effect) != Way::Tiers || matches!(candidate.effect.proof, Proof::IfKnown(_))
        };
        let (compared, always): (Vec<&Candidate>, Vec<&Candidate>) = candidates.iter().partition(is_compared);
        tiers.extend(always);
        let effects: Vec<&Effect> = compared.iter().map(|candidate| &candidate.effect).collect();
        let verdicts = verdicts(&*self.reconciler.ledger, effects.into_iter()).await?;
        for (candidate, verdict) in compared.into_iter().zip(verdicts) {
            match Way::of(&candidate.effect) {
                Way::Event if verdict.is_open() => heals.push(candidate),
                Way::Tiers if verdict.is_open() => tiers.push(candidate),
                Way::Progress if verdict.is_open() => missions.push(candidate),
                Way::Event | Way::Tiers | Way::Progress => settled.push(candidate),
            }
        }
        if let (Because::Suspect(_), Some(read_at_ms)) = (because, settled.iter().map(|one| one.read_at_ms).min()) {
            let keys: Vec<&str> = settled.iter().map(|candidate| candidate.effect.key.as_str()).collect();
            self.reconciler.books.found_settled(&keys, read_at_ms).await?;
        }
        self.heal(&heals).await?;
        self.add_up(&missions).await?;
        self.evaluate(&tiers, because).await
    }

    /// Sends what is missing, if its time has come.
    async fn heal(&mut self, missing: &[&Candidate]) -> Result<(), LedgerError> {
        let room = if self.stopped { 0 } else { self.left };
        let missing = missing.get(..room.min(missing.len())).unwrap_or_default();
        if missing.is_empty() {
            return Ok(());
        }
        let books = &self.reconciler.books;
        let effects: Vec<&Effect> = missing.iter().map(|candidate| &candidate.effect).collect();
        let planned = books.plan_heals(&effects).await?;
        let mut due: BTreeMap<Consumer, Vec<Effect>> = BTreeMap::new();
        for (candidate, heal) in missing.iter().zip(planned) {
            match heal.number {
                0 => {}
                number @ 1.. => {
                    // Missed once more after it was in order, it has other ids: Inngest knows these for a day.
                    let mark = format!("{}#h{number}", heal.missed_ms);
                    let effect = candidate.effect.clone().marked(&mark);
                    due.entry(candidate.consumer).or_default().push(effect);
                }
                _ => self.find(Kind::Exhausted, candidate.effect.key.to_string()),
            }
        }
        for (consumer, effects) in due {
            let mut ended = 0;
            if !self.stopped {
                let sent = self.outbox.send(consumer, &effects).await;
                ended = sent.ended;
                self.report.heals += sent.accepted;
                self.left = self.left.saturating_sub(ended);
                self.outbox.telemetry.healed(consumer, sent.accepted);
                self.note(consumer, sent);
            }
            // Planned, but not sent: the same number is given again.
            let open: Vec<&str> = effects.iter().skip(ended).map(|effect| effect.key.as_str()).collect();
            if !open.is_empty() {
                self.reconciler.books.not_healed(&open).await?;
            }
        }
        Ok(())
    }

    /// Records what rows count for their missions. What lies in the dead letters is left alone.
    async fn add_up(&mut self, missing: &[&Candidate]) -> Result<(), LedgerError> {
        if missing.is_empty() {
            return Ok(());
        }
        let effects: Vec<&Effect> = missing.iter().map(|candidate| &candidate.effect).collect();
        let dead = self.reconciler.books.still_dead(&effects).await?;
        let effects: Vec<&Effect> = effects
            .into_iter()
            .zip(dead)
            .filter(|(_, dead)| !dead)
            .map(|(effect, _)| effect)
            .collect();
        if effects.is_empty() {
            return Ok(());
        }
        let announcements = self.reconciler.ledger.record_progress(&effects).await?;
        self.announce(&announcements).await
    }

    /// Evaluates tiers, one evaluation a member.
    async fn evaluate(&mut self, tiers: &[&Candidate], because: Because<'_>) -> Result<(), LedgerError> {
        let mut members: BTreeMap<&EffectKey, (Effect, Option<i64>)> = BTreeMap::new();
        for candidate in tiers {
            match members.get_mut(&candidate.effect.key) {
                Some((effect, newest_ms)) => {
                    let mut newer = candidate.effect.clone();
                    newer.absorb([&*effect]);
                    *effect = newer;
                    *newest_ms = (*newest_ms).max(candidate.newest_ms);
                }
                None => {
                    members.insert(&candidate.effect.key, (candidate.effect.clone(), candidate.newest_ms));
                }
            }
        }
        if matches!(because, Because::New) {
            let keys: Vec<&str> = members.keys().map(|key| key.as_str()).collect();
            let evaluated = self.reconciler.books.evaluated_at(&keys).await?;
            // An evaluation sees every row that was there: only what may have come after the last one needs another.
            members.retain(|key, (_, newest_ms)| match (evaluated.get(key.as_str()), newest_ms) {
                (Some(evaluated_ms), Some(newest_ms)) => *evaluated_ms < newest_ms.saturating_add(GRACE_MS),
                _ => true,
            });
        }
        if members.is_empty() {
            return Ok(());
        }
        let effects: Vec<&Effect> = members.values().map(|(effect, _)| effect).collect();
        let announcements = self.reconciler.ledger.evaluate_tiers(&effects).await?;
        self.announce(&announcements).await
    }

    async fn announce(&mut self, announcements: &[Announcement]) -> Result<(), LedgerError> {
        let mut by_consumer: BTreeMap<Consumer, Vec<&Announcement>> = BTreeMap::new();
        for announcement in announcements {
            let consumer = announcer(&announcement.name);
            if self.consumers.contains(&consumer) {
                by_consumer.entry(consumer).or_default().push(announcement);
            }
        }
        for (consumer, announcements) in by_consumer {
            let room = if self.stopped { 0 } else { self.left };
            // The rest is written down, and the next pass's.
            let chosen = announcements.get(..room.min(announcements.len())).unwrap_or_default();
            if chosen.is_empty() {
                continue;
            }
            let sent = self.outbox.announce(&*self.reconciler.ledger, consumer, chosen).await?;
            self.report.announced += sent.accepted;
            self.left = self.left.saturating_sub(sent.ended);
            self.note(consumer, sent);
        }
        Ok(())
    }

    /// What was not accepted.
    fn note(&mut self, consumer: Consumer, sent: Sent) {
        for (key, detail) in sent.rejected.into_iter().chain(sent.unknown) {
            tracing::warn!(effect = key, detail, "rejected");
            self.find(Kind::Rejected, key);
        }
        if let Some(detail) = sent.stopped {
            tracing::warn!(consumer = consumer.name(), detail, "nothing more is sent in this pass");
            self.stopped = true;
        }
    }

    fn find(&mut self, kind: Kind, subject: String) {
        self.report.findings.insert(Finding { kind, subject });
    }

    fn tell(&self, is_whole: bool) {
        let telemetry = &self.reconciler.ports.telemetry;
        telemetry.looked_at(self.report.rows);
        let count = |kind: Kind| {
            let findings = self.report.findings.iter();
            findings.filter(|finding| finding.kind == kind).count() as u64
        };
        telemetry.found(Kind::ALL.map(|kind| (kind.name(), count(kind))), is_whole);
        for Finding { kind, subject } in self.report.findings.iter().take(MOST_LOGGED) {
            tracing::error!(
                kind = kind.name(),
                subject,
                "the reconciler found what a person must look at"
            );
        }
    }
}
