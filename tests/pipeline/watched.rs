//! What operators see of records on their way.

use std::collections::BTreeSet;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::telemetry::http::status_json;
use serde_json::{Value, json};

use super::harness::{NOW_MS, OTHER_PURCHASES, PURCHASES, Purchase, World, completed, patiently};

/// The value of one series of a scrape.
fn value(scrape: &str, series: &[&str]) -> Option<u64> {
    let line = scrape
        .lines()
        .find(|line| !line.starts_with('#') && series.iter().all(|part| line.contains(part)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn events_in_flight_and_answers_of_the_dedupe_store_are_counted() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    assert_eq!(worker.telemetry.in_flight(Consumer::Currency), 1);
    gate.release();
    world.all_committed(PURCHASES).await;
    assert_eq!(worker.telemetry.in_flight(Consumer::Currency), 0);
    // The connector repeats itself.
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    let scrape = worker.telemetry.scrape().expect("text");
    for (answer, count) in [("granted", 1), ("done", 1), ("foreign", 0)] {
        let answer = format!("answer=\"{answer}\"");
        let series = ["crm_dedupe_claims_total", "consumer=\"currency\"", &answer];
        assert_eq!(value(&scrape, &series), Some(count), "{answer}");
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_our_own_rate_is_no_time_of_inngests_and_nothing_is_in_flight_meanwhile() {
    let world = World::new();
    let rate = Duration::from_secs(30);
    world.inngest.pace(rate);
    world.inngest.faults().push(Fault::Slow(Duration::from_secs(2)));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    let began = tokio::time::Instant::now();
    tokio::time::sleep(rate / 2).await;
    assert_eq!(worker.telemetry.in_flight(Consumer::Currency), 0);
    world.all_committed(PURCHASES).await;
    assert!(began.elapsed() > rate, "{:?}", began.elapsed());
    let scrape = worker.telemetry.scrape().expect("text");
    let series = "crm_inngest_request_duration_seconds_sum{answer=\"accepted\",consumer=\"currency\"}";
    let took = scrape.lines().find_map(|line| line.strip_prefix(series));
    let took: f64 = took
        .unwrap_or_else(|| panic!("{scrape}"))
        .trim()
        .parse()
        .expect("a number");
    assert!((2.0..3.0).contains(&took), "{took}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_a_committed_offset_is_named_and_the_commit_grows_old() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    let mut ticks = worker.telemetry.watch();
    for _ in 0..20 {
        ticks.changed().await.expect("ticks");
    }
    let status = status_json(&worker.telemetry);
    assert_eq!(
        status["partitions"][0]["held_by"],
        serde_json::json!(["currency"]),
        "{status}"
    );
    assert_eq!(status["consumers"][0]["in_flight"], 1, "{status}");
    let age = status["client"]["commit_age_ms"].as_u64().expect("a number");
    assert!((4000..6000).contains(&age), "{status}");
    gate.release();
    world.all_committed(PURCHASES).await;
    let confirmed = ticks.wait_for(|status| status.partitions[0].committed == Some(1));
    drop(patiently(confirmed).await.expect("a tick behind the commit"));
    let status = status_json(&worker.telemetry);
    assert_eq!(status["partitions"][0]["held_by"], serde_json::json!([]), "{status}");
    assert_eq!(status["client"]["commit_age_ms"], 0, "{status}");
    worker.stop().await;
}

/// What was told last, oldest first: consumer, row, outcome and reason.
fn told(status: &Value) -> Vec<[Value; 4]> {
    let recent = status["recent"].as_array().expect("a list");
    let fields = |one: &Value| ["consumer", "row", "outcome", "reason"].map(|name| one[name].clone());
    let mut told: Vec<_> = recent.iter().map(fields).collect();
    told.reverse();
    told
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_record_is_told_with_its_reason_and_of_its_row_nothing_but_the_id() {
    let world = World::new();
    let worker = world
        .worker_of(&[Consumer::Currency], &[PURCHASES, OTHER_PURCHASES])
        .await;
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    let pending = Purchase {
        status: "pending",
        ..Purchase::completed("p-2", 11)
    };
    world.purchase(&pending);
    world.all_committed(PURCHASES).await;
    // The connector repeats itself, and somebody writes nonsense.
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    world.raw(OTHER_PURCHASES, "{\u{1b}[2J");
    world.all_committed(OTHER_PURCHASES).await;
    let status = status_json(&worker.telemetry);
    let expected = [
        [json!("currency"), json!("p-1"), json!("delivered"), json!("due_now")],
        [json!("currency"), json!("p-2"), json!("ignored"), json!("pending")],
        [json!("currency"), json!("p-1"), json!("duplicate"), json!("due_now")],
        [json!("decode"), Value::Null, json!("dead_lettered"), json!("not_json")],
    ];
    assert_eq!(told(&status), expected, "{status}");
    let letter = &status["recent"][0];
    assert_eq!(letter["topic"], "crm.public.purchase_ledger");
    assert_eq!((&letter["partition"], &letter["offset"]), (&json!(1), &json!(0)));
    assert_eq!(
        letter["at_ms"].as_i64().map(|at_ms| at_ms >= NOW_MS),
        Some(true),
        "{letter}"
    );
    assert_eq!(status["undecodable"]["target"], "record", "{status}");
    assert_eq!(status["totals"]["letters"], 1, "{status}");
    // Of the purchases: no member, no merchant, no amount.
    let recent = status["recent"].to_string();
    for value in ["u-1", "m-any", "100.00"] {
        assert!(!recent.contains(value), "{recent}");
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_all_consumers_together_a_record_counts_once() {
    let world = World::new();
    let worker = world.worker(&[PURCHASES, OTHER_PURCHASES]).await;
    world.raw(PURCHASES, "{");
    for lsn in 1..=30 {
        world.raw(OTHER_PURCHASES, &completed(&format!("p-{lsn}"), lsn));
    }
    world.all_committed(PURCHASES).await;
    world.all_committed(OTHER_PURCHASES).await;
    let mut ticks = worker.telemetry.watch();
    ticks.changed().await.expect("ticks");
    let status = status_json(&worker.telemetry);
    let dead = |one: &Value| one["outcomes"]["dead_lettered"].as_u64().expect("a number");
    let readers = status["consumers"].as_array().expect("a list");
    assert!(
        readers.iter().map(dead).sum::<u64>() > 1,
        "it is dead for each of its readers: {status}"
    );
    let totals = &status["totals"];
    assert_eq!(
        (&totals["letters"], &totals["behind"]),
        (&json!(1), &json!(0)),
        "{status}"
    );
    // Within the first second.
    assert_eq!(totals["received_a_second"], 31.0, "{status}");
    // Three in the log that nobody has yet.
    let ends = [(OTHER_PURCHASES, 33)];
    worker.telemetry.log_ends(ends);
    let status = status_json(&worker.telemetry);
    assert_eq!(status["totals"]["behind"], 3, "{status}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_ended_alike_one_record_is_told() {
    let world = World::new();
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    let mut before = 0;
    // The second time the connector repeats itself; what is pending is nothing to do.
    for (outcome, from, status) in [
        ("delivered", 1, "completed"),
        ("duplicate", 1, "completed"),
        ("ignored", 1001, "pending"),
    ] {
        for lsn in from..from + 300 {
            let row = completed(&format!("p-{lsn}"), lsn);
            world.raw(PURCHASES, &row.replace("\"completed\"", &format!("\"{status}\"")));
        }
        world.all_committed(PURCHASES).await;
        let scrape = worker.telemetry.scrape().expect("text");
        let batches = value(&scrape, &["crm_lane_batches_total", "consumer=\"currency\""]).expect("a number");
        let told = told(&status_json(&worker.telemetry));
        let told = told.iter().filter(|told| told[2] == json!(outcome)).count() as u64;
        assert_eq!(told, batches - before, "{outcome}");
        assert!(
            (1..16).contains(&told),
            "{outcome}: as many as are taken at once in any case"
        );
        before = batches;
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_a_target_is_away_the_worker_is_held_and_names_it_and_is_never_stuck() {
    let world = World::new();
    for _ in 0..20 {
        world.inngest.faults().push(Fault::Answer(Answer::Unavailable {
            detail: "503 no backend".to_owned(),
            retry_after: None,
        }));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    let mut ticks = worker.telemetry.watch();
    let mut states = BTreeSet::new();
    while world.log.committed(PURCHASES) != Some(1) {
        ticks.changed().await.expect("ticks");
        let flow = &status_json(&worker.telemetry)["flow"];
        if flow["state"] == "held" {
            assert_eq!(flow["why"][0], "currency waits for inngest: 503 no backend", "{flow}");
        }
        states.insert(flow["state"].as_str().expect("a word").to_owned());
    }
    assert_eq!(states.iter().collect::<Vec<_>>(), ["flowing", "held"]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_refused_is_stuck_says_why_and_flows_again() {
    let world = World::new();
    let refused = || Answer::Refused {
        status: 401,
        detail: "no such key".to_owned(),
    };
    world.inngest.faults().push(Fault::Answer(refused()));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    worker
        .wait_until(|status| status.consumers.iter().any(|one| one.standing_still.is_some()))
        .await;
    let status = status_json(&worker.telemetry);
    assert_eq!(status["flow"]["state"], "stuck", "{status}");
    let why = status["flow"]["why"][0].as_str().expect("a reason");
    assert!(why.starts_with("currency stands still: "), "{why}");
    let error = &status["consumers"][0]["last_error"];
    assert_eq!(error["target"], "inngest", "{status}");
    assert_eq!(error["detail"], "no such key", "{status}");
    assert_eq!(status["consumers"][0]["latency_ms"], Value::Null, "{status}");
    // The probe gets through after a minute.
    world.all_committed(PURCHASES).await;
    worker
        .wait_until(|status| status.consumers.iter().all(|one| one.standing_still.is_none()))
        .await;
    let status = status_json(&worker.telemetry);
    assert_eq!(status["flow"]["state"], "flowing", "{status}");
    assert_eq!(status["consumers"][0]["latency_ms"]["events"], 1, "{status}");
    assert_eq!(
        status["consumers"][0]["last_error"]["detail"], "no such key",
        "it stays"
    );
    let mut ticks = worker.telemetry.watch();
    for _ in 0..4 * 90 {
        ticks.changed().await.expect("ticks");
    }
    let status = status_json(&worker.telemetry);
    assert_eq!(status["flow"]["state"], "idle", "{status}");
    assert_eq!(
        status["consumers"][0]["latency_ms"],
        Value::Null,
        "the last minute was quiet"
    );
    let now_ms = status["now_ms"].as_i64().expect("a time");
    assert!(
        now_ms > NOW_MS + i64::try_from(Duration::from_secs(90).as_millis()).expect("small"),
        "{status}"
    );
    worker.stop().await;
}
