//! The producer: verdicts, passed tombstones and dead letters. Each hands its receipt back once the broker has
//! acknowledged it: reports come in groups, as the broker's answers do, so that no record costs a wake-up of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;

use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::kafka::headers;
use crate::receipt::{Original, Receipt};
use crate::rejection::{DeadLetterHeaders, Rejected};

/// How long to wait before asking a full local queue again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
/// Delivery reports taken at once.
const REPORTS_AT_ONCE: usize = 512;

/// What a record becomes on its way out.
#[derive(Debug)]
pub enum Outgoing {
    /// An encoded `verdict.v1`.
    Verdict {
        /// The value.
        value: Vec<u8>,
        /// Deterministic id, also a header, so that duplicates can be told without decoding.
        verdict_id: String,
    },
    /// A null value, passed on.
    Tombstone,
    /// The post, unchanged, with the reason in headers.
    DeadLetter(Rejected),
}

/// How one record ended: its receipt once it is durable.
pub type Report = Result<Receipt, Fatal>;

/// Sends records, and tells how each ended.
pub struct Publisher {
    producer: ThreadedProducer<Reporter>,
    reports: mpsc::UnboundedReceiver<Report>,
    topics: Topics,
    group: String,
    delivery_timeout: Duration,
}

/// Where verdicts go, and where dead letters.
#[derive(Clone)]
struct Topics {
    verdicts: Arc<str>,
    dead_letters: Arc<str>,
}

/// Called by the client's own thread with every delivery report.
struct Reporter {
    to: mpsc::UnboundedSender<Report>,
    topics: Topics,
}

/// What travels with a record until its report comes.
struct Owed {
    receipt: Receipt,
    dead_letter: bool,
}

impl Publisher {
    /// Builds the idempotent producer.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, Fatal> {
        let topics =
            Topics { verdicts: settings.verdicts.as_str().into(), dead_letters: settings.dead_letters.as_str().into() };
        let (to, reports) = mpsc::unbounded_channel();
        let producer = settings.producer().create_with_context(Reporter { to, topics: topics.clone() });
        Ok(Self {
            producer: producer.map_err(|error: KafkaError| Fatal::Kafka { cause: error.to_string() })?,
            reports,
            topics,
            group: settings.group.clone(),
            delivery_timeout: settings.delivery_timeout,
        })
    }

    /// Queues the record, in the order of calls; the receipt comes back by [`Publisher::reports`].
    pub async fn publish(&self, original: &Original, outgoing: &Outgoing, receipt: Receipt) -> Result<(), Fatal> {
        let Topics { verdicts, dead_letters } = &self.topics;
        let (topic, value, headers) = match outgoing {
            Outgoing::Verdict { value, verdict_id } => {
                let headers = text(source_headers(original), "moderato.verdict_id", verdict_id);
                (verdicts, Some(value.as_slice()), text(headers, "content-type", "application/cloudevents+json"))
            }
            Outgoing::Tombstone => (verdicts, None, source_headers(original)),
            Outgoing::DeadLetter(rejected) => {
                (dead_letters, original.value.as_deref(), self.error_headers(original, rejected))
            }
        };
        let dead_letter = matches!(outgoing, Outgoing::DeadLetter(_));
        let owed = Box::new(Owed { receipt, dead_letter });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, owed).headers(headers);
        record.payload = value;
        record.key = original.key.as_deref();
        self.enqueue(record).await.map_err(|error| self.topics.undeliverable(dead_letter, &error))
    }

    /// Waits for delivery reports, and adds those that have come: how many.
    pub async fn reports(&mut self, reports: &mut Vec<Report>) -> usize {
        self.reports.recv_many(reports, REPORTS_AT_ONCE).await
    }

    /// A full local queue is waited for; it empties as the broker acknowledges.
    async fn enqueue(&self, mut record: BaseRecord<'_, [u8], [u8], Box<Owed>>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + self.delivery_timeout;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn error_headers(&self, original: &Original, rejected: &Rejected) -> OwnedHeaders {
        let (copied, dropped) = headers::copy(&original.headers);
        let fields = DeadLetterHeaders::new(original, rejected, &self.group).without(dropped).fields();
        fields.iter().fold(copied, |headers, (name, value)| text(headers, name, value))
    }
}

impl Topics {
    fn undeliverable(&self, dead_letter: bool, error: &KafkaError) -> Fatal {
        let cause = error.to_string();
        if dead_letter {
            Fatal::DeadLetterUndeliverable { topic: self.dead_letters.to_string(), cause }
        } else {
            Fatal::VerdictUndeliverable { topic: self.verdicts.to_string(), cause }
        }
    }
}

impl ClientContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = Box<Owed>;

    fn delivery(&self, result: &DeliveryResult<'_>, owed: Box<Owed>) {
        let report = match result {
            Ok(_) => Ok(owed.receipt),
            Err((error, _)) => Err(self.topics.undeliverable(owed.dead_letter, error)),
        };
        // Nobody listens once the road has been given up.
        let _ = self.to.send(report);
    }
}

/// Where the record came from, on everything that goes to the verdict topic: a tombstone has no value to say it in.
fn source_headers(original: &Original) -> OwnedHeaders {
    let headers = text(OwnedHeaders::new(), "moderato.source.topic", &original.topic);
    let headers = text(headers, "moderato.source.partition", &original.partition.to_string());
    text(headers, "moderato.source.offset", &original.offset.0.to_string())
}

fn text(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value.as_bytes()) })
}
