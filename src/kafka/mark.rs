//! What a commit says besides its offset: `key=value` pairs, joined by `;`, in the metadata that Kafka keeps with it.
//!
//! A bounded reading keeps the end of each partition there, so that its group alone tells what is left.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::info;

use super::heads;
use super::range::{ReadError, Reader, Span, refused};
use crate::receipt::{NextOffset, Partition};

pub(super) const END: &str = "end";
/// Longest single request.
const REQUEST: Duration = Duration::from_secs(30);

/// What a group has committed of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Everything before it is finished.
    pub next: i64,
    /// Where a bounded reading ends.
    pub end: Option<i64>,
}

/// The ends of partitions, known to whoever commits for them.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<BTreeMap<Partition, i64>>);

impl Ends {
    pub(super) fn set(&self, partition: Partition, end: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, end);
    }

    pub(super) fn of(&self, partition: Partition) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }
}

/// What the consumer's group has committed of these partitions; one without is left out.
pub(super) fn read<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: impl IntoIterator<Item = Partition>,
    within: Duration,
) -> KafkaResult<BTreeMap<Partition, Mark>> {
    let mut wanted = TopicPartitionList::new();
    for partition in partitions {
        wanted.add_partition(topic, partition);
    }
    // `elements()` panics on an empty list (rust-rdkafka 681).
    if wanted.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let found = consumer.committed_offsets(wanted, within)?;
    let mut marks = BTreeMap::new();
    for element in found.elements() {
        element.error()?;
        if let Offset::Offset(next) = element.offset() {
            marks.insert(element.partition(), Mark { next, end: end_of(element.metadata()) });
        }
    }
    Ok(marks)
}

impl Reader {
    /// What the group has committed, and the ends that it keeps; a partition without is left out.
    pub fn marks(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Result<BTreeMap<Partition, Mark>, ReadError> {
        let marks = read(&self.consumer, topic, partitions, REQUEST);
        marks.map_err(|error| refused(topic, "the group's committed offsets", &error))
    }

    /// Commits the beginning of each span, with its end, for a group that has no members. Whether the broker took it: for a
    /// group that has members it does not.
    pub fn begin(&self, topic: &str, spans: &[Span]) -> bool {
        let mut list = TopicPartitionList::with_capacity(spans.len());
        let add =
            |span: &Span| heads::add(&mut list, topic, span.partition, NextOffset(span.start), (None, Some(span.end)));
        let listed = spans.iter().try_for_each(add);
        let committed = listed.and_then(|()| self.consumer.commit(&list, CommitMode::Sync));
        committed.inspect_err(|error| info!(%error, topic, "the range was not fixed by this process")).is_ok()
    }
}

fn end_of(metadata: &str) -> Option<i64> {
    let mut pairs = metadata.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == END)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_among_other_pairs_and_nothing_else_is_taken_for_one() {
        assert_eq!(end_of("end=12"), Some(12));
        assert_eq!(end_of("link=4:ab;end=7"), Some(7));
        for other in ["", "end", "end=", "end=x", "weekend=3", "end = 3"] {
            assert_eq!(end_of(other), None, "{other}");
        }
    }
}
