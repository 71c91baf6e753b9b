//! `dlq show`: one letter, decoded.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::value::RawValue;

use super::{read, settings};
use crate::cli::explain::verdict::Explainer;
use crate::cli::explain::{DEMO_NOTE, json, text};
use crate::cli::replay::flags::KafkaFlags;
use crate::cli::run::read_programs;
use crate::cli::{Code, Format, Usage};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Deciding, Flags, Letters};
use crate::consumers::{Consumer, Rules};
use crate::dead_letters::Queue;
use crate::dead_letters::filed::{Filed, Mark, Place, Provenance, original};
use crate::inert::clean;
use crate::kafka::{Edge, Reader};
use crate::loyalty::{DEMO_PROGRAM, Programs};
use crate::record::RecordView;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// The letter's place, as `dlq list --each` prints it: `currency/0/17`.
    #[arg(value_name = "PLACE")]
    place: Place,
    #[command(flatten)]
    how: How,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    kafka: KafkaFlags,
}

/// By what a letter's record is explained.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct How {
    /// The loyalty programs (JSON). Without it the demo's program decides.
    #[arg(long, env = "PROGRAM_FILE", value_name = "FILE")]
    program_file: Option<String>,
    /// How the connector writes numeric columns: `string`, or `precise:<scale>`. Default string.
    #[arg(long, env = "DECIMAL_MODE", value_name = "MODE")]
    decimal_mode: Option<String>,
    /// Rows created before this instant (RFC 3339) are ignored.
    #[arg(long, env = "LEDGER_EFFECTIVE_FROM", value_name = "TIME")]
    ledger_effective_from: Option<String>,
}

/// What was found at the place and behind it.
#[derive(Default)]
pub(super) struct Found {
    filed: Option<Filed>,
    pub(super) mark: Option<Mark>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) explanation: Vec<u8>,
}

impl Found {
    /// The letter; or why it is none.
    pub(super) fn letter(&self, place: Place) -> Result<&Provenance, Usage> {
        match &self.filed {
            Some(Filed::Letter(provenance)) => Ok(provenance),
            Some(Filed::Mark(_)) => Err(Usage(format!("{place} is the mark of another letter"))),
            Some(Filed::Foreign(why)) => Err(Usage(format!("{place} is no letter: {why}"))),
            None => Err(Usage(format!("nothing lies at {place}"))),
        }
    }
}

#[derive(serde::Serialize)]
struct Shown<'a> {
    place: Place,
    provenance: &'a Provenance,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<&'a Mark>,
    headers: &'a [(String, String)],
    value: Option<&'a str>,
    explanation: &'a RawValue,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let letters = settings(&options.kafka)?;
    let (mut explainer, is_demo) = options.how.explainer(&options.kafka.flags())?;
    let found = find(&letters, options.place, options.format, &mut explainer)?;
    let provenance = found.letter(options.place)?;
    match options.format {
        Format::Json => {
            let explanation: &RawValue = serde_json::from_slice(&found.explanation).context("the explanation")?;
            let shown = Shown {
                place: options.place,
                provenance,
                mark: found.mark.as_ref(),
                headers: &found.headers,
                value: found.value.as_deref(),
                explanation,
            };
            // Whatever is escaped stands inside a text, where the escape means the same.
            println!("{}", clean(&serde_json::to_string(&shown).context("the letter")?));
        }
        Format::Text => {
            print(options.place, provenance, &found);
            if is_demo {
                println!("{DEMO_NOTE}\n");
            }
            std::io::stdout()
                .write_all(&found.explanation)
                .context("standard output")?;
        }
    }
    Ok(Code::Ok)
}

impl How {
    /// And whether it explains by the demo's program, because no other is known.
    pub(in crate::cli) fn explainer(&self, kafka: &Flags) -> anyhow::Result<(Explainer, bool)> {
        let deciding = Deciding::from_flags(&Flags {
            program_file: self.program_file.clone(),
            decimal_mode: self.decimal_mode.clone(),
            ledger_effective_from: self.ledger_effective_from.clone(),
            ..kafka.clone()
        })?;
        let (programs, is_demo) = match &deciding.program_file {
            Some(path) => (read_programs(path)?, false),
            None => (Programs::from_json(DEMO_PROGRAM).context("the demo's program")?, true),
        };
        let rules = Rules::new(Arc::new(programs), deciding.effective_from);
        Ok((Explainer::new(&deciding, rules, SystemClock.now()), is_demo))
    }
}

/// Reads from the letter to the end of its partition: its mark is behind it.
pub(super) fn find(
    letters: &Letters,
    place: Place,
    format: Format,
    explainer: &mut Explainer,
) -> anyhow::Result<Found> {
    let reader = Reader::new(letters.asker.clone())?;
    let topic = place.queue.topic(&letters.topic_prefix);
    let spans = reader.spans(&topic, Some(place.partition), Edge::Offset(place.offset), Edge::Log)?;
    let mut found = Found::default();
    let mut written = Ok(());
    read(&reader, &topic, &spans, |record| {
        let filed = Filed::read(record);
        if record.offset != place.offset {
            if let Filed::Mark(mark) = filed
                && mark.offset == place.offset
                && found.mark.is_none()
            {
                found.mark = Some(mark);
            }
            return;
        }
        if let Filed::Letter(provenance) = &filed {
            let own = RecordView {
                topic: &provenance.topic,
                partition: provenance.partition,
                offset: provenance.offset,
                ..original(record, provenance)
            };
            let consumers = match place.queue {
                Queue::Decode => Consumer::ALL.to_vec(),
                Queue::Consumer(consumer) => vec![consumer],
            };
            let explanation = explainer.explain_record(&own, &consumers);
            written = match format {
                Format::Text => text::write(&mut found.explanation, 1, &explanation),
                Format::Json => json::write(&mut found.explanation, 1, &explanation),
            };
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.value = own.value.map(shown);
            let headers = own.headers.0.iter();
            found.headers = headers
                .map(|header| (header.name.to_owned(), header.value.map_or_else(String::new, shown)))
                .collect();
        }
        found.filed = Some(filed);
    })?;
    written.context("the explanation")?;
    Ok(found)
}

fn print(place: Place, letter: &Provenance, found: &Found) {
    let time = |ms| jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string());
    println!("letter    {place}");
    println!(
        "of        {}/{}/{}",
        clean(&letter.topic),
        letter.partition,
        letter.offset
    );
    println!("consumer  {}", clean(&letter.consumer));
    println!(
        "reason    {}{}",
        clean(&letter.reason),
        if letter.policy { " (a policy)" } else { "" }
    );
    println!("detail    {}", clean(&letter.detail));
    println!(
        "written   {} by version {}",
        time(letter.written_at_ms),
        clean(&letter.version)
    );
    match &found.mark {
        None => println!("became    open"),
        Some(mark) => {
            let (fate, at) = (mark.fate.name(), time(mark.at_ms));
            println!("became    {fate} {at} by {}: {}", clean(&mark.by), clean(&mark.because));
        }
    }
    for (name, value) in &found.headers {
        println!("header    {}: {}", clean(name), clean(value));
    }
    println!(
        "value     {}\n",
        found.value.as_deref().map_or_else(|| "none".to_owned(), clean)
    );
}
