//! `dlq list`: what is open.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::selection::Selection;
use super::{age, drawer, settings};
use crate::cli::replay::flags::KafkaFlags;
use crate::cli::{Code, Format, print_json};
use crate::clock::{Clock as _, SystemClock};
use crate::dead_letters::filed::{Mark, Place, Provenance};
use crate::inert::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Every letter with its place.
    #[arg(long)]
    each: bool,
    /// Those that were replayed or dropped instead, each with what became of it, by whom and why.
    #[arg(long)]
    handled: bool,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    kafka: KafkaFlags,
}

#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Report {
    letters: usize,
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    each: Vec<One>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    handled: Vec<One>,
    /// Records in these topics that no worker wrote.
    foreign: Vec<Place>,
}

/// Letters of one queue, one topic and one reason.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Group {
    queue: &'static str,
    topic: String,
    reason: String,
    policy: bool,
    letters: usize,
    oldest_ms: i64,
    newest_ms: i64,
}

#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct One {
    place: Place,
    #[serde(flatten)]
    provenance: Provenance,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let letters = settings(&options.kafka)?;
    let filter = options.selection.filter();
    let drawer = drawer(&letters, options.selection.queue())?;
    let open = drawer.wanted(&filter);
    let handled = drawer
        .handled
        .iter()
        .filter(|(place, (letter, _))| options.handled && filter.wants(place, letter));
    let report = Report {
        letters: open.len(),
        groups: groups(&open),
        each: if options.each { each(&open) } else { Vec::new() },
        handled: handled
            .map(|(place, (provenance, mark))| One {
                place: *place,
                provenance: provenance.clone(),
                mark: Some(mark.clone()),
            })
            .collect(),
        foreign: drawer.foreign.into_keys().collect(),
    };
    match options.format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&report, options, SystemClock.now_ms()),
    }
    Ok(Code::Ok)
}

pub(super) fn each(open: &BTreeMap<Place, Provenance>) -> Vec<One> {
    let one = |(place, provenance): (&Place, &Provenance)| One {
        place: *place,
        provenance: provenance.clone(),
        mark: None,
    };
    open.iter().map(one).collect()
}

fn groups(open: &BTreeMap<Place, Provenance>) -> Vec<Group> {
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for (place, letter) in open {
        let written = letter.written_at_ms;
        let group = groups
            .entry((place.queue, &letter.topic, &letter.reason, letter.policy))
            .or_insert_with(|| Group {
                queue: place.queue.name(),
                topic: letter.topic.clone(),
                reason: letter.reason.clone(),
                policy: letter.policy,
                letters: 0,
                oldest_ms: written,
                newest_ms: written,
            });
        group.letters += 1;
        group.oldest_ms = group.oldest_ms.min(written);
        group.newest_ms = group.newest_ms.max(written);
    }
    groups.into_values().collect()
}

fn print(report: &Report, options: &Options, now_ms: i64) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if options.handled {
        table.set_header(["letter", "reason", "of", "became", "ago", "by", "because"]);
        for One {
            place,
            provenance,
            mark,
        } in &report.handled
        {
            let Some(mark) = mark else { continue };
            table.add_row([
                place.to_string(),
                clean(&provenance.reason),
                of(provenance),
                mark.fate.name().to_owned(),
                age(now_ms, mark.at_ms),
                clean(&mark.by),
                clean(&mark.because),
            ]);
        }
    } else if options.each {
        table.set_header(["letter", "reason", "of", "age", "detail"]);
        for One { place, provenance, .. } in &report.each {
            table.add_row([
                place.to_string(),
                clean(&provenance.reason),
                of(provenance),
                age(now_ms, provenance.written_at_ms),
                clean(&provenance.detail),
            ]);
        }
    } else {
        table.set_header(["consumer", "topic", "reason", "letters", "oldest", "newest"]);
        for group in &report.groups {
            table.add_row([
                group.queue.to_owned(),
                clean(&group.topic),
                clean(&group.reason),
                group.letters.to_string(),
                age(now_ms, group.oldest_ms),
                age(now_ms, group.newest_ms),
            ]);
        }
    }
    if table.row_count() > 0 {
        println!("{table}\n");
    }
    match report.letters {
        0 => println!("no open letters"),
        1 => println!("1 open letter"),
        count => println!("{count} open letters"),
    }
    if !report.foreign.is_empty() {
        let places: Vec<String> = report.foreign.iter().take(10).map(ToString::to_string).collect();
        println!(
            "{} records that no worker wrote: {}",
            report.foreign.len(),
            places.join(", ")
        );
    }
}

fn of(letter: &Provenance) -> String {
    format!("{}/{}/{}", clean(&letter.topic), letter.partition, letter.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(topic: &str, reason: &str, written_at_ms: i64) -> Provenance {
        Provenance {
            consumer: "currency".to_owned(),
            reason: reason.to_owned(),
            detail: String::new(),
            policy: false,
            topic: topic.to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            written_at_ms,
            version: String::new(),
        }
    }

    #[test]
    fn letters_are_counted_by_queue_topic_and_reason_with_the_oldest_and_the_newest() {
        let place = |text: &str| text.parse::<Place>().expect("a place");
        let open = BTreeMap::from([
            (place("decode/0/1"), letter("a", "not_json", 5)),
            (place("currency/0/1"), letter("a", "x", 30)),
            (place("currency/0/2"), letter("a", "x", 10)),
            (place("currency/1/1"), letter("a", "x", 20)),
            (place("currency/1/2"), letter("b", "x", 7)),
        ]);
        let told: Vec<_> = groups(&open)
            .into_iter()
            .map(|group| {
                (
                    group.queue,
                    group.topic,
                    group.letters,
                    group.oldest_ms,
                    group.newest_ms,
                )
            })
            .collect();
        let expected = [
            ("decode", "a".to_owned(), 1, 5, 5),
            ("currency", "a".to_owned(), 3, 10, 30),
            ("currency", "b".to_owned(), 1, 7, 7),
        ];
        assert_eq!(told, expected);
    }
}
