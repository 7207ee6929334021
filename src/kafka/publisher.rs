//! The producer: verdicts, passed tombstones and dead letters, each awaited until the broker has acknowledged it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::receipt::{Headers, Original};
use crate::rejection::{DeadLetterHeaders, Rejected};

/// How long to wait before asking a full local queue again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

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

/// Sends records and waits for their delivery reports.
pub struct Publisher {
    producer: FutureProducer,
    verdicts: Arc<str>,
    dead_letters: Arc<str>,
    group: String,
    delivery_timeout: Duration,
}

impl Publisher {
    /// Builds the idempotent producer.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, Fatal> {
        let producer =
            settings.producer().create().map_err(|error: KafkaError| Fatal::Kafka { cause: error.to_string() })?;
        Ok(Self {
            producer,
            verdicts: settings.verdicts.as_str().into(),
            dead_letters: settings.dead_letters.as_str().into(),
            group: settings.group.clone(),
            delivery_timeout: settings.delivery_timeout,
        })
    }

    /// Queues the record, in the order of calls; the returned future ends when the broker has acknowledged it.
    pub async fn publish(
        &self,
        original: &Original,
        outgoing: &Outgoing,
    ) -> Result<impl Future<Output = Result<(), Fatal>> + Send + use<>, Fatal> {
        let (topic, value, headers) = match outgoing {
            Outgoing::Verdict { value, verdict_id } => {
                let headers = text(source_headers(original), "moderato.verdict_id", verdict_id);
                (&self.verdicts, Some(value.as_slice()), text(headers, "content-type", "application/cloudevents+json"))
            }
            Outgoing::Tombstone => (&self.verdicts, None, source_headers(original)),
            Outgoing::DeadLetter(rejected) => {
                (&self.dead_letters, original.value.as_deref(), self.error_headers(original, rejected))
            }
        };
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.payload = value;
        record.key = original.key.as_deref();
        let dead_letter = matches!(outgoing, Outgoing::DeadLetter(_));
        let failed = Failed { topic: topic.clone(), dead_letter };
        let report = self.enqueue(record).await.map_err(|error| failed.fatal(&error))?;
        Ok(async move {
            match report.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(failed.fatal(&error)),
                Err(_) => Err(failed.fatal(&KafkaError::Canceled)),
            }
        })
    }

    /// A full local queue is waited for; it empties as the broker acknowledges.
    async fn enqueue(
        &self,
        mut record: FutureRecord<'_, [u8], [u8]>,
    ) -> Result<rdkafka::producer::DeliveryFuture, KafkaError> {
        let deadline = Instant::now() + self.delivery_timeout;
        loop {
            match self.producer.send_result(record) {
                Ok(report) => return Ok(report),
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
        let fields = DeadLetterHeaders::new(original, rejected, &self.group).fields();
        fields.iter().fold(copy(&original.headers), |headers, (name, value)| text(headers, name, value))
    }
}

struct Failed {
    topic: Arc<str>,
    dead_letter: bool,
}

impl Failed {
    fn fatal(&self, error: &KafkaError) -> Fatal {
        let (topic, cause) = (self.topic.to_string(), error.to_string());
        if self.dead_letter {
            Fatal::DeadLetterUndeliverable { topic, cause }
        } else {
            Fatal::VerdictUndeliverable { topic, cause }
        }
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

/// A native copy, so that null values and names that are not UTF-8 survive.
fn copy(headers: &Headers) -> OwnedHeaders {
    let native = headers.0.as_ref().and_then(|any| any.downcast_ref::<OwnedHeaders>());
    native.map_or_else(OwnedHeaders::new, |headers| headers.as_borrowed().detach())
}
