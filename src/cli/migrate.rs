//! `migrate`: brings a database to the schema of this binary, and takes over a ledger that was settled before.

use comfy_table::{Table, presets};

use super::progress::spinner;
use super::{Code, Format, Usage, print_json};
use crate::config::Problems;
use crate::inert::clean;
use crate::postgres::migrations::{self, Seeded};
use crate::postgres::{Client, DatabaseUrl};

#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub(super) struct Options {
    /// The database, as its owner: postgres://user:password@host:port/name.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: String,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// The cut-off, RFC 3339: every purchase created before it is noted as settled, if the wallet has entries for it, or as
    /// open. Stored as LEDGER_EFFECTIVE_FROM.
    #[arg(long, value_name = "TIME")]
    seed_before: Option<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was done; or would be.
#[derive(Debug, serde::Serialize)]
struct Report {
    dry_run: bool,
    applied: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seeded: Option<Seeded>,
    /// What works, and would end every booking with an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let cut_off = options.seed_before.as_deref().map(str::parse::<jiff::Timestamp>);
    let cut_off = cut_off.transpose();
    let cut_off = cut_off.map_err(|_invalid| Usage("--seed-before is no RFC 3339 time".to_owned()))?;
    let url = DatabaseUrl::parse(&options.database_url).map_err(|problem| Problems(vec![problem]))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = spinner(options.format, "migrating");
    let report = runtime.block_on(async {
        let mut client = Client::new(&url)?.connect_alone().await?;
        let mut report = Report {
            dry_run: options.dry_run,
            applied: Vec::new(),
            seeded: None,
            warnings: Vec::new(),
        };
        if options.dry_run {
            let pending = migrations::pending(&client).await?;
            report.applied = pending.iter().map(|migration| migration.name).collect();
        } else {
            report.applied = migrations::apply(&mut client).await?;
        }
        // Before everything is applied there is nothing to seed with.
        if let Some(cut_off) = cut_off
            && (!options.dry_run || report.applied.is_empty())
        {
            shown.set_message("seeding");
            report.seeded = Some(migrations::seed(&mut client, cut_off, options.dry_run).await?);
        }
        let loose = migrations::loose_functions(&client).await?;
        let warning = |place: String| {
            format!(
                "wallet_ledger: {place}, which finds only what it names with its schema when points are booked: give it \
                 `set search_path`"
            )
        };
        report.warnings = loose.into_iter().map(warning).collect();
        anyhow::Ok(report)
    });
    shown.finish_and_clear();
    let report = report?;
    match options.format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&report, options.seed_before.is_some()),
    }
    Ok(Code::Ok)
}

fn print(report: &Report, seeding: bool) {
    let done = if report.dry_run { "would be applied" } else { "applied" };
    for name in &report.applied {
        println!("{done}: {name}");
    }
    if report.applied.is_empty() {
        println!("nothing to apply: the schema is that of this binary");
    }
    match &report.seeded {
        Some(seeded) => {
            let (settled, open) = (seeded.settled, seeded.open);
            let done = if report.dry_run { "would be seeded" } else { "seeded" };
            println!("{done}: {settled} settled, {open} open");
            if !seeded.open_purchases.is_empty() {
                println!("open before the cut-off, nothing booked:");
                println!("{}", table(seeded));
            }
        }
        None if seeding => println!("what would be seeded can be said once the migrations are applied"),
        None => {}
    }
    for warning in &report.warnings {
        println!("warning: {}", clean(warning));
    }
}

fn table(seeded: &Seeded) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["purchase", "merchant", "status", "amount", "refunded", "created"]);
    for open in &seeded.open_purchases {
        table.add_row([
            clean(&open.purchase_id),
            clean(&open.merchant_id),
            clean(&open.status),
            clean(&open.final_amount),
            clean(&open.refunded_amount),
            clean(&open.created_at),
        ]);
    }
    table
}
