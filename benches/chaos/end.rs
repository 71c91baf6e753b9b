//! The end: waits until everything is settled, then asks everybody: the books, the ledgers, the log, and `reconcile`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::breaker::Stage;
use super::database::Session;
use super::executor::sweep;
use super::parts::binary;
use super::plan::Part;
use super::verdict::{Findings, Reconciled, Recovery};
use super::{World, ledger};

const LOOK: Duration = Duration::from_millis(200);
/// So many looks in a row have to find nothing new.
const QUIET: u32 = 10;
/// Without anything new and with something open for so long, it will never end. A machine that others use as well may stand
/// still for a minute or two.
const STUCK: Duration = Duration::from_secs(300);
/// By so much the database's clock is set on in each round: what waits for thirty days or for a month is due then.
const ROUND_DAYS: u32 = 40;
/// What is settled late is dated late, and may schedule an upgrade for the month after.
const ROUNDS: u32 = 5;

/// Everything that is on its way arrives; then the sweeper settles what was lost and what waits, until nothing does.
pub(crate) async fn drain_and_sweep(
    stage: &Arc<Stage>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<u64> {
    let world = &stage.world;
    let mut owner = Session::new(world.ground.database_url("crm"));
    drain(stage, tasks).await?;
    let mut swept = 0;
    for round in 1..=ROUNDS {
        let days = round * ROUND_DAYS;
        owner
            .run(&format!(
                "insert into crm_events.settings (name, value) values ('clock_offset', '{days} days') \
                 on conflict (name) do update set value = excluded.value"
            ))
            .await?;
        swept += sweep(world).await?;
        drain(stage, tasks).await?;
        let pending = "select count(*) from crm_events.effects where state = 'pending'";
        if owner.number(pending).await? == 0 {
            break;
        }
    }
    Ok(swept)
}

async fn drain(stage: &Stage, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let world = &stage.world;
    let (mut quiet, mut last, mut moved) = (0, (0, 0, 0, 0), Instant::now());
    let looks = world.wallet_looks.load(Ordering::Acquire);
    while quiet < QUIET {
        if let Some(over) = tasks.try_join_next() {
            over??;
        }
        stage.look_after()?;
        let now = (
            world.journal.written(),
            world.journal.behind(),
            world.runs.load(Ordering::Acquire),
            world.with_books(|books| books.tally().accepted),
        );
        let wallet_read = world.wallet_looks.load(Ordering::Acquire) > looks + 1;
        let is_quiet = now == last && now.1 == 0 && now.2 == 0 && wallet_read;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if now != last {
            moved = Instant::now();
        } else if moved.elapsed() > STUCK {
            bail!("it does not end: {world}");
        }
        last = now;
        sleep(LOOK).await;
    }
    Ok(())
}

/// Ends the workers in order, and asks everybody.
pub(crate) async fn findings(
    stage: &Arc<Stage>,
    seed: u64,
    (length, drained): (Duration, Duration),
    swept: u64,
) -> anyhow::Result<Findings> {
    let world = &stage.world;
    for part in [Part::First, Part::Second] {
        let status = stage.process(part)?.lock().await.end("TERM").await?;
        if !status.success() {
            world.note(format!("{part} was told to end and ended with {status}"));
        }
    }
    let asking = Arc::clone(world);
    let (held, dead_letters) =
        tokio::task::spawn_blocking(move || anyhow::Ok((asking.journal.held()?, asking.journal.dead_letters()?)))
            .await??;
    let mut owner = Session::new(world.ground.database_url("crm"));
    let client = owner.client().await?;
    let announcements = ledger::announcements(client).await?;
    let breaches = ledger::breaches(client).await?;
    let reconciled = reconcile(world).await?;
    let books = world.with_books(std::mem::take);
    let (books, activity) = books.balance(announcements.iter().map(String::as_str));
    let broken = world.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let notes = world.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Findings {
        seed,
        length,
        drained,
        records: world.journal.written(),
        held,
        books,
        recoveries: Recovery::all(&broken, &activity, world.since()),
        stall: activity.silence(Duration::ZERO, length),
        swept,
        dead_letters,
        breaches,
        reconciled,
        restarted: world.restarted.load(Ordering::Acquire),
        notes,
    })
}

/// The product's own verdict, over the same database.
async fn reconcile(world: &World) -> anyhow::Result<Reconciled> {
    let url = world.ground.database_url("chaos_worker");
    let asked = Command::new(binary())
        .args(["reconcile", "--format", "json", "--grace", "0", "--database-url", &url])
        .output()
        .await?;
    let answer: Value = serde_json::from_slice(&asked.stdout)
        .with_context(|| format!("reconcile: {}", String::from_utf8_lossy(&asked.stderr)))?;
    let list = |name: &str| answer[name].as_array().cloned().with_context(|| format!("no {name}"));
    // A refund that takes a member below a tier asks a person: that is the promise, and no finding here.
    let is_review = |finding: &Value| {
        finding["kind"] == "review"
            && finding["subject"]
                .as_str()
                .is_some_and(|subject| subject.starts_with("tier:"))
    };
    let (reviews, findings): (Vec<Value>, Vec<Value>) = list("findings")?.into_iter().partition(is_review);
    let unbalanced = list("unbalanced")?;
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for finding in &findings {
        let kind = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        *kinds
            .entry(format!("{} {}", kind("consumer"), kind("kind")))
            .or_default() += 1;
    }
    let example = findings.first().or(unbalanced.first());
    Ok(Reconciled {
        rows: answer["rows"].as_u64().context("rows")?,
        findings: findings.len() as u64,
        unbalanced: unbalanced.len() as u64,
        reviews: reviews.len() as u64,
        kinds,
        example: example.map(Value::to_string).unwrap_or_default(),
    })
}
