//! Metrics that are read when asked for: off the road's counters, the worker's vitals, and what was loaded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::Facts;
use crate::model::ModelInfo;
use crate::pipeline::tally::{Tally, read};
use crate::telemetry;
use crate::telemetry::metrics::{self as m, Metric};

/// What the pace is taken over.
const WINDOW: Duration = Duration::from_secs(60);

/// Registers everything that is read when asked for.
pub fn register(tally: &Arc<Tally>, info: &Arc<ModelInfo>, facts: &Facts) {
    let meter = m::meter();
    counters(&meter, tally);
    vitals(&meter, tally, info.instances);
    model(&meter, info);
    policy(&meter, tally, facts);
}

fn counters(meter: &Meter, tally: &Arc<Tally>) {
    let one = |metric: &'static Metric, get: fn(&Tally) -> &AtomicU64| {
        let tally = tally.clone();
        let counter = meter.u64_observable_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning);
        counter.with_callback(move |seen| seen.observe(read(get(&tally)), &[])).build();
    };
    one(&m::TOMBSTONES, |tally| &tally.tombstones);
    one(&m::LOG_REPEATS, |_| telemetry::suppressed());
    several(meter, tally, &m::MODEL_TOKENS, "kind", |tally| {
        let (rows, padded) = (read(&tally.row_tokens), read(&tally.padded_tokens));
        let shared = read(&tally.shared_tokens);
        let padding = padded.saturating_sub(rows);
        [("post", rows), ("padding", padding), ("shared_prompt", shared), ("written", read(&tally.draft_tokens))]
            .to_vec()
    });
    several(meter, tally, &m::CACHE, "result", |tally| {
        let cache = &tally.cache;
        let counts = [&cache.hits, &cache.misses, &cache.waited, &cache.damaged, &cache.unreachable, &cache.refused];
        let names = ["hit", "miss", "waited", "damaged", "unreachable", "refused"];
        names.into_iter().zip(counts.map(read)).collect()
    });
    let busy = tally.clone();
    let metric = &m::MODEL_BUSY;
    let counter = meter.f64_observable_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning);
    counter.with_callback(move |seen| seen.observe(read(&busy.model_nanos) as f64 / 1e9, &[])).build();
}

/// One counter with an attribute, all of whose values are there from the start.
fn several(
    meter: &Meter,
    tally: &Arc<Tally>,
    metric: &'static Metric,
    attribute: &'static str,
    get: fn(&Tally) -> Vec<(&'static str, u64)>,
) {
    let tally = tally.clone();
    let counter = meter.u64_observable_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning);
    let callback = move |seen: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
        for (name, value) in get(&tally) {
            seen.observe(value, &[KeyValue::new(attribute, name)]);
        }
    };
    counter.with_callback(callback).build();
}

fn gauge(meter: &Meter, metric: &'static Metric, observe: impl Fn(&dyn Fn(f64, &[KeyValue])) + Send + Sync + 'static) {
    let gauge = meter.f64_observable_gauge(metric.name).with_unit(metric.unit).with_description(metric.meaning);
    gauge.with_callback(move |seen| observe(&|value, attributes| seen.observe(value, attributes))).build();
}

fn vitals(meter: &Meter, tally: &Arc<Tally>, instances: usize) {
    let one = |metric: &'static Metric, get: fn(&Tally) -> f64| {
        let tally = tally.clone();
        gauge(meter, metric, move |seen| seen(get(&tally), &[]));
    };
    one(&m::IN_FLIGHT, |tally| tally.vitals.in_flight() as f64);
    one(&m::ASSIGNED, |tally| tally.vitals.behind().len() as f64);
    one(&m::PAUSED, |tally| tally.vitals.paused() as f64);
    one(&m::POLL_AGE, |tally| tally.vitals.poll_age().as_secs_f64());
    one(&m::BROKERS_UP, |tally| tally.vitals.brokers() as f64);
    one(&m::BREAKER, |tally| f64::from(u8::from(tally.cache.breaker_open.load(Ordering::Relaxed))));
    for (metric, age) in [(&m::LAG, false), (&m::LAG_TIME, true)] {
        let tally = tally.clone();
        gauge(meter, metric, move |seen| {
            let now = Timestamp::now().as_millisecond();
            for (partition, behind) in tally.vitals.behind() {
                let attributes = [KeyValue::new("partition", partition.to_string())];
                match (age, behind.records) {
                    (true, _) => seen(behind.seconds(now), &attributes),
                    (false, Some(records)) => seen(records as f64, &attributes),
                    (false, None) => {}
                }
            }
        });
    }
    let (tally, pace) = (tally.clone(), Mutex::new(Pace::default()));
    gauge(meter, &m::DRAIN, move |seen| {
        let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Work { at: Instant::now(), posts: tally.finished(), busy: read(&tally.model_nanos) };
        let seconds = pace.seconds_a_post(now);
        let behind: u64 = tally.vitals.behind().values().filter_map(|behind| behind.records).sum();
        if let Some(seconds) = seconds.or((behind == 0).then_some(0.0)) {
            seen(behind as f64 * seconds / instances.max(1) as f64, &[]);
        }
    });
}

fn model(meter: &Meter, info: &Arc<ModelInfo>) {
    let attributes = [
        KeyValue::new("model", info.name.clone()),
        KeyValue::new("model_digest", info.model_digest.clone()),
        KeyValue::new("precision", info.precision.clone()),
        KeyValue::new("provider", info.provider),
        KeyValue::new("onnxruntime", info.onnxruntime_version.clone()),
    ];
    gauge(meter, &m::MODEL_INFO, move |seen| seen(1.0, &attributes));
    let nodes = info.clone();
    gauge(meter, &m::NODES, move |seen| {
        for (provider, count) in &nodes.nodes {
            seen(*count as f64, &[KeyValue::new("provider", provider.clone())]);
        }
    });
    let fallback = info.fallback_nodes as f64;
    gauge(meter, &m::FALLBACK, move |seen| seen(fallback, &[]));
}

fn policy(meter: &Meter, tally: &Arc<Tally>, facts: &Facts) {
    let known = facts.clone();
    gauge(meter, &m::POLICY_INFO, move |seen| {
        let policy = &known.all()["policy"];
        let text = |key: &str| policy[key].as_str().unwrap_or("none").to_owned();
        let attributes = [
            KeyValue::new("policy", text("id")),
            KeyValue::new("revision", text("digest")),
            KeyValue::new("calibration", text("calibration")),
        ];
        seen(1.0, &attributes);
    });
    let known = facts.clone();
    gauge(meter, &m::STALE, move |seen| seen(f64::from(u8::from(known.all()["policy_refused"].is_string())), &[]));
    let tally = tally.clone();
    gauge(meter, &m::DRIFT, move |seen| {
        for (label, distance) in tally.drift.distances() {
            seen(distance, &[KeyValue::new("label", label)]);
        }
    });
}

/// What was done by a moment.
#[derive(Debug, Clone, Copy)]
struct Work {
    at: Instant,
    posts: u64,
    /// Nanoseconds in the model.
    busy: u64,
}

/// The last minute's work.
#[derive(Debug, Default)]
struct Pace(VecDeque<Work>);

impl Pace {
    /// Model seconds for each finished post; what the cache answers costs none. `None` before the first post.
    fn seconds_a_post(&mut self, now: Work) -> Option<f64> {
        let first = *self.0.front().unwrap_or(&Work { posts: 0, busy: 0, ..now });
        let posts = now.posts.saturating_sub(first.posts);
        let pace = (posts > 0).then(|| now.busy.saturating_sub(first.busy) as f64 / 1e9 / posts as f64);
        // While nothing is finished the pace before stays known.
        while posts > 0 && self.0.get(1).is_some_and(|second| now.at.saturating_duration_since(second.at) > WINDOW) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|last| last.posts != now.posts) {
            self.0.push_back(now);
        }
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_minute_and_is_kept_while_nothing_comes() {
        let start = Instant::now();
        let work = |seconds: u64, posts, busy: u64| Work {
            at: start + Duration::from_secs(seconds),
            posts,
            busy: busy * 1_000_000_000,
        };
        let mut pace = Pace::default();
        assert_eq!(pace.seconds_a_post(work(0, 0, 0)), None);
        assert_eq!(pace.seconds_a_post(work(10, 100, 10)), Some(0.1));
        assert_eq!(pace.seconds_a_post(work(30, 100, 10)), Some(0.1), "idle");
        assert_eq!(pace.seconds_a_post(work(300, 200, 60)), Some(0.3));
        assert_eq!(
            pace.seconds_a_post(work(310, 300, 160)),
            Some(0.75),
            "only what was done since the last look before the minute"
        );
    }
}
