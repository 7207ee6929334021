//! Puts posts from dead letters back on the input topic, each once: in one transaction with the marker that says so.
//!
//! The `transactional.id` belongs to the group, so of two at once the later one fences the earlier; and connecting ends
//! whatever an earlier one left open, so all that was put back before is known by its markers from then on.

use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use thiserror::Error;

use crate::config::KafkaSettings;
use crate::kafka::dead_letter::{self, Letter};
use crate::kafka::headers;
use crate::kafka::range::ReadError;
use crate::kafka::record::copy;
use crate::kafka::reports::{Record, Sent};
use crate::kafka::transaction::{Broken, Transactions};
use crate::receipt::{Original, Partition};

/// Longest transaction that brokers allow, unless their operator changed it.
const LONGEST: Duration = Duration::from_secs(15 * 60);
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
    transactions: Transactions<Of>,
    posts: String,
    dead_letters: String,
    id: String,
    brokers: String,
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
        let (posts, dead_letters) = (settings.posts.clone(), settings.dead_letters.clone());
        let brokers = settings.brokers.clone();
        match Transactions::connect(config) {
            Ok(transactions) => Ok(Self { transactions, posts, dead_letters, id, brokers, patience }),
            Err(broken) => Err(told(broken, &id, &brokers, |_| String::new())),
        }
    }

    /// One transaction: all of them, or none.
    pub fn put_back(&self, parcels: &[Parcel]) -> Result<(), RedriveError> {
        let deadline = Instant::now() + self.patience;
        let markers: Vec<_> = parcels.iter().map(|parcel| Marker::of(&parcel.letter)).collect();
        let begun = self.transactions.is_untroubled().and_then(|()| self.transactions.begin(deadline));
        let outcome = begun.and_then(|()| {
            let both = |(parcel, marker)| [Sending { parcel, marker: None }, Sending { parcel, marker: Some(marker) }];
            let records = parcels.iter().zip(&markers).flat_map(both);
            self.transactions.send(records, Sending::name, |sending, sent| self.record(sending, sent), deadline)?;
            self.transactions.commit(deadline)
        });
        outcome.map_err(|broken| {
            // A fenced one cannot abort, and its transaction is aborted already.
            if !matches!(broken, Broken::Fenced) {
                let _ = self.transactions.abort(Instant::now());
            }
            told(broken, &self.id, &self.brokers, |what| match what {
                What::Post => self.posts.clone(),
                What::Marker => self.dead_letters.clone(),
            })
        })
    }

    fn record<'a>(&'a self, Sending { parcel, marker }: Sending<'a>, sent: Box<Sent<Of>>) -> Record<'a, Of> {
        match marker {
            None => self.post(&parcel.letter, &parcel.original, sent),
            Some(marker) => self.marker(&parcel.letter, marker, sent),
        }
    }

    /// The post as it came, with one header more.
    fn post<'a>(&'a self, letter: &Letter, original: &'a Original, sent: Box<Sent<Of>>) -> Record<'a, Of> {
        let headers = headers::without(copy(&original.headers), |name| {
            name.starts_with(b"moderato.error.") || name.starts_with(ORIGIN.as_bytes())
        });
        let from = format!("{}/{}/{}", self.dead_letters, letter.partition, letter.offset);
        let headers = headers.insert(Header { key: ORIGIN, value: Some(&from) });
        let mut record = BaseRecord::with_opaque_to(&self.posts, sent).partition(letter.post.at.partition);
        record = record.headers(headers);
        record.key = original.key.as_deref();
        record.payload = original.value.as_deref();
        record
    }

    /// In the dead letter's own partition, behind it: retention takes it later. A key of its own and a value keep it where
    /// the topic is compacted.
    fn marker<'a>(&'a self, letter: &Letter, marker: &'a Marker, sent: Box<Sent<Of>>) -> Record<'a, Of> {
        let names = dead_letter::marker(&self.dead_letters, letter);
        let headers = names
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let record = BaseRecord::with_opaque_to(&self.dead_letters, sent).partition(letter.partition);
        record.headers(headers).key(marker.key.as_bytes()).payload(marker.value.as_bytes())
    }
}

/// What a marker is made of beside its headers.
struct Marker {
    key: String,
    value: String,
}

impl Marker {
    fn of(Letter { partition, offset, .. }: &Letter) -> Self {
        let value = format!("{{\"redriven\":\"{partition}/{offset}\"}}");
        Self { key: format!("redriven/{partition}/{offset}"), value }
    }
}

/// One of the two records that stand for a dead letter.
struct Sending<'a> {
    parcel: &'a Parcel,
    marker: Option<&'a Marker>,
}

impl Sending<'_> {
    fn name(&self) -> Of {
        let what = if self.marker.is_some() { What::Marker } else { What::Post };
        (self.parcel.letter.partition, self.parcel.letter.offset, what)
    }
}

/// Which record of which dead letter.
type Of = (Partition, i64, What);

#[derive(Debug, Clone, Copy)]
enum What {
    Post,
    Marker,
}

fn told(broken: Broken<Of>, id: &str, brokers: &str, topic: impl Fn(What) -> String) -> RedriveError {
    let (id, brokers) = (id.to_owned(), brokers.to_owned());
    match broken {
        Broken::Options(cause) => ReadError::Asked(format!("kafka.options: {cause}")).into(),
        Broken::Unreachable => ReadError::Unreachable { brokers, cause: "`moderato check` says why".to_owned() }.into(),
        Broken::Mock => RedriveError::Mock { brokers },
        Broken::Fenced => RedriveError::Fenced { id },
        Broken::Abort(cause) | Broken::Lost(cause) => RedriveError::Transaction { id, cause },
        Broken::Refused((partition, offset, what), error) => RedriveError::NotTaken {
            what: format!("what stands for dead letter {partition}/{offset}"),
            topic: topic(what),
            cause: error.to_string(),
        },
    }
}
