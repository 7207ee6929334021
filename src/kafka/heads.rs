//! Where the chain of a partition stands rides with its committed offset, as metadata: `link=INSTANCE:LINKS:HASH:KEY`. So
//! it comes to whoever has the partition next, in either delivery mode, and never ahead of what was committed.
//!
//! Metadata is `key=value` pairs joined by `;`.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{info, warn};

use super::ledger::Ledger;
use crate::evidence::link::Head;
use crate::receipt::{NextOffset, Partition};

/// Longest single request, and how long the coordinator may be away before the worker gives up.
const REQUEST: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const LINK: &str = "link";

/// Adds a partition's next offset to a list that is to be committed, with its chain's head and what is to be said of its end,
/// as far as it has them.
pub(super) fn add(
    list: &mut TopicPartitionList,
    topic: &str,
    partition: Partition,
    next: NextOffset,
    (head, end): (Option<&Head>, Option<&str>),
) -> KafkaResult<()> {
    let mut element = list.add_partition(topic, partition);
    element.set_offset(Offset::Offset(next.0))?;
    let pairs = [head.map(|head| format!("{LINK}={head}")), end.map(str::to_owned)];
    if pairs.iter().any(Option::is_some) {
        element.set_metadata(pairs.into_iter().flatten().collect::<Vec<_>>().join(";"));
    }
    Ok(())
}

/// Asks where a partition's chain stands, before its first record since it was assigned is delivered. By then no transaction
/// of whoever had it before is open: the client would not have been told where to begin.
pub(super) fn resume<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    ledger: &mut Ledger,
    topic: &str,
    partition: Partition,
) -> KafkaResult<()> {
    if !ledger.is_new(partition) {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match committed(consumer, topic, partition) {
            Ok(found) => {
                match found {
                    Some(head) => ledger.resume(partition, head),
                    None => info!(partition, "no chain stands in the committed offset: one begins"),
                }
                return Ok(());
            }
            Err(error) if Instant::now() < deadline => {
                warn!(%error, partition, "cannot ask yet where the chain stands")
            }
            Err(error) => return Err(error),
        }
    }
}

fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: Partition,
) -> KafkaResult<Option<Head>> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    let found = consumer.committed_offsets(list, REQUEST)?;
    let Some(element) = found.find_partition(topic, partition) else { return Ok(None) };
    element.error()?;
    Ok(head(element.metadata()))
}

fn head(metadata: &str) -> Option<Head> {
    let mut pairs = metadata.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == LINK)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::link::Hex;

    #[test]
    fn a_head_is_found_among_other_metadata() {
        let wanted = Head::begin(Hex([1; 8]), "posts", 0);
        assert_eq!(head(&format!("link={wanted}")), Some(wanted));
        assert_eq!(head(&format!("end=12;link={wanted};more=x")), Some(wanted));
        for none in ["", "link=", "end=12", "link=1:2:3:4", &wanted.to_string()] {
            assert_eq!(head(none), None, "{none}");
        }
    }
}
