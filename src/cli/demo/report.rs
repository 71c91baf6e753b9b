//! What the demo says at the end: tables for people, one object for machines. It only shows; the checker has judged.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::checker::{Account, Balance, Reader};
use super::sabotage::Sabotage;
use crate::consumers::Consumer;
use crate::telemetry::Telemetry;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) events: u64,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) balance: Balance,
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
        self.stalled.is_none() && self.balance.balances() && self.balance.produced == self.events
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
            "sample_awards": samples,
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
        if !self.balance.samples.is_empty() {
            let _infallible = writeln!(text, "\nSample awards\n{}", self.samples());
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
        for column in [1, 2, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    fn books(&self) -> Table {
        let balance = &self.balance;
        let mut table = numbers(&["", "count", "what it means"]);
        for (name, count, meaning) in [
            (
                "eligible",
                balance.sum(|a| a.eligible),
                "changes that must come out, over all consumers",
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
            ("doubled", balance.doubled(), "two distinct ids accepted for one change"),
            (
                "stale",
                balance.sum(|a| a.stale),
                "purchases whose last accepted state is not their last",
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
            "NOT BALANCED: {} lost, {} doubled, {} stale, {} unexpected, {} of {} poison records dead-lettered.",
            balance.lost(),
            balance.doubled(),
            balance.sum(|account| account.stale),
            balance.unexpected.count,
            balance.dead_lettered,
            balance.poison,
        )
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
