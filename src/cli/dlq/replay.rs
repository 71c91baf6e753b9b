//! `dlq replay`: letters the normal way once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::selection::Selection;
use super::shelf::{Ended, Marker, Opener, Shelf};
use super::{Signature, drawer, read, spans_of};
use crate::cli::explain::verdict::Explainer;
use crate::cli::progress::bar;
use crate::cli::replay::engine::{Engine, Stopped};
use crate::cli::replay::flags::{KafkaFlags, WorkFlags};
use crate::cli::run::stop_on_signal;
use crate::cli::{Code, Format, print_json};
use crate::config::{Deciding, Letters};
use crate::consumers::Consumer;
use crate::dead_letters::Queue;
use crate::dead_letters::filed::{Fate, Place, Provenance, original};
use crate::debezium::Decoder;
use crate::inert::clean;
use crate::kafka::{self, Frame, Part, Reader};
use crate::pipeline::Replay;
use crate::progress::ConsumerSet;
use crate::record::RecordView;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Send them under ids of their own, whatever was done before: without a database, whoever settles may settle twice. A
    /// run that broke off is taken up with its own nonce, which is printed.
    #[arg(long, value_name = "NONCE", num_args = 0..=1, default_missing_value = "", require_equals = true)]
    force: Option<String>,
    /// Why; kept with the mark.
    #[arg(long, value_name = "TEXT", default_value = "replayed")]
    because: String,
    #[command(flatten)]
    signature: Signature,
    /// Say which letters it would be and what each would lead to, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    kafka: KafkaFlags,
    #[command(flatten)]
    work: WorkFlags,
}

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    replayed: usize,
    letters: Vec<One>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

#[derive(Debug, serde::Serialize)]
struct One {
    place: Place,
    /// `replayed`, `still_dead` or `open`; of a dry run `would_deliver`, `would_ignore`, `would_stay`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

type Chosen = BTreeMap<Queue, BTreeMap<Place, Provenance>>;

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    options.selection.narrow()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(replay(options));
    // A client whose brokers are away must not keep the process.
    runtime.shutdown_background();
    let (report, code) = ended?;
    match options.format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&report),
    }
    Ok(code)
}

async fn replay(options: &Options) -> anyhow::Result<(Report, Code)> {
    let flags = options.work.flags(&options.kafka);
    let engine = Engine::start(&flags, options.force.is_some()).await?;
    let letters = Letters {
        asker: engine.asker(),
        topic_prefix: engine.settings.topic_prefix.clone(),
    };
    let filter = options.selection.narrow()?;
    let drawer = tokio::task::block_in_place(|| drawer(&letters, options.selection.queue()))?;
    let mut chosen = Chosen::new();
    for (place, letter) in drawer.wanted(&filter) {
        chosen.entry(place.queue).or_default().insert(place, letter);
    }
    if options.dry_run {
        let letters = tokio::task::block_in_place(|| foretell(&engine, &letters, &chosen, &flags))?;
        let report = Report {
            dry_run: true,
            letters,
            ..Report::default()
        };
        return Ok((report, Code::Ok));
    }
    let nonce = options.force.as_ref().map(|given| {
        let made = || format!("{:08x}", engine.ports.randomness.number() >> 32);
        if given.is_empty() { made() } else { given.clone() }
    });
    if let Some(nonce) = &nonce {
        eprintln!("forced: ids end in #f{nonce}; if this breaks off, go on with --force={nonce}");
    }
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    let mut report = Report {
        nonce: nonce.clone(),
        ..Report::default()
    };
    let mut code = Code::Ok;
    for (queue, letters) in &chosen {
        if shutdown.is_cancelled() || report.stopped.is_some() {
            report
                .letters
                .extend(letters.keys().map(|place| one(*place, "open", None, None)));
            continue;
        }
        let (shelf, stopped) = work(&engine, *queue, letters, options, nonce.as_deref(), &shutdown).await?;
        for (place, ended) in shelf.ended() {
            report.letters.push(match ended {
                Some(Ended::Marked) => one(place, "replayed", None, None),
                Some(Ended::StillDead { reason, detail }) => one(place, "still_dead", Some(reason), Some(detail)),
                None => one(place, "open", None, None),
            });
        }
        if let Some(stopped) = stopped {
            code = match stopped {
                Stopped::Configuration(_) => Code::Configuration,
                Stopped::Failed(_) => Code::Unavailable,
                Stopped::Interrupted | Stopped::Halted(_) => Code::Findings,
            };
            report.stopped = Some(stopped.to_string());
        }
    }
    report.replayed = report
        .letters
        .iter()
        .filter(|letter| letter.outcome == "replayed")
        .count();
    if code == Code::Ok && report.replayed < report.letters.len() {
        code = Code::Findings;
    }
    Ok((report, code))
}

/// The letters of one queue through the pipeline.
async fn work(
    engine: &Engine,
    queue: Queue,
    letters: &BTreeMap<Place, Provenance>,
    options: &Options,
    nonce: Option<&str>,
    interrupted: &CancellationToken,
) -> anyhow::Result<(Shelf, Option<Stopped>)> {
    let (shelf, topics) = Shelf::of(queue, letters);
    let shutdown = interrupted.child_token();
    let bar = bar(u64::try_from(letters.len()).unwrap_or(0), options.format, queue.name());
    let lanes = engine.lanes(|consumer| match queue {
        Queue::Decode => true,
        Queue::Consumer(only) => consumer == only,
    });
    let opener = Opener {
        shelf: shelf.clone(),
        decoder: Decoder::default(),
        decimals: engine.settings.decimals,
    };
    let marker = Marker {
        shelf: shelf.clone(),
        letters: Arc::clone(&engine.letters),
        ledger: engine.ports.ledger.clone(),
        clock: Arc::clone(&engine.ports.clock),
        fate: if nonce.is_some() { Fate::Forced } else { Fate::Replayed },
        because: options.because.clone(),
        by: options.signature.by.clone(),
        bar: bar.clone(),
        stop: shutdown.clone(),
    };
    let frame = Frame {
        topics,
        starts: shelf.starts(),
        readers: lanes.iter().map(|(consumer, _)| *consumer).collect::<ConsumerSet>(),
        budget: Engine::budget(&lanes),
        done: shutdown.clone(),
    };
    let part = Part {
        topic: queue.topic(&engine.settings.topic_prefix),
        spans: spans_of(letters.keys()),
    };
    let source = kafka::replay(engine.asker(), vec![part], opener, marker, frame)?;
    let replay = nonce.map_or(Replay::Again, |nonce| Replay::Forced(format!("f{nonce}")));
    let stopped = engine
        .work(replay, lanes, Some(Arc::new(shelf.clone())), source, shutdown)
        .await;
    bar.finish_and_clear();
    let is_open = shelf.ended().values().any(Option::is_none);
    let stopped = shelf.refused().map(Stopped::Configuration).or(stopped);
    // What was told after the last letter was finished stopped nothing.
    let stopped = if is_open {
        stopped.or(Some(Stopped::Interrupted))
    } else {
        None
    };
    Ok((shelf, stopped))
}

/// What each letter would lead to by the rules in force. What a comparison with the database would show is not said.
fn foretell(
    engine: &Engine,
    letters: &Letters,
    chosen: &Chosen,
    flags: &crate::config::Flags,
) -> anyhow::Result<Vec<One>> {
    let deciding = Deciding::from_flags(flags)?;
    let rules = engine.ports.rules.current();
    let mut explainer = Explainer::new(&deciding, (*rules).clone(), engine.ports.clock.now());
    let reader = Reader::new(letters.asker.clone())?;
    let mut told = Vec::new();
    for (queue, wanted) in chosen {
        let consumers = match queue {
            Queue::Decode => Consumer::ALL.to_vec(),
            Queue::Consumer(consumer) => vec![*consumer],
        };
        let topic = queue.topic(&letters.topic_prefix);
        read(&reader, &topic, &spans_of(wanted.keys()), |record| {
            let place = Place {
                queue: *queue,
                partition: record.partition,
                offset: record.offset,
            };
            let Some(letter) = wanted.get(&place) else { return };
            let own = RecordView {
                topic: &letter.topic,
                ..original(record, letter)
            };
            let explanation = explainer.explain_record(&own, &consumers);
            let outcome = match explanation.outcome() {
                crate::cli::explain::verdict::Outcome::Event => "would_deliver",
                crate::cli::explain::verdict::Outcome::Ignored | crate::cli::explain::verdict::Outcome::Control => {
                    "would_ignore"
                }
                crate::cli::explain::verdict::Outcome::DeadLetter | crate::cli::explain::verdict::Outcome::BadLine => {
                    "would_stay"
                }
            };
            told.push(one(place, outcome, Some(explanation.reasons().join(", ")), None));
        })?;
    }
    Ok(told)
}

const fn one(place: Place, outcome: &'static str, reason: Option<String>, detail: Option<String>) -> One {
    One {
        place,
        outcome,
        reason,
        detail,
    }
}

fn print(report: &Report) {
    for letter in &report.letters {
        let reason = letter.reason.as_deref().map(|reason| format!(": {}", clean(reason)));
        let detail = letter.detail.as_deref().map(|detail| format!(", {}", clean(detail)));
        let outcome = letter.outcome.replace('_', " ");
        let (reason, detail) = (reason.unwrap_or_default(), detail.unwrap_or_default());
        println!("{:<24} {outcome}{reason}{detail}", letter.place.to_string());
    }
    if report.letters.is_empty() {
        println!("no open letter is like that");
    } else if !report.dry_run {
        println!("{} of {} replayed", report.replayed, report.letters.len());
    }
    if let Some(stopped) = &report.stopped {
        println!("stopped before the end: {}", clean(stopped));
    }
}
