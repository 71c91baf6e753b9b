//! Records on their way: outcomes, dead letters, answers of every kind.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::dedupe::{DedupeError, memory};
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::pipeline::Exit;

use super::harness::{PURCHASES, Purchase, WALLET, World, award_id, patiently};

#[tokio::test(start_paused = true)]
async fn a_completed_purchase_reaches_every_consumer_once_and_is_committed() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    assert_eq!(world.accepted("loyalty/tier.evaluation_requested").len(), 1);
    assert_eq!(world.accepted("loyalty/mission.evaluation_requested").len(), 1);
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
}

#[tokio::test(start_paused = true)]
async fn pending_then_completed_in_one_batch_is_one_award_of_the_final_state() {
    let world = World::new();
    world.purchase(&Purchase {
        status: "pending",
        ..Purchase::completed("p-1", 10)
    });
    world.purchase(&Purchase::update("p-1", "completed", 20));
    world.purchase(&Purchase {
        refunded: "40.00",
        ..Purchase::update("p-1", "partially_refunded", 30)
    });
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 30)]);
    let award = world
        .inngest
        .accepted()
        .all()
        .into_iter()
        .find(|event| event.name == "loyalty/award.scheduled");
    assert_eq!(award.expect("one award").data["target_points"], "60");
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "superseded"), 1);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_state_repeated_in_the_same_batch_is_not_taken_for_the_newest() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase {
        refunded: "40.00",
        ..Purchase::update("p-1", "partially_refunded", 20)
    });
    // The connector restarts behind the first change; its second repetition is still to come.
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 20)]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "duplicate"), 1);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "superseded"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_connector_record_is_found_done() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "duplicate"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_changes_of_one_row_within_the_window_are_not_duplicates() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    world.purchase(&Purchase::update("p-1", "refunded", 20));
    world.all_committed(PURCHASES).await;
    let cancelled = "currency:award:purchase_ledger:p-1:20";
    assert_eq!(world.accepted("loyalty/award.cancelled"), [cancelled]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letters_untouched_and_is_committed_even_when_it_is_last() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    world.raw(PURCHASES, "{ this is not json");
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 1, "once, whoever would have read it");
    assert_eq!(letters[0].queue, Queue::Decode);
    assert_eq!(letters[0].value.as_deref(), Some(b"{ this is not json".as_slice()));
    assert_eq!(worker.telemetry.outcomes(Consumer::Tier, "dead_lettered"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_past_a_dead_letter_that_cannot_be_written() {
    let world = World::new();
    world.dead_letters.fail_next("no leader");
    world.dead_letters.fail_next("no leader");
    world.raw(PURCHASES, "poison");
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    patiently(world.inngest.accepted().wait_for(3)).await;
    assert_eq!(
        world.log.committed(PURCHASES).unwrap_or(0),
        0,
        "the award behind it is accepted, and not committed"
    );
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_one_event_that_is_rejected_is_found_and_the_others_are_delivered_once_each() {
    let world = World::new();
    world.inngest.poison("p-3");
    for (id, lsn) in [("p-1", 10), ("p-2", 20), ("p-3", 30), ("p-4", 40), ("p-5", 50)] {
        world.purchase(&Purchase::completed(id, lsn));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    let mut awards = world.awards();
    // Inngest keeps what stood before the culprit, so that some are sent again: with the same id.
    awards.sort();
    awards.dedup();
    assert_eq!(
        awards,
        [("p-1", 10), ("p-2", 20), ("p-4", 40), ("p-5", 50)].map(|(id, lsn)| award_id(id, lsn))
    );
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].queue, letters[0].offset),
        (Queue::Consumer(Consumer::Currency), 2)
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_newest_state_is_rejected_the_one_before_it_is_delivered() {
    let world = World::new();
    world.inngest.poison("p-1:20");
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::update("p-1", "completed", 20));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    assert_eq!(world.dead_letters.letters().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_dead_letters_nothing_and_loses_nothing() {
    let world = World::new();
    let down = || Answer::Unavailable {
        detail: "503".to_owned(),
        retry_after: None,
    };
    for _ in 0..100 {
        world.inngest.faults().push(Fault::Answer(down()));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    let began = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert!(began.elapsed() > Duration::from_secs(3600));
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    assert_eq!(world.dead_letters.letters(), []);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_stops_the_consumer_and_one_probe_a_minute_lets_it_go_on() {
    let world = World::new();
    for _ in 0..3 {
        world.inngest.faults().push(Fault::Answer(Answer::Refused {
            status: 401,
            detail: "no such key".to_owned(),
        }));
    }
    for (id, lsn) in [("p-1", 10), ("p-2", 20), ("p-3", 30), ("p-4", 40)] {
        world.purchase(&Purchase::completed(id, lsn));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    let began = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    let minutes = began.elapsed().as_secs() / 60;
    assert!(
        (1..=3).contains(&minutes),
        "three refusals, one probe a minute: {minutes}"
    );
    assert_eq!(world.awards().len(), 4);
    assert_eq!(
        world.dead_letters.letters(),
        [],
        "an operator's mistake never costs a record"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_becomes_a_dead_letter_only_while_others_get_through() {
    let world = World::new();
    let odd = || {
        Fault::Answer(Answer::Unknown {
            status: 418,
            detail: "teapot".to_owned(),
        })
    };
    for _ in 0..40 {
        world.inngest.faults().push(odd());
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    // Nothing else got through meanwhile, so that no attempt counted.
    assert_eq!(world.dead_letters.letters(), []);
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_with_the_same_id() {
    let world = World::new();
    world.inngest.faults().push(Fault::AcceptThenFail);
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10), award_id("p-1", 10)]);
    assert_eq!(world.inngest.accepted().distinct(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_dedupe_store_is_away_nothing_is_sent_and_nothing_lost() {
    let world = World::new();
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    for _ in 0..5 {
        worker
            .dedupe
            .claim_faults()
            .push(memory::Fault::Reject(DedupeError::Unavailable("down".to_owned())));
    }
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.inngest.requests(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_fails_holds_the_record_without_sending_it_again() {
    let world = World::new();
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    for _ in 0..5 {
        worker
            .dedupe
            .confirm_faults()
            .push(memory::Fault::Reject(DedupeError::Unavailable("read-only".to_owned())));
    }
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.inngest.requests(), 1);
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_lease_is_waited_for_and_then_delivered_all_the_same() {
    use crm_event_processors::dedupe::Dedupe as _;
    let world = World::new();
    let other = memory::MemoryDedupe::shared(world.store.clone(), "another process");
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_of(&[Consumer::Currency], &[]).await;
    // The other process took the lease and died.
    let key = crm_event_processors::dedupe::ClaimKey::new(
        "currency",
        "award",
        crm_event_processors::rows::Table::PurchaseLedger,
        &crm_event_processors::rows::RowId::new("p-1").expect("not empty"),
        crm_event_processors::rows::ChangeVersion::Lsn(10),
    );
    other.claim(&[key]).await.expect("free");
    let began = tokio::time::Instant::now();
    worker.member.assign(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert!(
        began.elapsed() >= Duration::from_secs(9),
        "waited for the lease to run out"
    );
    assert!(began.elapsed() < Duration::from_secs(20), "but for one lease only");
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_nobody_needs_are_committed_at_once() {
    let world = World::new();
    world.log.append(
        PURCHASES,
        crm_event_processors::kafka::memory::MemoryRecord::default(),
        0,
    );
    world.raw(WALLET, r#"{"ts_ms":1795176000000}"#);
    world.purchase(&Purchase {
        status: "pending",
        ..Purchase::completed("p-1", 10)
    });
    let worker = world.worker(&[PURCHASES, WALLET]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), Vec::<String>::new());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_repeated() {
    let world = World::new();
    world.log.fail_next_commit("coordinator moved");
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn commits_follow_the_offsets_received_over_gaps() {
    let world = World::new();
    for (id, lsn) in [("p-1", 10), ("p-2", 20)] {
        let value = Purchase::completed(id, lsn).envelope().into_bytes();
        let record = crm_event_processors::kafka::memory::MemoryRecord {
            value: Some(value),
            ..Default::default()
        };
        world.log.append(PURCHASES, record, 7);
    }
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.log.committed(PURCHASES), Some(16), "7 and 15 were received");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_refusal_costs_one_minute() {
    let world = World::new();
    let refused = Answer::Refused {
        status: 401,
        detail: "no such key".to_owned(),
    };
    world.inngest.faults().push(Fault::Answer(refused));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    let began = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert!(began.elapsed() < Duration::from_secs(65), "{:?}", began.elapsed());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refused_us_and_answers_again_lets_every_lane_go_on() {
    let world = World::new();
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    let refused = || memory::Fault::Reject(DedupeError::Configuration("NOPERM".to_owned()));
    for _ in 0..5 {
        worker.dedupe.claim_faults().push(refused());
    }
    for (id, lsn) in [
        ("p-1", 10),
        ("p-2", 20),
        ("p-3", 30),
        ("p-4", 40),
        ("p-5", 50),
        ("p-6", 60),
    ] {
        world.purchase(&Purchase::completed(id, lsn));
    }
    let began = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert!(began.elapsed() < Duration::from_secs(130), "{:?}", began.elapsed());
    worker
        .wait_until(|status| status.consumers.iter().all(|c| c.standing_still.is_none()))
        .await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_state_wins_even_when_the_lease_of_the_older_one_was_foreign() {
    use crm_event_processors::dedupe::{ClaimKey, Dedupe as _};
    use crm_event_processors::rows::{ChangeVersion, RowId, Table};
    let world = World::new();
    let other = memory::MemoryDedupe::shared(world.store.clone(), "another process");
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::update("p-1", "refunded", 20));
    let worker = world.worker_of(&[Consumer::Currency], &[]).await;
    let row = RowId::new("p-1").expect("not empty");
    let key = ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(10));
    other.claim(&[key]).await.expect("free");
    // The lease runs out while it is waited for.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    worker.member.assign(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), Vec::<String>::new());
    assert_eq!(world.accepted("loyalty/award.cancelled"), [award_id("p-1", 20)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_understands_ends_in_a_dead_letter_after_twenty_tries_among_successes() {
    let world = World::new();
    world.inngest.puzzle(":odd:");
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("odd", 1));
    for lsn in 2..200 {
        // Others get through between its tries; which lane they take does not matter.
        world.purchase(&Purchase::completed("even", lsn));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    world.all_committed(PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].offset, letters[0].reason), (0, "unknown_answer"));
    assert_eq!(world.inngest.accepted().distinct(), 198);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_record_counts_for_those_who_run() {
    let world = World::new();
    world.raw(PURCHASES, "poison");
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    let count = |consumer| worker.telemetry.outcomes(consumer, "dead_lettered");
    assert_eq!((count(Consumer::Currency), count(Consumer::Tier)), (1, 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_headers_cannot_be_read_is_not_decided() {
    let world = World::new();
    let value = Purchase::completed("p-1", 10).envelope().into_bytes();
    let headers = vec![(crm_event_processors::record::UNREADABLE_HEADERS.to_owned(), None)];
    let record = crm_event_processors::kafka::memory::MemoryRecord {
        value: Some(value),
        headers,
        key: None,
    };
    world.log.append(PURCHASES, record, 0);
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters()[0].reason, "unreadable_headers");
    assert_eq!(world.awards(), Vec::<String>::new());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_every_change_matters_a_held_one_is_not_overtaken_by_the_next_of_its_row() {
    let world = World::new();
    world.inngest.puzzle("mission:evaluation:purchase_ledger:p-1:10");
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase {
        refunded: "40.00",
        ..Purchase::update("p-1", "partially_refunded", 20)
    });
    world.purchase(&Purchase::completed("p-2", 30));
    let worker = world.worker_of(&[Consumer::Mission], &[PURCHASES]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let accepted = world.accepted("loyalty/mission.evaluation_requested");
    assert_eq!(
        accepted,
        ["mission:evaluation:purchase_ledger:p-2:30"],
        "others go on, the row waits"
    );
    worker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_state_repeated_after_its_claim_lapsed_is_not_taken_for_the_newest() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    worker.stop().await;
    // The store forgets, and the connector repeats both changes behind the refund.
    world.store.flush_all();
    for repeat in 0..2 {
        if repeat > 0 {
            world.purchase(&Purchase::completed("p-1", 10));
        }
        world.purchase(&Purchase::update("p-1", "refunded", 20));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)], "sent once, before");
    assert_eq!(world.accepted("loyalty/award.cancelled"), [award_id("p-1", 20)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_is_counted_even_when_nothing_else_comes_any_more() {
    let world = World::new();
    world.inngest.puzzle(":odd:");
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("odd", 1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.purchase(&Purchase::completed("even", 2));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters()[0].reason, "unknown_answer");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_at_an_unknown_answer_do_not_count_while_nobody_gets_through() {
    let world = World::new();
    world.inngest.puzzle(":odd:");
    world.purchase(&Purchase::completed("odd", 1));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.purchase(&Purchase::completed("even", 2));
    patiently(world.inngest.accepted().wait_for(1)).await;
    // From now on nobody is understood. That others got through before is no reason to give the first one up.
    world.inngest.puzzle("currency:");
    world.purchase(&Purchase::completed("late", 3));
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(world.dead_letters.letters(), []);
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.inngest.accepted().distinct(), 3);
    assert_eq!(world.dead_letters.letters(), []);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_table_nobody_reads_on_a_ledgers_topic_are_not_passed_over() {
    let world = World::new();
    let value = Purchase::completed("p-1", 10).envelope();
    world.raw(
        PURCHASES,
        &value.replace("\"purchase_ledger\"", "\"purchase_ledger_2026\""),
    );
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters()[0].reason, "unexpected_table");
    worker.stop().await;
}
