//! Traces, metrics and logs: with nobody to send them to, and through a real OpenTelemetry Collector.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::notes::{NotesPool, flagged_posts};
use crate::support::pool::{Pool, judged, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::web::{Collector, attribute};
use crate::support::{PATIENCE, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traced(record: Outgoing) -> Outgoing {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    record
        .header("traceparent", Some(b"00-11111111111111111111111111111111-2222222222222222-01"))
        .header("traceparent", Some(parent.as_bytes()))
}

/// Trace and span that a record names, which it does once.
fn context(record: &Record) -> (String, String) {
    let all: Vec<_> = record.headers.iter().filter(|(name, _)| name == "traceparent").collect();
    assert_eq!(all.len(), 1, "{:?}", record.headers);
    let value = record.header("traceparent").unwrap();
    let parts: Vec<&str> = value.split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

/// A good post and a bad one, both with a producer's context; what they became, good one first.
fn sent(pool: &Pool<'_>, kafka: &Kafka) -> (Record, Record) {
    let verdict = pool.verdicts_of_all().remove(0);
    (verdict, kafka.read_all(&pool.dead_letters).remove(0))
}

#[test]
fn a_producers_trace_context_is_passed_on_once_where_nothing_is_exported() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 1) {
        pool.post([traced(post("good", "A claim.")), traced(Outgoing::new("no post"))]);
        let _worker = pool.start();
        let (verdict, letter) = sent(&pool, &kafka);
        assert_eq!(context(&verdict), (TRACE.to_owned(), SPAN.to_owned()));
        assert_eq!(context(&letter), (TRACE.to_owned(), SPAN.to_owned()));
    }
}

#[test]
fn a_collector_that_is_away_costs_no_post_and_no_exit_code() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 20));
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut worker = pool.setup().environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{away}")).start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 20);
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_collector_that_hangs_costs_no_post_and_holds_the_end_up_for_seconds_only() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 200));
    // Takes connections, and nothing more.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    let setup = pool.setup().environment("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    let mut worker = setup.environment("OTEL_BSP_SCHEDULE_DELAY", "50").start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 200);
    worker.sigterm();
    assert_eq!(worker.wait(), 0, "within the tests' patience of a minute");
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn links(span: &Value) -> BTreeSet<String> {
    let links = span["links"].as_array().into_iter().flatten();
    links.map(|link| format!("{}-{}", link["traceId"].as_str().unwrap(), link["spanId"].as_str().unwrap())).collect()
}

fn id(span: &Value) -> String {
    format!("{}-{}", span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap())
}

#[test]
fn a_run_that_writes_notes_is_a_span_that_is_linked_to_their_posts() {
    let kafka = kafka!();
    let collector = Collector::start();
    let notes = NotesPool::new(&kafka, 1);
    notes.pool.post(flagged_posts("p", 3));
    let setup = notes.setup().environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let worker = setup.environment("OTEL_BSP_SCHEDULE_DELAY", "100").start();
    assert_eq!(notes.notes_of_all().len(), 3);
    worker.stop();

    let process = format!("process {}", notes.pool.posts);
    let posts = |all: &[Value]| named(all, &process).into_iter().map(id).collect::<BTreeSet<_>>();
    let runs = |all: &[Value]| named(all, "inference batch").into_iter().cloned().collect::<Vec<_>>();
    let linked = |all: &[Value]| runs(all).iter().flat_map(links).collect::<BTreeSet<_>>();
    let all = |all: &Vec<Value>| posts(all).len() == 3 && linked(all) == posts(all);
    let all = eventually("runs linked to each post arrived", PATIENCE, || collector.spans(), all);
    for run in runs(&all) {
        assert_eq!(attribute(&run, "gen_ai.operation.name").as_deref(), Some("text_completion"));
        assert_eq!(attribute(&run, "messaging.batch.message_count"), Some(links(&run).len().to_string()));
        assert!(run["endTimeUnixNano"].as_str() > run["startTimeUnixNano"].as_str(), "{run}");
    }
}

#[test]
fn a_post_is_followed_from_its_producers_span_to_its_verdict_and_another_to_its_dead_letter() {
    let kafka = kafka!();
    let collector = Collector::start();
    for pool in Pool::of_each_delivery(&kafka, 1) {
        pool.post([traced(post("good", "A claim.")), traced(Outgoing::new("no post"))]);
        let setup = pool.setup().environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
        let mut worker = setup.environment("OTEL_BSP_SCHEDULE_DELAY", "100").start();
        let (verdict, letter) = sent(&pool, &kafka);
        worker.sigterm();
        assert_eq!(worker.wait(), 0);

        let of = |operation: &str, topic: &str| format!("{operation} {topic}");
        let process = of("process", &pool.posts);
        let all = eventually(
            "both posts' spans arrived",
            PATIENCE,
            || collector.spans(),
            |all| named(all, &process).len() == 2,
        );
        let processed = named(&all, &process);
        for span in &processed {
            assert_eq!(links(span), [format!("{TRACE}-{SPAN}")].into(), "linked to the producer, not below it");
            assert_eq!(span["kind"], 5, "a consumer's");
            assert_eq!(attribute(span, "messaging.system").unwrap(), "kafka");
            assert_eq!(attribute(span, "messaging.operation.type").unwrap(), "process");
            assert_eq!(attribute(span, "messaging.destination.partition.id").unwrap(), "0");
        }
        for (record, topic) in [(&verdict, &pool.verdicts), (&letter, &pool.dead_letters)] {
            let (trace, span) = context(record);
            let sending = named(&all, &of("send", topic));
            assert_eq!(sending.len(), 1);
            assert_eq!(id(sending[0]), format!("{trace}-{span}"), "the record names the span that sent it");
            let parent = processed.iter().find(|process| process["traceId"] == trace.as_str()).unwrap();
            assert_eq!(sending[0]["parentSpanId"], parent["spanId"]);
        }
        let (trace, _) = context(&letter);
        let rejected = processed.iter().find(|process| process["traceId"] == trace.as_str()).unwrap();
        assert_eq!(attribute(rejected, "error.type").as_deref(), Some("not_json"));
        let (trace, _) = context(&verdict);
        let good = processed.iter().find(|process| process["traceId"] == trace.as_str()).unwrap();
        let runs = named(&all, "inference batch");
        assert!(runs.iter().any(|run| links(run).contains(&id(good))), "the run is linked to its post");
        for name in [of("poll", &pool.posts), of("commit", &pool.posts)] {
            assert!(!named(&all, &name).is_empty(), "{name}");
        }
        let trace_of_letter = context(&letter).0;
        let log =
            |logs: &Vec<Value>| logs.iter().any(|log| attribute(log, "trace_id").as_deref() == Some(&trace_of_letter));
        eventually("the log line with its trace", PATIENCE, || collector.logs(), log);
        let counted = |all: &Vec<Value>| all.iter().any(|metric| metric["name"] == "moderato.verdicts");
        eventually("the metrics", PATIENCE, || collector.metrics(), counted);
    }
}
