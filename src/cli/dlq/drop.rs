//! `dlq drop`: nothing is to be done about these letters.

use std::sync::Arc;

use super::selection::Selection;
use super::{Signature, drawer, settings};
use crate::cli::replay::flags::KafkaFlags;
use crate::cli::{Code, Format, Usage, print_json};
use crate::clock::{Clock as _, SharedClock, SystemClock};
use crate::dead_letters::KafkaDeadLetters;
use crate::dead_letters::filed::{Fate, Mark, Place};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Why nothing is to be done; kept with the mark.
    #[arg(long, value_name = "TEXT")]
    because: String,
    #[command(flatten)]
    signature: Signature,
    /// Say which letters it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    kafka: KafkaFlags,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    dry_run: bool,
    dropped: Vec<Place>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let filter = options.selection.narrow()?;
    if options.because.trim().is_empty() {
        return Err(Usage("--because must say why".to_owned()).into());
    }
    let letters = settings(&options.kafka)?;
    let drawer = drawer(&letters, options.selection.queue())?;
    let mut report = Report {
        dry_run: options.dry_run,
        dropped: drawer.wanted(&filter).into_keys().collect(),
    };
    let mut failed = None;
    if !options.dry_run {
        let clock: SharedClock = Arc::new(SystemClock);
        let writer = KafkaDeadLetters::new(&letters.asker.connection, &letters.topic_prefix, clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut done = 0;
        for place in &report.dropped {
            let mark = Mark {
                offset: place.offset,
                fate: Fate::Dropped,
                because: options.because.clone(),
                by: options.signature.by.clone(),
                at_ms: SystemClock.now_ms(),
            };
            if let Err(error) = runtime.block_on(writer.mark(place.queue, place.partition, &mark)) {
                failed = Some(error);
                break;
            }
            done += 1;
        }
        report.dropped.truncate(done);
    }
    match options.format {
        Format::Json => print_json(&report)?,
        Format::Text => {
            let done = if report.dry_run { "would be dropped" } else { "dropped" };
            for place in &report.dropped {
                println!("{done}: {place}");
            }
            if report.dropped.is_empty() {
                println!("no open letter is like that");
            }
        }
    }
    failed.map_or(Ok(Code::Ok), |error| Err(error.into()))
}
