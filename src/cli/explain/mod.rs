//! `explain`: takes recorded messages, one JSON line each, prints what each one is and what every consumer would do with
//! it and why.
//!
//! It calls the same decode, route and decide as the worker, one record at a time, so it shows what this record alone
//! leads to: neither what dedupe skips nor what a newer change supersedes. It never talks to Kafka, Redis or Inngest,
//! and no input ends it early. Given an id instead, `known` asks the database what became of it.
//!
//! The files stand in the order of the bytes: `lines` (one line at a time), `message` (a line's record), `verdict` (what
//! becomes of it), then `text` or `json`; `clean` keeps control characters from outside off the terminal.

pub(super) mod json;
mod known;
mod lines;
mod message;
#[cfg(test)]
mod tests;
pub(super) mod text;
pub(super) mod verdict;

use std::io::{self, BufWriter, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;

use self::lines::{Line, Lines};
use self::text::Summary;
use self::verdict::{Explainer, Explanation};
use super::{Code, Format, Usage};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Deciding, Flags};
use crate::consumers::Rules;
use crate::inert::clean;
use crate::loyalty::{DEMO_PROGRAM, Programs};

pub(super) const DEMO_NOTE: &str = "Decided with the demo's program, because PROGRAM_FILE is not given: points, due times and tiers \
                         are examples. Give --program-file to see what yours would do.";

#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub(super) struct Options {
    /// Messages as `kcat -J` prints them, or bare Debezium envelopes, one a line; `-` or nothing: standard input. With
    /// DATABASE_URL, what is no file is the id of a row, or MERCHANT:USER.
    #[arg(value_name = "FILE|ID", group = "subject")]
    file: Option<PathBuf>,
    /// A purchase, from the database.
    #[arg(long, value_name = "ID", group = "subject")]
    purchase: Option<String>,
    /// A mission claim, from the database.
    #[arg(long, value_name = "ID", group = "subject")]
    claim: Option<String>,
    /// A referral, from the database.
    #[arg(long, value_name = "ID", group = "subject")]
    referral: Option<String>,
    /// A voucher by its id, not by its code, from the database.
    #[arg(long, value_name = "ID", group = "subject")]
    code: Option<String>,
    /// A member, from the database; a `:` inside of an id is written `%3A`.
    #[arg(long, value_name = "MERCHANT:USER", group = "subject")]
    member: Option<String>,
    /// The database.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The loyalty programs (JSON). Without it the demo's program decides.
    #[arg(long, env = "PROGRAM_FILE", value_name = "FILE")]
    program_file: Option<String>,
    /// How the connector writes numeric columns of messages: `string`, or `precise:<scale>`. Default string.
    #[arg(long, env = "DECIMAL_MODE", value_name = "MODE")]
    decimal_mode: Option<String>,
    /// The consumers that decide, separated by commas. Default: all.
    #[arg(long, env = "CONSUMERS", value_name = "NAMES")]
    consumers: Option<String>,
    /// Rows of messages created before this instant (RFC 3339) are ignored; the database has its own.
    #[arg(long, env = "LEDGER_EFFECTIVE_FROM", value_name = "TIME")]
    ledger_effective_from: Option<String>,
    /// The connector's topic.prefix: dead letters go to `<prefix>.dlq.*`. Default crm.
    #[arg(long, env = "TOPIC_PREFIX", value_name = "PREFIX")]
    topic_prefix: Option<String>,
    /// Decide as if it were this instant (RFC 3339): tells what is already due from what is to come. Default: now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// For people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Why the explaining ended before the input did.
#[derive(Debug)]
enum Stopped {
    Reading { after_line: u64, error: io::Error },
    Writing(io::Error),
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    if let Some(subject) = known::Subject::of(options)? {
        return known::run(options, &subject);
    }
    let deciding = Deciding::from_flags(&options.flags())?;
    let (programs, demo) = match &deciding.program_file {
        Some(path) => (super::run::read_programs(path)?, false),
        None => (Programs::from_json(DEMO_PROGRAM).context("the demo's program")?, true),
    };
    let rules = Rules::new(Arc::new(programs), deciding.effective_from);
    let now = options.now.unwrap_or_else(|| SystemClock.now());
    let explainer = Explainer::new(&deciding, rules, now);
    let (name, input) = open(options.file.as_deref())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let ended = start(&mut out, options.format, demo)
        .map_err(Stopped::Writing)
        .and_then(|()| explain(explainer, input, &mut out, options.format));
    match ended {
        Ok(true) => Ok(Code::Findings),
        Ok(false) => Ok(Code::Ok),
        // Whoever read our output has seen enough.
        Err(Stopped::Writing(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // The rest of the buffer has no reader; dropping the writer would try once more.
            let (_stdout, _unread) = out.into_parts();
            Ok(Code::Ok)
        }
        Err(Stopped::Writing(error)) => Err(error).context("standard output cannot be written"),
        Err(Stopped::Reading { after_line, error }) => {
            let place = if after_line == 0 {
                String::new()
            } else {
                format!(" beyond line {after_line}")
            };
            Err(Usage(format!("{name} cannot be read{place}: {error}")).into())
        }
    }
}

impl Options {
    fn flags(&self) -> Flags {
        Flags {
            program_file: self.program_file.clone(),
            decimal_mode: self.decimal_mode.clone(),
            consumers: self.consumers.clone(),
            ledger_effective_from: self.ledger_effective_from.clone(),
            topic_prefix: self.topic_prefix.clone(),
            ..Flags::default()
        }
    }
}

fn open(file: Option<&Path>) -> Result<(String, Box<dyn Read>), Usage> {
    match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let name = clean(&path.display().to_string());
            match std::fs::File::open(path) {
                Ok(file) => Ok((name, Box::new(file))),
                Err(error) => Err(Usage(format!("{name} cannot be read: {error}"))),
            }
        }
        None => {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                tell("reading messages from standard input, one JSON line each; end with Ctrl-D");
            }
            Ok(("standard input".to_owned(), Box::new(stdin)))
        }
    }
}

/// Says which rules decide; in JSON beside the objects, so that every line of the output is one.
fn start(out: &mut impl Write, format: Format, demo: bool) -> io::Result<()> {
    match (demo, format) {
        (true, Format::Text) => writeln!(out, "{DEMO_NOTE}\n"),
        (true, Format::Json) => {
            tell(DEMO_NOTE);
            Ok(())
        }
        (false, _) => Ok(()),
    }
}

/// A remark beside the result. Unlike `eprintln!` it survives a standard error that is closed.
fn tell(remark: &str) {
    let _closed = writeln!(io::stderr(), "{remark}");
}

/// Explains every line; whether something would be dead-lettered or could not be read.
fn explain(mut explainer: Explainer, input: impl Read, out: &mut impl Write, format: Format) -> Result<bool, Stopped> {
    let mut lines = Lines::new(input, lines::LONGEST);
    let mut summary = Summary::default();
    loop {
        // A live pipe may be silent for long: what is known is shown before the wait.
        if lines.may_wait() {
            out.flush().map_err(Stopped::Writing)?;
        }
        let after_line = lines.number();
        let line = lines.next().map_err(|error| Stopped::Reading { after_line, error })?;
        let explanation = match line {
            None => break,
            Some(Line::Text(text)) => explainer.explain(text),
            Some(Line::TooLong) => Explanation::too_long(lines::LONGEST),
        };
        summary.add(&explanation);
        let written = match format {
            Format::Text => text::write(out, lines.number(), &explanation),
            Format::Json => json::write(out, lines.number(), &explanation),
        };
        written.map_err(Stopped::Writing)?;
    }
    if format == Format::Text {
        writeln!(out, "{summary}").map_err(Stopped::Writing)?;
    }
    out.flush().map_err(Stopped::Writing)?;
    Ok(summary.has_findings())
}
