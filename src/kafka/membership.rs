//! What the consumer and the transactor share: which partitions this worker owns under which epoch, and as which member
//! of its group.
//!
//! The transactor holds the lock for the length of a transaction, and the consumer takes it to give a partition up. So no
//! transaction reaches past the moment at which a partition goes: what it holds is committed before, or left out after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// The client forgets its member id and generation the moment it learns that it was thrown out, before the consumer
    /// hears of it, and brokers fence no transaction that names neither. So the client is asked afterwards whether it
    /// knows: what it told before that was still a member's name, which the broker fences.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer.upgrade()?;
        let metadata = consumer.group_metadata()?;
        (!consumer.assignment_lost()).then_some(metadata)
    }
}
