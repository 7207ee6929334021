//! Puts posts from dead letters back on the input topic, each once: in one transaction with the marker that says so.
//!
//! The `transactional.id` belongs to the group, so of two at once the later one fences the earlier; and connecting ends
//! whatever an earlier one left open, so all that was put back before is known by its markers from then on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use thiserror::Error;

use crate::config::KafkaSettings;
use crate::kafka::dead_letter::{Letter, marker};
use crate::kafka::headers;
use crate::kafka::range::ReadError;
use crate::kafka::record::copy;
use crate::receipt::{Original, Partition};

/// Longest single call to the coordinator; one that takes longer is called again, which resumes it.
const CALL: Duration = Duration::from_secs(2);
/// How long `poll` serves delivery reports at a time.
const SERVE: Duration = Duration::from_millis(10);
/// Longest wait for the brokers at start, and for an earlier transaction to end.
const CONNECTING: Duration = Duration::from_secs(60);
/// Longest transaction that brokers allow, unless their operator changed it.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// What librdkafka's mock cluster calls itself.
const MOCK: &str = "mockCluster";
/// Names the dead letter that a post was put back from.
const ORIGIN: &str = "moderato.redrive.source";

/// Why posts could not be put back. What was not committed has not happened.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// The dead letters could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// librdkafka's mock cluster.
    #[error(
        "{brokers} is librdkafka's mock cluster, which accepts transactions and stores none; posts are put back on an Apache Kafka only"
    )]
    Mock {
        /// Bootstrap servers.
        brokers: String,
    },
    /// Another one was started.
    #[error(
        "another `moderato dead-letters redrive` of this group was started and fenced this one ({id}); what this one had not committed was not put back: run it again when the other has ended"
    )]
    Fenced {
        /// The `transactional.id` that both use.
        id: String,
    },
    /// The broker did not take a record.
    #[error(
        "{what} was not taken by `{topic}`: {cause}. Nothing of its transaction was put back; check the topic's partitions, its max.message.bytes, and that this user may write to it"
    )]
    NotTaken {
        /// Which record.
        what: String,
        /// Where it was to go.
        topic: String,
        /// What the broker or client said.
        cause: String,
    },
    /// The transaction did not come to an end.
    #[error(
        "transactional.id {id}: {cause}; nothing of this transaction was put back unless it ends later: run it again"
    )]
    Transaction {
        /// The name.
        id: String,
        /// What the client said.
        cause: String,
    },
}

/// A dead letter with the post that it holds.
pub struct Parcel {
    /// What is known of it.
    pub letter: Letter,
    /// The record of the dead-letter topic.
    pub original: Original,
}

/// A transactional producer.
pub struct Redriver {
    producer: BaseProducer<Reports>,
    posts: String,
    dead_letters: String,
    id: String,
    patience: Duration,
}

impl Redriver {
    /// Connects, and ends what an earlier one left open.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, RedriveError> {
        let id = format!("{}-redrive", settings.group);
        let patience = settings.delivery_timeout.min(LONGEST);
        let mut config = settings.producer();
        config.set("transactional.id", &id);
        for key in ["delivery.timeout.ms", "transaction.timeout.ms"] {
            config.set(key, patience.as_millis().to_string());
        }
        let producer: BaseProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|error| ReadError::Asked(format!("kafka.options: {error}")))?;
        let brokers = settings.brokers.clone();
        match producer.client().fetch_cluster_id(CONNECTING) {
            Some(cluster) if cluster.starts_with(MOCK) => return Err(RedriveError::Mock { brokers }),
            Some(_) => {}
            None => {
                let cause = "`moderato check` says why".to_owned();
                return Err(ReadError::Unreachable { brokers, cause }.into());
            }
        }
        let (posts, dead_letters) = (settings.posts.clone(), settings.dead_letters.clone());
        let redriver = Self { producer, posts, dead_letters, id, patience };
        redriver.insist(Instant::now() + CONNECTING, |producer| producer.init_transactions(CALL))?;
        Ok(redriver)
    }

    /// One transaction: all of them, or none.
    pub fn put_back(&self, parcels: &[Parcel]) -> Result<(), RedriveError> {
        let deadline = Instant::now() + self.patience;
        self.insist(deadline, |producer| producer.begin_transaction())?;
        let sent = self.send_all(parcels, deadline);
        let ended = sent.and_then(|()| self.insist(deadline, |producer| producer.commit_transaction(CALL)));
        if let Err(error) = ended {
            // A fenced one cannot, and its transaction is aborted already.
            if !matches!(error, RedriveError::Fenced { .. }) {
                let deadline = Instant::now() + CALL;
                let _ = self.insist(deadline, |producer| producer.abort_transaction(CALL));
            }
            return Err(error);
        }
        Ok(())
    }

    /// Sends every record and waits for the broker's word on each: so committing has nothing left to wait for.
    fn send_all(&self, parcels: &[Parcel], deadline: Instant) -> Result<(), RedriveError> {
        let reports = self.producer.context();
        *reports.seen() = Seen::default();
        let mut sent = 0;
        for Parcel { letter, original } in parcels {
            self.enqueue(self.post(letter, original), deadline)
                .map_err(|cause| self.refused(place(letter), &self.posts, &cause))?;
            let at = format!("redriven/{}/{}", letter.partition, letter.offset);
            let value = format!("{{\"redriven\":\"{}/{}\"}}", letter.partition, letter.offset);
            self.enqueue(self.marker(letter, &at, &value), deadline)
                .map_err(|cause| self.refused(place(letter), &self.dead_letters, &cause))?;
            sent += 2;
        }
        while reports.seen().reported < sent {
            // librdkafka reports every record by its own deadline, `delivery.timeout.ms`.
            self.producer.poll(SERVE);
        }
        match reports.seen().failed.take() {
            None => Ok(()),
            Some((place, topic, cause)) => Err(self.refused(place, &topic, &cause)),
        }
    }

    /// The post as it came, with one header more.
    fn post<'a>(&'a self, letter: &Letter, original: &'a Original) -> Sent<'a> {
        let headers = headers::without(copy(&original.headers), &["moderato.error.", ORIGIN]);
        let from = format!("{}/{}/{}", self.dead_letters, letter.partition, letter.offset);
        let mut record = BaseRecord::with_opaque_to(&self.posts, Box::new(place(letter)));
        record.partition = Some(letter.post.at.partition);
        record.headers = Some(headers.insert(Header { key: ORIGIN, value: Some(&from) }));
        record.key = original.key.as_deref();
        record.payload = original.value.as_deref();
        record
    }

    /// In the dead letter's own partition, behind it: retention takes it later. A key of its own and a value keep it where
    /// the topic is compacted.
    fn marker<'a>(&'a self, letter: &Letter, key: &'a str, value: &'a str) -> Sent<'a> {
        let names = marker(&self.dead_letters, letter);
        let headers = names
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::with_opaque_to(&self.dead_letters, Box::new(place(letter)));
        record.partition = Some(letter.partition);
        record.headers = Some(headers);
        record.key = Some(key.as_bytes());
        record.payload = Some(value.as_bytes());
        record
    }

    fn enqueue(&self, mut record: Sent<'_>, deadline: Instant) -> KafkaResult<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    self.producer.poll(SERVE);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Makes a call again for as long as librdkafka says that it may be, with the same arguments: only so is a commit
    /// whose answer was late not guessed at.
    fn insist(
        &self,
        deadline: Instant,
        call: impl Fn(&BaseProducer<Reports>) -> KafkaResult<()>,
    ) -> Result<(), RedriveError> {
        loop {
            let (cause, again) = match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) => {
                    if matches!(error.code(), RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch) {
                        return Err(RedriveError::Fenced { id: self.id.clone() });
                    }
                    (error.string(), error.is_retriable())
                }
                Err(KafkaError::Flush(error)) => (error.to_string(), true),
                Err(error) => (error.to_string(), false),
            };
            if !again || Instant::now() >= deadline {
                let lost = RedriveError::Transaction { id: self.id.clone(), cause };
                return Err(self.fenced().unwrap_or(lost));
            }
            thread::sleep(SERVE);
        }
    }

    fn fenced(&self) -> Option<RedriveError> {
        match self.producer.client().fatal_error() {
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch, _)) => {
                Some(RedriveError::Fenced { id: self.id.clone() })
            }
            _ => None,
        }
    }

    fn refused(&self, (partition, offset): Place, topic: &str, cause: &KafkaError) -> RedriveError {
        let what = format!("what stands for dead letter {partition}/{offset}");
        let not_taken = RedriveError::NotTaken { what, topic: topic.to_owned(), cause: cause.to_string() };
        self.fenced().unwrap_or(not_taken)
    }
}

type Sent<'a> = BaseRecord<'a, [u8], [u8], Box<Place>>;

/// Partition and offset of a dead letter, for whoever must look at it.
type Place = (Partition, i64);

fn place(letter: &Letter) -> Place {
    (letter.partition, letter.offset)
}

/// Delivery reports of the transaction under way.
#[derive(Default)]
struct Reports(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    reported: usize,
    /// The first that failed: of which dead letter, where it was to go, and why.
    failed: Option<(Place, String, KafkaError)>,
}

impl Reports {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Place>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<Place>) {
        let mut seen = self.seen();
        seen.reported += 1;
        if let Err((error, message)) = result {
            let topic = || rdkafka::Message::topic(message).to_owned();
            seen.failed.get_or_insert_with(|| (*place, topic(), error.clone()));
        }
    }
}
