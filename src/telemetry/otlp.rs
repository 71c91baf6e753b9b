//! The push, by OTLP over HTTP (protobuf): a second reader of the same instruments, for where nobody can scrape, and the way
//! of traces.
//!
//! Takes where to and how often, gives a reader for the meter provider and an exporter of spans. Exporters bring no HTTP client of their own: they
//! get ours, with the one TLS provider. Totals are cumulative, so a push that failed is made up for by the next one:
//! nothing is repeated, nothing is kept, and the worker never waits for it. Spans of a push that failed are lost.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};

use crate::inert::chain;

/// For the whole request. Below the default interval, so that pushes do not pile up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Reader = PeriodicReader<MetricExporter>;

/// Where metrics are pushed to, and as whose.
#[derive(Clone)]
pub struct Push {
    /// The whole address. Some services put a key into it: it is never printed.
    pub endpoint: Url,
    /// Keys of the service, mostly.
    pub headers: HeaderMap,
    pub interval: Duration,
    /// Who we are, besides our version and instance.
    pub resource: BTreeMap<String, String>,
}

/// Where traces are pushed to, as whose, and how many.
#[derive(Clone)]
pub struct TracePush {
    /// As that of metrics, it is never printed.
    pub endpoint: Url,
    pub headers: HeaderMap,
    pub resource: BTreeMap<String, String>,
    /// The part of all batches that is traced, above 0 and up to 1.
    pub ratio: f64,
    /// The consumer group, which every batch is of.
    pub group: String,
}

/// The push cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("nothing can be pushed: the HTTP client cannot be made: {0}")]
    Client(String),
    #[error("nothing can be pushed: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Push {
    /// What may be printed of the address.
    #[must_use]
    pub fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

impl TracePush {
    /// What may be printed of the address.
    #[must_use]
    pub fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

impl fmt::Debug for TracePush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("TracePush")
            .field("origin", &self.origin())
            .field("headers", &headers)
            .field("resource", &self.resource)
            .field("ratio", &self.ratio)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Push")
            .field("origin", &self.origin())
            .field("headers", &headers)
            .field("interval", &self.interval)
            .field("resource", &self.resource)
            .finish()
    }
}

pub(super) fn reader(push: &Push, runtime: tokio::runtime::Handle) -> Result<Reader, PushError> {
    let exporter = MetricExporter::builder()
        .with_temporality(Temporality::Cumulative)
        .with_http()
        .with_http_client(Sender::new("metrics", &push.endpoint, &push.headers, runtime)?)
        .with_protocol(Protocol::HttpBinary)
        // Not what is asked for, which only the sender knows.
        .with_endpoint(push.origin())
        .with_timeout(REQUEST_TIMEOUT)
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    Ok(PeriodicReader::builder(exporter).with_interval(push.interval).build())
}

pub(super) fn exporter(push: &TracePush, runtime: tokio::runtime::Handle) -> Result<SpanExporter, PushError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new("traces", &push.endpoint, &push.headers, runtime)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(push.origin())
        .with_timeout(REQUEST_TIMEOUT)
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    Ok(exporter)
}

/// Who pushes.
pub(super) fn resource(given: &BTreeMap<String, String>, instance: &str) -> Resource {
    let ours = [
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let ours = ours.map(|(name, value)| KeyValue::new(name, value.to_owned()));
    let given = given.iter();
    let given = given.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // The later one of a name wins.
    let attributes: Vec<KeyValue> = ours.into_iter().chain(given).collect();
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Our HTTP client, as the exporter wants it. The exporter calls it from a thread without a runtime.
struct Sender {
    what: &'static str,
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
    runtime: tokio::runtime::Handle,
    /// The last push failed: only the first failure of a row is logged, and the end of it.
    failing: AtomicBool,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    fn new(
        what: &'static str,
        endpoint: &Url,
        headers: &HeaderMap,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, PushError> {
        crate::tls::install_provider();
        let client = Client::builder()
            .user_agent(concat!("crm-event-processors/", env!("CARGO_PKG_VERSION")))
            // The key would travel with it.
            .redirect(redirect::Policy::none())
            .referer(false)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| PushError::Client(chain(&error.without_url())))?;
        Ok(Self {
            what,
            client,
            endpoint: endpoint.clone(),
            headers: headers.clone(),
            runtime,
            failing: AtomicBool::new(false),
        })
    }

    async fn send(&self, body: Bytes) -> Result<Response<Bytes>, HttpError> {
        // Headers that the exporter found in the environment by itself are left out: `config` alone reads settings.
        let request = self.client.post(self.endpoint.clone()).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let request = request.body(body);
        // Its timeout needs the runtime's clock already when it is sent.
        let answer = self.runtime.spawn(async move {
            let answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
            // The body is not read: it says nothing that anybody acts on.
            Ok(answer.status())
        });
        let answer: Result<reqwest::StatusCode, String> = answer.await.unwrap_or_else(|gone| Err(gone.to_string()));
        let failure = match &answer {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(status.to_string()),
            Err(detail) => Some(detail.clone()),
        };
        let failed_before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(detail) if !failed_before => {
                tracing::warn!(detail, "{} cannot be pushed", self.what);
            }
            None if failed_before => tracing::info!("{} are pushed again", self.what),
            _ => {}
        }
        let answer = Response::builder().status(answer?.as_u16()).body(Bytes::new())?;
        Ok(answer)
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'answer>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(self.send(request.into_body()))
    }
}
