//! The account of what was delivered and what is finished, per partition. Pure: no client, no clock.
//!
//! Callers enter every polled record, tombstones and rejected ones included; one that is left out is committed past.
//! Only the contiguous finished prefix moves [`NextOffset`]. A receipt from an older [`Epoch`] is recognised and moves
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::evidence::link::Head;
use crate::receipt::{Epoch, NextOffset, Offset, Partition, Receipt, Sequence};

/// What settling a receipt did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The offset is finished in the current epoch.
    Counted,
    /// The partition was revoked or assigned anew since: the offset belongs to whoever owns it now.
    Stale,
}

/// What is to be committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The partition.
    pub partition: Partition,
    /// One past the finished prefix.
    pub next: NextOffset,
    /// Where the partition's chain stands by then, if it has one.
    pub head: Option<Head>,
}

/// A partition whose next offset has not moved for too long although posts are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// The partition.
    pub partition: Partition,
    /// How many of its posts are in flight.
    pub in_flight: usize,
    /// For how long nothing moved.
    pub since: Duration,
}

/// Per-partition account of delivered and finished offsets, for the current assignment.
#[derive(Debug, Default)]
pub struct Ledger {
    epoch: u64,
    partitions: BTreeMap<Partition, Account>,
}

#[derive(Debug)]
struct Account {
    epoch: Epoch,
    /// Delivered and not yet part of the finished prefix, in delivery order.
    window: VecDeque<Entry>,
    /// Sequence of the window's first entry.
    first: u64,
    next: Option<NextOffset>,
    /// As of the next offset.
    head: Option<Head>,
    committed: Option<NextOffset>,
    /// Nothing before it is to be delivered any more.
    end: Option<NextOffset>,
    in_flight: usize,
    moved: Instant,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    finished: bool,
    head: Option<Head>,
}

impl Ledger {
    /// Opens an account for newly assigned partitions, in an epoch of their own.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = Partition>, now: Instant) -> Epoch {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        for partition in partitions {
            self.partitions.insert(partition, Account::new(epoch, now));
        }
        epoch
    }

    /// Whether the partition is assigned and nothing of it was delivered since.
    pub fn is_new(&self, partition: Partition) -> bool {
        self.partitions.get(&partition).is_some_and(|account| account.first == 0 && account.window.is_empty())
    }

    /// Where the chain of a newly assigned partition stands.
    pub fn resume(&mut self, partition: Partition, head: Head) {
        if let Some(account) = self.partitions.get_mut(&partition) {
            account.head = Some(head);
        }
    }

    /// Closes the accounts: receipts still out there become stale.
    pub fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// Enters a polled record. `None` when its partition is not assigned (a record that was already queued when the
    /// partition went): the caller drops it, its new owner has it.
    pub fn deliver(&mut self, partition: Partition, offset: Offset, now: Instant) -> Option<Receipt> {
        let account = self.partitions.get_mut(&partition)?;
        if account.in_flight == 0 {
            // The stall clock runs only while something is in flight.
            account.moved = now;
        }
        let sequence = Sequence(account.first + account.window.len() as u64);
        account.window.push_back(Entry { offset, finished: false, head: None });
        account.in_flight += 1;
        Some(Receipt::new(partition, offset, account.epoch, sequence).with_head(account.head))
    }

    /// Marks an offset finished and moves the next offset over the finished prefix.
    pub fn settle(&mut self, receipt: Receipt, now: Instant) -> Settled {
        let Some(account) = self.partitions.get_mut(&receipt.partition()) else { return Settled::Stale };
        if account.epoch != receipt.epoch() {
            return Settled::Stale;
        }
        account.finish(receipt.sequence(), receipt.head(), now);
        Settled::Counted
    }

    /// Everything of the partition before `end` was delivered: once that is finished, so is all before `end`, which is to be
    /// committed whatever was before.
    pub fn close(&mut self, partition: Partition, end: NextOffset) {
        let Some(account) = self.partitions.get_mut(&partition) else { return };
        (account.end, account.committed) = (Some(end), None);
        account.move_to_end();
    }

    /// Next offsets that moved since they were last committed.
    pub fn to_commit(&self, partitions: &[Partition]) -> Vec<Due> {
        partitions
            .iter()
            .filter_map(|&partition| {
                let account = self.partitions.get(&partition)?;
                let next = account.next?;
                (account.committed != Some(next)).then_some(Due { partition, next, head: account.head })
            })
            .collect()
    }

    /// Remembers what the broker acknowledged as committed.
    pub fn committed(&mut self, offsets: &[Due]) {
        for Due { partition, next, .. } in offsets {
            if let Some(account) = self.partitions.get_mut(partition) {
                account.committed = Some(*next);
            }
        }
    }

    /// Everything before it is finished, if anything is.
    pub fn next(&self, partition: Partition) -> Option<NextOffset> {
        self.partitions.get(&partition)?.next
    }

    /// The assigned partitions.
    pub fn partitions(&self) -> Vec<Partition> {
        self.partitions.keys().copied().collect()
    }

    /// How many posts of these partitions are in flight.
    pub fn in_flight(&self, partitions: &[Partition]) -> usize {
        partitions.iter().filter_map(|p| self.partitions.get(p)).map(|account| account.in_flight).sum()
    }

    /// The partition that has stood still the longest, if that is longer than `timeout`.
    pub fn stalled(&self, now: Instant, timeout: Duration) -> Option<Stall> {
        self.partitions
            .iter()
            .filter(|(_, account)| account.in_flight > 0)
            .map(|(&partition, account)| Stall {
                partition,
                in_flight: account.in_flight,
                since: now.saturating_duration_since(account.moved),
            })
            .filter(|stall| stall.since > timeout)
            .max_by_key(|stall| stall.since)
    }
}

impl Account {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            epoch,
            window: VecDeque::new(),
            first: 0,
            next: None,
            head: None,
            committed: None,
            end: None,
            in_flight: 0,
            moved: now,
        }
    }

    fn finish(&mut self, sequence: Sequence, head: Option<Head>, now: Instant) {
        // A receipt is unique and consumed by settling, so the entry exists and is not finished yet.
        let Some(entry) = self.window.get_mut((sequence.0 - self.first) as usize) else { return };
        (entry.finished, entry.head) = (true, head);
        self.in_flight -= 1;
        while self.window.front().is_some_and(|entry| entry.finished) {
            if let Some(Entry { offset, head, .. }) = self.window.pop_front() {
                (self.next, self.head) = (Some(offset.next()), head);
            }
            self.first += 1;
            self.moved = now;
        }
        self.move_to_end();
    }

    fn move_to_end(&mut self) {
        if self.window.is_empty() {
            self.next = self.next.max(self.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::link::Hex;
    use proptest::prelude::*;

    fn ledger(now: Instant) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.assign([0, 1], now);
        ledger
    }

    fn due(next: i64) -> Vec<Due> {
        vec![Due { partition: 0, next: NextOffset(next), head: None }]
    }

    #[test]
    fn the_chain_stands_where_the_finished_prefix_ends() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let at = |links| Some(Head { links, ..Head::begin(Hex([1; 8]), "posts", 0) });
        ledger.resume(0, at(7).unwrap());
        let receipts: Vec<_> = (0..3).map(|o| ledger.deliver(0, Offset(o), now).unwrap()).collect();
        assert_eq!(receipts[0].head(), at(7));
        let mut back: Vec<_> = receipts.into_iter().zip(8..).map(|(r, links)| r.with_head(at(links))).collect();
        let _ = ledger.settle(back.remove(2), now);
        assert_eq!(ledger.to_commit(&[0]), []);
        let _ = ledger.settle(back.remove(0), now);
        assert_eq!(ledger.to_commit(&[0])[0].head, at(8));
        let _ = ledger.settle(back.remove(0), now);
        assert_eq!(ledger.to_commit(&[0])[0].head, at(10));
    }

    #[test]
    fn only_the_finished_prefix_moves_the_next_offset() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let mut receipts: Vec<_> = (10..13).map(|o| ledger.deliver(0, Offset(o), now).unwrap()).collect();
        let _ = ledger.settle(receipts.pop().unwrap(), now);
        let _ = ledger.settle(receipts.pop().unwrap(), now);
        assert_eq!(ledger.to_commit(&[0]), vec![]);
        let _ = ledger.settle(receipts.pop().unwrap(), now);
        assert_eq!(ledger.to_commit(&[0]), due(13));
        ledger.committed(&due(13));
        assert_eq!(ledger.to_commit(&[0]), vec![]);
    }

    #[test]
    fn gaps_between_offsets_do_not_hold_the_commit() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let first = ledger.deliver(0, Offset(5), now).unwrap();
        let second = ledger.deliver(0, Offset(90), now).unwrap();
        let _ = ledger.settle(first, now);
        let _ = ledger.settle(second, now);
        assert_eq!(ledger.to_commit(&[0]), due(91));
    }

    #[test]
    fn a_closed_partition_is_finished_to_its_end_once_all_of_it_is() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let first = ledger.deliver(0, Offset(5), now).unwrap();
        let second = ledger.deliver(0, Offset(6), now).unwrap();
        let _ = ledger.settle(second, now);
        ledger.close(0, NextOffset(12));
        ledger.close(1, NextOffset(3));
        let due = |ledger: &Ledger| {
            ledger.to_commit(&[0, 1]).iter().map(|due| (due.partition, due.next.0)).collect::<Vec<_>>()
        };
        assert_eq!(due(&ledger), [(1, 3)]);
        let _ = ledger.settle(first, now);
        assert_eq!(due(&ledger), [(0, 12), (1, 3)]);
    }

    #[test]
    fn a_receipt_of_an_older_epoch_moves_nothing() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let old = ledger.deliver(0, Offset(7), now).unwrap();
        ledger.forget(&[0]);
        ledger.assign([0], now);
        let new = ledger.deliver(0, Offset(7), now).unwrap();
        assert_eq!(ledger.settle(old, now), Settled::Stale);
        assert_eq!(ledger.to_commit(&[0]), vec![]);
        assert_eq!(ledger.settle(new, now), Settled::Counted);
    }

    #[test]
    fn a_record_of_a_partition_that_is_not_assigned_is_not_entered() {
        let now = Instant::now();
        assert!(ledger(now).deliver(9, Offset(0), now).is_none());
    }

    #[test]
    fn a_stall_is_seen_only_while_something_is_in_flight() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let mut ledger = ledger(start);
        assert_eq!(ledger.stalled(later, Duration::from_secs(60)), None);
        let receipt = ledger.deliver(1, Offset(0), later).unwrap();
        assert_eq!(ledger.stalled(later + Duration::from_secs(59), Duration::from_secs(60)), None);
        let stall = ledger.stalled(later + Duration::from_secs(61), Duration::from_secs(60)).unwrap();
        assert_eq!((stall.partition, stall.in_flight), (1, 1));
        let _ = ledger.settle(receipt, later);
        assert_eq!(ledger.stalled(later + Duration::from_secs(999), Duration::from_secs(60)), None);
    }

    proptest! {
        /// Any order of delivering, settling and revoking: no commit past an unfinished offset, nothing left owed.
        #[test]
        fn no_order_of_events_commits_past_a_hole(steps in proptest::collection::vec((0u8..10, 0usize..64), 1..300)) {
            let now = Instant::now();
            let mut ledger = Ledger::default();
            ledger.assign([0], now);
            let mut out: Vec<Receipt> = Vec::new();
            let mut offset = 0;
            for (kind, pick) in steps {
                match kind {
                    0..5 => {
                        offset += 1 + (pick as i64 % 3);
                        out.push(ledger.deliver(0, Offset(offset), now).unwrap());
                    }
                    5..9 if !out.is_empty() => { let r = out.swap_remove(pick % out.len()); let _ = ledger.settle(r, now); }
                    9 => { ledger.forget(&[0]); ledger.assign([0], now); }
                    _ => {}
                }
                let epoch = Epoch(ledger.epoch);
                let unfinished = out.iter().filter(|r| r.epoch() == epoch).map(|r| r.offset().0).min();
                if let (Some(hole), Some(next)) = (unfinished, ledger.to_commit(&[0]).first().map(|due| due.next)) {
                    prop_assert!(next.0 <= hole, "next offset {} stepped over {hole}", next.0);
                }
                prop_assert_eq!(ledger.in_flight(&[0]), out.iter().filter(|r| r.epoch() == epoch).count());
            }
        }
    }
}
