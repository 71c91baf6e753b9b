//! The worker as a shadow: everything is decided and written down, nothing reaches a target, and no line is lost.

use std::sync::Arc;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::faults::Gate;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::pipeline::source::Failure;
use crm_event_processors::postgres::memory::MemoryLedger;
use crm_event_processors::shadow::{Fault, MemoryDecisions, Said, WriteError};

use super::harness::{
    OTHER_PURCHASES, PURCHASES, Purchase, REFERRALS, Start, Worker, World, completed, patiently, snapshot,
};

const SNAPSHOT_MS: i64 = 1_795_175_000_000;

const REFERRAL: &str = r#"{"before":null,"after":{"id":"r-1","referrer_user_id":"u-1","referee_user_id":"u-2",
    "merchant_id":"m-any","status":"qualified","created_at":"2026-11-20T11:00:00.000000Z"},
    "source":{"ts_ms":1795175999000,"table":"referral_ledger","txId":1,"lsn":77},"op":"c","ts_ms":1795175999000}"#;

fn shadow() -> (World, Arc<MemoryDecisions>, Arc<MemoryLedger>) {
    let (mut world, ledger) = World::with_ledger();
    let decisions = Arc::new(MemoryDecisions::default());
    world.decisions = Some(Arc::clone(&decisions));
    (world, decisions, ledger)
}

async fn currency(world: &World) -> Worker {
    world.worker_of(&[Consumer::Currency], &[PURCHASES]).await
}

/// What was told of each record, in the order of the records: consumer, offset, what and why, id.
fn told(decisions: &MemoryDecisions) -> Vec<String> {
    let mut told: Vec<String> = decisions
        .lines()
        .into_iter()
        .map(|line| {
            let line = line.expect("a line");
            let said = match line.outcome {
                Said::Deliver => "deliver",
                Said::Ignore => "ignore",
                Said::Dead => "dead",
            };
            let id = line.id.unwrap_or_default();
            format!("{} {} {said} {} {id}", line.offset, line.consumer, line.reason)
        })
        .collect();
    told.sort();
    told
}

#[tokio::test(start_paused = true)]
async fn a_shadow_writes_every_decision_down_and_reaches_no_target() {
    let (world, decisions, ledger) = shadow();
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::update("p-2", "refunded", 20));
    world.raw(PURCHASES, &snapshot("p-3", SNAPSHOT_MS));
    world.raw(PURCHASES, "no json");
    world.raw(
        PURCHASES,
        &completed("p-4", 40).replace("100.00", "99999999999999999999.00"),
    );
    world.raw(REFERRALS, REFERRAL);
    let worker = world.worker(&[PURCHASES, REFERRALS]).await;
    world.all_committed(PURCHASES).await;
    world.all_committed(REFERRALS).await;
    let currency: Vec<String> = told(&decisions)
        .into_iter()
        .filter(|line| !line.contains(" tier ") && !line.contains(" mission "))
        .collect();
    assert_eq!(
        currency,
        [
            "0 currency deliver due_now currency:award:purchase_ledger:p-1:10",
            "0 reward deliver qualified reward:grant_referee:referral_ledger:r-1:77",
            "0 reward deliver qualified reward:grant_referrer:referral_ledger:r-1:77",
            "1 currency ignore zero_in_effects currency:award:purchase_ledger:p-2:20",
            "2 currency deliver due_now currency:award:purchase_ledger:p-3:r1795175000000",
            "3 decode dead not_json ",
            "4 currency dead points_overflow ",
        ]
    );
    // Tier and mission read each of the four rows as well.
    assert_eq!(decisions.lines().len(), currency.len() + 8);
    assert!(world.store.is_empty(), "nothing claimed");
    assert_eq!(world.inngest.requests(), 0, "nothing delivered");
    assert!(world.dead_letters.letters().is_empty(), "nothing buried");
    for function in [
        "evaluate_tiers",
        "record_progress",
        "announced",
        "announcement_rejected",
        "mark_dead",
    ] {
        assert_eq!(ledger.calls(function), 0, "{function}");
    }
    assert!(ledger.calls("compare_effects") > 0, "what is old is compared");
    let count = |label| worker.telemetry.outcomes(Consumer::Currency, label);
    assert_eq!(
        (
            count("shadowed"),
            count("ignored"),
            count("delivered"),
            count("dead_lettered")
        ),
        (4, 1, 0, 0)
    );
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_line_tells_what_would_be_sent_and_holds_no_column_of_the_row() {
    let (world, decisions, _ledger) = shadow();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    let line: serde_json::Value = serde_json::from_str(&decisions.text()).expect("one line");
    let due_at = line["due_at"].as_str().expect("a time").to_owned();
    assert_eq!(
        line,
        serde_json::json!({"consumer": "currency", "topic": "crm.public.purchase_ledger", "partition": 0, "offset": 0,
            "table": "purchase_ledger", "row_id": "p-1", "op": "c", "commit_ms": 1_795_175_999_000_i64,
            "outcome": "deliver", "reason": "due_now", "id": "currency:award:purchase_ledger:p-1:10",
            "event": "loyalty/award.scheduled", "effect_key": "award:p-1", "target": 100, "due_at": due_at,
            "program_rev": 1})
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_change_has_its_line_in_whatever_batch_it_comes() {
    let (world, decisions, _ledger) = shadow();
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::update("p-1", "refunded", 20));
    world.purchase(&Purchase::update("p-1", "completed", 30));
    world.purchase(&Purchase::update("p-1", "completed", 30));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(
        told(&decisions),
        [
            "0 currency deliver due_now currency:award:purchase_ledger:p-1:10",
            "1 currency ignore zero_in_effects currency:award:purchase_ledger:p-1:20",
            "2 currency deliver due_now currency:award:purchase_ledger:p-1:30",
            "3 currency deliver due_now currency:award:purchase_ledger:p-1:30",
        ],
        "nothing is superseded or a duplicate where nothing is delivered"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_database_knows_is_written_down_as_settled() {
    let (world, decisions, ledger) = shadow();
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    ledger.settle_what_was_asked();
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS + 1));
    world.all_committed(PURCHASES).await;
    let newest = decisions.lines().pop().flatten().expect("a line");
    assert_eq!((newest.outcome, &*newest.reason), (Said::Ignore, "in_effects"));
    assert_eq!(
        (newest.effect_key.as_deref(), newest.target),
        (Some("award:p-1"), Some(100))
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_from_before_the_cut_off_is_none_of_ours_even_if_it_cannot_be_decided() {
    let (mut world, decisions, ledger) = shadow();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    ledger.open("award:p-known");
    let overflows = |id, lsn| completed(id, lsn).replace("100.00", "99999999999999999999.00");
    world.raw(PURCHASES, &overflows("p-known", 10));
    world.raw(PURCHASES, &overflows("p-other", 20));
    world.raw(PURCHASES, &completed("p-fine", 30));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(
        told(&decisions),
        [
            "0 currency dead points_overflow ",
            "1 currency ignore before_cut_off ",
            "2 currency ignore before_cut_off currency:award:purchase_ledger:p-fine:30",
        ]
    );
    assert!(world.dead_letters.letters().is_empty());
    assert_eq!(ledger.calls("mark_dead"), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_before_its_line_is_durable() {
    let (world, decisions, _ledger) = shadow();
    let gate = Gate::default();
    decisions.faults().push(Fault::Hold(gate.clone()));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world
        .worker_of(&[Consumer::Currency], &[PURCHASES, OTHER_PURCHASES])
        .await;
    patiently(gate.arrived()).await;
    // Meanwhile others are written and committed.
    world.raw(OTHER_PURCHASES, "no json");
    world.all_committed(OTHER_PURCHASES).await;
    assert_ne!(world.log.committed(PURCHASES), Some(1));
    gate.release();
    world.all_committed(PURCHASES).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_holds_the_records_and_is_made_again_with_the_same_lines() {
    let (world, decisions, _ledger) = shadow();
    let full = || Fault::Error(WriteError::Unavailable("no space left on device".to_owned()));
    decisions.faults().push(full());
    decisions.faults().push(full());
    decisions.faults().push(Fault::WriteThenFail);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    let text = decisions.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "the one whose answer was lost, and its repetition");
    assert_eq!(lines.first(), lines.last());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_line_and_the_commit_repeats_the_line_and_loses_none() {
    let (world, decisions, _ledger) = shadow();
    let worker = currency(&world).await;
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::completed("p-2", 20));
    patiently(decisions.wait_for(2)).await;
    let first = decisions.text();
    worker.crash().await;
    assert_ne!(world.log.committed(PURCHASES), Some(2), "it crashed before the commit");
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    let mut before: Vec<&str> = first.lines().collect();
    let text = decisions.text();
    let mut after: Vec<&str> = text.lines().skip(before.len()).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before, "to the byte");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_nobody_reads_any_more_ends() {
    let (world, decisions, _ledger) = shadow();
    let gone = WriteError::Gone("broken pipe".to_owned());
    decisions.faults().push(Fault::Error(gone.clone()));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world).await;
    let exit = patiently(worker.ended()).await;
    assert_eq!(exit, Exit::Failed(Failure::Configuration(gone.to_string())));
    assert_ne!(world.log.committed(PURCHASES), Some(1));
}

#[tokio::test(start_paused = true)]
async fn no_number_of_dead_records_halts_a_shadow() {
    const RECORDS: usize = 300;
    let (world, decisions, _ledger) = shadow();
    for _ in 0..RECORDS {
        world.raw(PURCHASES, "no json");
    }
    let worker = world.worker_as(Start::of(&[Consumer::Currency]), &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(decisions.lines().len(), RECORDS);
    assert!(world.dead_letters.letters().is_empty());
    worker.stop().await;
}
