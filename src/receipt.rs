//! The duty to finish one offset, and the envelope that carries it down the road.
//!
//! A [`Receipt`] is made by the ledger when a record is polled and consumed when the record has become a verdict, a
//! dead letter or a passed tombstone that the broker acknowledged. It cannot be cloned and nothing but the ledger can
//! make one, so a stage can neither settle an offset twice nor invent one.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::evidence::link::Head;
use crate::telemetry::trace::PostSpan;

/// A Kafka partition number.
pub type Partition = i32;

/// The offset of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// One past the last finished offset: the only thing that is ever committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

impl Offset {
    /// The offset to commit once this record and all before it are finished.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

/// The number of one assignment of partitions; a receipt of an older epoch no longer moves any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Place of a record among those delivered from its partition in one epoch: dense, unlike offsets, which have gaps
/// where transaction markers and compacted records were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// The duty to finish one offset. Not `Clone`; made by the ledger only.
#[derive(Debug)]
#[must_use = "an offset whose receipt is dropped is never committed"]
pub struct Receipt {
    partition: Partition,
    offset: Offset,
    epoch: Epoch,
    sequence: Sequence,
    head: Option<Head>,
}

impl Receipt {
    /// Callers are the ledger and its tests: see the module's promise.
    pub(crate) fn new(partition: Partition, offset: Offset, epoch: Epoch, sequence: Sequence) -> Self {
        Self { partition, offset, epoch, sequence, head: None }
    }

    /// The partition the record came from.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The record's offset.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The assignment under which the record was polled.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The record's place in its partition's order.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Where the partition's chain stands: on the way out, before the first record of the assignment; on the way back,
    /// behind this one.
    pub(crate) fn head(&self) -> Option<Head> {
        self.head
    }

    /// The same duty with another head.
    pub(crate) fn with_head(self, head: Option<Head>) -> Self {
        Self { head, ..self }
    }

    /// What orders records: partition, assignment, and place within it.
    pub fn place(&self) -> (Partition, Epoch, Sequence) {
        (self.partition, self.epoch, self.sequence)
    }
}

/// Record headers exactly as they came, readable by `kafka` only.
///
/// Opaque on purpose: a header name need not be UTF-8, and reading such a one panics inside rdkafka, so nothing above
/// `kafka` looks inside; dead letters copy them natively.
#[derive(Clone, Default)]
pub struct Headers(pub(crate) Option<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Headers(..)" } else { "Headers(none)" })
    }
}

/// The untouched record: where it stood and the bytes that a dead letter must carry unchanged.
#[derive(Clone)]
pub struct Original {
    /// Topic the record was polled from.
    pub topic: Arc<str>,
    /// Partition within the topic.
    pub partition: Partition,
    /// Offset within the partition.
    pub offset: Offset,
    /// The record's timestamp, milliseconds since the Unix epoch, when the broker has one.
    pub timestamp_ms: Option<i64>,
    /// The key; `None` is a null key, which is legal.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, opaque.
    pub headers: Headers,
    /// The span of its way through this worker, or the producer's context.
    pub span: PostSpan,
}

/// Coordinates and sizes only: the bytes are a post, and post text never reaches a log.
impl fmt::Debug for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset.0)
            .field("key_bytes", &self.key.as_ref().map(Vec::len))
            .field("value_bytes", &self.value.as_ref().map(Vec::len))
            .finish()
    }
}

/// One record on the road: what it is by now, the duty to finish it, and the bytes it came as.
#[derive(Debug)]
pub struct Envelope<T> {
    /// What the record has become.
    pub body: T,
    /// The duty to finish it.
    pub receipt: Receipt,
    /// The record as polled.
    pub original: Arc<Original>,
    /// When it was polled, for the verdict's timings.
    pub received: Instant,
}

impl<T> Envelope<T> {
    /// The same record, one type further.
    pub fn with<U>(self, body: U) -> Envelope<U> {
        Envelope { body, receipt: self.receipt, original: self.original, received: self.received }
    }

    /// Splits off the body.
    pub fn take(self) -> (T, Envelope<()>) {
        (self.body, Envelope { body: (), receipt: self.receipt, original: self.original, received: self.received })
    }
}

/// A record as it was polled: everything there is to know is in its [`Original`].
#[derive(Debug)]
pub struct RawMessage;
