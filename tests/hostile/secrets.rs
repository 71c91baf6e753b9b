//! No command prints a secret, whatever is wrong. The commands, and the variables that hold secrets, are taken from the
//! command line's own description: a new one cannot be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use crm_event_processors::cli;
use futures::{StreamExt as _, stream};

use super::echo::Echo;
use super::{Ended, command};
use crate::kafka::cluster::{Cluster, PATIENCE, purchase, purchases};
use crate::redis::server::Server;

/// In every secret, in letters that no escape changes.
const SENTINEL: &str = "SentinelOfSecrets";
/// Passwords may hold anything; in an address it is encoded.
const PASSWORD: &str = "x/SentinelOfSecrets+=?%";
const PASSWORD_IN_URL: &str = "x%2FSentinelOfSecrets%2B%3D%3F%25";

/// Neither as it is, nor in another case, nor in base64, whatever stands before it.
fn holds_secret(text: &str) -> bool {
    let shifted = (0..3).map(|shift| {
        let encoded = STANDARD_NO_PAD.encode([&vec![b'?'; shift], SENTINEL.as_bytes()].concat());
        // The first and the last letter depend on what is beside it.
        encoded[(shift * 8).div_ceil(6)..encoded.len() - 1].to_owned()
    });
    text.to_lowercase().contains(&SENTINEL.to_lowercase()) || shifted.into_iter().any(|form| text.contains(&form))
}

#[test]
fn the_search_finds_a_secret_in_every_form() {
    for text in ["a SentinelOfSecrets b", "x%2fSENTINELOFSECRETS%2b"] {
        assert!(holds_secret(text), "{text}");
    }
    for before in ["", "a", "ab", "abc", "\0key\0"] {
        assert!(
            holds_secret(&STANDARD_NO_PAD.encode(format!("{before}{SENTINEL}\0behind"))),
            "{before}"
        );
    }
    assert!(!holds_secret("U2VudGluZWw sentinel of secrets"));
}

/// Every command that can be run, as it is typed.
fn commands() -> Vec<(String, clap::Command)> {
    let mut waiting = vec![(String::new(), cli::command())];
    let mut leaves = Vec::new();
    while let Some((path, command)) = waiting.pop() {
        if !command.has_subcommands() {
            leaves.push((path, command));
            continue;
        }
        for child in command.get_subcommands() {
            waiting.push((format!("{path} {}", child.get_name()).trim().to_owned(), child.clone()));
        }
    }
    leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(leaves.len() >= 12, "{} commands", leaves.len());
    leaves
}

/// What makes a command do what it is there for.
fn arguments(command: &str) -> &'static [&'static str] {
    match command {
        "run" | "config" | "console" | "status" | "migrate" | "healthcheck" | "version" | "dlq list" => &[],
        "demo" => &["--events", "200"],
        "explain" => &["--purchase", "p-1"],
        "check" => &["--send-test-event"],
        "connectors render" => &["--platform", "connect"],
        "connectors validate" => &["--online"],
        "connectors diff" | "connectors status" => &[],
        "connectors apply" => &["--deadline", "1"],
        "reconcile" => &["--redeliver"],
        "dlq show" => &["currency/0/0"],
        "dlq drop" => &["currency/0/0", "--because", "a test"],
        "dlq replay" => &["--consumer", "currency"],
        "replay" => &["--consumer", "currency", "--from", "2026-01-01T00:00:00Z"],
        other => panic!("say here how `{other}` is called, so that its output is searched for secrets"),
    }
}

/// The variables of all commands whose values are never shown.
fn secret_variables() -> BTreeMap<String, String> {
    let of = |command: &clap::Command| {
        let arguments = command
            .get_arguments()
            .filter(|argument| argument.is_hide_env_values_set());
        let named = arguments.filter_map(|argument| {
            let variable = argument.get_env()?.to_str()?.to_owned();
            Some((variable, format!("--{}", argument.get_long()?)))
        });
        named.collect::<Vec<_>>()
    };
    commands().iter().flat_map(|(_, command)| of(command)).collect()
}

#[test]
fn a_variable_that_sounds_like_a_secret_is_hidden_in_every_command() {
    let sounds = |name: &str| {
        [
            "KEY",
            "SECRET",
            "PASSWORD",
            "TOKEN",
            "HEADERS",
            "URL",
            "ENDPOINT",
            "INNGEST_DEV",
        ]
        .iter()
        .any(|part| name.contains(part))
    };
    let mut seen = 0;
    for (path, command) in commands() {
        for argument in command.get_arguments() {
            let Some(name) = argument.get_env().and_then(|name| name.to_str()) else {
                continue;
            };
            seen += 1;
            assert!(!sounds(name) || argument.is_hide_env_values_set(), "{path}: {name}");
        }
    }
    assert!(seen > 50, "{seen} variables");
    let hidden = secret_variables();
    for name in [
        "KAFKA_API_SECRET",
        "INNGEST_EVENT_KEY",
        "DATABASE_URL",
        "REDIS_URL",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ] {
        assert!(hidden.contains_key(name), "{name} is not in {hidden:?}");
    }
}

/// Everything a command needs, each secret where it belongs, towards servers that repeat it.
fn sound(echo: &Echo) -> BTreeMap<String, String> {
    // Of this test alone: others write theirs meanwhile.
    let program = format!(
        "{}/secrets-{}.program.json",
        env!("CARGO_TARGET_TMPDIR"),
        echo.http.port()
    );
    std::fs::write(&program, crm_event_processors::loyalty::DEMO_PROGRAM).expect("written");
    let value = |name: &str| match name {
        "KAFKA_API_KEY" => format!("{SENTINEL}-key"),
        "KAFKA_API_SECRET" => PASSWORD.to_owned(),
        "INNGEST_EVENT_KEY" => format!("{SENTINEL}_42-x"),
        "REDIS_URL" | "CRM_CACHE_REDIS_URL" => format!("redis://user:{PASSWORD_IN_URL}@{}/1", echo.redis),
        "CONNECT_URL" => format!("http://{}", echo.http),
        "CONNECT_API_KEY" => format!("{SENTINEL}-key"),
        "CONNECT_API_SECRET" => PASSWORD.to_owned(),
        "CONNECTOR_DATABASE_URL" => format!("postgres://crm_cdc:{PASSWORD_IN_URL}@db.example/crm"),
        "DATABASE_URL" => format!("postgres://crm:{PASSWORD_IN_URL}@{}/crm", echo.postgres),
        // No secrets, but addresses that might hold one by mistake.
        "INNGEST_BASE_URL" | "INNGEST_DEV" => format!("http://{}", echo.http),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => format!("http://{}/{SENTINEL}", echo.http),
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" => format!("http://{}/{SENTINEL}/v1/metrics", echo.http),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => format!("http://{}/{SENTINEL}/v1/traces", echo.http),
        "OTEL_EXPORTER_OTLP_HEADERS" => format!("authorization=Basic%20{SENTINEL}"),
        other => panic!("say here what a sound value of {other} looks like"),
    };
    let secrets = secret_variables();
    let secrets = secrets.keys().map(|name| (name.clone(), value(name)));
    let plain = [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("PROGRAM_FILE", &program),
        ("LEDGER_EFFECTIVE_FROM", "2020-01-01T00:00:00Z"),
        ("HTTP_ADDR", "127.0.0.1:9"),
        ("RUST_LOG", "trace"),
    ];
    let plain = plain.map(|(name, value)| (name.to_owned(), value.to_owned()));
    secrets.chain(plain).collect()
}

/// One call of a command.
#[derive(Clone)]
struct Call {
    path: String,
    more: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Call {
    fn new(path: &str, more: &[&str], environment: &BTreeMap<String, String>) -> Self {
        Self {
            path: path.to_owned(),
            more: more.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: environment.clone(),
        }
    }

    async fn made(self) -> (Self, Ended) {
        let path = self.path.split(' ').map(str::to_owned);
        let arguments: Vec<String> = path.chain(self.more.iter().cloned()).collect();
        let environment: Vec<(String, String)> = self.environment.clone().into_iter().collect();
        let ended = command(&arguments, &environment).await;
        (self, ended)
    }
}

/// Makes all calls, several at once, since most of them wait for a broker that is not there; none may tell a secret.
async fn made(calls: Vec<Call>) -> Vec<(Call, Ended)> {
    let made: Vec<(Call, Ended)> = stream::iter(calls.into_iter().map(Call::made))
        .buffer_unordered(8)
        .collect()
        .await;
    for (call, ended) in &made {
        let (path, more) = (&call.path, &call.more);
        assert!(
            !holds_secret(&ended.said()),
            "{path} {more:?} tells a secret: {}",
            ended.said()
        );
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_secret_however_it_fails() {
    let echo = Echo::start().await;
    let sound = sound(&echo);
    let mut without_database = sound.clone();
    without_database.remove("DATABASE_URL");
    let mut calls = Vec::new();
    for (path, _) in commands() {
        calls.push(Call::new(&path, &["--help"], &sound));
        for (format, environment) in [("json", &sound), ("text", &without_database)] {
            let mut call = Call::new(&path, arguments(&path), environment);
            call.environment.insert("LOG_FORMAT".to_owned(), format.to_owned());
            if path == "run" {
                call.environment.insert("HTTP_ADDR".to_owned(), "off".to_owned());
            }
            calls.push(call);
        }
    }
    let mut refused = BTreeSet::new();
    // On a busy machine a command may give up before the database has answered.
    for _ in 0..3 {
        for (call, ended) in made(calls.clone()).await {
            let (path, said) = (call.path, ended.said());
            let is_help = call.more == ["--help"];
            assert!(!is_help || ended.code == Some(0), "{path} --help: {said}");
            let misused = ended.code == Some(64) && call.environment.contains_key("DATABASE_URL");
            assert!(!misused, "{path} was not called as it is meant: {said}");
            if ended.stderr.contains("28P01") {
                refused.insert(path);
            }
        }
        if refused.len() >= 3 {
            return;
        }
    }
    panic!("the database was asked by {refused:?} alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_secret_that_it_does_not_understand() {
    let echo = Echo::start().await;
    let sound = sound(&echo);
    let secrets = secret_variables();
    let mut calls = Vec::new();
    for (path, command) in commands() {
        for wrong in [
            SENTINEL.to_owned(),
            format!("https://user:{SENTINEL}@host.example/?{SENTINEL}#{SENTINEL}"),
            format!("postgres://u:{SENTINEL}@h:port/{SENTINEL}?sslmode={SENTINEL}"),
            format!("rediss://:{SENTINEL}@h/{SENTINEL}#insecure"),
            format!("{SENTINEL}=%zz,\n{SENTINEL}"),
        ] {
            let mut call = Call::new(&path, arguments(&path), &sound);
            call.environment
                .extend(secrets.keys().map(|name| (name.clone(), wrong.clone())));
            calls.push(call);
        }
        // The same as flags, as far as the command knows them; and each once too often.
        let knows = |flag: &str| {
            let mut arguments = command.get_arguments();
            arguments.any(|argument| argument.get_long().is_some_and(|long| flag == format!("--{long}")))
        };
        let flags = secrets.values().filter(|flag| knows(flag));
        let flags: Vec<String> = flags.map(|flag| format!("{flag}={SENTINEL}")).collect();
        for times in [1, 2] {
            let mut call = Call::new(&path, arguments(&path), &BTreeMap::new());
            call.more.extend(std::iter::repeat_n(flags.clone(), times).flatten());
            calls.push(call);
        }
    }
    assert!(calls.len() > 80, "{} calls", calls.len());
    made(calls).await;
}

/// The way out: a Redis that wants its password, an event API that refuses the key and quotes it, a push that is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_key_is_refused_and_quoted_by_the_event_api_does_not_log_it() {
    let echo = Echo::start().await;
    let cluster = Cluster::start(1);
    cluster.produce(purchases(0), &purchase("p-1", 1)).await;
    let redis = Server::start(&["--requirepass", PASSWORD]);
    for format in ["json", "text"] {
        let mut environment = sound(&echo);
        for name in [
            "DATABASE_URL",
            "CRM_CACHE_REDIS_URL",
            "KAFKA_API_KEY",
            "KAFKA_API_SECRET",
            "KAFKA_SECURITY_PROTOCOL",
            "INNGEST_DEV",
        ] {
            environment.remove(name);
        }
        environment.extend(
            [
                ("REDIS_URL", redis.url_with(&format!("default:{PASSWORD_IN_URL}"))),
                ("KAFKA_BOOTSTRAP_SERVERS", cluster.connection().bootstrap_servers),
                ("CONSUMER_GROUP_ID", format!("secrets-{format}")),
                ("OTEL_METRIC_EXPORT_INTERVAL", "1000".to_owned()),
                ("HTTP_ADDR", "off".to_owned()),
                ("LOG_FORMAT", format.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let log = log_until_refused(&environment).await;
        assert!(!holds_secret(&log), "{log}");
        assert!(
            log.contains("401") && log.contains("***"),
            "the answer was told without the key: {log}"
        );
    }
}

async fn log_until_refused(environment: &BTreeMap<String, String>) -> String {
    use tokio::io::AsyncBufReadExt as _;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
    let mut child = command
        .arg("run")
        .env_clear()
        .envs(environment)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = tokio::io::BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = String::new();
    let reading = async {
        // The refused key, and a push that was refused as well.
        while !(log.contains("***") && log.contains("push")) {
            let line = lines.next_line().await.expect("UTF-8");
            let line = line.unwrap_or_else(|| panic!("it ended: {log}"));
            log.push_str(&line);
            log.push('\n');
        }
    };
    let waited = tokio::time::timeout(PATIENCE * 4, reading).await;
    assert!(waited.is_ok(), "{log}");
    log
}
