//! The receiver as a client sees it, beyond what the client's own tests cover.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::clock::TokioClock;

const NOW_MS: i64 = 1_795_000_000_000;

struct Running {
    receiver: Receiver,
    recorder: Arc<Recorder>,
    http: reqwest::Client,
}

async fn start(settings: ReceiverSettings) -> Running {
    crate::tls::install_provider();
    let recorder = Arc::new(Recorder::default());
    let now = jiff::Timestamp::from_millisecond(NOW_MS).expect("a time");
    let clock = Arc::new(TokioClock::starting_at(now));
    let sink: Arc<dyn Sink> = Arc::clone(&recorder) as _;
    let receiver = Receiver::start(settings, sink, clock).await.expect("a free port");
    Running {
        receiver,
        recorder,
        http: reqwest::Client::new(),
    }
}

impl Running {
    async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let url = format!("{}/e/key", self.receiver.base_url());
        let response = self.http.post(url).body(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

fn ids(answer: &Value) -> Vec<&str> {
    let ids = answer["ids"].as_array().expect("ids");
    ids.iter().map(|id| id.as_str().expect("text")).collect()
}

#[tokio::test]
async fn internal_ids_are_given_in_input_order() {
    let running = start(ReceiverSettings::default()).await;
    let (status, answer) = running
        .post(r#"[{"name":"a","id":"1"},{"name":"b"},{"name":"c"}]"#)
        .await;
    assert_eq!((status, &answer["status"]), (200, &json!(200)));
    let ids = ids(&answer);
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| id.len() == 26), "{ids:?}");
    assert!(ids.is_sorted() && ids[0] < ids[1], "{ids:?}");
    // What was sent without an id is known by the internal one; what was sent without ts by the time of receipt.
    assert_eq!(running.recorder.log().ids(), ["1", ids[1], ids[2]]);
    assert!(running.recorder.log().all()[0].ts_ms >= NOW_MS);
}

#[tokio::test]
async fn an_id_that_comes_again_is_accepted_again_and_counted() {
    let running = start(ReceiverSettings::default()).await;
    let (_, first) = running.post(r#"{"name":"a","id":"same"}"#).await;
    let (status, second) = running.post(r#"{"name":"a","id":"same"}"#).await;
    assert_eq!(status, 200);
    assert_ne!(ids(&first), ids(&second));
    let stats = running.receiver.stats();
    assert_eq!((stats.requests, stats.accepted, stats.resent), (2, 2, 1));
}

#[tokio::test]
async fn the_first_bad_event_ends_the_request_and_the_earlier_ones_stay() {
    let running = start(ReceiverSettings::default()).await;
    let (status, answer) = running
        .post(r#"[{"name":"a","id":"1"},{"name":"inngest/x"},{"name":"c"}]"#)
        .await;
    assert_eq!(status, 400);
    assert_eq!(ids(&answer).len(), 1);
    assert_eq!(answer["error"], "event name is reserved");
    assert_eq!(running.recorder.log().ids(), ["1"]);
}

#[tokio::test]
async fn nothing_sent_is_answered_with_one_empty_id() {
    let running = start(ReceiverSettings::default()).await;
    for body in ["", "[]"] {
        let (status, answer) = running.post(body).await;
        assert_eq!((status, ids(&answer)), (200, vec![""]));
    }
    assert!(running.recorder.log().is_empty());
}

#[tokio::test]
async fn a_body_above_the_limit_is_read_and_refused() {
    let settings = ReceiverSettings {
        max_body_bytes: 1000,
        ..ReceiverSettings::default()
    };
    let running = start(settings).await;
    let (status, answer) = running.post(vec![b' '; 8 * 1024 * 1024]).await;
    assert_eq!((status, &answer["status"]), (413, &json!(413)));
    assert!(running.recorder.log().is_empty());
}

#[tokio::test]
async fn the_event_after_the_five_thousandth_is_too_many() {
    let running = start(ReceiverSettings::default()).await;
    let body = format!("[{}]", vec![r#"{"name":"n"}"#; 5_001].join(","));
    let (status, answer) = running.post(body).await;
    assert_eq!((status, ids(&answer).len()), (400, 5_000));
    assert_eq!(running.receiver.stats().accepted, 5_000);
}

#[tokio::test]
async fn stopping_ends_what_hangs() {
    let running = start(ReceiverSettings::default()).await;
    let gate = crate::faults::Gate::default();
    running.receiver.faults().push(Fault::Hold(gate.clone()));
    let url = format!("{}/e/key", running.receiver.base_url());
    let hanging = tokio::spawn(running.http.post(url).body("[]").send());
    gate.arrived().await;
    running.receiver.stop().await;
    let answer = hanging.await.expect("no panic");
    assert!(answer.is_err(), "{answer:?}");
}
