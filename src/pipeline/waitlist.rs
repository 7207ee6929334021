//! What waits for the model, in order of length and of arrival at once, so that closing a run costs the same however
//! many wait.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::config::BatchLimits;
use crate::model::Buckets;

/// Tokens, and the number of its arrival.
type Key = (usize, u64);

/// Rows waiting for a run.
pub struct Waitlist<T> {
    by_length: BTreeMap<Key, T>,
    /// Tokens by number of arrival; its first is the oldest.
    by_arrival: BTreeMap<u64, usize>,
    arrivals: u64,
}

impl<T> Default for Waitlist<T> {
    fn default() -> Self {
        Self { by_length: BTreeMap::new(), by_arrival: BTreeMap::new(), arrivals: 0 }
    }
}

impl<T> Waitlist<T> {
    /// A row of so many tokens arrives.
    pub fn push(&mut self, tokens: usize, row: T) {
        self.by_length.insert((tokens, self.arrivals), row);
        self.by_arrival.insert(self.arrivals, tokens);
        self.arrivals += 1;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_length.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }

    /// Takes the next run out, by length: the oldest row, and its neighbours in length for as long as the padded run
    /// stays within limits and padding a neighbour costs less than running it apart. Empty only if none waits.
    ///
    /// Where shapes are fixed: the oldest row, and as many of its own shape as that holds.
    pub fn close_run(&mut self, limits: BatchLimits, buckets: Option<Buckets>) -> Vec<T> {
        let Some((&arrival, &tokens)) = self.by_arrival.first_key_value() else { return Vec::new() };
        let chosen = match buckets {
            None => self.around((tokens, arrival), limits),
            Some(buckets) => self.alike((tokens, arrival), limits, buckets),
        };
        chosen.into_iter().filter_map(|key| self.take(key)).collect()
    }

    /// Takes the oldest rows out, whatever their lengths.
    pub fn take_oldest(&mut self, count: usize) -> Vec<T> {
        let oldest: Vec<Key> =
            self.by_arrival.iter().take(count).map(|(arrival, tokens)| (*tokens, *arrival)).collect();
        oldest.into_iter().filter_map(|key| self.take(key)).collect()
    }

    fn take(&mut self, key: Key) -> Option<T> {
        self.by_arrival.remove(&key.1);
        self.by_length.remove(&key)
    }

    fn alike(&self, anchor: Key, limits: BatchLimits, buckets: Buckets) -> Vec<Key> {
        let bucket = buckets.of(anchor.0);
        let shorter = self.by_length.range(..anchor).map(|(key, _)| *key).rev();
        let longer = self.by_length.range((Excluded(anchor), Unbounded)).map(|(key, _)| *key);
        let same = |key: &Key| buckets.of(key.0) == bucket;
        let mates = longer.take_while(same).chain(shorter.take_while(same));
        std::iter::once(anchor).chain(mates).take(bucket.rows.min(limits.max_posts)).collect()
    }

    fn around(&self, anchor: Key, limits: BatchLimits) -> Vec<Key> {
        let mut shorter = self.by_length.range(..anchor).map(|(key, _)| *key).rev().peekable();
        let mut longer = self.by_length.range((Excluded(anchor), Unbounded)).map(|(key, _)| *key).peekable();
        let mut chosen = vec![anchor];
        let mut longest = anchor.0;
        loop {
            let rows = chosen.len();
            let fits = |padding: usize, longest: usize| {
                rows < limits.max_posts && longest * (rows + 1) <= limits.max_tokens && padding <= worth(longest)
            };
            let down = shorter.peek().map(|key| longest - key.0).filter(|padding| fits(*padding, longest));
            let up = longer.peek().map(|key| ((key.0 - longest) * rows, key.0));
            let up = up.filter(|(padding, longest)| fits(*padding, *longest));
            let next = match (down, up) {
                (None, None) => return chosen,
                (Some(padding), Some((more, _))) if padding <= more => shorter.next(),
                (_, Some(_)) => longer.next(),
                (Some(_), None) => shorter.next(),
            };
            chosen.extend(next);
            longest = longest.max(next.map_or(0, |key| key.0));
        }
    }
}

/// Padded tokens that a further row may cost: a run of its own costs about as much as 16 tokens more.
fn worth(longest: usize) -> usize {
    16 + longest / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: BatchLimits = BatchLimits { max_tokens: 512, max_posts: 32 };

    fn waiting(lengths: &[usize]) -> Waitlist<usize> {
        let mut waiting = Waitlist::default();
        lengths.iter().enumerate().for_each(|(row, tokens)| waiting.push(*tokens, row));
        waiting
    }

    fn run(lengths: &[usize]) -> Vec<usize> {
        let mut rows = waiting(lengths).close_run(LIMITS, None);
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_run_gathers_like_lengths_around_the_oldest() {
        assert_eq!(run(&[60, 300, 58, 10, 64, 290]), [0, 2, 4]);
    }

    #[test]
    fn a_row_over_the_budget_runs_alone() {
        assert_eq!(run(&[900, 900, 10]), [0]);
        assert_eq!(run(&[]), [0; 0]);
    }

    #[test]
    fn the_oldest_come_out_in_the_order_they_came() {
        let mut waiting = waiting(&[50, 10, 70, 20]);
        assert_eq!((waiting.take_oldest(3), waiting.take_oldest(3), waiting.len()), (vec![0, 1, 2], vec![3], 0));
    }

    #[test]
    fn where_shapes_are_fixed_a_run_holds_the_oldest_and_rows_of_its_own_shape_alone() {
        let buckets = Some(Buckets::Ladder { run: 128, longest: 448 });
        let mut waiting = waiting(&[20, 300, 31, 17, 33, 32, 30, 16]);
        let runs: Vec<Vec<usize>> = std::iter::from_fn(|| {
            let mut rows = waiting.close_run(LIMITS, buckets);
            rows.sort_unstable();
            (!rows.is_empty()).then_some(rows)
        })
        .collect();
        assert_eq!(runs, [vec![0, 2, 5, 6], vec![1], vec![3], vec![4], vec![7]]);
    }

    proptest! {
        #[test]
        fn every_run_is_legal_and_holds_the_oldest_so_no_row_starves_or_is_lost(
            lengths in proptest::collection::vec(1usize..700, 1..120)
        ) {
            let mut waiting = waiting(&lengths);
            let mut left: std::collections::BTreeSet<usize> = (0..lengths.len()).collect();
            while let Some(oldest) = left.first().copied() {
                let rows = waiting.close_run(LIMITS, None);
                prop_assert!(rows.contains(&oldest), "the oldest row waits on");
                let longest = rows.iter().map(|row| lengths[*row]).max().unwrap();
                prop_assert!(rows.len() == 1 || longest * rows.len() <= LIMITS.max_tokens);
                prop_assert!(rows.len() <= LIMITS.max_posts);
                prop_assert!(rows.iter().all(|row| left.remove(row)), "a row came out twice");
                prop_assert_eq!(waiting.len(), left.len());
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
