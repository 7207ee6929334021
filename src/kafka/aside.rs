//! Records beside the road: what a shadow judged. Handed to the client and not waited for; what does not arrive is counted
//! and missed by nobody.

use rdkafka::client::ClientContext;
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext, ThreadedProducer};
use tracing::debug;

use super::record::{Outgoing, Topics};
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::receipt::Original;

/// A producer for the shadow's verdicts.
pub struct Aside {
    producer: ThreadedProducer<Unheard>,
    topics: Topics,
}

impl Aside {
    /// Connects by and by.
    pub fn connect(settings: &KafkaSettings, topic: &str) -> Result<Self, Fatal> {
        let settings = KafkaSettings { output: topic.to_owned(), flagged: None, ..settings.clone() };
        let producer = settings.producer().create_with_context(Unheard);
        let producer = producer.map_err(|error| Fatal::Kafka { cause: error.to_string() })?;
        Ok(Self { producer, topics: Topics::of(&settings) })
    }

    /// Whether the client took it; a full queue does not.
    pub fn send(&self, original: &Original, verdict: &Outgoing) -> bool {
        let mut records = self.topics.records(original, verdict).into_iter();
        records.all(|wire| self.producer.send(wire.marked("moderato.shadow", "true").with(())).is_ok())
    }
}

/// Nobody waits for its reports.
struct Unheard;

impl ClientContext for Unheard {}

impl ProducerContext for Unheard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            debug!(%error, topic = record.topic(), "a shadow's verdict did not arrive");
        }
    }
}
