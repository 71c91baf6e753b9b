//! The client against the receiver: every answer, lost answers, and that the key stays inside.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::config::Secret;
use crate::faults::Gate;
use crate::inngest::receiver::{Fault, Receiver, ReceiverSettings, Recorder, Sink};
use crate::inngest::samples::{self, events};

const KEY: &str = "sentinel-event-key";

struct Setup {
    receiver: Receiver,
    recorder: Arc<Recorder>,
    inngest: HttpDeliver,
}

fn deliver(base_url: &str, env: Option<&str>, settings: &HttpSettings) -> HttpDeliver {
    let endpoint = Endpoint::new(base_url, &Secret::new(KEY), env);
    let clock = Arc::new(SystemClock);
    HttpDeliver::new(endpoint.expect("valid"), settings, clock).expect("a client")
}

async fn setup_with(receiving: ReceiverSettings, sending: &HttpSettings) -> Setup {
    let recorder = Arc::new(Recorder::default());
    let sink: Arc<dyn Sink> = Arc::clone(&recorder) as _;
    let receiver = Receiver::start(receiving, sink, Arc::new(SystemClock)).await;
    let receiver = receiver.expect("a free port");
    let inngest = deliver(&receiver.base_url(), Some("branch-1"), sending);
    Setup {
        receiver,
        recorder,
        inngest,
    }
}

async fn setup() -> Setup {
    setup_with(ReceiverSettings::default(), &HttpSettings::at_rate(None)).await
}

fn impatient() -> HttpSettings {
    HttpSettings {
        request_timeout: Duration::from_millis(200),
        ..HttpSettings::at_rate(None)
    }
}

fn assert_key_free(shown: &str) {
    assert!(!shown.contains("sentinel") && !shown.contains("/e/"), "{shown}");
}

async fn unavailable(inngest: &HttpDeliver) -> (String, Option<Duration>) {
    let answer = samples::send(inngest, &events(&["a"])).await;
    assert_key_free(&format!("{answer:?}"));
    match answer {
        Answer::Unavailable { detail, retry_after } => (detail, retry_after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_arrives_in_order_with_the_promised_headers() {
    let Setup {
        receiver,
        recorder,
        inngest,
    } = setup().await;
    assert_eq!(
        samples::send(&inngest, &events(&["a", "b", "c"])).await,
        Answer::Accepted
    );
    let expected: Vec<String> = ["a", "b", "c"].map(samples::id).into();
    assert_eq!(recorder.log().ids(), expected);
    assert_eq!(recorder.log().all()[0].ts_ms, samples::TS_MS);
    let seen = receiver.last_headers();
    assert_eq!(seen.content_type.as_deref(), Some("application/json"));
    assert_eq!(seen.env.as_deref(), Some("branch-1"));
    assert_eq!(seen.user_agent.as_deref(), Some(USER_AGENT));
}

#[tokio::test]
async fn a_request_carries_only_its_part_of_the_batch() {
    let setup = setup().await;
    let batch = EventBatch::of(&events(&["a", "b", "c"]), i64::MAX);
    assert_eq!(setup.inngest.send(&batch, 1..2).await, Answer::Accepted);
    assert_eq!(setup.recorder.log().ids(), [samples::id("b")]);
}

#[tokio::test]
async fn an_empty_batch_sends_nothing() {
    let Setup { receiver, inngest, .. } = setup().await;
    assert_eq!(samples::send(&inngest, &[]).await, Answer::Accepted);
    assert_eq!(receiver.stats().requests, 0);
}

#[tokio::test]
async fn a_rejected_batch_may_have_been_accepted_in_part() {
    let Setup {
        receiver,
        recorder,
        inngest,
    } = setup().await;
    receiver.faults().push(Fault::AcceptPrefixThenReject { n: 2 });
    let answer = samples::send(&inngest, &events(&["a", "b", "c"])).await;
    assert!(matches!(answer, Answer::Rejected { status: 400, .. }), "{answer:?}");
    assert_eq!(recorder.log().len(), 2);
}

#[tokio::test]
async fn a_body_above_the_limit_of_the_server_is_rejected() {
    let receiving = ReceiverSettings {
        max_body_bytes: 10,
        ..ReceiverSettings::default()
    };
    let setup = setup_with(receiving, &HttpSettings::at_rate(None)).await;
    let answer = samples::send(&setup.inngest, &events(&["a"])).await;
    assert!(matches!(answer, Answer::Rejected { status: 413, .. }), "{answer:?}");
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_not_named() {
    let receiving = ReceiverSettings {
        keys: Some(BTreeSet::from(["another".to_owned()])),
        ..ReceiverSettings::default()
    };
    let Setup { receiver, inngest, .. } = setup_with(receiving, &HttpSettings::at_rate(None)).await;
    let answer = samples::send(&inngest, &events(&["a"])).await;
    assert!(matches!(answer, Answer::Refused { status: 401, .. }), "{answer:?}");
    assert_key_free(&format!("{answer:?} {inngest:?}"));
    assert_eq!(receiver.stats().accepted, 0);
}

#[tokio::test]
async fn an_error_that_echoes_the_key_is_shown_without_it() {
    let Setup { receiver, inngest, .. } = setup().await;
    let echo = format!("no such key: {KEY}\u{7}");
    for status in [400, 401, 418, 500] {
        receiver.faults().push(Fault::status(status, &echo));
        let answer = samples::send(&inngest, &events(&["a"])).await;
        let shown = format!("{answer:?}");
        assert!(shown.contains("no such key: ***"), "{shown}");
        assert_key_free(&shown);
    }
}

#[tokio::test]
async fn a_rate_limit_says_how_long_to_wait() {
    let Setup { receiver, inngest, .. } = setup().await;
    receiver.faults().push(Fault::too_many_requests(Some("7")));
    receiver.faults().push(Fault::too_many_requests(None));
    receiver.faults().push(Fault::status(503, "down"));
    assert_eq!(
        unavailable(&inngest).await,
        ("429: rate limited".to_owned(), Some(Duration::from_secs(7)))
    );
    assert_eq!(unavailable(&inngest).await.1, None);
    assert_eq!(unavailable(&inngest).await, ("503: down".to_owned(), None));
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_repeat_is_a_resend() {
    let Setup {
        receiver,
        recorder,
        inngest,
    } = setup().await;
    receiver.faults().push(Fault::AcceptThenDrop);
    unavailable(&inngest).await;
    assert_eq!(recorder.log().len(), 1);
    assert_eq!(samples::send(&inngest, &events(&["a"])).await, Answer::Accepted);
    let stats = receiver.stats();
    assert_eq!((stats.accepted, stats.resent), (2, 1));
}

#[tokio::test]
async fn too_few_ids_are_not_believed() {
    let Setup { receiver, inngest, .. } = setup().await;
    receiver.faults().push(Fault::TooFewIds { missing: 1 });
    assert_eq!(unavailable(&inngest).await.0, "200 with 0 ids for 1 events");
    receiver.faults().push(Fault::Body("<html>a proxy</html>".to_owned()));
    assert_eq!(
        unavailable(&inngest).await.0,
        "200 with a body that is not the documented one"
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let Setup { receiver, inngest, .. } = setup().await;
    let location = format!("{}/e/{KEY}", receiver.base_url());
    receiver.faults().push(Fault::Redirect { location });
    let answer = samples::send(&inngest, &events(&["a"])).await;
    assert!(matches!(answer, Answer::Unknown { status: 307, .. }), "{answer:?}");
    assert_key_free(&format!("{answer:?}"));
    assert_eq!(receiver.stats().requests, 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let Setup { receiver, inngest, .. } = setup_with(ReceiverSettings::default(), &impatient()).await;
    receiver.faults().push(Fault::Hang);
    assert_eq!(unavailable(&inngest).await.0, "no answer in time");
}

#[tokio::test]
async fn a_server_that_is_slow_is_waited_for() {
    let Setup { receiver, inngest, .. } = setup().await;
    let gate = Gate::default();
    receiver.faults().push(Fault::Hold(gate.clone()));
    receiver.faults().push(Fault::Slow(Duration::from_millis(1)));
    let batch = events(&["a"]);
    let test = async {
        gate.arrived().await;
        gate.release();
    };
    let (answer, ()) = tokio::join!(samples::send(&inngest, &batch), test);
    assert_eq!(answer, Answer::Accepted);
    assert_eq!(samples::send(&inngest, &batch).await, Answer::Accepted);
}

#[tokio::test]
async fn a_server_that_is_away_is_reported_without_its_address() {
    let Setup { receiver, inngest, .. } = setup().await;
    receiver.stop().await;
    let (detail, _) = unavailable(&inngest).await;
    assert!(detail.contains("refused"), "{detail}");
    let nowhere = deliver("http://no-such-host.invalid", None, &HttpSettings::at_rate(None));
    unavailable(&nowhere).await;
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unavailable() {
    let Setup { receiver, .. } = setup().await;
    let https = receiver.base_url().replace("http:", "https:");
    unavailable(&deliver(&https, None, &impatient())).await;
}
