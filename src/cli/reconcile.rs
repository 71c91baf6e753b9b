//! `reconcile`: whether everything in the ledgers is settled, and the wallet has what was booked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;

use super::progress::counter;
use super::run::read_programs;
use super::{Code, Format, print_json};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Flags, Problems, Reconciling};
use crate::dedupe::{RedisDedupe, RedisSettings};
use crate::inert::clean;
use crate::inngest::{Endpoint, HttpDeliver, HttpSettings};
use crate::pipeline::{Randomness, RuleBook};
use crate::postgres::{self, Books, Client, Ledger, PostgresLedger};
use crate::reconcile::Outbox;
use crate::reconcile::balance::{Balance, Question, balance};
use crate::rows;
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub(super) struct Options {
    /// Only rows that have a time of this instant or later (RFC 3339). Default: all.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Minutes for which what is not settled counts as on its way.
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    pub(super) grace: u16,
    /// Send what is missing, the same way as the worker. Needs REDIS_URL and INNGEST_EVENT_KEY.
    #[arg(long)]
    redeliver: bool,
    /// Compare what `run --shadow` wrote to this file with what the running system did; may be given several times. With
    /// DATABASE_URL (or --against) and --grace; nothing is decided again.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "redeliver"])]
    pub(super) shadow: Vec<PathBuf>,
    /// What the running system sent, instead of a database: a line of JSON an event.
    #[arg(long, value_name = "FILE", requires = "shadow")]
    pub(super) against: Option<PathBuf>,
    /// How many findings the table shows; JSON has all.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub(super) limit: usize,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    /// The database.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The loyalty programs (JSON), instead of those in the database.
    #[arg(long, env = "PROGRAM_FILE", value_name = "FILE")]
    program_file: Option<String>,
    /// The consumers to look at, separated by commas. Default: all.
    #[arg(long, env = "CONSUMERS", value_name = "NAMES")]
    consumers: Option<String>,
    /// The dedupe store.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,
    #[arg(long, env = "INNGEST_EVENT_KEY", value_name = "KEY", hide_env_values = true)]
    inngest_event_key: Option<String>,
    #[arg(long, env = "INNGEST_BASE_URL", value_name = "URL", hide_env_values = true)]
    inngest_base_url: Option<String>,
    #[arg(long, env = "INNGEST_DEV", value_name = "1|URL", hide_env_values = true)]
    inngest_dev: Option<String>,
    #[arg(long, env = "INNGEST_ENV", value_name = "NAME")]
    inngest_env: Option<String>,
    #[arg(long, env = "INNGEST_RATE_PER_SEC", value_name = "NUMBER")]
    inngest_rate_per_sec: Option<String>,
}

/// Somebody stands by, and a ledger may lack the indexes.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

impl Options {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            database_url: self.database_url.clone(),
            program_file: self.program_file.clone(),
            consumers: self.consumers.clone(),
            redis_url: self.redis_url.clone(),
            inngest_event_key: self.inngest_event_key.clone(),
            inngest_base_url: self.inngest_base_url.clone(),
            inngest_dev: self.inngest_dev.clone(),
            inngest_env: self.inngest_env.clone(),
            inngest_rate_per_sec: self.inngest_rate_per_sec.clone(),
            ..Flags::default()
        }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    if !options.shadow.is_empty() {
        return super::shadow::run(options);
    }
    let settings = Reconciling::from_flags(&options.flags(), options.redeliver)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let balance = runtime.block_on(async {
        let (books, ledger, rules) = open(&settings).await?;
        let clock: SharedClock = Arc::new(SystemClock);
        let question = Question {
            books,
            ledger,
            rules: rules.current(),
            consumers: settings.consumers.clone(),
            since: options.since,
            grace_ms: i64::from(options.grace) * 60_000,
            now: clock.now(),
            redeliver: outbox(&settings, clock)?,
        };
        let counter = counter(options.format, "rows");
        let looked = |table: rows::Table, count: usize| {
            counter.set_message(table.name());
            counter.inc(count as u64);
        };
        let balance = balance(&question, &looked).await;
        counter.finish_and_clear();
        anyhow::Ok(balance?)
    })?;
    match options.format {
        Format::Json => print_json(&balance)?,
        Format::Text => print(&balance, options),
    }
    Ok(if balance.is_balanced() {
        Code::Ok
    } else {
        Code::Findings
    })
}

/// The database and its rules. One that is away is not waited for: a person stands by.
pub(super) async fn open(settings: &Reconciling) -> anyhow::Result<(Books, Arc<dyn Ledger>, RuleBook)> {
    let programs = settings.program_file.as_deref().map(read_programs).transpose()?;
    let client = Arc::new(Client::new(&settings.database)?.with_patience(PATIENCE));
    let books = Books::new(Arc::clone(&client));
    books.overdue().await?;
    let rules = postgres::rule_book(Arc::clone(&client), None, None, programs, &|_logged| {}).await?;
    Ok((books, Arc::new(PostgresLedger::new(client)), rules))
}

fn outbox(settings: &Reconciling, clock: SharedClock) -> anyhow::Result<Option<Outbox>> {
    let Some(out) = &settings.out else { return Ok(None) };
    let redis = RedisSettings {
        window: out.dedup_window,
        ..RedisSettings::new(
            out.redis_url.clone(),
            format!("{:016x}", Randomness::from_entropy().number()),
        )
    };
    let inngest = &out.inngest;
    let endpoint = Endpoint::new(&inngest.base_url, &inngest.event_key, inngest.environment.as_deref());
    let endpoint = endpoint.map_err(|error| Problems(vec![error.to_string()]))?;
    let http = HttpSettings::at_rate(inngest.requests_per_second);
    Ok(Some(Outbox {
        dedupe: Arc::new(RedisDedupe::new(&redis)?),
        deliver: Arc::new(HttpDeliver::new(endpoint, &http, Arc::clone(&clock))?),
        clock,
        telemetry: Arc::new(Telemetry::new()?),
    }))
}

fn print(balance: &Balance, options: &Options) {
    println!(
        "{} rows of the ledgers, decided again and compared with what was done:\n",
        balance.rows
    );
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "consumer",
        "eligible",
        "settled",
        "scheduled",
        "in flight",
        "overdue",
        "missing",
        "differs",
        "stale",
        "dead",
        "review",
        "unsent",
    ]);
    for (consumer, counts) in &balance.counts {
        let numbers = [
            counts.eligible,
            counts.settled,
            counts.scheduled,
            counts.in_flight,
            counts.overdue,
            counts.missing,
            counts.differs,
            counts.stale,
            counts.dead,
            counts.review,
            counts.unsent,
        ];
        let row = std::iter::once((*consumer).to_owned()).chain(numbers.map(|number| number.to_string()));
        table.add_row(row);
    }
    println!("{table}\n");
    print_findings(balance, options.limit);
    if balance.without_time > 0 {
        println!(
            "{} claims and codes have no time, and nothing is known of them: taken as older than the cut-off",
            balance.without_time
        );
    }
    if options.redeliver {
        println!(
            "sent now: {}, evaluated now: {}",
            balance.redelivered, balance.evaluated
        );
        if let Some(stopped) = &balance.stopped {
            println!("not all of it: {}", clean(stopped));
        }
    }
    if balance.is_balanced() {
        println!("balanced");
    } else {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in &balance.findings {
            *kinds.entry(finding.kind).or_default() += 1;
        }
        if !balance.unbalanced.is_empty() {
            kinds.insert("unbalanced", balance.unbalanced.len());
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        println!("not balanced: {}", kinds.join(", "));
    }
}

fn print_findings(balance: &Balance, limit: usize) {
    for finding in balance.findings.iter().take(limit) {
        let detail = finding
            .detail
            .as_deref()
            .map(|detail| format!(": {detail}"))
            .unwrap_or_default();
        println!("{:<10} {}{}", finding.kind, clean(&finding.subject), clean(&detail));
    }
    for one in balance.unbalanced.iter().take(limit) {
        let (purchase, wallet, booked) = (clean(&one.purchase_id), one.in_wallet, one.booked);
        println!("unbalanced purchase {purchase}: the wallet has {wallet} points for it, effects {booked}");
    }
    let shown = balance.findings.len().min(limit) + balance.unbalanced.len().min(limit);
    let all = balance.findings.len() + balance.unbalanced.len();
    if shown < all {
        println!("... {} more: --limit, or --format json", all - shown);
    }
}
