//! `dlq`: dead letters for people. `list`, `show`, `replay`, `drop`.
//!
//! Takes the dead-letter topics as they lie, gives what is open in them, and marks what was done about a letter beside it
//! (`crate::dead_letters::filed`). It joins no group and deletes nothing. Only `show` prints what a record holds.

mod drop;
mod list;
mod replay;
mod selection;
mod shelf;
mod show;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::explain::DEMO_NOTE;
use super::replay::flags::KafkaFlags;
use super::{Code, Format};
use crate::config::{Flags, Letters};
use crate::dead_letters::Queue;
use crate::dead_letters::filed::{Drawer, Filter, Place};
use crate::kafka::{Edge, Reader, Span, StartError, Step};
use crate::record::RecordView;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// What is in the dead letters and open: by queue, original topic and reason.
    List(list::Options),
    /// One letter as `explain` shows it, with the record's own content: personal data may be in it.
    Show(show::Options),
    /// Send letters the normal way once more, each to the consumer whose letter it is, and mark them.
    Replay(Box<replay::Options>),
    /// Say that nothing is to be done about letters, and why.
    Drop(drop::Options),
}

pub(super) fn run(command: &Command) -> anyhow::Result<Code> {
    match command {
        Command::List(options) => list::run(options),
        Command::Show(options) => show::run(options),
        Command::Replay(options) => replay::run(options),
        Command::Drop(options) => drop::run(options),
    }
}

pub(super) use show::How;

/// The open letters that are wanted, those that were written first, and how many there are of them. For the console.
pub(super) fn told(letters: &Letters, filter: Filter) -> anyhow::Result<Value> {
    let drawer = drawer(letters, filter.queue)?;
    let shown = list::each(&drawer.wanted(&filter));
    let all = Filter { limit: None, ..filter };
    let open = drawer.open.iter().filter(|(place, letter)| all.wants(place, letter));
    Ok(json!({ "open": open.count(), "letters": shown, "foreign": drawer.foreign.len() }))
}

/// One letter, decoded. For the console.
pub(super) fn told_one(letters: &Letters, place: Place, how: &How, kafka: &Flags) -> anyhow::Result<Value> {
    let (mut explainer, is_demo) = how.explainer(kafka)?;
    let found = show::find(letters, place, Format::Text, &mut explainer)?;
    let provenance = found.letter(place)?;
    let explained = String::from_utf8_lossy(&found.explanation);
    Ok(json!({
        "place": place,
        "provenance": provenance,
        "mark": found.mark,
        "headers": found.headers,
        "value": found.value,
        "explained": explained,
        "note": is_demo.then_some(DEMO_NOTE),
    }))
}

/// Who did it, for the mark.
#[derive(Debug, clap::Args)]
struct Signature {
    /// Who says so; kept with the mark.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "unknown")]
    by: String,
}

/// How long one look for a record waits.
const WAIT: Duration = Duration::from_millis(100);

/// Reads everything that lies in these queues.
fn scan(letters: &Letters, queues: &[Queue], mut each: impl FnMut(Queue, &RecordView<'_>)) -> Result<(), StartError> {
    let reader = Reader::new(letters.asker.clone())?;
    for queue in queues {
        let topic = queue.topic(&letters.topic_prefix);
        let spans = reader.spans(&topic, None, Edge::Log, Edge::Log)?;
        read(&reader, &topic, &spans, |record| each(*queue, record))?;
    }
    Ok(())
}

fn read(reader: &Reader, topic: &str, spans: &[Span], mut each: impl FnMut(&RecordView<'_>)) -> Result<(), StartError> {
    let mut reading = reader.read(topic, spans)?;
    while !matches!(reading.next(WAIT, |record| each(&record))?, Step::End) {}
    Ok(())
}

/// All letters and marks of these queues; none given: of all.
fn drawer(letters: &Letters, queue: Option<Queue>) -> Result<Drawer, StartError> {
    let queues = queue.map_or(Queue::ALL.to_vec(), |queue| vec![queue]);
    let mut drawer = Drawer::default();
    scan(letters, &queues, |queue, record| drawer.file(queue, record))?;
    Ok(drawer)
}

/// What has to be read to see these letters again: of every partition, from the first to the last.
fn spans_of<'a>(places: impl Iterator<Item = &'a Place>) -> Vec<Span> {
    let mut spans: BTreeMap<i32, Span> = BTreeMap::new();
    for place in places {
        let (partition, from, to) = (place.partition, place.offset, place.offset + 1);
        let span = spans.entry(partition).or_insert(Span { partition, from, to });
        span.from = span.from.min(from);
        span.to = span.to.max(to);
    }
    spans.into_values().collect()
}

fn settings(kafka: &KafkaFlags) -> anyhow::Result<Letters> {
    Ok(Letters::from_flags(&kafka.flags())?)
}

/// `3d`, `5h`, `12m`, `8s`.
fn age(now_ms: i64, then_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let table = [
            (-5, "0s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (3_599_999, "59m"),
            (3_600_000, "1h"),
            (86_399_999, "23h"),
            (86_400_000 * 40, "40d"),
        ];
        for (ms, text) in table {
            assert_eq!(age(1_000_000 + ms, 1_000_000), text);
        }
    }

    #[test]
    fn what_is_read_again_reaches_from_the_first_letter_to_the_last() {
        let places = ["tier/0/7", "tier/1/2", "tier/0/3"].map(|place| place.parse::<Place>().expect("a place"));
        let spans = spans_of(places.iter());
        let span = |partition, from, to| Span { partition, from, to };
        assert_eq!(spans, [span(0, 3, 8), span(1, 2, 3)]);
    }
}
