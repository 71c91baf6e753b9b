//! Text from outside, in front of people: in what commands print and in both formats of the log, it moves no cursor, forges
//! no line and hides nothing.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crm_event_processors::config;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Ended, command, owned, steers};
use crate::kafka::cluster::{Cluster, PATIENCE, Raw, purchases};
use crate::postgres::Database;

/// Clears the screen, begins a line of its own, colours, and turns round what follows; in old and new ways.
pub(super) const HOSTILE: &str = "a\u{1b}[2J\nlevel=ERROR forged\r\u{9b}31m\u{202e}\u{200b}\u{2028}z";

pub(super) fn assert_inert(what: &str, text: &str) {
    let found = text.char_indices().find(|(_, c)| steers(*c));
    assert_eq!(found, None, "{what}: {text:?}");
    let forged = text.lines().find(|line| line.starts_with("level=ERROR"));
    assert_eq!(forged, None, "{what}: {text}");
}

/// What `explain` prints of this input.
fn explain(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(["explain", "--now", "2026-12-01T00:00:00Z"])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("less than a pipe holds");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).expect("UTF-8")
}

/// A recorded message with `word` in one place.
fn recorded(place: &str, word: &str) -> String {
    let mut row = json!({"id": "p-1", "user_id": "u-1", "merchant_id": "m-1", "final_amount": "100.00",
        "status": "completed", "earn_currency": true, "created_at": "2026-11-20T10:00:00Z"});
    let mut envelope = json!({"op": "c", "before": null, "source": {"table": "purchase_ledger", "lsn": 42},
        "ts_ms": 1_795_168_800_000_i64});
    let mut message = json!({"topic": "crm.public.purchase_ledger", "partition": 0, "offset": 9, "key": "k"});
    match place {
        "op" => envelope["op"] = word.into(),
        "table" => envelope["source"]["table"] = word.into(),
        "topic" | "key" => message[place] = word.into(),
        "header name" => message["headers"] = json!([word, "x"]),
        "header value" => message["headers"] = json!(["__value_schema_id", word]),
        "column name" => row[word] = 1.into(),
        "payload" => {
            return {
                message["payload"] = word.into();
                message.to_string()
            };
        }
        column => row[column] = word.into(),
    }
    envelope["after"] = row;
    message["payload"] = envelope.to_string().into();
    message.to_string()
}

const PLACES: [&str; 16] = [
    "topic",
    "key",
    "header name",
    "header value",
    "payload",
    "op",
    "table",
    "column name",
    "id",
    "user_id",
    "merchant_id",
    "final_amount",
    "status",
    "created_at",
    "completed_at",
    "earn_currency",
];

#[test]
fn whatever_a_record_holds_explain_shows_it_on_the_lines_it_would_have_had() {
    for place in PLACES {
        for arguments in [&[][..], &["--format", "json"]] {
            let shown = explain(arguments, &recorded(place, HOSTILE));
            assert_inert(place, &shown);
            let harmless = explain(arguments, &recorded(place, "harmless"));
            assert_eq!(shown.lines().count(), harmless.lines().count(), "{place}: {shown}");
        }
    }
    // No record at all.
    for line in [
        HOSTILE,
        &format!("{{\"{}\":1}}", HOSTILE.escape_default()),
        &format!("\"{HOSTILE}\""),
    ] {
        assert_inert(line, &explain(&[], line));
    }
}

#[tokio::test]
async fn whatever_a_program_file_holds_its_problems_are_a_line_each() {
    let word = json!(HOSTILE).to_string();
    let folder = env!("CARGO_TARGET_TMPDIR");
    for (index, program) in [
        format!(r#"{{"programs":[{{"merchant_id":{word},"time_zone":{word},"versions":[]}}]}}"#),
        format!(r#"{{{word}:1,"programs":[{{{word}:1}}]}}"#),
        format!(r#"{{"programs":[{word}]}}"#),
        // Raw, but for what would be no JSON.
        format!(r#"{{"programs":"{}"}}"#, "\u{7f}\u{9b}31m\u{202e}"),
        HOSTILE.to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("{folder}/hostile-program-{index}.json");
        std::fs::write(&path, program).expect("written");
        let arguments = ["explain", "--program-file", &path].map(str::to_owned);
        let ended = command(&arguments, &[]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.said());
        assert_inert(program, &ended.said());
    }
}

#[tokio::test]
async fn whatever_a_variable_holds_it_is_shown_on_one_line() {
    let variables = config::variables();
    assert!(variables.len() > 30);
    for name in ["config", "run"] {
        for variable in &variables {
            let ended = command(&[name.to_owned()], &[(variable.clone(), HOSTILE.to_owned())]).await;
            assert_eq!(ended.code, Some(78), "{variable}: {}", ended.said());
            assert_inert(variable, &ended.said());
        }
    }
    let no_file = command(&["explain".to_owned(), HOSTILE.to_owned()], &[]).await;
    assert_eq!(no_file.code, Some(64), "{}", no_file.said());
    assert_inert("a file's name", &no_file.said());
}

/// Poison that says as much as it can about itself.
fn poison() -> Vec<Raw> {
    ["op", "table", "status", "created_at"]
        .map(|place| {
            let message: Value = serde_json::from_str(&recorded(place, HOSTILE)).expect("JSON");
            let payload = message["payload"].as_str().expect("a text");
            Raw {
                key: Some(HOSTILE.as_bytes().to_vec()),
                value: Some(payload.as_bytes().to_vec()),
                headers: vec![(HOSTILE.to_owned(), Some(HOSTILE.as_bytes().to_vec()))],
            }
        })
        .to_vec()
}

/// Runs a worker on this cluster until it has set so many records aside; gives its log.
async fn log_of_a_worker(cluster: &Cluster, format: &str, letters: usize) -> String {
    let program = format!("{}/hostile-worker.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&program, crm_event_processors::loyalty::DEMO_PROGRAM).expect("written");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
    let mut child = command
        .args(["run", "--accept-dead-letters"])
        .env_clear()
        .envs([
            (
                "KAFKA_BOOTSTRAP_SERVERS",
                cluster.connection().bootstrap_servers.as_str(),
            ),
            ("CONSUMER_GROUP_ID", &format!("hostile-{format}")),
            ("REDIS_URL", "redis://127.0.0.1:9"),
            ("INNGEST_DEV", "http://127.0.0.1:9"),
            ("PROGRAM_FILE", &program),
            ("LEDGER_EFFECTIVE_FROM", "2020-01-01T00:00:00Z"),
            ("HTTP_ADDR", "off"),
            ("LOG_FORMAT", format),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = String::new();
    let reading = async {
        while log.matches("record dead-lettered").count() < letters {
            let line = lines.next_line().await.expect("UTF-8").expect("it runs on");
            log.push_str(&line);
            log.push('\n');
        }
    };
    let waited = tokio::time::timeout(PATIENCE * 4, reading).await;
    assert!(waited.is_ok(), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_dead_letter_holds_the_log_has_a_line_for_it_and_dlq_shows_it_inert() {
    let cluster = Cluster::start(1);
    let poison = poison();
    for record in &poison {
        cluster.produce(purchases(0), record).await;
    }
    // In a group of its own each, so that none waits for the end of another's session.
    for format in ["json", "text"] {
        let log = log_of_a_worker(&cluster, format, poison.len()).await;
        assert_inert(format, &log);
        for line in log.lines() {
            let begins = if format == "json" {
                serde_json::from_str::<Value>(line).is_ok_and(|event| event["level"].is_string())
            } else {
                line.starts_with("20") && ["INFO", "WARN", "ERROR"].iter().any(|level| line.contains(level))
            };
            assert!(begins, "{line}");
        }
    }
    let environment = owned(&[("KAFKA_BOOTSTRAP_SERVERS", &cluster.connection().bootstrap_servers)]);
    for arguments in [
        &["list"][..],
        &["list", "--each"],
        &["list", "--each", "--format", "json"],
        &["show", "decode/0/0"],
        &["show", "decode/0/1"],
        &["show", "decode/0/0", "--format", "json"],
    ] {
        let arguments: Vec<String> = std::iter::once("dlq")
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect();
        let ended = command(&arguments, &environment).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.said());
        assert!(ended.stdout.contains("crm.public.purchase_ledger"), "{}", ended.stdout);
        assert_inert(&arguments.join(" "), &ended.said());
    }
}

#[tokio::test]
async fn whatever_the_ledgers_hold_what_is_said_of_them_is_inert() {
    let database = Database::new().await;
    let id = HOSTILE.replace('\'', "''");
    database
        .own
        .run(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{id}', '{id}', '{id}', 2.00, 'completed', true, '2020-01-01')"
        ))
        .await;
    let environment = owned(&[("DATABASE_URL", &database.url())]);
    let said = async |arguments: &[&str]| -> Ended {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let ended = command(&arguments, &environment).await;
        assert_inert(&arguments.join(" "), &ended.said());
        ended
    };
    for format in ["text", "json"] {
        let seeded = said(&["migrate", "--seed-before", "2021-01-01T00:00:00Z", "--format", format]).await;
        assert_eq!(seeded.code, Some(0), "{}", seeded.said());
        assert!(
            seeded.stdout.contains("forged"),
            "the purchase is open: {}",
            seeded.stdout
        );
        let program = format!("{}/hostile-ledger.json", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&program, crm_event_processors::loyalty::DEMO_PROGRAM).expect("written");
        let balanced = said(&["reconcile", "--program-file", &program, "--format", format]).await;
        assert_eq!(balanced.code, Some(1), "{}", balanced.said());
        assert!(
            balanced.stdout.contains("forged"),
            "the purchase is missing: {}",
            balanced.stdout
        );
        let explained = said(&[
            "explain",
            "--purchase",
            HOSTILE,
            "--program-file",
            &program,
            "--format",
            format,
        ])
        .await;
        assert!(explained.stdout.contains("forged"), "{}", explained.said());
    }
    database.done().await;
}
