//! Spans by OpenTelemetry's messaging conventions (semantic conventions 1.44): names, coordinates and sizes; never what a
//! post says, never its key.
//!
//! A post's `process` span is a root of its own and is linked to its producer's span: one trace for each post, however many
//! were polled or run together. Where nothing is exported, the producer's context is passed on as it came.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

/// Set once, where spans are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();
/// Most links of one span: the SDK's own default bound.
const MOST_LINKS: usize = 128;

/// From here on spans are made.
pub(super) fn enable(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Where a record stands, for its span.
pub struct Place<'a> {
    /// Topic it was polled from.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The consumer group.
    pub group: &'a str,
    /// Whether its value is null.
    pub tombstone: bool,
}

/// The `process` span of one post: open as long as the post's record is held, and ended with it.
#[derive(Clone, Default)]
pub struct PostSpan(Option<Arc<Seat>>);

struct Seat {
    /// What is handed on: our span's, or the producer's where we make none.
    context: SpanContext,
    span: Option<Mutex<Span>>,
}

impl PostSpan {
    /// For a record that has just been polled, and its producer's context.
    pub fn begin(place: &Place<'_>, producer: SpanContext) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(producer.is_valid().then(|| Arc::new(Seat { context: producer, span: None })));
        };
        let mut attributes = messaging("process", "process", place.topic);
        attributes.extend([
            KeyValue::new("messaging.destination.partition.id", place.partition.to_string()),
            KeyValue::new("messaging.kafka.offset", place.offset),
            KeyValue::new("messaging.consumer.group.name", place.group.to_owned()),
        ]);
        if place.tombstone {
            attributes.push(KeyValue::new("messaging.kafka.message.tombstone", true));
        }
        let links = if producer.is_valid() { vec![Link::with_context(producer)] } else { Vec::new() };
        let builder = SpanBuilder::from_name(format!("process {}", place.topic))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(links);
        let span = tracer.build_with_context(builder, &Context::new());
        Self(Some(Arc::new(Seat { context: span.span_context().clone(), span: Some(Mutex::new(span)) })))
    }

    /// The context to hand on with what the post became.
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|seat| &seat.context)
    }

    /// The trace's id, for a log line; empty where there is none.
    pub fn trace_id(&self) -> String {
        self.context().map(|context| context.trace_id().to_string()).unwrap_or_default()
    }

    /// What the post became: of the policy and the taxonomy, never of the text.
    pub fn became(&self, attributes: impl IntoIterator<Item = KeyValue>) {
        self.with(|span| span.set_attributes(attributes));
    }

    /// It could not be judged: the reason's stable code.
    pub fn rejected(&self, reason: &'static str) {
        self.with(|span| {
            span.set_attribute(KeyValue::new("error.type", reason));
            span.set_status(Status::error(reason));
        });
    }

    fn with(&self, change: impl FnOnce(&mut Span)) {
        if let Some(span) = self.0.as_ref().and_then(|seat| seat.span.as_ref()) {
            change(&mut span.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl fmt::Debug for PostSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostSpan({})", self.trace_id())
    }
}

/// A span that is open until it is dropped.
#[derive(Default)]
pub struct OpenSpan(Option<Span>);

impl OpenSpan {
    /// The record that a post became, on its way to the broker: `send {topic}`, below the post's own span.
    pub fn send(topic: &str, post: &PostSpan) -> Self {
        let (Some(tracer), Some(parent)) = (TRACER.get(), post.context()) else { return Self(None) };
        let builder = SpanBuilder::from_name(format!("send {topic}"))
            .with_kind(SpanKind::Producer)
            .with_attributes(messaging("send", "send", topic));
        Self(Some(tracer.build_with_context(builder, &Context::new().with_remote_span_context(parent.clone()))))
    }

    /// Records that one turn of polling brought: `poll {topic}`.
    pub fn polled(topic: &str, group: &str, began: SystemTime, records: usize) -> Self {
        Self::client("poll", "receive", topic, group, began, records)
    }

    /// Offsets that were committed: `commit {topic}`, with how many partitions.
    pub fn committed(topic: &str, group: &str, began: SystemTime, partitions: usize) -> Self {
        Self::client("commit", "settle", topic, group, began, partitions)
    }

    fn client(name: &'static str, kind: &'static str, topic: &str, group: &str, began: SystemTime, n: usize) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let mut attributes = messaging(name, kind, topic);
        attributes.push(KeyValue::new("messaging.consumer.group.name", group.to_owned()));
        attributes.push(KeyValue::new("messaging.batch.message_count", count(n)));
        let builder = SpanBuilder::from_name(format!("{name} {topic}"))
            .with_kind(SpanKind::Client)
            .with_start_time(began)
            .with_attributes(attributes);
        Self(Some(tracer.build_with_context(builder, &Context::new())))
    }

    /// One run of the model: linked to its posts, as many as fit.
    pub fn run<'a>(model: &str, posts: impl Iterator<Item = &'a PostSpan>, tokens: usize) -> Self {
        Self::inference("classify", model, posts, Some(KeyValue::new("gen_ai.usage.input_tokens", count(tokens))))
    }

    /// Runs that write on the same notes, until one of them ends or another joins.
    pub fn drafting<'a>(model: &str, posts: impl Iterator<Item = &'a PostSpan>) -> Self {
        Self::inference("text_completion", model, posts, None)
    }

    fn inference<'a>(
        operation: &'static str,
        model: &str,
        posts: impl Iterator<Item = &'a PostSpan>,
        tokens: Option<KeyValue>,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let (mut rows, mut links) = (0, Vec::new());
        for post in posts {
            rows += 1;
            if links.len() < MOST_LINKS {
                links.extend(post.context().cloned().map(Link::with_context));
            }
        }
        let builder = SpanBuilder::from_name("inference batch")
            .with_kind(SpanKind::Internal)
            .with_links(links)
            .with_attributes(tokens.into_iter().chain([
                KeyValue::new("gen_ai.operation.name", operation),
                KeyValue::new("gen_ai.provider.name", "moderato.onnxruntime"),
                KeyValue::new("gen_ai.request.model", model.to_owned()),
                KeyValue::new("messaging.batch.message_count", count(rows)),
            ]));
        Self(Some(tracer.build_with_context(builder, &Context::new())))
    }

    /// The context to hand on, if there is a span.
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|span| span.span_context())
    }

    /// It failed: a stable code.
    pub fn failed(&mut self, code: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(code));
        }
    }
}

fn messaging(name: &'static str, kind: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
