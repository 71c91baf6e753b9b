//! `replay`: a part of the topics once more through the pipeline, for one consumer.
//!
//! Takes offsets or times, gives the records between them to the same lanes as `run`, outside of the group: nothing is
//! committed, nobody is rebalanced. Every record counts as old, so that with a database only what is not settled is
//! delivered; ids are those of the normal way. It never replays what has no end: that is fixed when it begins.

pub(super) mod engine;
pub(super) mod flags;
mod position;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use indicatif::ProgressBar;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::engine::{Engine, Stopped};
use self::flags::{KafkaFlags, WorkFlags};
use self::position::{Asked, PartPosition, Position};
use super::progress::bar;
use super::run::stop_on_signal;
use super::{Code, Format, Usage, print_json};
use crate::config::topic;
use crate::consumers::Consumer;
use crate::inert::clean;
use crate::kafka::{self, Edge, Frame, Progress, Reader, Tape};
use crate::pipeline::source::Commit;
use crate::pipeline::{Outcome, Replay};
use crate::progress::ConsumerSet;
use crate::record::{RecordView, TopicPartition, Topics};
use crate::rows::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The consumer whose work is done once more.
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// Of one topic, by its name or its table's. Default: all that the consumer reads.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of one partition.
    #[arg(long, value_name = "NUMBER", requires = "topic")]
    partition: Option<i32>,
    /// From this offset on.
    #[arg(long, value_name = "OFFSET", requires = "partition", conflicts_with = "from", value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Before this offset. Default: to the end of the log, as it is now.
    #[arg(long, value_name = "OFFSET", requires = "partition", conflicts_with = "to", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// From the first record on that Kafka has of this time (RFC 3339) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Before the first record of this time or later. Default: to the end of the log, as it is now.
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Keep in this file how far it has come; if it is there, go on from there. Give the same range with it.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Say what would be read, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write dead letters however many there are, instead of stopping.
    #[arg(long)]
    accept_dead_letters: bool,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    kafka: KafkaFlags,
    #[command(flatten)]
    work: WorkFlags,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
struct Report {
    consumer: &'static str,
    dry_run: bool,
    finished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    records: u64,
    outcomes: BTreeMap<&'static str, u64>,
    /// What is left to do; `from` is where it ended.
    left: Vec<PartPosition>,
}

impl Options {
    fn asked(&self, prefix: &str) -> anyhow::Result<Asked> {
        let from = match (self.from_offset, self.from) {
            (Some(offset), _) => offset.to_string(),
            (None, Some(time)) => time.to_string(),
            (None, None) => {
                let problem = "say where it begins: --from TIME, or --topic, --partition and --from-offset";
                return Err(Usage(problem.to_owned()).into());
            }
        };
        Ok(Asked {
            consumer: self.consumer.clone(),
            prefix: prefix.to_owned(),
            topic: self.topic.clone(),
            partition: self.partition,
            from,
            to: self
                .to_offset
                .map(|to| to.to_string())
                .or(self.to.map(|to| to.to_string())),
        })
    }

    fn consumer(&self) -> Result<Consumer, Usage> {
        let known = Consumer::ALL
            .into_iter()
            .find(|consumer| consumer.name() == self.consumer);
        known.ok_or_else(|| {
            Usage(format!(
                "--consumer: known are {}",
                Consumer::ALL.map(Consumer::name).join(", ")
            ))
        })
    }

    fn topics(&self, consumer: Consumer, prefix: &str) -> Result<Vec<String>, Usage> {
        let read = Table::ALL.iter().filter(|table| consumer.reads(**table));
        let read: Vec<String> = read.map(|table| topic(prefix, *table)).collect();
        let Some(wanted) = &self.topic else { return Ok(read) };
        let is_it = |name: &&String| *name == wanted || name.rsplit('.').next() == Some(wanted);
        match read.iter().find(is_it) {
            Some(name) => Ok(vec![name.clone()]),
            None => Err(Usage(format!("--topic: {} reads {}", consumer.name(), read.join(", ")))),
        }
    }

    /// Where it begins and ends in every partition, as the logs are now.
    fn parts(&self, reader: &Reader, topics: &[String]) -> anyhow::Result<Vec<PartPosition>> {
        let edge = |offset: Option<i64>, time: Option<Timestamp>| match (offset, time) {
            (Some(offset), _) => Edge::Offset(offset),
            (None, Some(time)) => Edge::TimeMs(time.as_millisecond()),
            (None, None) => Edge::Log,
        };
        let (from, to) = (edge(self.from_offset, self.from), edge(self.to_offset, self.to));
        let mut parts = Vec::new();
        for topic in topics {
            let spans = reader.spans(topic, self.partition, from, to)?;
            if spans.is_empty() {
                return Err(Usage(format!("--partition: {topic} has no such partition")).into());
            }
            parts.push(PartPosition {
                topic: topic.clone(),
                spans,
            });
        }
        for (asked, found) in parts
            .iter()
            .flat_map(|part| &part.spans)
            .flat_map(|span| [(self.from_offset, span.from), (self.to_offset, span.to)])
        {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                let problem = format!(
                    "offset {asked} lies outside of the log, or before where it begins: {found} is the nearest"
                );
                return Err(Usage(problem).into());
            }
        }
        Ok(parts)
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let consumer = options.consumer()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(replay(options, consumer));
    // A client whose brokers are away must not keep the process.
    runtime.shutdown_background();
    let (report, code) = ended?;
    match options.format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&report, options),
    }
    Ok(code)
}

async fn replay(options: &Options, consumer: Consumer) -> anyhow::Result<(Report, Code)> {
    let flags = crate::config::Flags {
        accept_dead_letters: options.accept_dead_letters,
        ..options.work.flags(&options.kafka)
    };
    let engine = Engine::start(&flags, false).await?;
    let asked = options.asked(&engine.settings.topic_prefix)?;
    let topics = options.topics(consumer, &engine.settings.topic_prefix)?;
    let reader = Reader::new(engine.asker())?;
    let earlier = options
        .resume
        .as_deref()
        .map(|path| Position::load(path, &asked))
        .transpose()?
        .flatten();
    let position = match earlier {
        Some(position) => {
            still_there(&reader, &position)?;
            position
        }
        None => {
            let parts = tokio::task::block_in_place(|| options.parts(&reader, &topics))?;
            Position { asked, parts }
        }
    };
    drop(reader);
    let report = |finished: bool, stopped: Option<&Stopped>, position: &Position, records| Report {
        consumer: consumer.name(),
        dry_run: options.dry_run,
        finished,
        stopped: stopped.map(ToString::to_string),
        records,
        outcomes: Outcome::LABELS
            .into_iter()
            .map(|label| (label, engine.ports.telemetry.outcomes(consumer, label)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        left: position.parts.clone(),
    };
    if options.dry_run {
        return Ok((report(false, None, &position, 0), Code::Ok));
    }
    if engine.settings.database.is_none() && options.format == Format::Text {
        eprintln!("no DATABASE_URL: nothing tells what is settled, everything is delivered again under the same ids");
    }
    let (kept, records, stopped) = work(&engine, consumer, &position, options).await?;
    let finished = kept.left() == 0;
    // What was told after the last record was finished stopped nothing.
    let stopped = if finished {
        None
    } else {
        stopped.or(Some(Stopped::Interrupted))
    };
    let report = report(finished, stopped.as_ref(), &kept, records);
    let code = match stopped {
        Some(Stopped::Configuration(_)) => Code::Configuration,
        Some(Stopped::Failed(_)) => Code::Unavailable,
        Some(Stopped::Interrupted | Stopped::Halted(_)) => Code::Findings,
        None if report.outcomes.contains_key("dead_lettered") => Code::Findings,
        None => Code::Ok,
    };
    Ok((report, code))
}

/// What is left of an earlier run must still be in the logs: nothing is skipped in silence.
fn still_there(reader: &Reader, position: &Position) -> anyhow::Result<()> {
    for part in &position.parts {
        for span in part.spans.iter().filter(|span| span.from < span.to) {
            let (from, to) = (Edge::Offset(span.from), Edge::Offset(span.to));
            let found = tokio::task::block_in_place(|| reader.spans(&part.topic, Some(span.partition), from, to))?;
            if found.first() != Some(span) {
                let problem = format!(
                    "{}/{}: what is left of it (offsets {} to {}) is not in the log any more: reconcile that time, and begin \
                     another replay",
                    part.topic, span.partition, span.from, span.to
                );
                return Err(Usage(problem).into());
            }
        }
    }
    Ok(())
}

async fn work(
    engine: &Engine,
    consumer: Consumer,
    position: &Position,
    options: &Options,
) -> anyhow::Result<(Position, u64, Option<Stopped>)> {
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    let topics: Topics = position
        .parts
        .iter()
        .map(|part| part.topic.clone().into_boxed_str())
        .collect();
    let bar = bar(position.left(), options.format, consumer.name());
    let kept = Arc::new(Mutex::new(position.clone()));
    let records = Arc::new(AtomicU64::new(0));
    let mut starts = BTreeMap::new();
    for (index, part) in position.parts.iter().enumerate() {
        let topic = u16::try_from(index).context("topics")?;
        let spans = part.spans.iter().filter(|span| span.from < span.to);
        starts.extend(spans.map(|span| {
            let partition = span.partition;
            (TopicPartition { topic, partition }, span.from)
        }));
    }
    let tape = AsItIs {
        topics: Arc::clone(&topics),
        records: Arc::clone(&records),
    };
    let keeper = Keeper {
        kept: Arc::clone(&kept),
        file: options.resume.clone(),
        bar: bar.clone(),
        left: position.left(),
    };
    let lanes = engine.lanes(|one| one == consumer);
    let frame = Frame {
        topics,
        starts,
        readers: ConsumerSet::only(consumer),
        budget: Engine::budget(&lanes),
        done: shutdown.clone(),
    };
    let source = kafka::replay(engine.asker(), position.parts(), tape, keeper, frame)?;
    let stopped = engine.work(Replay::Again, lanes, None, source, shutdown).await;
    bar.finish_and_clear();
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(path) = &options.resume {
        kept.save(path)?;
    }
    Ok((kept, records.load(Ordering::Relaxed), stopped))
}

fn print(report: &Report, options: &Options) {
    let all: i64 = report
        .left
        .iter()
        .flat_map(|part| &part.spans)
        .map(|span| span.to - span.from)
        .sum();
    if report.dry_run {
        println!("would be read for {}, {all} offsets:", report.consumer);
    } else {
        println!("read {} records for {}", report.records, report.consumer);
        for (outcome, count) in &report.outcomes {
            println!("{count:>10} {outcome}");
        }
    }
    if let Some(stopped) = &report.stopped {
        println!("stopped before the end: {}", clean(stopped));
    }
    for part in &report.left {
        for span in part.spans.iter().filter(|span| span.from < span.to) {
            let (topic, partition, from, to) = (&part.topic, span.partition, span.from, span.to);
            let left = if report.dry_run { "" } else { "left: " };
            println!("{left}--topic {topic} --partition {partition} --from-offset {from} --to-offset {to}");
        }
    }
    if let (Some(path), false) = (&options.resume, report.finished || report.dry_run) {
        println!("go on with the same command: {} has where it ended", path.display());
    }
}

/// Gives every record to the pipeline as it is.
struct AsItIs {
    topics: Topics,
    records: Arc<AtomicU64>,
}

impl Tape for AsItIs {
    fn turn<'a>(&mut self, record: RecordView<'a>) -> Option<(TopicPartition, RecordView<'a>)> {
        let index = self.topics.iter().position(|topic| **topic == *record.topic)?;
        let place = TopicPartition {
            topic: u16::try_from(index).ok()?,
            partition: record.partition,
        };
        self.records.fetch_add(1, Ordering::Relaxed);
        Some((place, record))
    }
}

/// Keeps the position, and writes it down.
struct Keeper {
    kept: Arc<Mutex<Position>>,
    file: Option<PathBuf>,
    bar: ProgressBar,
    left: u64,
}

impl Progress for Keeper {
    fn done<'a>(&'a mut self, commits: &'a [Commit]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let position = {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                for commit in commits {
                    let part = kept.parts.get_mut(usize::from(commit.place.topic));
                    let spans = part.into_iter().flat_map(|part| &mut part.spans);
                    for span in spans.filter(|span| span.partition == commit.place.partition) {
                        span.from = commit.progress.offset.clamp(span.from, span.to);
                    }
                }
                kept.clone()
            };
            self.bar.set_position(self.left.saturating_sub(position.left()));
            let saved = self.file.as_deref().map_or(Ok(()), |path| position.save(path));
            saved.map_err(|error| format!("{error:#}"))
        }
        .boxed()
    }

    fn ended(&mut self) {
        // Behind the last record there may be offsets that are no records.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for span in kept.parts.iter_mut().flat_map(|part| &mut part.spans) {
            span.from = span.to;
        }
    }
}
