//! The load: writes rows into the ledgers, then their records into the log; and the entries that settling books, too.
//!
//! A row is in its table before its record is in the log. It writes as fast as the group follows, and no faster than asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crm_event_processors::clock::{Clock as _, SystemClock};
use tokio::time::sleep;

use super::World;
use super::changes::{Change, Story, record};
use super::database::Session;
use super::rows::{Image, Ledger};

/// Changes of one batch.
const BATCH: usize = 250;
/// Records that nobody has committed, and runs that nobody has ended: above, the load waits.
const BEHIND: u64 = 8_000;
const RUNS: u64 = 8_000;
const LOOK: Duration = Duration::from_millis(20);
/// A connector repeats one record in so many.
const REPEATED_IN: u32 = 100;
/// Entries of the wallet are numbered from here, far from the load's own changes.
const BOOKED_LSN: u64 = 1 << 50;
/// Entries of one look into the wallet.
const PAGE: usize = 2_000;

/// How long, or how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) time: Duration,
    /// At an even pace over that time.
    pub(crate) records: Option<u64>,
}

pub(crate) async fn write(world: Arc<World>, seed: u64, length: Length) -> anyhow::Result<()> {
    let mut session = Session::new(world.ground.database_url("crm"));
    let mut story = Story::new(seed);
    let mut written = 0;
    loop {
        let since = world.since();
        let due = length.records.map(|records| {
            let part = since.as_secs_f64() / length.time.as_secs_f64();
            (part.min(1.0) * records as f64) as u64
        });
        if due.map_or(since >= length.time, |_| {
            length.records.is_some_and(|records| written >= records)
        }) {
            return Ok(());
        }
        let early = due.is_some_and(|due| written >= due);
        if early || world.journal.behind() > BEHIND || world.runs.load(Ordering::Acquire) > RUNS {
            sleep(LOOK).await;
            continue;
        }
        written += batch(&world, &mut session, &mut story).await?;
    }
}

async fn batch(world: &World, session: &mut Session, story: &mut Story) -> anyhow::Result<u64> {
    let now_ms = SystemClock.now_ms();
    let changes = story.batch(BATCH, now_ms);
    for ledger in Ledger::ALL {
        let images: Vec<String> = changes
            .iter()
            .filter(|change| change.after.ledger() == ledger)
            .map(|change| change.after.json())
            .collect();
        if !images.is_empty() {
            session
                .ask(upsert(ledger), &[&format!("[{}]", images.join(","))])
                .await?;
        }
    }
    let mut written = 0;
    world.with_books(|books| {
        for change in &changes {
            if let Some(debt) = change.debt() {
                for fact in change.facts() {
                    books.owe(fact, change.lsn, debt);
                }
            }
        }
    });
    // What the wallet holds is read from there, whoever wrote it.
    for change in changes
        .iter()
        .filter(|change| !matches!(change.after, Image::Entry(..)))
    {
        written += publish(world, change, now_ms)?;
    }
    Ok(written)
}

fn publish(world: &World, change: &Change, now_ms: i64) -> anyhow::Result<u64> {
    let (key, value) = change.record(now_ms);
    let times = 1 + u64::from(fastrand::u32(..REPEATED_IN) == 0);
    let (table, row) = (change.after.ledger().table(), u64::from(change.after.place().row));
    for _ in 0..times {
        world.journal.write(table, row, &key, &value)?;
    }
    Ok(times)
}

/// Rows as they are now: executed twice it changes nothing. In the order of the ids, as whoever locks rows does.
const fn upsert(ledger: Ledger) -> &'static str {
    match ledger {
        Ledger::Purchases => {
            "insert into public.purchase_ledger select * from jsonb_populate_recordset(null::public.purchase_ledger, $1::jsonb) \
             order by id collate \"C\" on conflict (id) do update set refunded_amount = excluded.refunded_amount, \
             status = excluded.status, completed_at = excluded.completed_at"
        }
        Ledger::Forms => {
            "insert into public.form_submissions select * from \
             jsonb_populate_recordset(null::public.form_submissions, $1::jsonb) on conflict (id) do nothing"
        }
        Ledger::Claims => {
            "insert into public.mission_claims select * from jsonb_populate_recordset(null::public.mission_claims, $1::jsonb) \
             order by id collate \"C\" on conflict (id) do update set status = excluded.status"
        }
        Ledger::Referrals => {
            "insert into public.referral_ledger select * from \
             jsonb_populate_recordset(null::public.referral_ledger, $1::jsonb) \
             order by id collate \"C\" on conflict (id) do update set status = excluded.status"
        }
        Ledger::Codes => {
            "insert into public.codes select * from jsonb_populate_recordset(null::public.codes, $1::jsonb) \
             order by id collate \"C\" on conflict (id) do update set status = excluded.status, redeemed_at = excluded.redeemed_at"
        }
        Ledger::Wallet => {
            "insert into public.wallet_ledger (id, user_id, merchant_id, amount, kind, source_type, source_id, created_at) \
             select id, user_id, merchant_id, amount, kind, source_type, source_id, created_at from \
             jsonb_populate_recordset(null::public.wallet_ledger, $1::jsonb) on conflict (id) do nothing"
        }
    }
}

/// What `migrate` makes, and what the wallet needs to be read as a log: every entry once, whenever it was committed.
pub(crate) const WALLET_AS_A_LOG: &str = "\
    alter table public.wallet_ledger add column tx xid8 not null default pg_current_xact_id(), \
        add column seq bigint generated always as identity; \
    create index wallet_ledger_as_a_log on public.wallet_ledger (tx, seq);";

/// Entries of the wallet become records, as a connector does it. Nothing older can come behind the oldest transaction that
/// is still open.
pub(crate) async fn follow_wallet(world: Arc<World>) -> anyhow::Result<()> {
    let mut session = Session::new(world.ground.database_url("crm"));
    let (mut tx, mut seq) = ("0".to_owned(), "0".to_owned());
    let query = format!(
        "select tx::text, seq::text, id, jsonb_build_object('id', id, 'user_id', user_id, 'merchant_id', merchant_id, \
         'amount', amount, 'kind', kind, 'source_type', source_type, 'source_id', source_id, 'created_at', created_at)::text \
         from public.wallet_ledger where (tx, seq) > ($1::xid8, $2::bigint) and tx < pg_snapshot_xmin(pg_current_snapshot()) \
         order by tx, seq limit {PAGE}"
    );
    loop {
        let entries = session.ask(&query, &[&tx, &seq]).await?;
        for entry in &entries {
            (tx, seq) = (entry.try_get(0)?, entry.try_get(1)?);
            let (id, image): (&str, &str) = (entry.try_get(2)?, entry.try_get(3)?);
            let row: u64 = seq.parse()?;
            let lsn = BOOKED_LSN + row * 8;
            let (key, value) = record(Ledger::Wallet, id, (None, image), 'c', (lsn, SystemClock.now_ms()));
            world.journal.write(Ledger::Wallet.table(), row, &key, &value)?;
        }
        if entries.len() < PAGE {
            world.wallet_looks.fetch_add(1, Ordering::AcqRel);
            sleep(LOOK * 5).await;
        }
    }
}
