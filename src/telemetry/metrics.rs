//! Every metric, named once, with unit, meaning and attributes. One set of instruments for `/metrics` and for OTLP.
//!
//! Names are OpenTelemetry's messaging conventions' where one exists, and `moderato.*` otherwise. No post id, offset, key or
//! text is an attribute; a partition only on what is told for each partition.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::noop::NoopMeterProvider;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider as _};
use opentelemetry::{KeyValue, global};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A distribution.
    Histogram,
    /// A value of now.
    Gauge,
}

/// One metric, as documented.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// UCUM unit; in braces where it only names what is counted.
    pub unit: &'static str,
    /// What it tells.
    pub meaning: &'static str,
    /// Attributes, as `/metrics` spells them.
    pub attributes: &'static str,
}

macro_rules! metrics {
    ($($ident:ident = $kind:ident $name:literal $unit:literal [$attributes:literal] $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $ident: Metric =
            Metric { name: $name, kind: Kind::$kind, unit: $unit, meaning: $meaning, attributes: $attributes };)*
        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($ident),*];
    };
}

metrics! {
    CONSUMED = Counter "messaging.client.consumed.messages" "{message}" ["messaging_destination_name"]
        "Records polled.";
    SENT = Counter "messaging.client.sent.messages" "{message}" ["messaging_destination_name, error_type"]
        "Records that the broker acknowledged, or, with `error_type`, did not.";
    OPERATION = Histogram "messaging.client.operation.duration" "s" ["messaging_operation_name: send, commit"]
        "From handing a record to the client to the broker's word on it; one commit.";
    PROCESS = Histogram "messaging.process.duration" "s" ["messaging_destination_name, error_type"]
        "From polling a post to handing over what it became; `error_type` is the dead letter's reason.";
    VERDICTS = Counter "moderato.verdicts" "{verdict}" ["label, action: allow, review, act; answered_by: model, cache, twin"]
        "Verdicts handed over.";
    NOTES = Counter "moderato.notes" "{note}" ["form: draft, fixed_form; answered_by"]
        "Notes handed over.";
    REJECTIONS = Counter "moderato.rejections" "{post}" ["error_type, stage"]
        "Posts that became a dead letter, by reason.";
    TOMBSTONES = Counter "moderato.tombstones" "{message}" [""]
        "Deletions passed on.";
    STAGE = Histogram "moderato.stage.duration" "s" ["stage: tokenise, queue, model"]
        "What a post spent in each stage; `model` is the run that it shared.";
    BATCH_ROWS = Histogram "moderato.batch.rows" "{post}" [""]
        "Posts in one run of the model.";
    BATCH_TOKENS = Histogram "moderato.batch.tokens" "{token}" [""]
        "Tokens in one run, padding included, the shared prompt not.";
    MODEL_TOKENS = Counter "moderato.model.tokens" "{token}" ["kind: post, padding, shared_prompt, written"]
        "Tokens: of posts that were run, of padding beside them, of the prompt that were not run again because they are shared, written.";
    MODEL_BUSY = Counter "moderato.model.busy" "s" [""]
        "Time inside the model, of all instances together.";
    CACHE = Counter "moderato.cache.lookups" "{lookup}" ["result: hit, miss, waited, damaged, unreachable, refused"]
        "Questions to the cache. `waited`: another worker had it in hand; `unreachable`: treated as a miss.";
    BREAKER = Gauge "moderato.cache.breaker" "" [""]
        "1 while Redis is left alone after failures, 0 otherwise.";
    IN_FLIGHT = Gauge "moderato.in_flight" "{post}" [""]
        "Posts polled and not yet settled.";
    ASSIGNED = Gauge "moderato.partitions.assigned" "{partition}" [""]
        "Partitions that this worker has.";
    PAUSED = Gauge "moderato.partitions.paused" "{partition}" [""]
        "Of those, paused because no permit is left.";
    REBALANCES = Counter "moderato.rebalances" "{rebalance}" [""]
        "Assignments that the group gave this worker.";
    LAG = Gauge "moderato.consumer.lag" "{post}" ["partition"]
        "Records behind the next offset to commit, up to the end that readers of committed records see.";
    LAG_TIME = Gauge "moderato.consumer.lag.time" "s" ["partition"]
        "Age of the oldest record that is not finished; 0 where nothing is behind.";
    DRAIN = Gauge "moderato.time_to_drain" "s" [""]
        "What the posts behind will take at the pace of the last minute's work: lag times instance-seconds a post, over instances.";
    POLL_AGE = Gauge "moderato.poll.age" "s" [""]
        "Since the polling loop last moved.";
    BROKERS_UP = Gauge "moderato.brokers.up" "{connection}" [""]
        "Open connections to brokers, the group's coordinator among them.";
    MODEL_INFO = Gauge "moderato.model.info" "" ["model, model_digest, precision, provider, onnxruntime"]
        "1; what runs, in its attributes.";
    NODES = Gauge "moderato.model.nodes" "{node}" ["provider"]
        "Nodes of the model's graph that each execution provider got.";
    FALLBACK = Gauge "moderato.model.fallback_nodes" "{node}" [""]
        "Nodes that do the model's work (products, attention, norms) and run on the CPU although another device was asked for.";
    POLICY_INFO = Gauge "moderato.policy.info" "" ["policy, revision, calibration"]
        "1; the policy in force, in its attributes.";
    RELOADS = Counter "moderato.policy.reloads" "{reload}" ["outcome: applied, refused"]
        "Changed policy files that were read.";
    STALE = Gauge "moderato.policy.stale" "" [""]
        "1 while the policy file on disk was refused and an older one is in force.";
    DRIFT = Gauge "moderato.calibration.drift" "" ["label"]
        "How far the scores' histogram has moved from the calibration's baseline: total variation distance, 0 to 1.";
    QUOTA = Counter "moderato.quota.exceeded" "{verdict}" ["label, action"]
        "Verdicts whose action became `review` because the policy's quota was used up.";
    SHADOW = Counter "moderato.shadow.posts" "{post}" ["outcome: agreed, label_differs, action_differs, rejected, skipped, undelivered"]
        "How the shadow's verdict compares with the live one; `skipped`: it was busy or the post too large; besides, `undelivered`: its verdict did not reach the topic.";
    REGISTRY = Counter "moderato.schema.lookups" "{lookup}" ["result: json, other, missing, unchecked"]
        "Ids before posts that the schema registry was asked for; `unchecked`: it did not tell, and the post was judged all the same.";
    LOG_REPEATS = Counter "moderato.log.suppressed" "{event}" [""]
        "Log lines left out because the same one had come too often.";
}

/// Seconds: from a cache hit to a long draft.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const ROWS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const TOKENS: [f64; 8] = [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// The instruments that the road writes to as it goes; what can be read off counters and gauges is read when asked for
/// (`admin::observe`). Without a provider they cost next to nothing.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    verdicts: Counter<u64>,
    notes: Counter<u64>,
    rejections: Counter<u64>,
    consumed: Counter<u64>,
    sent: Counter<u64>,
    operation: Histogram<f64>,
    process: Histogram<f64>,
    stage: Histogram<f64>,
    batch_rows: Histogram<u64>,
    batch_tokens: Histogram<u64>,
    rebalances: Counter<u64>,
    quota: Counter<u64>,
    shadow: Counter<u64>,
    registry: Counter<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&meter())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// The meter of everything here.
pub fn meter() -> Meter {
    global::meter("moderato")
}

fn counter(meter: &Meter, metric: &Metric) -> Counter<u64> {
    meter.u64_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning).build()
}

fn seconds(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    let builder = meter.f64_histogram(metric.name).with_unit(metric.unit).with_description(metric.meaning);
    builder.with_boundaries(SECONDS.to_vec()).build()
}

fn sizes(meter: &Meter, metric: &Metric, bounds: &[f64]) -> Histogram<u64> {
    let builder = meter.u64_histogram(metric.name).with_unit(metric.unit).with_description(metric.meaning);
    builder.with_boundaries(bounds.to_vec()).build()
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        Self(Arc::new(Instruments {
            verdicts: counter(meter, &VERDICTS),
            notes: counter(meter, &NOTES),
            rejections: counter(meter, &REJECTIONS),
            consumed: counter(meter, &CONSUMED),
            sent: counter(meter, &SENT),
            operation: seconds(meter, &OPERATION),
            process: seconds(meter, &PROCESS),
            stage: seconds(meter, &STAGE),
            batch_rows: sizes(meter, &BATCH_ROWS, &ROWS),
            batch_tokens: sizes(meter, &BATCH_TOKENS, &TOKENS),
            rebalances: counter(meter, &REBALANCES),
            quota: counter(meter, &QUOTA),
            shadow: counter(meter, &SHADOW),
            registry: counter(meter, &REGISTRY),
        }))
    }

    /// Instruments that nobody reads: what a shadow does is not the worker's.
    pub fn silent() -> Self {
        Self::new(&NoopMeterProvider::new().meter("shadow"))
    }

    /// A verdict was handed over.
    pub fn verdict(&self, label: &str, action: &'static str, answered_by: &'static str) {
        let label = KeyValue::new("label", label.to_owned());
        self.0.verdicts.add(1, &[label, KeyValue::new("action", action), KeyValue::new("answered_by", answered_by)]);
    }

    /// A note was handed over.
    pub fn note(&self, fixed_form: bool, answered_by: &'static str) {
        let form = if fixed_form { "fixed_form" } else { "draft" };
        self.0.notes.add(1, &[KeyValue::new("form", form), KeyValue::new("answered_by", answered_by)]);
    }

    /// A post became a dead letter.
    pub fn rejection(&self, reason: &'static str, stage: &'static str) {
        self.0.rejections.add(1, &[KeyValue::new("error.type", reason), KeyValue::new("stage", stage)]);
    }

    /// Records were polled.
    pub fn consumed(&self, topic: &str, records: usize) {
        self.0.consumed.add(records as u64, &[destination(topic)]);
    }

    /// The broker's word on one record.
    pub fn sent(&self, topic: &str, took: Duration, failed: bool) {
        let mut attributes = vec![destination(topic)];
        if failed {
            attributes.push(KeyValue::new("error.type", "undeliverable"));
        }
        self.0.sent.add(1, &attributes);
        self.0.operation.record(took.as_secs_f64(), &[KeyValue::new("messaging.operation.name", "send")]);
    }

    /// Offsets were committed.
    pub fn committed(&self, took: Duration) {
        self.0.operation.record(took.as_secs_f64(), &[KeyValue::new("messaging.operation.name", "commit")]);
    }

    /// What a post became was handed over; `rejected` is the dead letter's reason.
    pub fn processed(&self, topic: &str, took: Duration, rejected: Option<&'static str>) {
        let mut attributes = vec![destination(topic)];
        attributes.extend(rejected.map(|reason| KeyValue::new("error.type", reason)));
        self.0.process.record(took.as_secs_f64(), &attributes);
    }

    /// What a post spent in a stage.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.0.stage.record(took.as_secs_f64(), &[KeyValue::new("stage", stage)]);
    }

    /// One run of the model: rows, and tokens with their padding.
    pub fn batch(&self, rows: usize, tokens: usize) {
        self.0.batch_rows.record(rows as u64, &[]);
        self.0.batch_tokens.record(tokens as u64, &[]);
    }

    /// A label would have acted beyond its quota.
    pub fn quota_exceeded(&self, label: &str) {
        self.0.quota.add(1, &[KeyValue::new("label", label.to_owned()), KeyValue::new("action", "act")]);
    }

    /// How a shadow's verdict compares with the live one.
    pub fn shadow(&self, outcome: &'static str) {
        self.0.shadow.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// What the schema registry told of an id.
    pub fn registry(&self, result: &'static str) {
        self.0.registry.add(1, &[KeyValue::new("result", result)]);
    }

    /// The group gave this worker its share anew.
    pub fn rebalance(&self) {
        self.0.rebalances.add(1, &[]);
    }
}

/// Changed policy files that were read.
pub fn reloads() -> Counter<u64> {
    counter(&meter(), &RELOADS)
}

fn destination(topic: &str) -> KeyValue {
    KeyValue::new("messaging.destination.name", topic.to_owned())
}

/// The table of all metrics, as Markdown: what `docs/metrics.md` holds.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade by `moderato schema metrics`. At `/metrics` a name has `_` for `.`, its unit's name behind it, and \
         `_total` if it counts; OTLP exports the names as they stand.\n\n| Metric | At `/metrics` | Unit | Attributes | Meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let Metric { name, unit, attributes, meaning, .. } = metric;
        page.push_str(&format!("| `{name}` | `{}` | {unit} | {attributes} | {meaning} |\n", metric.at_metrics()));
    }
    page
}

impl Metric {
    /// The name that Prometheus sees.
    pub fn at_metrics(&self) -> String {
        let seconds = if self.unit == "s" { "_seconds" } else { "" };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{seconds}{total}", self.name.replace('.', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_meaning_that_ends() {
        let mut names: Vec<_> = ALL.iter().map(Metric::at_metrics).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|metric| metric.meaning.ends_with('.')), "a meaning is a sentence");
        assert!(ALL.iter().all(|metric| metric.name.starts_with("moderato.") || metric.name.starts_with("messaging.")));
    }
}
