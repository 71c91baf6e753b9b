//! The demo as a person starts it. Each run joins a group twice, which takes seconds of waiting: runs go side by side.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

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
        for consumer in ["currency", "tier", "mission"] {
            assert!(
                book["consumers"][consumer]["delivered"].as_u64().expect("a count") > 100,
                "{consumer}"
            );
        }
    }
}

#[test]
fn a_worker_that_is_broken_on_purpose_fails_the_books() {
    let runs = ["commit-early", "no-dedupe", "drop-one"]
        .map(|sabotage| (sabotage, start(&["--format", "json", "--sabotage", sabotage])));
    for (sabotage, run) in runs {
        let (code, book) = book(run);
        assert_eq!(
            (code, &book["balanced"]),
            (Some(1), &Value::Bool(false)),
            "{sabotage}: {book:#}"
        );
        let (lost, doubled) = (
            book["lost"].as_u64().expect("a count"),
            book["doubled"].as_u64().expect("a count"),
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
        text.contains("currency") && text.contains("tier") && !text.contains(" mission "),
        "{text}"
    );
}
