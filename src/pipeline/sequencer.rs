//! Puts finished posts back into the order they arrived in, per partition. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::receipt::{Epoch, Partition, Sequence};

/// Holds what finished early until everything before it in its partition has finished.
#[derive(Debug)]
pub struct Sequencer<T> {
    lanes: HashMap<(Partition, Epoch), Lane<T>>,
}

#[derive(Debug)]
struct Lane<T> {
    next: u64,
    early: BTreeMap<u64, T>,
}

impl<T> Default for Sequencer<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new() }
    }
}

impl<T> Sequencer<T> {
    /// Enters a finished post and hands out, in order, all that it frees.
    pub fn push(&mut self, place: (Partition, Epoch, Sequence), item: T, ready: &mut Vec<T>) {
        let (partition, epoch, sequence) = place;
        if sequence == Sequence(0) {
            // A partition that starts anew: its older lanes are done with once nothing waits in them.
            self.lanes.retain(|lane, state| lane.0 != partition || lane.1 == epoch || !state.early.is_empty());
        }
        let lane = self.lanes.entry((partition, epoch)).or_insert_with(|| Lane { next: 0, early: BTreeMap::new() });
        lane.early.insert(sequence.0, item);
        while let Some(item) = lane.early.remove(&lane.next) {
            lane.next += 1;
            ready.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(partition: Partition, epoch: u64, sequence: u64) -> (Partition, Epoch, Sequence) {
        (partition, Epoch(epoch), Sequence(sequence))
    }

    proptest! {
        #[test]
        fn whatever_the_finishing_order_each_partition_leaves_in_arrival_order(
            order in Just((0..60u64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let mut sequencer = Sequencer::default();
            let mut ready = Vec::new();
            for n in order {
                let (partition, sequence) = ((n % 3) as i32, n / 3);
                sequencer.push(place(partition, 1, sequence), (partition, sequence), &mut ready);
            }
            prop_assert_eq!(ready.len(), 60);
            for partition in 0..3 {
                let left: Vec<u64> = ready.iter().filter(|r| r.0 == partition).map(|r| r.1).collect();
                prop_assert!(left.is_sorted(), "{left:?}");
            }
        }
    }

    #[test]
    fn a_new_epoch_starts_from_its_own_first_post_while_the_old_one_finishes() {
        let mut sequencer = Sequencer::default();
        let mut ready = Vec::new();
        sequencer.push(place(0, 1, 1), "old 1", &mut ready);
        sequencer.push(place(0, 2, 0), "new 0", &mut ready);
        assert_eq!(ready, ["new 0"]);
        sequencer.push(place(0, 1, 0), "old 0", &mut ready);
        assert_eq!(ready, ["new 0", "old 0", "old 1"]);
    }
}
