//! Traces: takes what a lane does with a batch, gives spans, by OTLP over HTTP.
//!
//! A batch is the root of a trace. Its records come from many transactions, so their contexts are links and no parents, and
//! nobody outside decides what is traced. Spans wait in a bounded queue before a thread of its own: a full queue drops them,
//! and the worker never waits. Without an address nothing of this exists.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span};

use super::otlp::TracePush;
use crate::consumers::Consumer;
use crate::traceparent::TraceParent;

/// Spans that wait to be pushed, and how many of them go in one push, a second after the first at the latest.
const QUEUE: usize = 4096;
const PUSHED_AT_ONCE: usize = 512;
const DELAY: Duration = Duration::from_secs(1);
/// The most records that a batch is linked to.
pub const MAX_LINKS: u32 = 128;
/// The library's own bounds, said here.
const MAX_ATTRIBUTES: u32 = 128;

/// Begins traces, if somebody takes them.
pub struct Traces(Option<Maker>);

struct Maker {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    group: Arc<str>,
}

/// One batch of one lane; ends when the last copy is dropped.
#[derive(Clone)]
pub struct BatchSpan {
    tracer: SdkTracer,
    context: Context,
    traceparent: TraceParent,
}

/// What a lane does with a batch, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Decide,
    /// With what the database knows.
    Compare,
    Claim,
    /// One request to Inngest.
    Deliver,
    /// One call of the database that evaluates, and what it leads to announced.
    Evaluate,
    /// Marked as done, and reported.
    Settle,
}

/// One stage of one batch; ends when it is dropped.
#[must_use]
pub struct StageSpan(Box<Span>);

impl Traces {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn pushed(exporter: SpanExporter, push: &TracePush, resource: Resource) -> Self {
        // All that the library would look up in the environment is said here: `config` alone reads settings.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(PUSHED_AT_ONCE)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(push.ratio))))
            .with_max_links_per_span(MAX_LINKS)
            .with_max_attributes_per_span(MAX_ATTRIBUTES)
            .with_max_events_per_span(MAX_ATTRIBUTES)
            .with_resource(resource)
            .build();
        Self(Some(Maker {
            tracer: provider.tracer("crm-event-processors"),
            provider,
            group: push.group.as_str().into(),
        }))
    }

    /// A lane took so many records. `None` if nobody takes traces, or not of this batch.
    #[must_use]
    pub fn batch(&self, consumer: Consumer, records: usize) -> Option<BatchSpan> {
        let Maker { tracer, group, .. } = self.0.as_ref()?;
        let span = tracer
            .span_builder(process(consumer))
            .with_kind(SpanKind::Consumer)
            .start_with_context(tracer, &Context::new());
        let known = span.span_context();
        if !known.is_sampled() {
            return None;
        }
        let trace = u128::from_be_bytes(known.trace_id().to_bytes());
        let number = u64::from_be_bytes(known.span_id().to_bytes());
        let traceparent = TraceParent::new(trace, number, known.trace_flags().to_u8())?;
        let context = Context::new().with_span(span);
        context.span().set_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.consumer.group.name", Arc::clone(group)),
            KeyValue::new("messaging.batch.message_count", count(records)),
            KeyValue::new("crm.consumer", consumer.name()),
        ]);
        Some(BatchSpan {
            tracer: tracer.clone(),
            context,
            traceparent,
        })
    }

    /// What ends them: it blocks until what waits is pushed.
    pub(super) fn provider(&self) -> Option<SdkTracerProvider> {
        self.0.as_ref().map(|maker| maker.provider.clone())
    }
}

impl BatchSpan {
    /// All records are of this topic, and of this partition if there is one.
    pub fn came_from(&self, topic: &str, partition: Option<i32>) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("messaging.destination.name", topic.to_owned()));
        if let Some(partition) = partition {
            span.set_attribute(KeyValue::new(
                "messaging.destination.partition.id",
                partition.to_string(),
            ));
        }
    }

    /// A record came from there, as it says itself.
    pub fn link(&self, from: TraceParent) {
        let context = SpanContext::new(
            TraceId::from_bytes(from.trace().to_be_bytes()),
            SpanId::from_bytes(from.span().to_be_bytes()),
            TraceFlags::new(from.flags()),
            true,
            TraceState::NONE,
        );
        self.context.span().add_link(context, Vec::new());
    }

    #[must_use]
    pub const fn traceparent(&self) -> TraceParent {
        self.traceparent
    }

    /// For the log lines of this batch, whatever is filtered.
    #[must_use]
    pub fn logged(&self) -> tracing::Span {
        tracing::error_span!("batch", trace_id = format!("{:032x}", self.traceparent.trace()))
    }

    /// A record of it became a dead letter. Reasons are words of ours.
    pub fn failed(&self, reason: &'static str) {
        let span = self.context.span();
        span.set_status(Status::error(reason));
        span.set_attribute(KeyValue::new("error.type", reason));
    }

    /// `members`: how many of what the stage works on.
    pub fn stage(&self, stage: Stage, members: usize) -> StageSpan {
        let span = self
            .tracer
            .span_builder(stage.name())
            .with_kind(stage.kind())
            .with_attributes(stage.server().map(|server| KeyValue::new("db.system.name", server)))
            .start_with_context(&self.tracer, &self.context);
        let mut span = Box::new(span);
        span.set_attribute(KeyValue::new(stage.members(), count(members)));
        StageSpan(span)
    }
}

impl StageSpan {
    /// Some of it was refused, or nobody knows.
    pub fn failed(&mut self, reason: &'static str) {
        self.0.set_status(Status::error(reason));
        self.0.set_attribute(KeyValue::new("error.type", reason));
    }
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Compare => "compare",
            Self::Claim => "claim",
            Self::Deliver => "deliver",
            Self::Evaluate => "evaluate",
            Self::Settle => "settle",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Decide => SpanKind::Internal,
            Self::Compare | Self::Claim | Self::Deliver | Self::Evaluate | Self::Settle => SpanKind::Client,
        }
    }

    /// What it works on. A record has an effect for each fact that it changes; an event covers the effects of one fact.
    const fn members(self) -> &'static str {
        match self {
            Self::Decide => "crm.records",
            Self::Compare | Self::Claim | Self::Settle => "crm.effects",
            Self::Deliver | Self::Evaluate => "crm.events",
        }
    }

    /// Which store it asks.
    const fn server(self) -> Option<&'static str> {
        match self {
            Self::Compare | Self::Evaluate => Some("postgresql"),
            Self::Claim | Self::Settle => Some("redis"),
            Self::Decide | Self::Deliver => None,
        }
    }
}

/// Named before anybody knows whether the batch is traced.
const fn process(consumer: Consumer) -> &'static str {
    match consumer {
        Consumer::Currency => "process currency",
        Consumer::Tier => "process tier",
        Consumer::Mission => "process mission",
        Consumer::Reward => "process reward",
        Consumer::Marketplace => "process marketplace",
    }
}

fn count(records: usize) -> i64 {
    i64::try_from(records).unwrap_or(i64::MAX)
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.0.is_some()).finish()
    }
}

impl fmt::Debug for BatchSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchSpan").field(&self.traceparent).finish()
    }
}

impl fmt::Debug for StageSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageSpan").finish_non_exhaustive()
    }
}
