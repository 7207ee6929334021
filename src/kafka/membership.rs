//! What the consumer and the transactor share: which partitions this worker owns under which epoch, and as which member
//! of its group.
//!
//! The transactor holds the lock for the length of a transaction, and the consumer takes it to give a partition up. So no
//! transaction reaches past the moment at which a partition goes: what it holds is committed before, or left out after.

#![expect(unsafe_code, reason = "rdkafka does not tell the member's name and generation (librdkafka does)")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};

use super::events::Context;
use super::mark::Ends;
use crate::receipt::{Epoch, Partition, Receipt};

/// Partitions owned now, each with the epoch of its assignment.
#[derive(Debug, Default)]
pub(super) struct Owned(BTreeMap<Partition, Epoch>);

/// The consumer's side and the transactor's side of one membership.
pub(super) struct Membership {
    owned: Mutex<Owned>,
    /// Of a bounded reading; every commit says them on.
    pub(super) ends: Arc<Ends>,
    consumer: Weak<BaseConsumer<Context>>,
}

impl Owned {
    /// Whether the record behind the receipt is still this worker's to finish.
    pub(super) fn has(&self, receipt: &Receipt) -> bool {
        self.0.get(&receipt.partition()) == Some(&receipt.epoch())
    }
}

impl Membership {
    pub(super) fn new(consumer: &Arc<BaseConsumer<Context>>) -> Self {
        Self { owned: Mutex::default(), ends: Arc::default(), consumer: Arc::downgrade(consumer) }
    }

    /// Waits for a transaction that is under way.
    pub(super) fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn assign(&self, partitions: &[Partition], epoch: Epoch) {
        self.lock().0.extend(partitions.iter().map(|partition| (*partition, epoch)));
    }

    pub(super) fn forget(&self, partitions: &[Partition]) {
        let mut owned = self.lock();
        for partition in partitions {
            owned.0.remove(partition);
        }
    }

    /// The member as it is now: its generation changes with every rebalance. `None` when the group has thrown this worker
    /// out, or its consumer is gone.
    ///
    /// The client forgets its member id and generation the moment it learns that it was thrown out, at times long before
    /// the consumer hears of it, and brokers fence no transaction that names neither. It does not say what it handed over,
    /// so it is asked before and after: a member that stayed the same and has its name is the one in between.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer.upgrade()?;
        let before = Member::of(&consumer).filter(Member::is_in_the_group)?;
        let metadata = consumer.group_metadata()?;
        let stayed = Member::of(&consumer).is_some_and(|after| after == before);
        (stayed && !consumer.assignment_lost()).then_some(metadata)
    }
}

/// Name and generation of a member of a group.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    id: CString,
    generation: i32,
}

impl Member {
    fn of(consumer: &BaseConsumer<Context>) -> Option<Self> {
        // SAFETY: the client lives throughout the call; what it hands out is ours, and is destroyed once, below.
        let metadata =
            NonNull::new(unsafe { bindings::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) })?;
        // SAFETY: the metadata lives until it is destroyed; its member id is a string that ends with a zero byte.
        let id = unsafe { CStr::from_ptr(bindings::rd_kafka_consumer_group_metadata_member_id(metadata.as_ptr())) };
        let id = id.to_owned();
        // SAFETY: see above.
        let generation = unsafe { bindings::rd_kafka_consumer_group_metadata_generation_id(metadata.as_ptr()) };
        // SAFETY: see above; nothing borrows from it any more.
        unsafe { bindings::rd_kafka_consumer_group_metadata_destroy(metadata.as_ptr()) };
        Some(Self { id, generation })
    }

    /// Whether a broker can tell it from a client that belongs to no group.
    fn is_in_the_group(&self) -> bool {
        !self.id.is_empty() && self.generation >= 0
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    #[test]
    fn a_member_that_the_group_does_not_know_begins_no_transaction() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "group");
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(config.create_with_context(Context::default()).unwrap());
        let membership = Membership::new(&consumer);
        // The client itself hands out a member without name or generation, and does not say that anything was lost.
        assert!(consumer.group_metadata().is_some());
        assert!(!consumer.assignment_lost());
        assert!(membership.metadata().is_none());
    }
}
