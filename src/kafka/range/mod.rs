//! Reads a part of a topic whose ends are fixed before it begins, outside of any consumer group.
//!
//! Only committed records are seen. Offsets have gaps where transaction markers, aborted records and compacted ones
//! were, also at the end, so a partition is read to its end when a record at or beyond it has come, or when the broker
//! says that nothing follows and its last stable offset, asked before, had reached the end. An open transaction below
//! the end is waited for: what stands behind it cannot be told yet.

mod record;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use thiserror::Error;
use tracing::info;

use crate::config::KafkaSettings;
use crate::kafka::events::hopeless;
use crate::kafka::probe::{self, Listener};
use crate::receipt::Partition;

pub use self::record::Record;

/// Longest single request.
const REQUEST: Duration = Duration::from_secs(30);
/// Longest wait for a record before looking after open transactions.
const TURN: Duration = Duration::from_millis(200);
/// No record and no word of an end for so long: nobody answers.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two looks at an open transaction.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for one: by default a broker aborts it after a minute.
const OPEN_TRANSACTION: Duration = Duration::from_secs(90);

/// Why a topic could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Brokers do not answer, or refuse; the text says how to mend it.
    #[error("no answer from {brokers}: {cause}")]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// What the client said.
        cause: String,
    },
    /// The topic is not there.
    #[error("topic `{topic}` does not exist or may not be described; create it, mend {key}, or grant Describe")]
    UnknownTopic {
        /// Its name.
        topic: String,
        /// The key that names it.
        key: &'static str,
    },
    /// A request was refused or not answered.
    #[error("topic `{topic}`: {what}: {cause}; `moderato check` says what is missing")]
    Refused {
        /// The topic.
        topic: String,
        /// What was asked.
        what: &'static str,
        /// What the client said.
        cause: String,
    },
    /// The reading stopped short of its end.
    #[error(
        "topic `{topic}`: nothing came for {seconds} s and partitions {partitions:?} are not read to their end: {cause}"
    )]
    Silent {
        /// The topic.
        topic: String,
        /// What is left.
        partitions: Vec<Partition>,
        /// For how long.
        seconds: u64,
        /// The last thing the client said.
        cause: String,
    },
    /// A transaction stays open below the end.
    #[error(
        "topic `{topic}`, partition {partition}: a transaction is open at offset {offset}, so that what follows cannot be told; it ends by its producer or by the transaction's timeout: try again then"
    )]
    OpenTransaction {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The last stable offset.
        offset: i64,
    },
    /// What was asked for makes no sense here: the command line or the configuration must be mended.
    #[error("{0}")]
    Asked(String),
}

/// A topic and the configuration key that names it.
#[derive(Debug, Clone, Copy)]
pub struct Topic<'a> {
    /// The key, such as `kafka.topics.posts`.
    pub key: &'static str,
    /// The name.
    pub name: &'a str,
}

/// What the broker keeps of a partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: Partition,
    /// The lowest offset that is kept.
    pub low: i64,
    /// Before this offset every transaction has ended.
    pub stable: i64,
    /// One past the last record.
    pub high: i64,
}

/// The part of a partition to read: from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: Partition,
    /// The first offset.
    pub start: i64,
    /// One past the last.
    pub end: i64,
}

impl Extent {
    /// All that is there now, what open transactions still hold back included.
    pub fn whole(&self) -> Span {
        Span { partition: self.partition, start: self.low, end: self.high }
    }
}

/// Reads topics, one at a time.
pub struct Reader {
    pub(super) consumer: BaseConsumer<Listener>,
    /// Asks for the high watermark, which a client that reads committed records is not told.
    beyond: BaseConsumer,
}

impl Reader {
    /// Connects, and waits for the brokers' first answer.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, ReadError> {
        let unreachable = |cause| ReadError::Unreachable { brokers: settings.brokers.clone(), cause };
        let options = |error: KafkaError| ReadError::Asked(format!("kafka.options: {error}"));
        let mut config = settings.consumer();
        // A range that retention overtakes goes on with what is left, whatever the worker's own setting is. A worker
        // fetches little ahead; here, after each fetch beyond that, it would wait for a second.
        config
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.queue.backoff.ms", "20");
        let consumer: BaseConsumer<Listener> = config.create_with_context(Listener::default()).map_err(options)?;
        probe::ask(&consumer, REQUEST).map_err(unreachable)?;
        let beyond = config.set("isolation.level", "read_uncommitted").create().map_err(options)?;
        Ok(Self { consumer, beyond })
    }

    /// What is there of each partition, in their order.
    pub fn extents(&self, topic: Topic<'_>) -> Result<Vec<Extent>, ReadError> {
        let metadata = self.consumer.fetch_metadata(Some(topic.name), REQUEST);
        let metadata = metadata.map_err(|error| refused(topic.name, "its partitions", &error))?;
        let known = metadata.topics().iter().find(|known| known.name() == topic.name);
        let mut partitions: Vec<Partition> =
            known.map(|known| known.partitions().iter().map(|one| one.id()).collect()).unwrap_or_default();
        if partitions.is_empty() {
            return Err(ReadError::UnknownTopic { topic: topic.name.to_owned(), key: topic.key });
        }
        partitions.sort_unstable();
        let extent = |partition| {
            // In this order: the stable offset can be behind the high watermark, never before it.
            let (low, stable) = watermarks(&self.consumer, topic.name, partition)?;
            let (_, high) = watermarks(&self.beyond, topic.name, partition)?;
            Ok(Extent { partition, low, stable, high })
        };
        partitions.into_iter().map(extent).collect()
    }

    /// What the group has committed; a partition without is left out.
    pub fn committed(&self, topic: &str, extents: &[Extent]) -> Result<BTreeMap<Partition, i64>, ReadError> {
        let mut list = TopicPartitionList::with_capacity(extents.len());
        for extent in extents {
            list.add_partition(topic, extent.partition);
        }
        let found = self.consumer.committed_offsets(list, REQUEST);
        offsets(found, topic, "the group's committed offsets")
    }

    /// The first offset of each partition whose record is of that time or later; a partition without is left out.
    pub fn at_time(&self, topic: &str, extents: &[Extent], ms: i64) -> Result<BTreeMap<Partition, i64>, ReadError> {
        let mut list = TopicPartitionList::with_capacity(extents.len());
        for extent in extents {
            let added = list.add_partition_offset(topic, extent.partition, Offset::Offset(ms));
            added.map_err(|error| refused(topic, "its offsets by time", &error))?;
        }
        offsets(self.consumer.offsets_for_times(list, REQUEST), topic, "its offsets by time")
    }

    /// Hands over every committed record of the spans, each partition in its order.
    pub fn read<E: From<ReadError>>(
        &self,
        topic: &str,
        spans: &[Span],
        mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for span in spans.iter().filter(|span| span.start < span.end) {
            // Asked before the reading begins: see the module's word on the end.
            let (_, stable) = watermarks(&self.consumer, topic, span.partition)?;
            open.insert(span.partition, Open { next: span.start, end: span.end, stable, waits: None });
            let added = list.add_partition_offset(topic, span.partition, Offset::Offset(span.start));
            added.map_err(|error| refused(topic, "reading it", &error))?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.consumer.assign(&list).map_err(|error| refused(topic, "reading it", &error))?;
        let outcome = self.follow(topic, open, &mut each);
        // Pausing is local and outlives the assignment (librdkafka 1849): nothing is left paused for the next reading.
        let left = self.consumer.resume(&list).and_then(|()| self.consumer.unassign());
        outcome.and(left.map_err(|error| refused(topic, "ending to read it", &error).into()))
    }

    fn follow<E: From<ReadError>>(
        &self,
        topic: &str,
        mut open: BTreeMap<Partition, Open>,
        each: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut heard, mut looked, mut cause) = (Instant::now(), Instant::now(), "no answer".to_owned());
        while !open.is_empty() {
            match self.consumer.poll(TURN) {
                Some(Ok(message)) => {
                    if let Some(part) = open.get_mut(&message.partition()) {
                        let offset = message.offset();
                        if (part.next..part.end).contains(&offset) {
                            part.next = offset + 1;
                            each(&Record(&message))?;
                        }
                        if offset + 1 >= part.end {
                            self.finish(topic, message.partition(), &mut open);
                        }
                    }
                    heard = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    match open.get_mut(&partition) {
                        Some(part) if part.stable >= part.end => self.finish(topic, partition, &mut open),
                        Some(part) => part.waits = part.waits.or(Some(heard)),
                        None => {}
                    }
                }
                Some(Err(error)) if hopeless(&error) => return Err(refused(topic, "reading it", &error).into()),
                Some(Err(error)) => cause = error.to_string(),
                None => {}
            }
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                if self.look_after_transactions(topic, &mut open)? {
                    heard = looked;
                }
            }
            if heard.elapsed() > SILENCE {
                let partitions = open.keys().copied().collect();
                let seconds = SILENCE.as_secs();
                return Err(ReadError::Silent { topic: topic.to_owned(), partitions, seconds, cause }.into());
            }
        }
        Ok(())
    }

    /// A finished partition is paused: fetching what nobody wants would slow the others.
    fn finish(&self, topic: &str, partition: Partition, open: &mut BTreeMap<Partition, Open>) {
        open.remove(&partition);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        if let Err(error) = self.consumer.pause(&list) {
            info!(%error, topic, partition, "cannot pause a partition that is read");
        }
    }

    /// For partitions whose reading stands before their end: once no transaction is open below it, reads on from where it
    /// stood, so that the broker tells the end again. Whether any waits.
    fn look_after_transactions(&self, topic: &str, open: &mut BTreeMap<Partition, Open>) -> Result<bool, ReadError> {
        let mut waiting = false;
        for (partition, part) in open {
            let Some(since) = part.waits else { continue };
            waiting = true;
            part.stable = watermarks(&self.consumer, topic, *partition)?.1;
            if part.stable >= part.end {
                part.waits = None;
                let sought = self.consumer.seek(topic, *partition, Offset::Offset(part.next), REQUEST);
                sought.map_err(|error| refused(topic, "reading on", &error))?;
            } else if since.elapsed() > OPEN_TRANSACTION {
                let (topic, partition, offset) = (topic.to_owned(), *partition, part.stable);
                return Err(ReadError::OpenTransaction { topic, partition, offset });
            } else {
                info!(topic, partition, offset = part.stable, "waiting for a transaction to end");
            }
        }
        Ok(waiting)
    }
}

/// A partition that is being read.
struct Open {
    /// One past the last record that came.
    next: i64,
    end: i64,
    /// The last stable offset as it was asked before the present reading.
    stable: i64,
    /// Since when the reading stands at an open transaction.
    waits: Option<Instant>,
}

fn watermarks<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: Partition,
) -> Result<(i64, i64), ReadError> {
    let found = consumer.fetch_watermarks(topic, partition, REQUEST);
    found.map_err(|error| refused(topic, "the first and last offset", &error))
}

/// What stands in the list, without partitions that have nothing.
fn offsets(
    found: Result<TopicPartitionList, KafkaError>,
    topic: &str,
    what: &'static str,
) -> Result<BTreeMap<Partition, i64>, ReadError> {
    let list = found.map_err(|error| refused(topic, what, &error))?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error().map_err(|error| refused(topic, what, &error))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

pub(super) fn refused(topic: &str, what: &'static str, error: &KafkaError) -> ReadError {
    let cause = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => format!("{error} (grant Read and Describe on it)"),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => format!("{error} (grant Describe on kafka.group)"),
        _ => error.to_string(),
    };
    ReadError::Refused { topic: topic.to_owned(), what, cause }
}
