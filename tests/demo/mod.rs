//! The demo as a person starts it. Each run joins a group twice, which takes seconds of waiting: runs go side by side.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::PATIENCE;

const EVENTS: u64 = 5_000;

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
    command
        .arg("demo")
        .args(["--events", &EVENTS.to_string()])
        .args(arguments);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo starts")
}

/// Exit code and standard output.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("the demo ends");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "no bar and no noise without a terminal"
    );
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

fn book(child: Child) -> (Option<i32>, Value) {
    let (code, text) = end(child);
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

#[test]
fn the_books_balance_over_a_crash_whatever_the_seed() {
    let runs = ["1", "2", "3"].map(|seed| (seed, start(&["--format", "json", "--seed", seed])));
    for (seed, run) in runs {
        let (code, book) = book(run);
        assert_eq!(
            (code, &book["balanced"]),
            (Some(0), &Value::Bool(true)),
            "seed {seed}: {book:#}"
        );
        for (field, expected) in [("produced", EVENTS), ("lost", 0), ("doubled", 0), ("dead_lettered", 6)] {
            assert_eq!(book[field], expected, "seed {seed}: {field}");
        }
        let count = |field: &str| book[field].as_u64().expect("a count");
        assert_eq!(
            count("eligible"),
            count("delivered") + count("superseded"),
            "seed {seed}"
        );
        assert!(count("duplicates_suppressed") > 0, "the connector repeated itself");
        assert!(count("resent") > 0, "the crash fell between acceptance and answer");
        for field in ["elapsed_seconds", "events_per_second"] {
            assert!(book[field].as_f64().expect("a number") > 0.0);
        }
        for consumer in ["currency", "tier", "mission", "reward", "marketplace"] {
            assert!(
                book["consumers"][consumer]["delivered"].as_u64().expect("a count") > 50,
                "{consumer}"
            );
        }
        for event in [
            "loyalty/award.scheduled",
            "loyalty/award.cancelled",
            "loyalty/tier.evaluation_requested",
            "loyalty/mission.evaluation_requested",
            "loyalty/reward.granted",
            "loyalty/reward.revoked",
            "loyalty/code.redeemed",
        ] {
            assert!(book["events"][event].as_u64().expect("a count") > 0, "{event}");
        }
        every_order_books_the_targets(&book);
        the_refund_is_told(&book);
    }
}

fn every_order_books_the_targets(book: &Value) {
    let settled = &book["settled"];
    for order in ["in_order", "shuffled"] {
        let of = &settled[order];
        let count = |field: &str| of[field].as_i64().expect("a number");
        assert_eq!(of["booked"], settled["targets"], "{order}: {settled:#}");
        assert_eq!(of["booked"], count("earned") - count("taken_back"), "{order}");
        assert_eq!(count("purchases_booked_wrongly"), 0, "{order}");
        assert!(count("booked") > 0 && count("taken_back") > 0, "{order}: {of:#}");
    }
    assert_ne!(
        settled["in_order"], settled["shuffled"],
        "the ways differ, the end does not"
    );
}

/// The change in the middle may be in one batch with the last one, which covers it then.
fn the_refund_is_told(book: &Value) {
    let story = book["refunded_purchase"].as_array().expect("a list");
    let targets: Vec<&Value> = story.iter().map(|chapter| &chapter["target"]).collect();
    assert_eq!(targets, [100, 60, 0]);
    assert_eq!(
        (&story[0]["status"], &story[2]["status"]),
        (&"completed".into(), &"refunded".into())
    );
    for order in ["in_order", "shuffled"] {
        let booked = story
            .iter()
            .flat_map(|chapter| chapter[order].as_array().expect("a list"));
        assert_eq!(booked.filter_map(Value::as_i64).sum::<i64>(), 0, "{order}: {story:#?}");
    }
    assert_eq!(story[0]["in_order"][0], 100, "{story:#?}");
}

#[test]
fn a_worker_that_is_broken_on_purpose_fails_the_books() {
    let sabotaged = |sabotage| start(&["--format", "json", "--sabotage", sabotage]);
    let runs = ["commit-early", "no-dedupe", "drop-one"].map(|sabotage| (sabotage, sabotaged(sabotage)));
    for (sabotage, run) in runs {
        let begun = Instant::now();
        let mut told = book(run);
        // The crash comes a few ticks after the first request: on a busy machine little may have been committed by then.
        while sabotage == "commit-early" && told.1["lost"].as_u64() <= Some(100) && begun.elapsed() < PATIENCE {
            told = book(sabotaged(sabotage));
        }
        let (code, book) = told;
        assert_eq!(
            (code, &book["balanced"]),
            (Some(1), &Value::Bool(false)),
            "{sabotage}: {book:#}"
        );
        let (lost, doubled) = (
            book["lost"].as_u64().expect("a count"),
            book["doubled"].as_u64().expect("a count"),
        );
        // What is booked is right even where ids are doubled: the targets are absolute.
        let astray = &book["settled"]["in_order"]["purchases_booked_wrongly"];
        assert_eq!(
            astray.as_u64().expect("a count") > 0,
            sabotage == "commit-early",
            "{sabotage}"
        );
        match sabotage {
            "commit-early" => assert!(lost > 100 && doubled == 0, "{lost} lost, {doubled} doubled"),
            "no-dedupe" => assert!(lost == 0 && doubled > 10, "{lost} lost, {doubled} doubled"),
            _ => assert_eq!((lost, doubled), (1, 0)),
        }
    }
}

#[test]
fn a_subset_of_the_consumers_balances_and_people_get_one_clear_last_line() {
    let (code, text) = end(start(&["--consumers", "tier,currency"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().last(), Some("BALANCED: nothing lost, nothing doubled."));
    assert!(
        text.contains(" currency ") && text.contains(" tier ") && !text.contains(" mission "),
        "{text}"
    );
    assert!(
        text.contains("refunded in two steps") && text.contains("= booked"),
        "{text}"
    );
    let (code, text) = end(start(&["--consumers", "marketplace,reward"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(" reward ") && text.contains(" marketplace ") && !text.contains("= booked"),
        "{text}"
    );
}
