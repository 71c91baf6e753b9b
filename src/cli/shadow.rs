//! `reconcile --shadow`: what a shadow would do beside what the running system did.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::reconcile::{Options, PATIENCE};
use super::{Code, Format, print_json};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Problems, Reconciling};
use crate::inert::clean;
use crate::postgres::{Books, Client};
use crate::reconcile::known::known;
use crate::reconcile::shadow::{Comparison, Grace, Shadow, System};

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    // Only where the database is asked, its address must be there; it is looked at before a long file is read.
    let database = match &options.against {
        Some(_) => None,
        None => Some(Reconciling::from_flags(&options.flags(), false)?.database),
    };
    let mut shadow = Shadow::default();
    for path in &options.shadow {
        let read = shadow.read(&path.display().to_string(), open(path)?);
        read.with_context(|| format!("--shadow {}", path.display()))?;
    }
    let (system, unreadable) = match (&options.against, database) {
        (Some(path), _) => {
            let read = System::read(open(path)?);
            read.with_context(|| format!("--against {}", path.display()))?
        }
        (None, Some(url)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let books = Books::new(Arc::new(Client::new(&url)?.with_patience(PATIENCE)));
            (runtime.block_on(known(&books, &shadow))?, Vec::new())
        }
        (None, None) => anyhow::bail!("neither a database nor --against"),
    };
    let grace = Grace {
        now_ms: SystemClock.now_ms(),
        grace_ms: i64::from(options.grace) * 60_000,
    };
    let mut comparison = shadow.compare(&system, grace);
    comparison.not_understood(&unreadable);
    match options.format {
        Format::Json => print_json(&comparison)?,
        Format::Text => print(&comparison, options.limit),
    }
    Ok(if comparison.agrees() { Code::Ok } else { Code::Findings })
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let opened = File::open(path);
    let opened = opened.map_err(|error| Problems(vec![format!("{} cannot be read: {error}", path.display())]))?;
    Ok(BufReader::new(opened))
}

fn print(comparison: &Comparison, limit: usize) {
    println!(
        "{} decisions of the shadow, {} facts on either side:\n",
        comparison.lines, comparison.facts
    );
    for (count, what) in [
        (comparison.agree, "agree"),
        (
            comparison.in_flight,
            "in flight: they differ, and one side is younger than --grace",
        ),
        (
            comparison.scheduled,
            "scheduled: not due yet, so the wallet cannot show them",
        ),
        (comparison.not_ours, "older than the cut-off"),
        (
            comparison.unseen,
            "known to the system alone, and from before or behind the shadow's lines",
        ),
        (
            comparison.not_compared,
            "evaluations of tiers and missions, not compared",
        ),
    ] {
        println!("{count:>9} {what}");
    }
    println!();
    for finding in comparison.findings.iter().take(limit) {
        let detail = finding
            .detail
            .as_deref()
            .map(|detail| format!(": {detail}"))
            .unwrap_or_default();
        println!("{:<11} {}{}", finding.kind, clean(&finding.subject), clean(&detail));
    }
    let (shown, all) = (comparison.findings.len().min(limit), comparison.findings.len());
    if shown < all {
        println!("... {} more: --limit, or --format json", all - shown);
    }
    if comparison.agrees() {
        println!("no findings");
    } else {
        println!("{all} findings");
    }
}
