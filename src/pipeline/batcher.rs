//! Gathers posts that need the model into runs of like length.
//!
//! A run closes when an idle instance asks for one: nothing waits while an instance idles, and what waits meanwhile
//! gives the choice of like lengths. Each run is built around the post that has waited longest, so none starves.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::config::BatchLimits;
use crate::pipeline::TokenizedPost;
use crate::receipt::Envelope;

/// A post waiting for the model, and since when.
#[derive(Debug)]
pub struct Waiting {
    /// The post.
    pub post: Envelope<TokenizedPost>,
    /// When the batcher took it.
    pub since: Instant,
}

/// Rows for one run of the model.
pub type Batch = Vec<Waiting>;

/// An idle instance asking for its next run.
pub type Idle = oneshot::Sender<Batch>;

/// Runs until `misses` closes and what is left has been handed out.
pub async fn run(
    limits: BatchLimits,
    mut misses: mpsc::Receiver<Envelope<TokenizedPost>>,
    mut idle: mpsc::Receiver<Idle>,
) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            // First whatever has arrived, so that a run has all of it to choose from.
            arrived = misses.recv(), if open => match arrived {
                Some(post) => waiting.push(Waiting { post, since: Instant::now() }),
                None => open = false,
            },
            asks = idle.recv(), if !waiting.is_empty() => match asks {
                Some(instance) => hand_out(instance, &mut waiting, limits),
                // Every instance is gone; their threads say why.
                None => return,
            },
        }
    }
}

/// An instance that ended after it asked says why itself; its run goes with it, and the process is ending.
fn hand_out(instance: Idle, waiting: &mut Vec<Waiting>, limits: BatchLimits) {
    let _ = instance.send(close_run(waiting, limits));
}

/// Takes the next run out of what waits; `waiting` stays in arrival order and is not empty.
fn close_run(waiting: &mut Vec<Waiting>, limits: BatchLimits) -> Batch {
    let lengths: Vec<usize> = waiting.iter().map(|waiting| waiting.post.body.tokens.ids.len()).collect();
    take(waiting, choose(&lengths, limits))
}

/// Takes the chosen out, in arrival order.
pub fn take<T>(waiting: &mut Vec<T>, mut chosen: Vec<usize>) -> Vec<T> {
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    // From the back, so that the indices before stay right.
    let mut taken: Vec<T> = chosen.into_iter().map(|index| waiting.remove(index)).collect();
    taken.reverse();
    taken
}

/// Which of the waiting rows, given by length in arrival order, make the next run: the oldest, and its neighbours in
/// length for as long as the padded run stays within limits and padding a neighbour costs less than running it apart.
pub fn choose(lengths: &[usize], limits: BatchLimits) -> Vec<usize> {
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|&index| lengths[index]);
    let Some(anchor) = by_length.iter().position(|&index| index == 0) else { return Vec::new() };
    let (mut low, mut high) = (anchor, anchor);
    loop {
        let longest = lengths[by_length[high]];
        let shorter = (low > 0).then(|| (longest - lengths[by_length[low - 1]], longest));
        let longer = by_length.get(high + 1).map(|&index| {
            let length = lengths[index];
            ((length - longest) * (high - low + 1), length)
        });
        let rows = high - low + 2;
        let fits = |&(padding, longest): &(usize, usize)| {
            rows <= limits.max_posts && longest * rows <= limits.max_tokens && padding <= worth(longest)
        };
        match (shorter.filter(fits), longer.filter(fits)) {
            (None, None) => break,
            (Some(down), Some(up)) if down.0 <= up.0 => low -= 1,
            (Some(_), None) => low -= 1,
            (_, Some(_)) => high += 1,
        }
    }
    by_length[low..=high].to_vec()
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

    #[test]
    fn a_run_gathers_like_lengths_around_the_oldest() {
        let mut chosen = choose(&[60, 300, 58, 10, 64, 290], LIMITS);
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 2, 4]);
    }

    #[test]
    fn a_row_over_the_budget_runs_alone() {
        assert_eq!(choose(&[900, 900, 10], LIMITS), [0]);
    }

    proptest! {
        #[test]
        fn every_run_is_legal_and_holds_the_oldest_so_no_row_starves(
            lengths in proptest::collection::vec(1usize..700, 1..120)
        ) {
            let mut left: Vec<(usize, usize)> = lengths.iter().copied().enumerate().collect();
            let mut runs = 0;
            while !left.is_empty() {
                let now: Vec<usize> = left.iter().map(|row| row.1).collect();
                let chosen = choose(&now, LIMITS);
                prop_assert!(chosen.contains(&0), "the oldest row waits on");
                let longest = chosen.iter().map(|&i| now[i]).max().unwrap();
                prop_assert!(chosen.len() == 1 || longest * chosen.len() <= LIMITS.max_tokens);
                prop_assert!(chosen.len() <= LIMITS.max_posts);
                left = left.into_iter().enumerate().filter(|(i, _)| !chosen.contains(i)).map(|(_, row)| row).collect();
                runs += 1;
            }
            prop_assert!(runs <= lengths.len());
        }
    }
}
