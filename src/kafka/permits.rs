//! Room for posts in flight, by number and by size: a permit is taken before a record goes on, and comes back with its
//! receipt.

use std::collections::HashMap;

use crate::receipt::{Epoch, Partition, Receipt, Sequence};

/// Most bytes in flight. Records of ordinary size meet the number first; a crowd of huge ones, which may have come out of
/// a small compressed batch, meets this.
const MOST_BYTES: usize = 64 << 20;
/// Records below this size are bounded well enough by their number.
const HEAVY: usize = 16 << 10;

/// The permits of one consumer.
pub(super) struct Permits {
    most: usize,
    taken: usize,
    bytes: usize,
    heavy: HashMap<(Partition, Epoch, Sequence), usize>,
}

impl Permits {
    /// `most` records in flight at once.
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: 0, bytes: 0, heavy: HashMap::new() }
    }

    /// For a record of this size; one that arrives without room is taken too, for it is here.
    pub(super) fn take(&mut self, receipt: &Receipt, bytes: usize) {
        self.taken += 1;
        if bytes >= HEAVY {
            self.bytes += bytes;
            self.heavy.insert(receipt.place(), bytes);
        }
    }

    /// With a receipt that has come back, of an older epoch too.
    pub(super) fn give_back(&mut self, receipt: &Receipt) {
        self.taken -= 1;
        if self.bytes > 0
            && let Some(bytes) = self.heavy.remove(&receipt.place())
        {
            self.bytes -= bytes;
        }
    }

    /// How many records may come now.
    pub(super) fn left(&self) -> usize {
        if self.bytes >= MOST_BYTES { 0 } else { self.most.saturating_sub(self.taken) }
    }

    /// How many records have one.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Whether half of all room is free again.
    pub(super) fn half_are_left(&self) -> bool {
        self.taken <= self.most / 2 && self.bytes <= MOST_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::Offset;

    fn receipt(n: u64) -> Receipt {
        Receipt::new(0, Offset(n.cast_signed()), Epoch(1), Sequence(n))
    }

    #[test]
    fn records_are_bounded_by_number() {
        let mut permits = Permits::new(2);
        permits.take(&receipt(0), 10);
        assert_eq!((permits.left(), permits.half_are_left()), (1, true));
        permits.take(&receipt(1), 10);
        assert_eq!((permits.left(), permits.half_are_left()), (0, false));
        permits.give_back(&receipt(0));
        assert_eq!((permits.left(), permits.half_are_left()), (1, true));
    }

    #[test]
    fn huge_records_are_bounded_by_size_and_every_byte_comes_back() {
        let mut permits = Permits::new(1000);
        let heavy = MOST_BYTES / 4;
        for n in 0..4 {
            assert!(permits.left() > 0);
            permits.take(&receipt(n), heavy);
        }
        assert_eq!((permits.left(), permits.half_are_left()), (0, false));
        permits.take(&receipt(4), 100);
        (0..2).for_each(|n| permits.give_back(&receipt(n)));
        assert!(permits.left() > 0 && permits.half_are_left());
        (2..5).for_each(|n| permits.give_back(&receipt(n)));
        assert_eq!((permits.bytes, permits.taken, permits.heavy.len()), (0, 0, 0));
    }
}
