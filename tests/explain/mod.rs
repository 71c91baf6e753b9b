//! `explain` as people run it: the real binary, no environment, recorded messages in and text or JSON out.

mod bad_input;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// The minimal envelope of the real world: nothing in it that a decision does not need.
const MINIMAL: &str = r#"{"op":"c","before":null,"after":{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":100.00,"status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z"},"source":{"lsn":42,"txId":7},"ts_ms":1795168800000}"#;

/// Later than every recording, so that no decision depends on the day of the test.
const NOW: &str = "2026-12-01T00:00:00Z";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/debezium/3.6.3.Final")
        .join(name)
}

/// Runs `explain` with these arguments on this input.
fn explain(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("explain")
        .args(["--now", NOW])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // From a thread of its own: neither side may wait for the other.
    let fed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the binary ends");
    fed.join().expect("fed");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is UTF-8")
}

fn objects(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("one object a line");
    text(&output.stdout).lines().map(parse).collect()
}

/// The minimal envelope as `kcat -J` would print it, its row changed.
fn recorded(from: &str, to: &str) -> String {
    let value = MINIMAL.replace(from, to);
    assert!(from == to || value != MINIMAL, "{from} is not in the envelope");
    json!({"topic": "crm.public.purchase_ledger", "partition": 3, "offset": 9, "key": "p-1", "payload": value})
        .to_string()
}

/// The lines of a fixture with these numbers, from 0.
fn lines_of(name: &str, numbers: &[usize]) -> String {
    let file = std::fs::read_to_string(fixture(name)).expect("the fixture");
    let lines: Vec<&str> = file.lines().collect();
    numbers.iter().map(|number| format!("{}\n", lines[*number])).collect()
}

fn a_few_of_each_kind() -> String {
    let mut input = lines_of("purchase_stream.jsonl", &[0, 1, 3, 5, 9]);
    input.push_str(&lines_of("other_ledgers.jsonl", &[0, 2]));
    input.push_str(&lines_of("control.jsonl", &[0, 6]));
    input.push_str("{\"op\":\n");
    input
}

#[test]
fn a_person_reads_what_each_record_is_and_why_each_consumer_decides_as_it_does() {
    let output = explain(&[], a_few_of_each_kind().as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "");
    insta::assert_snapshot!("text", text(&output.stdout));
}

#[test]
fn a_machine_reads_one_object_a_record() {
    let output = explain(&["--format", "json", "-"], a_few_of_each_kind().as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let notes = text(&output.stderr);
    assert!(
        notes.contains("demo's program") && notes.contains("--program-file"),
        "{notes}"
    );
    insta::assert_snapshot!("json", text(&output.stdout));
}

#[test]
fn the_minimal_envelope_decides_an_award() {
    let output = explain(&["--format", "json"], recorded("", "").as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let [record] = &objects(&output)[..] else {
        panic!("one record");
    };
    assert_eq!(record["outcome"], "event");
    assert_eq!(
        record["consumers"][0],
        json!({
            "consumer": "currency", "decision": "deliver", "reason": "due_now", "effect_key": "award:p-1",
            "claim": "currency:award:purchase_ledger:p-1:42",
            "event": {
                "id": "currency:award:purchase_ledger:p-1:42", "name": "loyalty/award.scheduled", "ts": 1_795_168_800_000_i64,
                "v": "2026-11-22.1",
                "data": {
                    "purchase_id": "p-1", "effect_key": "award:p-1",
                    "target_points": "100", "due_at": "2026-11-20T10:00:00+00:00", "program_rev": 1,
                    "refund_policy": "within_balance",
                    "basis": {
                        "user_id": "u-1", "merchant_id": "m-1", "final_amount": "100.00", "refunded_amount": "0",
                        "status": "completed", "earn_currency": true, "created_at": "2026-11-20T10:00:00Z",
                        "completed_at": null,
                    },
                    "as_of_ms": 1_795_168_800_000_i64, "reason": "due_now",
                },
            },
        })
    );
}

/// A new row of this table as `kcat -J` would print it.
fn created(table: &str, row: &Value) -> String {
    let value = json!({"op": "c", "before": null, "after": row, "source": {"table": table, "lsn": 42},
        "ts_ms": 1_795_168_800_000_i64});
    let topic = format!("crm.public.{table}");
    json!({"topic": topic, "partition": 0, "offset": 1, "key": "k", "payload": value.to_string()}).to_string()
}

#[test]
fn both_effects_of_a_referral_are_shown_and_a_claim_and_a_code_without_the_code() {
    let rows = [
        created(
            "referral_ledger",
            &json!({"id": "f-1", "referrer_user_id": "u-1", "referee_user_id": "u-2", "merchant_id": "m-1",
                "status": "qualified", "created_at": "2026-11-20T10:00:00Z"}),
        ),
        created(
            "mission_claims",
            &json!({"id": "k-1", "user_id": "u-1", "merchant_id": "m-1", "mission_id": "visits", "status": "claimed"}),
        ),
        created(
            "codes",
            &json!({"id": "c-1", "code": "SECRET-4711", "merchant_id": "m-1", "status": "redeemed", "user_id": "u-1"}),
        ),
    ];
    let input = rows.join("\n");
    let output = explain(&["--format", "json"], input.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let mut delivered = Vec::new();
    for record in objects(&output) {
        let decided = record["consumers"].as_array().expect("a list").clone();
        for one in decided.iter().filter(|one| one["decision"] == "deliver") {
            let word = |name: &str| one[name].as_str().expect("a text").to_owned();
            let event = one["event"]["name"].as_str().expect("a name").to_owned();
            delivered.push(
                [
                    word("consumer"),
                    word("reason"),
                    word("effect_key"),
                    word("claim"),
                    event,
                ]
                .join(" "),
            );
        }
    }
    assert_eq!(
        delivered,
        [
            "reward qualified referral:f-1:referrer reward:grant_referrer:referral_ledger:f-1:42 loyalty/reward.granted",
            "reward qualified referral:f-1:referee reward:grant_referee:referral_ledger:f-1:42 loyalty/reward.granted",
            "reward claimed grant:k-1 reward:grant:mission_claims:k-1:42 loyalty/reward.granted",
            "marketplace redeemed code:c-1 marketplace:fulfil:codes:c-1:42 loyalty/code.redeemed",
        ]
    );
    let people = explain(&[], input.as_bytes());
    let shown = text(&people.stdout);
    assert_eq!(
        shown.matches("  reward      deliver  qualified\n").count(),
        2,
        "{shown}"
    );
    assert!(!shown.contains("SECRET") && !text(&output.stdout).contains("SECRET"));
}

#[test]
fn a_bare_envelope_without_a_table_says_that_nothing_names_one() {
    let output = explain(&[], MINIMAL.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(shown.contains("line 1  bare envelope, topic unknown"), "{shown}");
    assert!(
        shown.contains("neither source.table nor the topic names a table"),
        "{shown}"
    );
    let with_table = MINIMAL.replace(r#""lsn":42"#, r#""table":"purchase_ledger","lsn":42"#);
    let output = explain(&[], with_table.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("loyalty/award.scheduled"));
}

/// What every recording leads to, in one table, without LSNs and times: those change with a new recording.
#[test]
fn every_recorded_message_is_explained() {
    let mut table = String::new();
    let folder = fixture("");
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let mut arguments = vec!["--format", "json", path.to_str().expect("text")];
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        if name.starts_with("decimal_precise") {
            arguments.extend(["--decimal-mode", "precise:2"]);
        }
        let output = explain(&arguments, b"");
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{name}: {}",
            text(&output.stderr)
        );
        let objects = objects(&output);
        let lines = std::fs::read_to_string(&path).expect("the fixture").lines().count();
        assert_eq!(objects.len(), lines, "{name}");
        table.push_str(name);
        table.push('\n');
        for object in objects {
            let word = |name: &str| object[name].as_str().unwrap_or("-").to_owned();
            let reasons: Vec<&str> = object["reasons"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            table.push_str(&format!(
                "  {:<11} {:<2} {:<16} {:<7} {}\n",
                word("outcome"),
                word("op"),
                word("table"),
                word("row_id"),
                reasons.join(" ")
            ));
        }
    }
    insta::assert_snapshot!("recorded", table);
}

#[test]
fn a_cut_off_and_a_program_of_ones_own_change_the_decision() {
    let output = explain(
        &["--format", "json", "--ledger-effective-from", "2026-11-21T00:00:00Z"],
        recorded("", "").as_bytes(),
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        objects(&output)[0]["reasons"],
        json!(["before_cut_off", "not_interested"])
    );
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/loyalty/demo_program.json");
    let program = program.to_str().expect("text");
    let output = explain(&["--program-file", program], recorded("", "").as_bytes());
    assert!(text(&output.stdout).starts_with("line 1  crm.public.purchase_ledger [3] @9  key p-1\n"));
}

#[test]
fn mistakes_in_the_program_file_are_told_all_at_once() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("explain-program-with-mistakes.json");
    let mistaken = include_str!("../../src/loyalty/demo_program.json")
        .replacen("\"floor\"", "\"down\"", 1)
        .replacen("\"Asia/Tokyo\"", "\"Asia/Edo\"", 1)
        .replacen("\"rolling_days\", \"days\": 14", "\"rolling_days\"", 1);
    std::fs::write(&path, mistaken).expect("written");
    let output = explain(
        &["--program-file", path.to_str().expect("text")],
        recorded("", "").as_bytes(),
    );
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
    let problems = text(&output.stderr);
    for part in [
        "explain-program-with-mistakes.json",
        "programs[0].versions[0].currency.rounding",
        "programs[4].time_zone",
        "programs[2].versions[0].currency.activation",
    ] {
        assert!(problems.contains(part), "{part} is not in {problems}");
    }
}

#[test]
fn settings_that_are_wrong_are_told_all_at_once() {
    let output = explain(
        &[
            "--consumers",
            "gold",
            "--decimal-mode",
            "double",
            "--ledger-effective-from",
            "soon",
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(78));
    let problems = text(&output.stderr);
    for part in [
        "CONSUMERS names `gold`",
        "DECIMAL_MODE is `double`",
        "LEDGER_EFFECTIVE_FROM is `soon`",
    ] {
        assert!(problems.contains(part), "{part} is not in {problems}");
    }
    assert_eq!(explain(&["--now", "later"], b"").status.code(), Some(64));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for path in ["no-such-file.jsonl", env!("CARGO_MANIFEST_DIR")] {
        let output = explain(&[path], b"");
        assert_eq!(output.status.code(), Some(64), "{path}");
        let error = text(&output.stderr);
        assert!(error.starts_with(&format!("error: {path} cannot be read: ")), "{error}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_without_a_complaint() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(["explain", "--now", NOW])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    let input = format!("{}\n", recorded("", "")).repeat(1_000);
    // It may be gone before everything is written.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
