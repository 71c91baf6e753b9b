//! Too many dead letters: something is wrong with us. The consumer is halted in place, and only an operator ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::inngest::Answer;
use crm_event_processors::telemetry::http::status_json;

use super::harness::{OTHER_PURCHASES, PURCHASES, Purchase, Start, Worker, World, award_id, completed};

const BOTH: [Consumer; 2] = [Consumer::Currency, Consumer::Tier];

/// As many letters as are written before the halt.
const WRITTEN: usize = 99;

fn reject_awards(world: &World) {
    let rejected = Answer::Rejected {
        status: 400,
        detail: "no".to_owned(),
    };
    world.inngest.trouble("currency:", rejected);
}

fn purchases(world: &World, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        world.raw(PURCHASES, &completed(&format!("p-{number}"), number));
    }
}

async fn halted(worker: &Worker, consumer: Consumer) -> String {
    let reason = |worker: &Worker| {
        let status = worker.telemetry.status();
        let found = status.consumers.iter().find(|c| c.consumer == consumer);
        found.and_then(|c| c.halted.clone())
    };
    worker
        .wait_until(|status| {
            status
                .consumers
                .iter()
                .any(|c| c.consumer == consumer && c.halted.is_some())
        })
        .await;
    reason(worker).expect("halted is halted")
}

#[tokio::test(start_paused = true)]
async fn a_hundred_dead_letters_in_a_row_halt_the_consumer_and_a_restart_ends_it() {
    let world = World::new();
    reject_awards(&world);
    purchases(&world, 1..=300);
    let worker = world.worker_of(&BOTH, &[PURCHASES, OTHER_PURCHASES]).await;
    let reason = halted(&worker, Consumer::Currency).await;
    assert!(
        reason.starts_with("100 dead letters among the last 100 records, 100 of them inngest_rejected"),
        "{reason}"
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.dead_letters.letters().len(), WRITTEN, "the hundredth is held");
    let tier = |outcome| worker.telemetry.outcomes(Consumer::Tier, outcome);
    assert_eq!(tier("delivered") + tier("superseded"), 300, "the others run on");
    let committed = world.log.committed(PURCHASES).unwrap_or(0);
    assert!(committed <= 99, "nothing is committed past it: {committed}");
    let status = status_json(&worker.telemetry);
    assert_eq!(status["ready"], false);
    assert!(
        status["problems"].to_string().contains("currency is halted"),
        "{status}"
    );
    let scrape = worker.telemetry.scrape().expect("text");
    assert!(scrape.contains("crm_consumer_standing_still{consumer=\"currency\"} 1"));
    assert!(scrape.contains("crm_consumer_standing_still{consumer=\"tier\"} 0"));
    // It ticks, and it is halted also for what comes now.
    let asked = world.inngest.requests();
    world.raw(OTHER_PURCHASES, &completed("later", 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.inngest.requests(), asked + 1, "of tier alone");
    worker.stop().await;

    world.inngest.relent();
    let worker = world.worker_of(&BOTH, &[PURCHASES, OTHER_PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    world.all_committed(OTHER_PURCHASES).await;
    let letters = world.dead_letters.letters().into_iter();
    let buried = letters.filter(|letter| letter.partition == PURCHASES.partition);
    let buried: BTreeSet<i64> = buried.map(|letter| letter.offset).collect();
    let awards: BTreeSet<String> = world.awards().into_iter().collect();
    let lost = (1..=300_u32).filter(|number| {
        let award = award_id(&format!("p-{number}"), *number);
        !awards.contains(&award) && !buried.contains(&(i64::from(*number) - 1))
    });
    assert_eq!(lost.collect::<Vec<_>>(), [0_u32; 0], "each is awarded or buried");
    assert_eq!(world.awards().len(), awards.len(), "none twice");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_dead_letter_in_ten_records_halts_the_consumer_and_fewer_do_not() {
    for (others, halts) in [(8, true), (14, false)] {
        let world = World::new();
        for number in 0..150 {
            world.inngest.poison(&format!(":bad-{number}:"));
            world.raw(PURCHASES, &completed(&format!("bad-{number}"), 1));
            for other in 0..others {
                world.raw(PURCHASES, &completed(&format!("good-{number}-{other}"), 1));
            }
        }
        let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
        if halts {
            halted(&worker, Consumer::Currency).await;
            assert_eq!(world.dead_letters.letters().len(), WRITTEN);
        } else {
            world.all_committed(PURCHASES).await;
            assert_eq!(world.dead_letters.letters().len(), 150);
        }
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_have_all_dead_letters_written() {
    let world = World::new();
    reject_awards(&world);
    purchases(&world, 1..=300);
    let start = Start {
        accept_dead_letters: true,
        ..Start::of(&BOTH)
    };
    let worker = world.worker_as(start, &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters().len(), 300);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_of_ours_sets_aside_halts_nobody() {
    let world = World::new();
    for lsn in 1..=300 {
        let deleted = Purchase {
            op: "d",
            ..Purchase::completed("p-1", lsn)
        };
        let envelope = deleted.envelope();
        world.raw(
            PURCHASES,
            &envelope.replace(r#""before":null,"after""#, r#""after":null,"before""#),
        );
    }
    let worker = world.worker(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), 300);
    assert!(letters.iter().all(|letter| letter.reason == "ledger_rewritten"));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_was_never_written_does_not_count_again_for_every_assignment() {
    let world = World::new();
    world.dead_letters.close("no leader");
    for _ in 0..40 {
        world.raw(PURCHASES, "poison");
    }
    let worker = world.worker_of(&BOTH, &[]).await;
    for _ in 0..4 {
        worker.member.assign(&[PURCHASES]).await;
        worker
            .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 40))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(worker.telemetry.status().consumers.iter().all(|c| c.halted.is_none()));
        worker.member.revoke(&[PURCHASES], true).await;
    }
    world.dead_letters.open();
    worker.member.assign(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters().len(), 40);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_nobody_can_decode_halt_everybody_and_hold_their_partitions() {
    let world = World::new();
    for lsn in 1..=300 {
        let binary = completed(&format!("p-{lsn}"), lsn).replace("\"100.00\"", "\"MDk=\"");
        world.raw(PURCHASES, &binary);
    }
    world.raw(OTHER_PURCHASES, &completed("good", 1));
    let worker = world.worker(&[PURCHASES, OTHER_PURCHASES]).await;
    for consumer in Consumer::ALL {
        let reason = halted(&worker, consumer).await;
        assert!(reason.contains("wrong_decimal_mode: DECIMAL_MODE"), "{reason}");
    }
    world.all_committed(OTHER_PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!(letters.len(), WRITTEN);
    assert!(letters.iter().all(|letter| letter.queue == Queue::Decode));
    let committed = world.log.committed(PURCHASES).unwrap_or(0);
    assert!(committed <= 99, "{committed}");
    assert_eq!(status_json(&worker.telemetry)["ready"], false);

    // Partitions that go take with them what is held.
    worker.member.revoke(&[PURCHASES], false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.budget.in_use(), (0, 0));
    worker.stop().await;
}
