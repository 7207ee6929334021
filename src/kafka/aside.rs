//! Records beside the road: what a shadow judged. Handed to the client and not waited for; what does not arrive is counted
//! and missed by nobody.

use rdkafka::client::ClientContext;
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext, ThreadedProducer};
use tracing::warn;

use super::record::{Outgoing, Topics};
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::receipt::Original;
use crate::telemetry::metrics::Metrics;

/// A producer for the shadow's verdicts.
pub struct Aside {
    producer: ThreadedProducer<Unheard>,
    topics: Topics,
    metrics: Metrics,
}

impl Aside {
    /// Connects by and by.
    pub fn connect(settings: &KafkaSettings, topic: &str, metrics: &Metrics) -> Result<Self, Fatal> {
        let settings = KafkaSettings { output: topic.to_owned(), flagged: None, ..settings.clone() };
        let producer = settings.producer().create_with_context(Unheard(metrics.clone()));
        let producer = producer.map_err(|error| Fatal::Kafka { cause: error.to_string() })?;
        Ok(Self { producer, topics: Topics::of(&settings), metrics: metrics.clone() })
    }

    /// Hands a verdict to the client; a full queue does not take it.
    pub fn send(&self, original: &Original, verdict: &Outgoing) {
        for wire in self.topics.records(original, verdict, None) {
            if self.producer.send(wire.marked("moderato.shadow", "true").with(())).is_err() {
                self.metrics.shadow("undelivered");
            }
        }
    }
}

/// Counts what does not arrive.
struct Unheard(Metrics);

impl ClientContext for Unheard {}

impl ProducerContext for Unheard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            self.0.shadow("undelivered");
            warn!(%error, topic = record.topic(), "a shadow's verdict did not arrive");
        }
    }
}
