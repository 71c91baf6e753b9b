//! The push, received and read again by a collector in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::telemetry::{Push, Telemetry};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, number_data_point};
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use super::publish_something;
use crate::PATIENCE;

const NEVER: Duration = Duration::from_secs(3600);

/// Answers every push with `answer`, and shows it.
pub(crate) struct Collector {
    address: SocketAddr,
    answer: watch::Sender<StatusCode>,
    pushes: mpsc::UnboundedReceiver<(HeaderMap, ExportMetricsServiceRequest)>,
}

#[derive(Clone)]
struct Intake {
    answer: watch::Receiver<StatusCode>,
    pushes: mpsc::UnboundedSender<(HeaderMap, ExportMetricsServiceRequest)>,
}

async fn take(State(intake): State<Intake>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let request = ExportMetricsServiceRequest::decode(body).expect("protobuf");
    intake.pushes.send((headers, request)).expect("the test waits");
    *intake.answer.borrow()
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let (answer, answers) = watch::channel(StatusCode::OK);
        let (sender, pushes) = mpsc::unbounded_channel();
        let intake = Intake {
            answer: answers,
            pushes: sender,
        };
        let routes = Router::new().route("/otlp/v1/metrics", post(take)).with_state(intake);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            answer,
            pushes,
        }
    }

    /// What is set as the common address.
    pub(crate) fn base(&self) -> String {
        format!("http://{}/otlp", self.address)
    }

    pub(crate) async fn next(&mut self) -> (HeaderMap, ExportMetricsServiceRequest) {
        let next = tokio::time::timeout(PATIENCE, self.pushes.recv()).await;
        next.expect("a push").expect("the collector runs")
    }

    /// What has come already.
    pub(crate) fn arrived(&mut self) -> Option<(HeaderMap, ExportMetricsServiceRequest)> {
        self.pushes.try_recv().ok()
    }
}

fn worker(address: SocketAddr, interval: Duration) -> Arc<Telemetry> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", "sentinel".parse().expect("a value"));
    let push = Push {
        endpoint: format!("http://{address}/otlp/v1/metrics").parse().expect("an address"),
        headers,
        interval,
        resource: BTreeMap::from([("service.name".to_owned(), "crm-eu".to_owned())]),
    };
    let runtime = tokio::runtime::Handle::current();
    Arc::new(Telemetry::outward(Some(&push), None, "instance-1", &runtime).expect("instruments"))
}

pub(crate) fn metric_names(request: &ExportMetricsServiceRequest) -> BTreeSet<&str> {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics.map(|metric| metric.name.as_str()).collect()
}

fn metric<'a>(request: &'a ExportMetricsServiceRequest, name: &str) -> &'a Metric {
    let metrics = request.resource_metrics[0]
        .scope_metrics
        .iter()
        .flat_map(|scope| &scope.metrics);
    let found = metrics.into_iter().find(|metric| metric.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {request:?}"))
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match &found.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => Some(text),
        _ => None,
    }
}

/// The total of tier's delivered records.
fn delivered(request: &ExportMetricsServiceRequest) -> i64 {
    let Some(Data::Sum(sum)) = &metric(request, "crm_record_outcomes").data else {
        panic!("no sum")
    };
    assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
    let points = sum.data_points.iter().filter(|point| {
        let labels = ["consumer", "outcome"].map(|name| text(&point.attributes, name));
        labels == [Some("tier"), Some("delivered")]
    });
    let values = points.map(|point| match point.value {
        Some(number_data_point::Value::AsInt(value)) => value,
        other => panic!("{other:?}"),
    });
    values.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scraped_is_pushed_with_the_same_names_and_labels() {
    let mut collector = Collector::start().await;
    let telemetry = worker(collector.address, NEVER);
    telemetry.finished(Some(Consumer::Tier), "delivered", 7);
    publish_something(&telemetry);
    telemetry.last_push().await;

    let (headers, request) = collector.next().await;
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["x-api-key"], "sentinel");
    assert_eq!(delivered(&request), 7);
    let resource = request.resource_metrics[0].resource.as_ref().expect("a resource");
    let says = |name| text(&resource.attributes, name);
    assert_eq!(says("service.name"), Some("crm-eu"));
    assert_eq!(says("service.instance.id"), Some("instance-1"));
    assert_eq!(says("service.version"), Some(env!("CARGO_PKG_VERSION")));
    let Some(Data::Gauge(lag)) = &metric(&request, "crm_consumer_lag").data else {
        panic!("no gauge")
    };
    // In no order.
    let mut lags: Vec<_> = lag
        .data_points
        .iter()
        .map(|point| {
            let labels = ["consumer", "topic"].map(|name| text(&point.attributes, name).unwrap_or_default());
            (labels, point.value)
        })
        .collect();
    lags.sort_by_key(|(labels, _)| *labels);
    let topic = "crm.public.purchase_ledger";
    let records = |lag| Some(number_data_point::Value::AsInt(lag));
    assert_eq!(lags, [(["mission", topic], records(0)), (["tier", topic], records(60))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_refused_is_made_up_for_by_the_next_one() {
    let mut collector = Collector::start().await;
    collector.answer.send_replace(StatusCode::SERVICE_UNAVAILABLE);
    let telemetry = worker(collector.address, Duration::from_millis(50));
    telemetry.finished(Some(Consumer::Tier), "delivered", 3);
    collector.next().await;
    collector.next().await;
    collector.answer.send_replace(StatusCode::OK);
    telemetry.finished(Some(Consumer::Tier), "delivered", 4);
    let made_up = async { while delivered(&collector.next().await.1) != 7 {} };
    tokio::time::timeout(PATIENCE, made_up).await.expect("the whole total");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_the_end_for_a_few_seconds_at_most() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let telemetry = worker(listener.local_addr().expect("bound"), NEVER);
    let last = tokio::time::timeout(PATIENCE, telemetry.last_push());
    last.await.expect("gives up");
    // It did try, and the worker counts and shows as before until then.
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
    accepted.expect("a connection waits").expect("accepted");
}
