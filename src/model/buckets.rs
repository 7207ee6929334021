//! `determinism: strict`: the shapes of runs. A row's shape depends on its own length and on nothing else, so that it
//! runs through the same kernels whoever its neighbours are; what a run has too few of is padded.

use std::fmt;

/// Tokens of a run on a CPU, padding included: a run of its own costs a post little more than its share of a larger one,
/// and a lone post has less to carry.
const CPU: usize = 128;
/// On a GPU, which reads all weights for each run.
const GPU: usize = 2048;
/// Most rows of a run.
const MOST_ROWS: usize = 64;
/// Rows are padded to the next of a ladder whose steps grow with it: by an eighth of the length, and by these at least.
const STEP: usize = 16;

/// Which shape each row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buckets {
    /// Its own length, and no neighbour.
    Alone,
    /// A width of the ladder, and as many rows as make `run` tokens; beyond `longest` no row is padded.
    Ladder {
        /// Tokens of a run.
        run: usize,
        /// The longest row that the limits allow.
        longest: usize,
    },
}

/// The shape of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Rows, those of padding included.
    pub rows: usize,
    /// Tokens of each, padding included.
    pub width: usize,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.width)
    }
}

impl Bucket {
    /// What the model is given, in tokens.
    pub fn tokens(self) -> usize {
        self.rows * self.width
    }
}

impl Buckets {
    pub(super) fn ladder(on_cpu: bool, longest: usize) -> Self {
        Self::Ladder { run: if on_cpu { CPU } else { GPU }, longest }
    }

    /// The shape that a row of so many tokens runs in.
    pub fn of(self, tokens: usize) -> Bucket {
        match self {
            Self::Alone => Bucket { rows: 1, width: tokens },
            Self::Ladder { run, longest } => {
                let step = (tokens.next_power_of_two() / 8).max(STEP);
                let width = tokens.next_multiple_of(step).min(longest.max(tokens));
                Bucket { rows: (run / width.max(1)).clamp(1, MOST_ROWS), width }
            }
        }
    }

    /// Runs for rows of these lengths, as indices: each of one shape, with no more rows than it has.
    pub(super) fn runs(self, lengths: &[usize]) -> Vec<(Bucket, Vec<usize>)> {
        let mut runs: Vec<(Bucket, Vec<usize>)> = Vec::new();
        for (row, tokens) in lengths.iter().enumerate() {
            let bucket = self.of(*tokens);
            match runs.iter_mut().find(|(of, rows)| *of == bucket && rows.len() < bucket.rows) {
                Some((_, rows)) => rows.push(row),
                None => runs.push((bucket, vec![row])),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LADDER: Buckets = Buckets::Ladder { run: 128, longest: 461 };

    #[test]
    fn widths_follow_the_ladder_up_to_the_longest_row() {
        let widths: Vec<usize> = (1..=461).map(|tokens| LADDER.of(tokens).width).collect();
        let mut steps = widths.clone();
        steps.dedup();
        assert_eq!(steps, [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 461]);
        assert_eq!(LADDER.of(16).to_string(), "8x16");
        assert_eq!(LADDER.of(60).to_string(), "2x64");
        assert_eq!(LADDER.of(300).to_string(), "1x320");
        assert_eq!(Buckets::Alone.of(61).to_string(), "1x61");
    }

    proptest! {
        #[test]
        fn a_rows_bucket_depends_on_the_row_alone(
            mut lengths in proptest::collection::vec(1usize..500, 1..60), swap in 0usize..60
        ) {
            for buckets in [LADDER, Buckets::Alone, Buckets::ladder(false, 461)] {
                let place = swap % lengths.len();
                let with = |lengths: &[usize]| -> Vec<(Bucket, usize)> {
                    buckets.runs(lengths).into_iter().flat_map(|(of, rows)| rows.into_iter().map(move |row| (of, row))).collect()
                };
                lengths.swap(0, place);
                let mut seen = with(&lengths);
                seen.sort_by_key(|(_, row)| *row);
                prop_assert_eq!(seen.len(), lengths.len(), "a row is missing or there twice");
                for (bucket, row) in seen {
                    prop_assert_eq!(bucket, buckets.runs(&lengths[row..=row])[0].0, "alone and among others");
                    prop_assert!(bucket.width >= lengths[row]);
                }
                prop_assert!(buckets.runs(&lengths).iter().all(|(bucket, rows)| rows.len() <= bucket.rows));
            }
        }
    }
}
