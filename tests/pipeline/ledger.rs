//! The worker with a database: what it knows is not delivered again, tiers and missions are evaluated there, and what is to
//! be announced is announced once, whatever breaks in between.

use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault as InngestFault;
use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use crm_event_processors::pipeline::{OldRecords, ReadRules, RuleBook};
use crm_event_processors::postgres::LedgerError;
use crm_event_processors::postgres::memory::Fault;
use futures::future::BoxFuture;

use super::harness::{
    NOW_MS, PURCHASES, Purchase, REFERRALS, SNAPSHOT_MS, Start, Worker, World, award_id, completed, patiently, snapshot,
};

const TIER: &str = "tier:m-any:u-1";

fn snapshot_id(purchase: &str, ts_ms: i64) -> String {
    format!("currency:award:purchase_ledger:{purchase}:r{ts_ms}")
}

async fn currency(world: &World) -> Worker {
    world.worker_of(&[Consumer::Currency], &[PURCHASES]).await
}

/// One lane, so that what is there at the start is one batch.
async fn one_lane(world: &World, consumer: Consumer) -> Worker {
    let start = Start {
        consumers: vec![(consumer, 1)],
        ..Start::of(&[])
    };
    world.worker_as(start, &[PURCHASES]).await
}

async fn tier(world: &World) -> Worker {
    one_lane(world, Consumer::Tier).await
}

async fn mission(world: &World) -> Worker {
    one_lane(world, Consumer::Mission).await
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_delivers_what_the_database_does_not_know_and_nothing_else() {
    let (world, ledger) = World::with_ledger();
    for row in 0..50 {
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS));
    }
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards().len(), 50, "nothing was known");
    ledger.settle_what_was_asked();
    // Once more, with two that nobody has seen.
    for row in 0..52 {
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS + 1));
    }
    world.all_committed(PURCHASES).await;
    let missed = ["p-50", "p-51"].map(|row| snapshot_id(row, SNAPSHOT_MS + 1));
    let mut sent = world.awards().split_off(50);
    sent.sort();
    assert_eq!(sent, missed);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 50);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_proves_itself_is_not_compared() {
    let (world, ledger) = World::with_ledger();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!((world.awards().len(), ledger.calls("compare_effects")), (1, 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_to_nothing_is_not_sent_where_nothing_is_known() {
    let (world, _ledger) = World::with_ledger();
    world.purchase(&Purchase::update("p-1", "cancelled", 10));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert!(world.inngest.accepted().is_empty());
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_newest_state_that_is_settled_covers_the_older_ones_in_hand() {
    let (world, ledger) = World::with_ledger();
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    ledger.settle_what_was_asked();
    worker.stop().await;
    // An older state that nobody settled, and the newest, which is settled, in one batch.
    let refunded =
        snapshot("p-1", SNAPSHOT_MS + 1).replace(r#""refunded_amount":"0.00""#, r#""refunded_amount":"40.00""#);
    world.raw(PURCHASES, &refunded);
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS + 2));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(
        world.awards(),
        [snapshot_id("p-1", SNAPSHOT_MS)],
        "only the first of all"
    );
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "superseded"), 1);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 1);
    // The other way round the newest differs, and is delivered.
    worker.stop().await;
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS + 3));
    world.raw(
        PURCHASES,
        &refunded.replace(&(SNAPSHOT_MS + 1).to_string(), &(SNAPSHOT_MS + 4).to_string()),
    );
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards().last(), Some(&snapshot_id("p-1", SNAPSHOT_MS + 4)));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_records_wait_and_none_is_sent_uncompared() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..20 {
        let away = LedgerError::Unavailable("57P01".to_owned());
        ledger.faults().push(Fault::Error(away));
    }
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.faults().remaining(), 0);
    assert_eq!(world.awards().len(), 1);
    assert!(world.dead_letters.letters().is_empty());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_us_stops_the_consumer_and_one_probe_a_minute_lets_it_go_on() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..3 {
        let refused = LedgerError::Configuration("28P01".to_owned());
        ledger.faults().push(Fault::Error(refused));
    }
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = currency(&world).await;
    worker
        .wait_until(|status| status.consumers.iter().any(|c| c.standing_still.is_some()))
        .await;
    let stood = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert!(stood.elapsed() >= Duration::from_secs(120));
    assert_eq!(world.awards().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_triggers_of_many_members_are_one_call() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    for row in 1..=100 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.calls("evaluate_tiers"), 1);
    assert_eq!(world.accepted("loyalty/tier.upgraded").len(), 1);
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), true)]);
    assert!(world.accepted("loyalty/tier.evaluation_requested").is_empty());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_database_loses_no_announcement() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    ledger.faults().push(Fault::DoThenFail);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.calls("evaluate_tiers"), 2);
    assert_eq!(world.accepted("loyalty/tier.upgraded"), [format!("{TIER}:1")]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_database_and_inngest_is_announced_by_the_next_worker() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    let gate = Gate::default();
    world.inngest.faults().push(InngestFault::Hold(gate.clone()));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    patiently(gate.arrived()).await;
    worker.crash().await;
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), false)]);
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted("loyalty/tier.upgraded"), [format!("{TIER}:1")]);
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), true)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_announcement_whose_answer_was_lost_is_sent_again_under_its_id() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    world.inngest.faults().push(InngestFault::AcceptThenFail);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted("loyalty/tier.upgraded"), vec![format!("{TIER}:1"); 2]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_rejected_is_marked_and_holds_nobody() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    world.inngest.poison(TIER);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.rejected(), [format!("{TIER}:1")]);
    assert!(world.dead_letters.letters().is_empty());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_announcement_with_an_unknown_answer_is_left_to_the_reconciler() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    world.inngest.puzzle(TIER);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), false)]);
    assert!(ledger.rejected().is_empty());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_inngest_is_away_nothing_is_marked_and_nothing_committed() {
    let (world, ledger) = World::with_ledger();
    ledger.let_rise(TIER);
    for _ in 0..30 {
        let away = Answer::Unavailable {
            detail: "503".to_owned(),
            retry_after: None,
        };
        world.inngest.faults().push(InngestFault::Answer(away));
    }
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = tier(&world).await;
    patiently(async {
        while world.inngest.faults().remaining() > 20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), false)]);
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted("loyalty/tier.upgraded").len(), 1);
    assert_eq!(ledger.announcements(), [(format!("{TIER}:1"), true)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_row_that_the_database_rejects_costs_one_dead_letter_and_the_database_knows() {
    let (world, ledger) = World::with_ledger();
    ledger.poison(":p-3");
    for row in 1..=6 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    let worker = mission(&world).await;
    world.all_committed(PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].queue, letters[0].reason),
        (Queue::Consumer(Consumer::Mission), "database_rejected")
    );
    let buried = (Consumer::Mission, "p-3".to_owned(), "database_rejected".to_owned());
    assert_eq!(ledger.buried(), [buried]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Mission, "delivered"), 5);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_halved_and_the_next_batch_is_smaller() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..3 {
        let too_long = LedgerError::TooLong("57014".to_owned());
        ledger.faults().push(Fault::Error(too_long));
    }
    for row in 1..=8 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    let worker = mission(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(worker.telemetry.outcomes(Consumer::Mission, "delivered"), 8);
    assert!(world.dead_letters.letters().is_empty());
    assert_eq!(ledger.sizes("record_progress"), [8, 4, 2, 1, 1, 2, 4]);
    for row in 9..=23 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.sizes("record_progress").split_off(7), [4, 5, 6]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_takes_too_long_makes_the_next_batch_smaller() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..2 {
        let too_long = LedgerError::TooLong("57014".to_owned());
        ledger.faults().push(Fault::Error(too_long));
    }
    for row in 1..=8 {
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS));
    }
    let worker = one_lane(&world, Consumer::Currency).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.sizes("compare_effects"), [8, 4, 2, 2, 4]);
    for row in 9..=13 {
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS));
    }
    world.all_committed(PURCHASES).await;
    // What fits is one more with every batch that Inngest takes whole.
    assert_eq!(ledger.sizes("compare_effects").split_off(5), [5]);
    assert_eq!(world.awards().len(), 13);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_row_that_the_database_cannot_work_on_makes_no_batch_small() {
    let (world, ledger) = World::with_ledger();
    ledger.poison(":p-3");
    for row in 1..=8 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    let worker = mission(&world).await;
    world.all_committed(PURCHASES).await;
    let before = ledger.calls("record_progress");
    for row in 9..=29 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
    }
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.sizes("record_progress").split_off(before), [21]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_row_and_of_many_are_one_call_for_a_mission() {
    let (world, ledger) = World::with_ledger();
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::completed("p-2", 20));
    world.purchase(&Purchase {
        refunded: "40.00",
        ..Purchase::update("p-1", "partially_refunded", 30)
    });
    world.purchase(&Purchase::update("p-1", "cancelled", 40));
    let worker = mission(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(ledger.sizes("record_progress"), [2], "the newest state of each row");
    assert_eq!(worker.telemetry.outcomes(Consumer::Mission, "delivered"), 2);
    assert_eq!(worker.telemetry.outcomes(Consumer::Mission, "superseded"), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_mission_tells_its_progress_and_a_repetition_tells_nothing() {
    let (world, ledger) = World::with_ledger();
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = world.worker_of(&[Consumer::Mission], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS + 1));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted("loyalty/mission.evaluated").len(), 1);
    assert_eq!(ledger.calls("record_progress"), 2);
    worker.stop().await;
}

/// A qualified referral is two grants, one for each side.
fn referral(lsn: u32) -> String {
    let ms = NOW_MS - 1000;
    format!(
        r#"{{"before":null,"after":{{"id":"r-1","referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-any",
        "status":"qualified","created_at":"2026-11-20T11:00:00.000000Z"}},
        "source":{{"ts_ms":{ms},"table":"referral_ledger","txId":1,"lsn":{lsn}}},"op":"c","ts_ms":{ms}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_record_with_two_effects_is_committed_only_after_both() {
    let world = World::new();
    world.inngest.puzzle("referee");
    world.raw(REFERRALS, &referral(10));
    let worker = world.worker_of(&[Consumer::Reward], &[REFERRALS]).await;
    patiently(world.inngest.accepted().wait_for(1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        world.log.committed(REFERRALS).unwrap_or(0),
        0,
        "one side is delivered, the other is not"
    );
    world.inngest.relent();
    world.all_committed(REFERRALS).await;
    assert_eq!(world.accepted("loyalty/reward.granted").len(), 2);
    assert_eq!(world.inngest.accepted().distinct(), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_database_what_may_be_a_repetition_is_set_aside_if_the_operator_says_so() {
    let mut world = World::new();
    world.old_records = OldRecords::DeadLetter;
    for row in 0..200 {
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS));
    }
    world.purchase(&Purchase::completed("p-new", 20));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-new", 20)]);
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 200, "a policy of ours never counts towards a halt");
    assert!(letters.iter().all(|letter| letter.reason == "needs_effects_check"));
    worker.stop().await;
}

/// Programs that a merchant joins while the worker runs.
struct Joins(Arc<std::sync::atomic::AtomicBool>);

impl ReadRules for Joins {
    fn read(&mut self) -> BoxFuture<'_, Result<Arc<Rules>, LedgerError>> {
        let joined = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { Ok(rules(joined)) })
    }
}

/// The demo's programs, or none.
fn rules(known: bool) -> Arc<Rules> {
    let programs = if known {
        Programs::from_json(DEMO_PROGRAM).expect("valid")
    } else {
        Programs::default()
    };
    Arc::new(Rules::new(Arc::new(programs), None))
}

#[tokio::test(start_paused = true)]
async fn a_merchant_nobody_knows_is_looked_up_before_there_is_no_program() {
    let joined = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut world = World::new();
    world.rules = Some(RuleBook::refreshed(
        rules(false),
        Some(tokio::time::Instant::now()),
        Box::new(Joins(Arc::clone(&joined))),
    ));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert!(world.awards().is_empty(), "a refresh that began later says so as well");
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 1);
    joined.store(true, std::sync::atomic::Ordering::SeqCst);
    world.purchase(&Purchase::completed("p-2", 20));
    let asked = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-2", 20)]);
    assert!(
        asked.elapsed() <= Duration::from_secs(6),
        "not only with the next refresh in half a minute"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_merchant_is_looked_up_whatever_the_old_image_says() {
    let mut world = World::new();
    world.rules = Some(RuleBook::refreshed(
        rules(false),
        Some(tokio::time::Instant::now()),
        Box::new(Joins(Arc::new(std::sync::atomic::AtomicBool::new(true)))),
    ));
    let update = Purchase::update("p-1", "completed", 20).envelope();
    let image = update
        .split_once(r#""after":"#)
        .and_then(|(_, rest)| rest.split_once("},"))
        .map(|(after, _)| format!("{after}}}"))
        .expect("an image");
    let pending = image.replace(r#""status":"completed""#, r#""status":"pending""#);
    world.raw(
        PURCHASES,
        &update.replace(r#""before":null"#, &format!(r#""before":{pending}"#)),
    );
    world.raw(PURCHASES, &snapshot("p-2", SNAPSHOT_MS));
    let completed = image.replace("p-1", "p-3");
    let cancelled = Purchase::update("p-3", "cancelled", 30).envelope();
    world.raw(
        PURCHASES,
        &cancelled.replace(r#""before":null"#, &format!(r#""before":{completed}"#)),
    );
    // Nor is what waits for them overtaken by a later state of its row.
    for (status, lsn) in [("completed", 40), ("cancelled", 50)] {
        world.purchase(&Purchase::update("p-4", status, lsn));
    }
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    let mut sent = world.awards();
    sent.sort();
    assert_eq!(sent, [award_id("p-1", 20), snapshot_id("p-2", SNAPSHOT_MS)]);
    let taken_back = world.accepted("loyalty/award.cancelled");
    assert_eq!(
        taken_back,
        [award_id("p-3", 30), award_id("p-4", 50)],
        "what was awarded is taken back"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_database_that_nobody_knows_make_no_dead_letters_though_inngest_takes_everything() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..200 {
        ledger
            .faults()
            .push(Fault::Error(LedgerError::Unknown("XX000".to_owned())));
    }
    let worker = world
        .worker_of(&[Consumer::Currency, Consumer::Tier], &[PURCHASES])
        .await;
    for row in 1..=120_u32 {
        world.raw(PURCHASES, &completed(&format!("p-{row}"), row));
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    world.all_committed(PURCHASES).await;
    assert!(world.dead_letters.letters().is_empty());
    assert_eq!(world.awards().len(), 120);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_record_that_cannot_be_compared_is_delivered_all_the_same() {
    let (world, ledger) = World::with_ledger();
    for _ in 0..2 {
        ledger
            .faults()
            .push(Fault::Error(LedgerError::Unknown("XX000".to_owned())));
    }
    world.raw(PURCHASES, &snapshot("p-1", SNAPSHOT_MS));
    let worker = currency(&world).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [snapshot_id("p-1", SNAPSHOT_MS)]);
    worker.stop().await;
}
