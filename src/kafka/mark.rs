//! What a commit says besides its offset: `key=value` pairs, joined by `;`, in the metadata that Kafka keeps with it.
//!
//! A bounded reading keeps the end of each partition there, and the range as it was asked for, so that its group alone
//! tells what is left and of what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::info;

use super::heads;
use super::range::{ReadError, Reader, Span, refused};
use crate::receipt::{NextOffset, Partition};

const END: &str = "end";
const RANGE: &str = "range";
/// Longest single request.
const REQUEST: Duration = Duration::from_secs(30);

/// What a group has committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Everything before it is finished.
    pub next: i64,
    /// Where a bounded reading ends.
    pub end: Option<i64>,
    /// What was asked for, without `;`.
    pub range: Option<Arc<str>>,
}

/// What is known of the ends of partitions by whoever commits for them, as commits say it.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<BTreeMap<Partition, Arc<str>>>);

impl Ends {
    pub(super) fn set(&self, partition: Partition, end: i64, range: Option<&str>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, pairs(end, range).into());
    }

    pub(super) fn of(&self, partition: Partition) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }
}

fn pairs(end: i64, range: Option<&str>) -> String {
    let range = range.map(|range| format!(";{RANGE}={range}"));
    format!("{END}={end}{}", range.unwrap_or_default())
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
            let metadata = element.metadata();
            let end = pair(metadata, END).and_then(|end| end.parse().ok());
            let range = pair(metadata, RANGE).map(Arc::from);
            marks.insert(element.partition(), Mark { next, end, range });
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

    /// Commits the beginning of each span, with its end and what was asked for, for a group that has no members. Whether the
    /// broker took it: for a group that has members it does not.
    pub fn begin(&self, topic: &str, spans: &[Span], range: &str) -> bool {
        let mut list = TopicPartitionList::with_capacity(spans.len());
        let add = |span: &Span| {
            let end = pairs(span.end, Some(range));
            heads::add(&mut list, topic, span.partition, NextOffset(span.start), (None, Some(&end)))
        };
        let listed = spans.iter().try_for_each(add);
        let committed = listed.and_then(|()| self.consumer.commit(&list, CommitMode::Sync));
        committed.inspect_err(|error| info!(%error, topic, "the range was not fixed by this process")).is_ok()
    }
}

fn pair<'a>(metadata: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = metadata.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(found, _)| *found == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_among_other_pairs_and_nothing_else_is_taken_for_one() {
        assert_eq!(pair("end=12", END), Some("12"));
        assert_eq!(pair("link=4:ab;end=7", END), Some("7"));
        for other in ["", "end", "weekend=3", "end = 3"] {
            assert_eq!(pair(other, END), None, "{other}");
        }
        let both = pairs(7, Some("24h to end"));
        assert_eq!((pair(&both, END), pair(&both, RANGE)), (Some("7"), Some("24h to end")));
        assert_eq!(pair(&pairs(7, None), RANGE), None);
    }
}
