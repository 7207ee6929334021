//! What librdkafka tells the consumer: rebalances, which are queued for its thread, statistics, and errors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::Statistics;
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::warn;

use super::lag::End;
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::receipt::Partition;

/// What librdkafka retries by itself is logged; what only the operator can mend ends the worker.
pub(super) fn unless_fatal(error: &KafkaError, settings: &KafkaSettings) -> Result<(), Fatal> {
    if matches!(error, KafkaError::PartitionEOF(_)) {
        return Ok(());
    }
    if hopeless(error) {
        let KafkaSettings { posts, group, .. } = settings;
        let cause = format!("topic {posts}, group {group}: {error}; `moderato check` says what is missing");
        return Err(Fatal::Kafka { cause });
    }
    warn!(%error, "kafka consumer");
    Ok(())
}

/// Whether only the operator can mend it.
pub(super) fn hopeless(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, GroupAuthorizationFailed, SaslAuthenticationFailed,
        TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition, UnsupportedSASLMechanism,
    };
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                UnknownTopicOrPartition
                    | UnknownTopic
                    | TopicAuthorizationFailed
                    | GroupAuthorizationFailed
                    | ClusterAuthorizationFailed
                    | SaslAuthenticationFailed
                    | UnsupportedSASLMechanism
                    | Authentication
            )
        )
}

/// Partitions given or taken.
pub(super) enum Rebalance {
    Assign(Vec<Partition>),
    Revoke(Vec<Partition>),
}

/// Queues what the thread is to answer.
#[derive(Default)]
pub(super) struct Context {
    events: Mutex<Vec<Rebalance>>,
    /// Set while the thread runs. Before and after it nobody answers queued events, so the callback itself gives
    /// partitions up, without which closing would never end.
    pub attended: AtomicBool,
    statistics: Mutex<Option<Seen>>,
}

/// What the client's statistics tell.
pub(super) struct Seen {
    pub brokers_up: usize,
    pub ends: Vec<End>,
}

impl Context {
    pub(super) fn take(&self) -> Vec<Rebalance> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What came since the last call.
    pub(super) fn statistics(&self) -> Option<Seen> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition, which a bounded reading asks to be told of, is no error.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            DefaultClientContext.error(error, reason);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let brokers_up = statistics.brokers.values().filter(|broker| broker.state == "UP").count();
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let ends = partitions.filter(|known| known.ls_offset >= 0).map(|known| End {
            partition: known.partition,
            end: known.ls_offset,
            // A group that has committed nothing begins at the earliest record.
            committed: [known.committed_offset, known.lo_offset].into_iter().find(|offset| *offset >= 0),
        });
        let seen = Seen { brokers_up, ends: ends.collect() };
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if !self.attended.load(Ordering::Acquire) {
            let given_up = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative if !assigned => consumer.incremental_unassign(list),
                _ => consumer.unassign(),
            };
            if let Err(error) = given_up {
                warn!(%error, "cannot give partitions up while closing");
            }
            return;
        }
        // `elements()` panics on an empty list (rust-rdkafka 681).
        let partitions = if list.count() == 0 {
            Vec::new()
        } else {
            list.elements().iter().map(|element| element.partition()).collect()
        };
        let event = if assigned { Rebalance::Assign(partitions) } else { Rebalance::Revoke(partitions) };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
