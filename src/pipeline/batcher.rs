//! Gathers posts that need the model into runs of like length.
//!
//! A run closes when an idle instance asks for one: nothing waits while an instance idles, and what waits meanwhile
//! gives the choice of like lengths. Each run is built around the post that has waited longest, so none starves.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::config::BatchLimits;
use crate::pipeline::TokenizedPost;
use crate::pipeline::waitlist::Waitlist;
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
    let mut waiting = Waitlist::default();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            // First whatever has arrived, so that a run has all of it to choose from.
            arrived = misses.recv(), if open => match arrived {
                Some(post) => waiting.push(post.body.tokens.ids.len(), Waiting { post, since: Instant::now() }),
                None => open = false,
            },
            asks = idle.recv(), if !waiting.is_empty() => match asks {
                // One that ended after it asked says why itself; its run goes with it, and the process is ending.
                Some(instance) => drop(instance.send(waiting.close_run(limits))),
                // Every instance is gone; their threads say why.
                None => return,
            },
        }
    }
}
