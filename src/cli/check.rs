//! `check`: whether everything that a worker needs is there and well, and what mends what is not. `crate::doctor` looks and
//! judges; here it is asked and printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::connectors::known_rules;
use super::run::{DRAIN_DEADLINE, read_programs};
use super::{Code, Format, Usage, print_json};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Checking, Flags, SourceFlags};
use crate::doctor::catalogue::Area;
use crate::doctor::{End, Finding, Purpose, Question, Report, Severity, examine};
use crate::inert::clean;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Look at these areas alone: configuration, kafka, group, connector, postgres, redis, inngest, clock, windows.
    #[arg(long, value_name = "AREAS", value_delimiter = ',')]
    only: Vec<String>,
    /// Look again and again, every so many seconds, and print what changes.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    watch: Option<u64>,
    /// Fail only on what no deploy can work with: settings, credentials, topics, grants and migrations. The rest is shown.
    #[arg(long, conflicts_with = "watch")]
    pre_deploy: bool,
    /// Send Inngest one event, `crm-event-processors/check`: nothing else shows that the key is right.
    #[arg(long, conflicts_with = "watch")]
    send_test_event: bool,
    /// For people, or one JSON object; with --watch one for each change.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    flags: Flags,
}

impl Options {
    fn question(&self) -> Result<Question, Usage> {
        let named = |name: &String| {
            let known = || Area::ALL.map(Area::name).join(", ");
            Area::named(name.trim()).ok_or_else(|| Usage(format!("--only {}: known are {}", clean(name), known())))
        };
        let mut areas = self.only.iter().map(named).collect::<Result<BTreeSet<_>, _>>()?;
        if areas.is_empty() {
            areas.extend(Area::ALL);
        }
        let source = self.source.watched();
        known_rules(&source.accepted)?;
        let settings = Checking::from_flags(&self.flags);
        let program = settings
            .program_file
            .as_deref()
            .and_then(|file| read_programs(file).err());
        Ok(Question {
            program: program.map(|error| format!("{error:#}")),
            settings,
            platform: source.platform,
            connector: source.connector,
            accepted: source.accepted,
            areas,
            purpose: if self.pre_deploy {
                Purpose::PreDeploy
            } else {
                Purpose::Health
            },
            sends_test_event: self.send_test_event,
            tries_rights: true,
            drain: DRAIN_DEADLINE,
        })
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let question = options.question()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let clock: SharedClock = Arc::new(SystemClock);
    let ended = runtime.block_on(async {
        match options.watch {
            None => {
                let report = examine(&question, &clock).await;
                print(&report, options.format)?;
                Ok(code_of(&report))
            }
            Some(seconds) => watch(&question, &clock, seconds.max(1), options.format).await,
        }
    });
    // A client whose brokers are away is not waited for.
    runtime.shutdown_background();
    ended
}

fn code_of(report: &Report) -> Code {
    match report.end() {
        End::Ok => Code::Ok,
        End::Failed => Code::Findings,
        End::Configuration => Code::Configuration,
        End::Nobody => Code::Unavailable,
    }
}

#[derive(Debug, serde::Serialize)]
struct Printed<'a> {
    failed: usize,
    warnings: usize,
    not_verifiable: usize,
    ok: usize,
    took_ms: u128,
    findings: Vec<PrintedFinding<'a>>,
}

#[derive(Debug, serde::Serialize)]
struct PrintedFinding<'a> {
    area: Area,
    #[serde(flatten)]
    finding: &'a Finding,
    runbook: String,
}

impl<'a> From<&'a Finding> for PrintedFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            area: finding.id.area(),
            finding,
            runbook: finding.id.runbook(),
        }
    }
}

fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let printed = Printed {
                failed: report.count(Severity::Failed),
                warnings: report.count(Severity::Warning),
                not_verifiable: report.count(Severity::NotVerifiable),
                ok: report.count(Severity::Ok),
                took_ms: report.took.as_millis(),
                findings: report.findings.iter().map(PrintedFinding::from).collect(),
            };
            print_json(&printed)?;
        }
        Format::Text => print_text(report),
    }
    Ok(())
}

fn print_text(report: &Report) {
    let mut told = report
        .findings
        .iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .peekable();
    while let Some(finding) = told.next() {
        if finding.severity == Severity::NotVerifiable {
            let mut ids = vec![finding.id.name()];
            let same = |next: &&Finding| {
                (next.severity, next.id.area(), &next.what) == (finding.severity, finding.id.area(), &finding.what)
            };
            while let Some(next) = told.next_if(same) {
                ids.push(next.id.name());
            }
            print_unseen(finding, &ids);
            continue;
        }
        print_head(finding);
        // What is mended together is told once.
        if told
            .peek()
            .is_none_or(|next| (next.id, &next.fix) != (finding.id, &finding.fix))
        {
            print_fix(finding);
        }
    }
    for area in Area::ALL {
        let of_area = report.findings.iter().filter(|finding| finding.id.area() == area);
        let well: Vec<&str> = of_area
            .filter(|finding| finding.severity == Severity::Ok)
            .map(|finding| finding.id.name())
            .collect();
        if !well.is_empty() {
            println!("{:<WIDTH$} {}", word(Severity::Ok), well.join(" "));
        }
    }
    println!(
        "\n{} failed, {} warnings, {} not verifiable, {} ok, in {} ms",
        report.count(Severity::Failed),
        report.count(Severity::Warning),
        report.count(Severity::NotVerifiable),
        report.count(Severity::Ok),
        report.took.as_millis()
    );
}

/// Of the longest word.
const WIDTH: usize = 14;

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::NotVerifiable => "not verifiable",
        other => other.label(),
    }
}

/// All that one reason keeps from being looked at, in one line; the list of ids is in the JSON.
fn print_unseen(finding: &Finding, ids: &[&str]) {
    let named = if ids.len() > 3 {
        format!("{} of {}", ids.len(), finding.id.area().name())
    } else {
        ids.join(", ")
    };
    println!("{:<WIDTH$} {named}: {}", word(finding.severity), clean(&finding.what));
    print_fix(finding);
}

fn print_finding(finding: &Finding) {
    print_head(finding);
    print_fix(finding);
}

fn print_head(finding: &Finding) {
    let id = finding.id.name();
    println!("{:<WIDTH$} {id}: {}", word(finding.severity), clean(&finding.what));
    if let Some(evidence) = &finding.evidence {
        println!("{:<WIDTH$} seen: {}", "", clean(evidence));
    }
}

fn print_fix(finding: &Finding) {
    if let Some(fix) = &finding.fix {
        // Lines of ours: each is a command, or a word about one.
        for (number, line) in fix.lines().enumerate() {
            println!(
                "{:<WIDTH$} {:<5} {}",
                "",
                if number == 0 { "fix:" } else { "" },
                clean(line)
            );
        }
    }
    if matches!(finding.severity, Severity::Failed | Severity::Warning) {
        println!("{:<WIDTH$} see:  {}", "", finding.id.runbook());
    }
}

/// A finding that came, went, or got worse.
#[derive(Debug, serde::Serialize)]
struct Change<'a> {
    at: String,
    was: Option<Severity>,
    #[serde(flatten)]
    now: PrintedFinding<'a>,
}

/// Looks until somebody ends it; the exit code is that of the last look.
async fn watch(question: &Question, clock: &SharedClock, seconds: u64, format: Format) -> anyhow::Result<Code> {
    let mut ends = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut every = interval(Duration::from_secs(seconds));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: BTreeMap<&'static str, Severity> = BTreeMap::new();
    let mut code = Code::Ok;
    loop {
        tokio::select! {
            biased;
            _ = ends.recv() => return Ok(code),
            _ = interrupts.recv() => return Ok(code),
            _ = every.tick() => {}
        }
        let report = examine(question, clock).await;
        code = code_of(&report);
        let at = clock.now().to_string();
        let is_first = known.is_empty();
        for (id, findings) in by_id(&report) {
            let Some(worst) = findings.iter().map(|finding| finding.severity).min() else {
                continue;
            };
            let was = known.insert(id, worst);
            // At first what is not well, then what changed.
            if was == Some(worst) || (is_first && worst == Severity::Ok) {
                continue;
            }
            for now in findings.into_iter().filter(|finding| finding.severity == worst) {
                tell(&at, was, now, format)?;
            }
        }
        if is_first && format == Format::Text {
            println!("{at} looking again every {seconds} s; what changes is printed");
        }
    }
}

fn by_id(report: &Report) -> Vec<(&'static str, Vec<&Finding>)> {
    let mut grouped: Vec<(&'static str, Vec<&Finding>)> = Vec::new();
    // They stand in the order of their ids.
    for finding in &report.findings {
        match grouped.last_mut() {
            Some((id, findings)) if *id == finding.id.name() => findings.push(finding),
            _ => grouped.push((finding.id.name(), vec![finding])),
        }
    }
    grouped
}

fn tell(at: &str, was: Option<Severity>, now: &Finding, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let change = Change {
                at: at.to_owned(),
                was,
                now: now.into(),
            };
            println!("{}", clean(&serde_json::to_string(&change).context("the change")?));
        }
        Format::Text => {
            let was = was.map(|was| format!(" (was {})", word(was))).unwrap_or_default();
            println!("{at}{was}");
            print_finding(now);
        }
    }
    Ok(())
}
