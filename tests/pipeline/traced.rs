//! What is traced of a batch, received and read again by a collector in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::{self, DedupeError};
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::kafka::memory::MemoryRecord;
use crm_event_processors::telemetry::{Telemetry, TracePush};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use tokio::sync::mpsc;

use super::harness::{PURCHASES, Purchase, Start, Worker, World, award_id};
use crate::PATIENCE;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Of a trace that nobody takes.
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-00";
/// The lowest bit of the flags.
const SAMPLED: u32 = 1;

/// Takes what is pushed to it; gives the spans.
struct Collector {
    address: SocketAddr,
    pushes: mpsc::UnboundedReceiver<(HeaderMap, ExportTraceServiceRequest)>,
}

type Pushes = mpsc::UnboundedSender<(HeaderMap, ExportTraceServiceRequest)>;

async fn take(State(pushes): State<Pushes>, headers: HeaderMap, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
    pushes.send((headers, request)).expect("the test waits");
}

impl Collector {
    async fn start() -> Self {
        let (sender, pushes) = mpsc::unbounded_channel();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(sender);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, pushes }
    }

    /// Of everything that has come, a batch with it, which ends behind its stages: the last push may be given up on before it
    /// has come.
    async fn spans(&mut self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        loop {
            let has_batch = spans.iter().any(|span| span.parent_span_id.is_empty());
            let next = if has_batch {
                self.pushes.try_recv().ok()
            } else {
                let next = tokio::time::timeout(PATIENCE, self.pushes.recv()).await;
                next.expect("a push")
            };
            let Some((headers, request)) = next else { return spans };
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert_eq!(headers["x-api-key"], "sentinel");
            for resource in request.resource_spans {
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
    }

    fn telemetry(&self, ratio: f64) -> Arc<Telemetry> {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", "sentinel".parse().expect("a value"));
        let push = TracePush {
            endpoint: format!("http://{}/v1/traces", self.address)
                .parse()
                .expect("an address"),
            headers,
            resource: BTreeMap::from([("service.name".to_owned(), "crm".to_owned())]),
            ratio,
            group: "a-group".to_owned(),
        };
        let runtime = tokio::runtime::Handle::current();
        Arc::new(Telemetry::outward(None, Some(&push), "instance-1", &runtime).expect("instruments"))
    }
}

/// An attribute as text.
fn said(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// What stages of this name say.
fn all_said(stages: &[Span], name: &str, attribute: &str) -> Vec<String> {
    let named = stages.iter().filter(|stage| stage.name == name);
    named.filter_map(|stage| said(stage, attribute)).collect()
}

/// What it met, if it says that it failed.
fn error_of(span: &Span) -> Option<String> {
    let failed = span
        .status
        .as_ref()
        .is_some_and(|status| status.code == StatusCode::Error as i32);
    let met = said(span, "error.type");
    assert_eq!(failed, met.is_some(), "{}: {met:?}", span.name);
    met
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A world with purchases of one member, each behind this header, that a worker of one lane finds as one batch.
fn world(collector: &Collector, ratio: f64, purchases: &[(Purchase, Option<&str>)]) -> World {
    let mut world = World::new();
    world.telemetry = Some(collector.telemetry(ratio));
    for (purchase, header) in purchases {
        let header = header.map(|value| ("traceparent".to_owned(), Some(value.as_bytes().to_vec())));
        let record = MemoryRecord {
            value: Some(purchase.envelope().into_bytes()),
            headers: header.into_iter().collect(),
            ..MemoryRecord::default()
        };
        world.log.append(PURCHASES, record, 0);
    }
    world
}

/// Runs a worker over everything; gives what was pushed.
async fn traced(world: &World, collector: &mut Collector) -> Vec<Span> {
    let worker = start(world).await;
    ended(worker, world, collector).await
}

async fn start(world: &World) -> Worker {
    let start = Start {
        consumers: vec![(Consumer::Currency, 1)],
        ..Start::of(&[])
    };
    world.worker_as(start, &[PURCHASES]).await
}

async fn ended(worker: Worker, world: &World, collector: &mut Collector) -> Vec<Span> {
    end(worker, world).await;
    collector.spans().await
}

async fn end(worker: Worker, world: &World) {
    let committed = world.log.wait_all_committed(PURCHASES);
    tokio::time::timeout(PATIENCE, committed).await.expect("committed");
    let telemetry = Arc::clone(&worker.telemetry);
    worker.stop().await;
    telemetry.last_push().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_a_trace_that_its_events_name_and_that_is_linked_to_where_its_records_came_from() {
    let mut collector = Collector::start().await;
    let purchases = [
        (Purchase::completed("p-1", 10), Some(GIVEN)),
        (Purchase::completed("p-2", 20), Some(GIVEN)),
        (Purchase::completed("p-3", 30), Some("00-not-one-01")),
        (Purchase::completed("p-4", 40), Some(UNSAMPLED)),
    ];
    let world = world(&collector, 1.0, &purchases);
    let spans = traced(&world, &mut collector).await;

    let (roots, stages): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.parent_span_id.is_empty());
    let [root] = roots.as_slice() else {
        panic!("one batch: {roots:#?}")
    };
    assert_eq!(
        (root.name.as_str(), root.kind()),
        ("process currency", SpanKind::Consumer)
    );
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.consumer.group.name", "a-group"),
        ("messaging.batch.message_count", "4"),
        ("messaging.destination.name", "crm.public.purchase_ledger"),
        ("messaging.destination.partition.id", "0"),
        ("crm.consumer", "currency"),
    ] {
        assert_eq!(said(root, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        root.status.as_ref().map_or(0, |status| status.code),
        StatusCode::Unset as i32
    );
    let links: Vec<String> = root
        .links
        .iter()
        .map(|link| {
            format!(
                "00-{}-{}-{:02x}",
                hex(&link.trace_id),
                hex(&link.span_id),
                link.flags & 0xff
            )
        })
        .collect();
    assert_eq!(
        links,
        [GIVEN, UNSAMPLED],
        "a transaction once, and nobody's word that is none"
    );
    assert_eq!(root.flags & 0xff, SAMPLED);

    let names: BTreeSet<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["claim", "decide", "deliver", "settle"]));
    for stage in &stages {
        assert_eq!(stage.parent_span_id, root.span_id, "{}", stage.name);
        assert_eq!(stage.trace_id, root.trace_id, "{}", stage.name);
        assert_eq!(stage.flags & 0xff, SAMPLED, "{}", stage.name);
        assert_eq!(error_of(stage), None, "{}", stage.name);
        assert!(stage.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(stage.end_time_unix_nano <= root.end_time_unix_nano);
    }

    for (name, members) in [
        ("decide", "crm.records"),
        ("claim", "crm.effects"),
        ("deliver", "crm.events"),
        ("settle", "crm.effects"),
    ] {
        assert_eq!(all_said(&stages, name, members), ["4"], "{name}");
    }

    // A workflow is found from a purchase; its id is what it always was.
    let named = format!("00-{}-{}-01", hex(&root.trace_id), hex(&root.span_id));
    let events = world.inngest.accepted().all();
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(
        ids,
        [("p-1", 10), ("p-2", 20), ("p-3", 30), ("p-4", 40)].map(|(id, lsn)| award_id(id, lsn))
    );
    assert!(
        events.iter().all(|event| event.data["traceparent"] == named.as_str()),
        "{events:?}"
    );
}

/// Keeps log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panics").clone()).expect("text")
    }
}

// On one thread: a subscriber of its own has each test alone.
#[tokio::test]
async fn a_dead_letter_is_an_error_of_its_batch_with_our_reason_and_its_line_names_the_trace() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // While there is one subscriber alone, whoever comes to a span first decides for all threads whether anybody wants it, by what
    // is set on his own thread: by nothing, in the tests beside this one.
    let _beside = tracing::Dispatch::new(tracing_subscriber::registry());
    let _logged = tracing::subscriber::set_default(subscriber);
    let mut collector = Collector::start().await;
    let bad = Purchase {
        refunded: "-1.00",
        ..Purchase::completed("p-bad", 10)
    };
    let world = world(&collector, 1.0, &[(bad, None), (Purchase::completed("p-1", 20), None)]);
    let spans = traced(&world, &mut collector).await;
    let failed: Vec<&Span> = spans.iter().filter(|span| error_of(span).is_some()).collect();
    let [root] = failed.as_slice() else {
        panic!("the batch alone: {failed:#?}")
    };
    assert_eq!(root.name, "process currency");
    assert_eq!(error_of(root).as_deref(), Some("negative_refund"));
    let log = lines.text();
    let line = log.lines().find(|line| line.contains("record dead-lettered"));
    let trace = format!("trace_id=\"{}\"", hex(&root.trace_id));
    assert!(line.is_some_and(|line| line.contains(&trace)), "{trace}: {log}");
}

// On one thread: what is appended at once is taken at once.
#[tokio::test]
async fn a_stage_says_what_it_met_and_counts_what_it_works_on() {
    let mut collector = Collector::start().await;
    let world = world(&collector, 1.0, &[]);
    let away = Answer::Unavailable {
        detail: "away".to_owned(),
        retry_after: None,
    };
    world.inngest.faults().push(Fault::Answer(away));
    let worker = start(&world).await;
    for faults in [worker.dedupe.claim_faults(), worker.dedupe.confirm_faults()] {
        let away = DedupeError::Unavailable("away".to_owned());
        faults.push(dedupe::memory::Fault::Reject(away));
    }
    // Two states of one row are one event, of two effects.
    for purchase in [
        Purchase::completed("p-1", 10),
        Purchase::update("p-1", "completed", 20),
        Purchase::completed("p-2", 30),
    ] {
        world.purchase(&purchase);
    }
    let stages = ended(worker, &world, &mut collector).await;
    let met = |name: &str| all_said(&stages, name, "error.type");
    for (name, met_by_it) in [
        ("decide", vec![]),
        ("claim", vec!["unavailable"]),
        ("deliver", vec!["unavailable"]),
        ("settle", vec!["unavailable"]),
    ] {
        assert_eq!(met(name), met_by_it, "{name}");
    }
    for (name, members, counts) in [
        ("decide", "crm.records", vec!["3"]),
        ("claim", "crm.effects", vec!["3"]),
        ("deliver", "crm.events", vec!["2", "2"]),
        ("settle", "crm.effects", vec!["3"]),
    ] {
        assert_eq!(all_said(&stages, name, members), counts, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_tried_again_in_no_trace() {
    let mut collector = Collector::start().await;
    let world = world(&collector, 1.0, &[(Purchase::completed("p-1", 10), Some(GIVEN))]);
    let puzzle = Answer::Unknown {
        status: 418,
        detail: "puzzled".to_owned(),
    };
    world.inngest.faults().push(Fault::Answer(puzzle));
    let spans = traced(&world, &mut collector).await;
    assert_eq!(all_said(&spans, "deliver", "error.type"), ["unknown_answer"]);
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        BTreeSet::from(["process currency", "decide", "claim", "deliver"])
    );
    let events = world.inngest.accepted().all();
    assert_eq!(events.len(), 1);
    assert!(events[0].data.get("traceparent").is_none(), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_the_ratio_leaves_out_nothing_is_pushed_and_no_event_speaks() {
    let mut collector = Collector::start().await;
    // So little that it is never met; and whoever wrote the header asked to be traced.
    let world = world(
        &collector,
        f64::MIN_POSITIVE,
        &[(Purchase::completed("p-1", 10), Some(GIVEN))],
    );
    end(start(&world).await, &world).await;
    let pushed = collector.pushes.try_recv();
    assert!(pushed.is_err(), "{pushed:?}");
    let events = world.inngest.accepted().all();
    assert_eq!(events.len(), 1);
    assert!(events[0].data.get("traceparent").is_none(), "{events:?}");
}
