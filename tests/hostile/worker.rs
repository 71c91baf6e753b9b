//! A worker that lies in wait: what it says of itself reaches a terminal through `status`, and nothing of it steers.

use std::time::Instant;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use super::text::{HOSTILE, assert_inert};
use super::{Ended, command};
use crate::PATIENCE;

/// A status in which every text is hostile.
fn told() -> Value {
    let word = HOSTILE;
    json!({
        "version": word, "now_ms": 1, "flow": {"state": word, "why": [word]}, "problems": [word],
        "consumers": [{
            "name": word, "lag": 1, "outcomes": {"delivered": 1}, "rates": {word: 1.0}, "latency_ms": {"p50": word},
            "last_error": {"at_ms": 0, "target": word, "detail": word}, word: word,
        }],
        "partitions": [{"topic": word, "partition": 0, "held_by": [word], "watermarks": {word: 1}}],
        "halted": [{"topic": word, "partition": 0, "reason": word}],
        "undecodable": {"at_ms": 0, "target": word, "detail": word},
        "client": {"last_rebalance": word, "rebalances": 1, "paused": {word: 1}},
        "source": {"looked_ms": 0, "findings": [{"id": word, "severity": "failed", "what": word}]},
        "recent": [{"row": word, "table": word}],
    })
}

async fn status_of(body: String, more: &[&str]) -> Ended {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route("/statusz", get(move || std::future::ready(body.clone())));
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    let worker = format!("http://{address}");
    let mut arguments = vec!["status".to_owned(), "--worker".to_owned(), worker];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let begun = Instant::now();
    let ended = loop {
        let ended = command(&arguments, &[]).await;
        // It waits for 5 s; a busy machine may need longer to serve it.
        if !ended.stderr.contains("no worker answers") || begun.elapsed() > PATIENCE {
            break ended;
        }
    };
    serving.abort();
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_worker_says_of_itself_status_shows_it_on_the_lines_it_would_have_had() {
    let harmless = told().to_string().replace(&json!(HOSTILE).to_string(), "\"harmless\"");
    for more in [&[][..], &["--once"], &["--format", "json"]] {
        let hostile = status_of(told().to_string(), more).await;
        assert_inert(&more.join(" "), &hostile.said());
        assert!(hostile.stdout.contains("forged"), "{}", hostile.said());
        assert_eq!(hostile.code, Some(1), "it does not flow: {}", hostile.said());
        let plain = status_of(harmless.clone(), more).await;
        assert_eq!(
            hostile.stdout.lines().count(),
            plain.stdout.lines().count(),
            "{}",
            hostile.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_worker_is_told_from_one_that_is_away() {
    for (body, said) in [
        (String::new(), "no JSON"),
        ("{}".to_owned(), "tells of no consumers"),
        ("[".repeat(100_000), "no JSON"),
        ("x".repeat(9 * 1024 * 1024), "too long"),
    ] {
        let ended = status_of(body, &[]).await;
        assert_eq!(ended.code, Some(69), "{}", ended.said());
        assert!(ended.stderr.contains(said), "{}", ended.said());
    }
    let away = ["status", "--worker", "http://127.0.0.1:9"].map(str::to_owned);
    let ended = command(&away, &[]).await;
    assert_eq!(ended.code, Some(69), "{}", ended.said());
    assert!(ended.stderr.contains("no worker answers"), "{}", ended.said());
}
