//! The cut-off: what is older is processed if and only if the database knows it.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::postgres::LedgerError;
use crm_event_processors::postgres::memory::Fault;

use super::harness::{CODES, NOW_MS, PURCHASES, Purchase, SNAPSHOT_MS, World, award_id, snapshot};

#[tokio::test(start_paused = true)]
async fn a_row_older_than_the_cut_off_is_processed_only_if_the_database_knows_it() {
    let (mut world, ledger) = World::with_ledger();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    ledger.open("award:p-known");
    world.purchase(&Purchase::completed("p-known", 10));
    world.purchase(&Purchase::completed("p-other", 20));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-known", 10)]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 1);
    worker.stop().await;
}

/// A code that was redeemed nobody says when, with the old image where the table sends one.
fn redeemed(id: &str, op: &str, lsn: u32, before: &str) -> String {
    let ms = NOW_MS - 1000;
    let image = |status: &str| {
        format!(r#"{{"id":"{id}","code":"-","merchant_id":"m-any","user_id":"u-1","status":"{status}"}}"#)
    };
    let before = if before.is_empty() {
        "null".to_owned()
    } else {
        image(before)
    };
    format!(
        r#"{{"before":{before},"after":{},"source":{{"ts_ms":{ms},"table":"codes","txId":1,"lsn":{lsn}}},"op":"{op}","ts_ms":{ms}}}"#,
        image("redeemed")
    )
}

#[tokio::test(start_paused = true)]
async fn a_code_that_does_not_tell_when_it_was_redeemed_is_fulfilled_if_its_change_does_or_the_database_knows_it() {
    let (mut world, ledger) = World::with_ledger();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    ledger.open("code:known");
    for (lsn, (id, op, before)) in [
        ("snapshot", "r", ""),
        ("known", "r", ""),
        ("blind", "u", ""),
        ("again", "u", "redeemed"),
        ("new", "c", ""),
        ("redeemed-now", "u", "issued"),
    ]
    .into_iter()
    .enumerate()
    {
        let lsn = u32::try_from(lsn).expect("few") + 1;
        world.raw(CODES, &redeemed(id, op, lsn, before));
    }
    let worker = world.worker_of(&[Consumer::Marketplace], &[CODES]).await;
    world.all_committed(CODES).await;
    let mut sent = world.accepted("loyalty/code.redeemed");
    sent.sort();
    let id = |end: &str| format!("marketplace:fulfil:codes:{end}");
    assert_eq!(sent, [id("known:r1795175999000"), id("new:5"), id("redeemed-now:6")]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Marketplace, "ignored"), 3);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_row_that_cannot_be_decided_is_a_dead_letter_only_if_the_database_knows_it() {
    let (mut world, ledger) = World::with_ledger();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    ledger.open("award:p-7");
    // Far more than halt a consumer.
    for row in 1..=300 {
        let wrong = snapshot(&format!("p-{row}"), SNAPSHOT_MS);
        world.raw(
            PURCHASES,
            &wrong.replace(r#""refunded_amount":"0.00""#, r#""refunded_amount":"-1.00""#),
        );
    }
    ledger
        .faults()
        .push(Fault::Error(LedgerError::Unavailable("57P01".to_owned())));
    let worker = world
        .worker_of(&[Consumer::Currency, Consumer::Mission], &[PURCHASES])
        .await;
    world.all_committed(PURCHASES).await;
    let letters: Vec<_> = world
        .dead_letters
        .letters()
        .into_iter()
        .map(|letter| (letter.queue, letter.reason))
        .collect();
    let queues = [Consumer::Currency, Consumer::Mission].map(Queue::Consumer);
    assert_eq!(letters.len(), 2, "{letters:?}");
    for queue in queues {
        assert!(letters.contains(&(queue, "negative_refund")), "{letters:?}");
    }
    let mut buried = ledger.buried();
    buried.sort();
    let letter = |consumer| (consumer, "p-7".to_owned(), "negative_refund".to_owned());
    assert_eq!(buried, [Consumer::Currency, Consumer::Mission].map(letter));
    assert_eq!(worker.telemetry.outcomes(Consumer::Currency, "ignored"), 299);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_row_that_nobody_can_compare_is_a_dead_letter_while_others_are_compared_and_none_in_an_outage() {
    let (mut world, ledger) = World::with_ledger();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    let unknown = || LedgerError::Unknown("XX000".to_owned());
    ledger.open("award:p-odd");
    ledger.trouble("award:p-odd", unknown());
    world.raw(PURCHASES, &snapshot("p-odd", SNAPSHOT_MS));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    // Nobody is answered: it does not count.
    tokio::time::sleep(Duration::from_secs(30 * 60)).await;
    assert_eq!(world.dead_letters.letters().len(), 0);
    assert!(ledger.calls("compare_effects") > 20);
    // From now on others are.
    let mut row = 0;
    while world.dead_letters.letters().is_empty() {
        row += 1;
        world.raw(PURCHASES, &snapshot(&format!("p-{row}"), SNAPSHOT_MS));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(row < 1000, "it is never given up");
    }
    assert!(row > 5, "it was given up behind {row} others");
    assert_eq!(world.dead_letters.letters()[0].reason, "unknown_answer");
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [""; 0]);
    worker.stop().await;
}
