//! When so many posts of a partition are rejected that something upstream must have broken, not the posts. Pure.

use std::collections::{HashMap, VecDeque};

use crate::receipt::Partition;

/// Posts that the ratio is taken over.
pub const WINDOW: usize = 200;

/// What a partition may have.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Rejections in a row that are too many.
    pub in_a_row: u64,
    /// Share of the last [`WINDOW`] posts that may be rejections, 0 to 1; 1 allows them all.
    pub ratio: f64,
}

/// Counts judged and rejected posts of each partition.
#[derive(Debug)]
pub struct Circuit {
    tolerance: Tolerance,
    partitions: HashMap<Partition, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    in_a_row: u64,
    /// Of the last posts, whether each was rejected.
    posts: VecDeque<bool>,
    rejected: usize,
}

impl Circuit {
    /// Nothing has been seen yet.
    pub fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, partitions: HashMap::new() }
    }

    /// A post of the partition was judged.
    pub fn judged(&mut self, partition: Partition) {
        self.enter(partition, false);
    }

    /// A post of the partition was rejected. If that was one too many: how many of how many, and by which limit.
    pub fn rejected(&mut self, partition: Partition) -> Option<String> {
        let Tolerance { in_a_row, ratio } = self.tolerance;
        let recent = self.enter(partition, true);
        if recent.in_a_row >= in_a_row {
            return Some(format!("{} posts in a row (limits.max_consecutive_rejections)", recent.in_a_row));
        }
        let too_many = recent.posts.len() == WINDOW && recent.rejected as f64 > ratio * WINDOW as f64;
        too_many
            .then(|| format!("{} of the last {WINDOW} posts (limits.max_rejection_ratio: {ratio})", recent.rejected))
    }

    fn enter(&mut self, partition: Partition, rejected: bool) -> &Recent {
        let recent = self.partitions.entry(partition).or_default();
        recent.in_a_row = if rejected { recent.in_a_row + 1 } else { 0 };
        if recent.posts.len() == WINDOW {
            recent.rejected -= usize::from(recent.posts.pop_front() == Some(true));
        }
        recent.posts.push_back(rejected);
        recent.rejected += usize::from(rejected);
        recent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn circuit(in_a_row: u64, ratio: f64) -> Circuit {
        Circuit::new(Tolerance { in_a_row, ratio })
    }

    #[test]
    fn a_run_of_rejections_is_counted_for_each_partition_apart() {
        let mut circuit = circuit(3, 1.0);
        for _ in 0..2 {
            assert_eq!(circuit.rejected(0), None);
            assert_eq!(circuit.rejected(1), None);
        }
        circuit.judged(1);
        assert_eq!(circuit.rejected(1), None);
        assert_eq!(circuit.rejected(0).unwrap(), "3 posts in a row (limits.max_consecutive_rejections)");
    }

    #[test]
    fn the_ratio_counts_once_the_window_is_full() {
        let mut circuit = circuit(1000, 0.5);
        for _ in 0..WINDOW - 1 {
            assert_eq!(circuit.rejected(0), None);
        }
        let told = "200 of the last 200 posts (limits.max_rejection_ratio: 0.5)";
        assert_eq!(circuit.rejected(0).unwrap(), told);
    }

    #[test]
    fn half_is_allowed_and_one_more_is_not() {
        let mut circuit = circuit(1000, 0.5);
        for _ in 0..WINDOW {
            circuit.judged(7);
            assert_eq!(circuit.rejected(7), None);
        }
        assert!(circuit.rejected(7).unwrap().starts_with("101 of the last 200"));
    }

    #[test]
    fn a_ratio_of_one_allows_all() {
        let mut circuit = circuit(u64::MAX, 1.0);
        assert!((0..3 * WINDOW).all(|_| circuit.rejected(0).is_none()));
    }

    proptest! {
        #[test]
        fn it_opens_exactly_when_the_last_posts_say_so(posts in proptest::collection::vec(any::<bool>(), 0..700)) {
            let mut circuit = circuit(u64::MAX, 0.5);
            for end in 0..posts.len() {
                let window = &posts[(end + 1).saturating_sub(WINDOW)..=end];
                let rejected = window.iter().filter(|rejected| **rejected).count();
                let opens = posts[end] && window.len() == WINDOW && 2 * rejected > WINDOW;
                let opened = if posts[end] { circuit.rejected(0).is_some() } else { circuit.judged(0); false };
                prop_assert_eq!(opened, opens, "at {}", end);
            }
        }
    }
}
