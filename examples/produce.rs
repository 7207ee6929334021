//! Publishes posts: `cargo run --example produce -- BROKERS TOPIC < posts.jsonl`
//! Each line is a `post.v1`; it is sent as it stands, with its id as key, so that edits of a post stay in order, and with a
//! W3C `traceparent`. A line that does not fit the schema is told and not sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

struct Reports(AtomicUsize);

impl ClientContext for Reports {}
impl ProducerContext for Reports {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => _ = self.0.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => eprintln!("not taken: {error}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic] = arguments.as_slice() else { return Err("produce BROKERS TOPIC < posts.jsonl".into()) };
    let post = jsonschema::validator_for(&serde_json::from_str(include_str!("../schemas/post.v1.json"))?)?;
    // Idempotent: what is sent again after a lost answer is stored once.
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "20");
    let producer: ThreadedProducer<Reports> = settings.create_with_context(Reports(AtomicUsize::new(0)))?;
    let mut read = 0;
    for line in std::io::stdin().lines() {
        let line = line?;
        read += 1;
        let value = serde_json::from_str(&line).unwrap_or_default();
        if let Err(fault) = post.validate(&value) {
            eprintln!("line {read}: {fault}");
            continue;
        }
        // A new trace. Where a request is being traced, hand on its own context: OpenTelemetry's TextMapPropagator.
        let trace = format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..));
        let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(&trace) });
        let key = value["id"].as_str().unwrap_or_default();
        let mut record = BaseRecord::to(topic).key(key).payload(&line).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            record = back;
        }
    }
    producer.flush(None)?;
    let taken = producer.context().0.load(Ordering::Relaxed);
    println!("produced {taken}");
    if taken == read { Ok(()) } else { Err(format!("{} of {read} lines were not taken", read - taken).into()) }
}
