//! What the demo says at the end: tables for people, one object for machines. It only shows; the checker has judged.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::balance::{Account, Balance, Reader};
use super::checker::Chapter;
use super::label::STORY;
use super::sabotage::Sabotage;
use super::settler::{Outcome, Settled, Settlement};
use crate::consumers::Consumer;
use crate::telemetry::Telemetry;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) events: u64,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) balance: Balance,
    pub(super) story: Vec<Chapter>,
    /// `None` if nobody awards.
    pub(super) settlement: Option<Settlement>,
    pub(super) outcomes: Vec<Outcomes>,
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
    /// Part of `elapsed` in which no worker had partitions.
    pub(super) joining: Duration,
    pub(super) stalled: Option<String>,
}

/// What both workers of the demo counted, by consumer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcomes {
    consumer: Consumer,
    duplicates: u64,
    ignored: u64,
    dead_lettered: u64,
}

impl Outcomes {
    pub(super) fn of(consumer: Consumer, telemetry: &Telemetry) -> Self {
        let count = |outcome| telemetry.outcomes(consumer, outcome);
        let (duplicates, ignored) = (count("duplicate"), count("ignored"));
        Self {
            consumer,
            duplicates,
            ignored,
            dead_lettered: count("dead_lettered"),
        }
    }
}

impl Report {
    pub(super) fn balanced(&self) -> bool {
        let settled = self.settlement.as_ref().is_none_or(Settlement::is_even);
        self.stalled.is_none() && self.balance.balances() && settled && self.balance.produced == self.events
    }

    fn duplicates(&self) -> u64 {
        self.outcomes.iter().map(|outcomes| outcomes.duplicates).sum()
    }

    fn working(&self) -> Duration {
        self.elapsed.saturating_sub(self.joining)
    }

    fn per_second(&self, time: Duration) -> f64 {
        let seconds = time.as_secs_f64();
        if seconds > 0.0 {
            (self.balance.produced as f64 / seconds).round()
        } else {
            0.0
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Account, Outcomes)> {
        self.balance.accounts.iter().filter_map(|(reader, account)| {
            let of = |outcomes: &&Outcomes| outcomes.consumer.name() == Reader::name(*reader);
            Some((reader.name(), account, *self.outcomes.iter().find(of)?))
        })
    }

    pub(super) fn json(&self) -> Value {
        let balance = &self.balance;
        let consumers: Map<String, Value> = self
            .rows()
            .map(|(name, account, outcomes)| {
                let block = json!({
                    "eligible": account.eligible,
                    "delivered": account.delivered,
                    "superseded": account.superseded,
                    "resent": account.resent,
                    "duplicates_suppressed": outcomes.duplicates,
                    "ignored": outcomes.ignored,
                    "dead_lettered": outcomes.dead_lettered,
                    "lost": account.lost,
                    "doubled": account.doubled,
                    "stale": account.stale,
                });
                (name.to_owned(), block)
            })
            .collect();
        let samples: Vec<Value> = balance
            .samples
            .iter()
            .map(|sample| {
                json!({
                    "merchant": sample.merchant, "amount": sample.amount, "refunded": sample.refunded, "points": sample.points,
                    "due_at": sample.due_at, "id": sample.id,
                })
            })
            .collect();
        let kinds: Map<String, Value> = balance
            .kinds
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), kind.count.into()))
            .collect();
        json!({
            "seed": self.seed,
            "sabotage": self.sabotage.map(name_of),
            "produced": balance.produced,
            "eligible": balance.sum(|account| account.eligible),
            "delivered": balance.sum(|account| account.delivered),
            "superseded": balance.sum(|account| account.superseded),
            "resent": balance.sum(|account| account.resent),
            "duplicates_suppressed": self.duplicates(),
            "dead_lettered": balance.dead_lettered,
            "poison": balance.poison,
            "repeated_dead_letters": balance.repeated_letters,
            "lost": balance.lost(),
            "doubled": balance.doubled(),
            "stale": balance.sum(|account| account.stale),
            "unexpected": balance.unexpected.count,
            "unexpected_examples": balance.unexpected.examples,
            "requests": self.requests,
            "elapsed_seconds": seconds(self.elapsed),
            "joining_seconds": seconds(self.joining),
            "events_per_second": self.per_second(self.elapsed),
            "events_per_second_working": self.per_second(self.working()),
            "consumers": consumers,
            "events": kinds,
            "sample_awards": samples,
            "refunded_purchase": self.chapters(),
            "settled": self.settlement.as_ref().map(|settlement| {
                json!({
                    "targets": settlement.targets,
                    "in_order": settled(&settlement.in_order, settlement.astray[0]),
                    "shuffled": settled(&settlement.shuffled, settlement.astray[1]),
                })
            }),
            "stalled": self.stalled,
            "balanced": self.balanced(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{} records, seed {}: a worker, a crash in the middle with records in flight, another worker{}.\n\
             {:.1} s, {:.1} s of them joining the group: {} records/s in the others, {} requests.\n\nConsumers\n{}",
            self.balance.produced,
            self.seed,
            self.sabotage
                .map(|how| format!(", sabotaged ({})", name_of(how)))
                .unwrap_or_default(),
            self.elapsed.as_secs_f64(),
            self.joining.as_secs_f64(),
            self.per_second(self.working()),
            self.requests,
            self.consumers(),
        );
        if !self.balance.kinds.is_empty() {
            let _infallible = writeln!(text, "\nEvents accepted, repeats included\n{}", self.kinds());
        }
        if !self.balance.samples.is_empty() {
            let _infallible = writeln!(text, "\nSample awards\n{}", self.samples());
        }
        if let Some(settlement) = &self.settlement {
            let _infallible = writeln!(
                text,
                "\nOne purchase, refunded in two steps, and what is booked when its awards are settled\n{}\n\n\
                 All purchases, settled in the order in which their awards were accepted, and in a shuffled one\n{}",
                self.told(settlement),
                orders(settlement),
            );
        }
        let _infallible = writeln!(text, "\nThe books\n{}", self.books());
        for example in &self.balance.unexpected.examples {
            let _infallible = writeln!(text, "unexpected: {example}");
        }
        if let Some(stalled) = &self.stalled {
            let _infallible = writeln!(text, "ended early: {stalled}");
        }
        text.push_str(&self.verdict());
        text
    }

    fn consumers(&self) -> Table {
        let mut table = numbers(&[
            "consumer",
            "eligible",
            "delivered",
            "superseded",
            "duplicates",
            "resent",
            "ignored",
            "dead letters",
        ]);
        for (name, account, outcomes) in self.rows() {
            table.add_row([
                name.to_owned(),
                account.eligible.to_string(),
                account.delivered.to_string(),
                account.superseded.to_string(),
                outcomes.duplicates.to_string(),
                account.resent.to_string(),
                outcomes.ignored.to_string(),
                outcomes.dead_lettered.to_string(),
            ]);
        }
        table
    }

    fn samples(&self) -> Table {
        let mut table = plain();
        table.set_header(["merchant", "amount", "refunded", "points", "due", "id"]);
        for sample in &self.balance.samples {
            table.add_row([
                &sample.merchant,
                &sample.amount,
                &sample.refunded,
                &sample.points,
                &sample.due_at,
                &sample.id,
            ]);
        }
        right(&mut table, &[1, 2, 3]);
        table
    }

    fn kinds(&self) -> Table {
        let mut table = plain();
        table.set_header(["event", "count", "for example of"]);
        for (name, kind) in &self.balance.kinds {
            table.add_row([*name, &kind.count.to_string(), &kind.example]);
        }
        right(&mut table, &[1]);
        table
    }

    /// The story, for machines.
    fn chapters(&self) -> Vec<Value> {
        let chapter = |chapter: &Chapter| {
            let of = |settled: &Settled| {
                let outcomes = outcomes(settled, chapter.as_of_ms);
                let booked = |outcome: Outcome| match outcome {
                    Outcome::Booked(difference) => difference.into(),
                    Outcome::Stale => Value::from("stale"),
                };
                outcomes.map(booked).collect::<Vec<Value>>()
            };
            json!({
                "status": chapter.award.as_ref().map(|award| &award.status),
                "amount": chapter.award.as_ref().map(|award| &award.amount),
                "refunded": chapter.award.as_ref().map(|award| &award.refunded),
                "target": chapter.target,
                "accepted": chapter.award.is_some(),
                "in_order": self.settlement.as_ref().map(|settlement| of(&settlement.in_order)),
                "shuffled": self.settlement.as_ref().map(|settlement| of(&settlement.shuffled)),
            })
        };
        self.story.iter().map(chapter).collect()
    }

    /// The story, for people.
    fn told(&self, settlement: &Settlement) -> Table {
        let mut table = plain();
        table.set_header(["status", "amount", "refunded", "target", "due", "in order", "shuffled"]);
        let orders = [&settlement.in_order, &settlement.shuffled];
        for chapter in &self.story {
            let [in_order, shuffled] = orders.map(|settled| {
                let outcome = |outcome| match outcome {
                    Outcome::Booked(difference) => format!("{difference:+}"),
                    Outcome::Stale => "stale".to_owned(),
                };
                let outcomes: Vec<String> = outcomes(settled, chapter.as_of_ms).map(outcome).collect();
                outcomes.join(", ")
            });
            let target = chapter.target.to_string();
            match &chapter.award {
                Some(award) => table.add_row([
                    &award.status,
                    &award.amount,
                    &award.refunded,
                    &target,
                    &award.due_at,
                    &in_order,
                    &shuffled,
                ]),
                None => table.add_row(["(covered by a later one)", "", "", &target, "", "", ""]),
            };
        }
        let [in_order, shuffled] = orders.map(|settled| settled.booked(STORY).to_string());
        table.add_row(["= booked", "", "", "", "", &in_order, &shuffled]);
        right(&mut table, &[1, 2, 3, 5, 6]);
        table
    }

    fn books(&self) -> Table {
        let balance = &self.balance;
        let mut table = numbers(&["", "count", "what it means"]);
        for (name, count, meaning) in [
            (
                "eligible",
                balance.sum(|a| a.eligible),
                "what must come of the changes, over all consumers",
            ),
            (
                "= delivered",
                balance.sum(|a| a.delivered),
                "their own event was accepted",
            ),
            (
                "+ superseded",
                balance.sum(|a| a.superseded),
                "covered by the event of a newer change",
            ),
            ("+ lost", balance.sum(|a| a.lost), "nothing came of them"),
            ("poison", balance.poison, "records that cannot be processed"),
            (
                "= dead-lettered",
                balance.dead_lettered,
                "in a dead-letter topic; a crash may repeat one",
            ),
            (
                "skipped",
                balance.unburied,
                "poison without a dead letter: lost as well",
            ),
            (
                "doubled",
                balance.doubled(),
                "two distinct ids accepted for one of them",
            ),
            (
                "stale",
                balance.sum(|a| a.stale),
                "rows whose last accepted state is not their last",
            ),
            (
                "unexpected",
                balance.unexpected.count,
                "events or dead letters that nothing allows",
            ),
            (
                "resent",
                balance.sum(|a| a.resent),
                "the same id accepted again: harmless",
            ),
            ("suppressed", self.duplicates(), "found done already, not sent again"),
        ] {
            table.add_row([name.to_owned(), count.to_string(), meaning.to_owned()]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        table
    }

    fn verdict(&self) -> String {
        let balance = &self.balance;
        if self.balanced() {
            return "BALANCED: nothing lost, nothing doubled.".to_owned();
        }
        format!(
            "NOT BALANCED: {} lost, {} doubled, {} stale, {} unexpected, {} of {} poison records dead-lettered, {} purchases \
             booked wrongly.",
            balance.lost(),
            balance.doubled(),
            balance.sum(|account| account.stale),
            balance.unexpected.count,
            balance.dead_lettered,
            balance.poison,
            self.settlement.as_ref().map_or(0, |settlement| settlement.astray[0]),
        )
    }
}

/// What was done for the award of that time, repeats included.
fn outcomes(settled: &Settled, as_of_ms: i64) -> impl Iterator<Item = Outcome> {
    let of = settled.watched.iter().filter(move |(at_ms, _)| *at_ms == as_of_ms);
    of.map(|(_, outcome)| *outcome)
}

fn settled(settled: &Settled, astray: u64) -> Value {
    json!({
        "entries": settled.entries,
        "earned": settled.earned,
        "taken_back": settled.taken_back,
        "stale": settled.stale,
        "booked": settled.balance(),
        "purchases_booked_wrongly": astray,
    })
}

fn orders(settlement: &Settlement) -> Table {
    let mut table = numbers(&[
        "order",
        "entries",
        "earned",
        "taken back",
        "stale",
        "booked",
        "targets of the final rows",
        "booked wrongly",
    ]);
    for (name, settled, astray) in [
        ("as accepted", &settlement.in_order, settlement.astray[0]),
        ("shuffled", &settlement.shuffled, settlement.astray[1]),
    ] {
        table.add_row([
            name.to_owned(),
            settled.entries.to_string(),
            settled.earned.to_string(),
            settled.taken_back.to_string(),
            settled.stale.to_string(),
            settled.balance().to_string(),
            settlement.targets.to_string(),
            astray.to_string(),
        ]);
    }
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table
}

/// A table whose columns hold numbers, but for the first.
fn numbers(header: &[&str]) -> Table {
    let mut table = plain();
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn name_of(sabotage: Sabotage) -> &'static str {
    match sabotage {
        Sabotage::CommitEarly => "commit-early",
        Sabotage::NoDedupe => "no-dedupe",
        Sabotage::DropOne => "drop-one",
    }
}
