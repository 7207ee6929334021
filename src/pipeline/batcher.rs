//! Gathers posts that need the model into runs of like length.
//!
//! A run closes when an idle instance asks for one: nothing waits while an instance idles, and what waits meanwhile
//! gives the choice of like lengths. Each run is built around the post that has waited longest, so none starves. A post
//! that may have ended a process runs alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::config::BatchLimits;
use crate::model::Buckets;
use crate::pipeline::TokenizedPost;
use crate::pipeline::waitlist::Waitlist;
use crate::receipt::Envelope;
use crate::suspects::{Standing, Suspects};

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

/// What the batcher is built from.
pub struct Parts {
    /// The largest run.
    pub limits: BatchLimits,
    /// The shapes of runs, where these are fixed: rows of one shape run together.
    pub buckets: Option<Buckets>,
    /// How many instances there are.
    pub instances: usize,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// Instances that ask for a run.
    pub idle: mpsc::Receiver<Idle>,
}

impl Parts {
    /// Runs until `misses` closes and what is left has been handed out.
    pub async fn run(mut self, mut misses: mpsc::Receiver<Envelope<TokenizedPost>>) {
        let (mut waiting, mut suspects, mut held) = (Waitlist::default(), VecDeque::new(), Vec::new());
        let mut open = true;
        while open || !waiting.is_empty() || !suspects.is_empty() {
            tokio::select! {
                biased;
                // First whatever has arrived, so that a run has all of it to choose from.
                arrived = misses.recv(), if open => match arrived {
                    Some(post) => {
                        let suspect = self.suspects.standing(&post.body.key) != Standing::Clear;
                        let (tokens, post) = (post.body.tokens.ids.len(), Waiting { post, since: Instant::now() });
                        if suspect { suspects.push_back(post) } else { waiting.push(tokens, post) }
                    }
                    None => open = false,
                },
                // Awaited to its end: what arrives meanwhile has room in the channel.
                () = std::future::ready(()), if !suspects.is_empty() => {
                    if self.one_by_one(&mut suspects, &mut held).await.is_none() {
                        return;
                    }
                }
                asks = self.next_idle(&mut held), if !waiting.is_empty() => match asks {
                    // One that ended after it asked says why itself; its run goes with it, and the process is ending.
                    Some(instance) => drop(instance.send(waiting.close_run(self.limits, self.buckets))),
                    // Every instance is gone; their threads say why.
                    None => return,
                },
            }
        }
    }

    async fn next_idle(&mut self, held: &mut Vec<Idle>) -> Option<Idle> {
        match held.pop() {
            None => self.idle.recv().await,
            held => held,
        }
    }

    /// Gives each suspect a run of its own while every other instance is held idle: what ends the process then is that
    /// post and no other.
    async fn one_by_one(&mut self, suspects: &mut VecDeque<Waiting>, held: &mut Vec<Idle>) -> Option<()> {
        loop {
            while held.len() < self.instances {
                held.push(self.idle.recv().await?);
            }
            let Some(suspect) = suspects.pop_front() else { return Some(()) };
            if let Some(instance) = held.pop() {
                drop(instance.send(vec![suspect]));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Tokenized;
    use crate::post::{Post, PostId};
    use crate::receipt::{Epoch, Headers, Offset, Original, Receipt, Sequence};
    use crate::telemetry::trace::PostSpan;
    use crate::verdict::{Keyring, VerdictKey};

    pub(in crate::pipeline) fn key(n: u32) -> VerdictKey {
        Keyring::new(&[]).key(&[n])
    }

    pub(in crate::pipeline) fn row(n: u32) -> Envelope<TokenizedPost> {
        let post = Post {
            id: PostId(n.to_string().into()),
            text: "A claim.".to_owned(),
            lang: None,
            version: None,
            evidence: Vec::new(),
        };
        let (ids, truncated, neutralised, normalised) = (vec![n; 4], false, 0, None);
        let tokens =
            Tokenized { ids, tokens_seen: 4, tokens_total: 4, truncated, neutralised, normalised, evidence: None };
        let (key, tokenise, note, language) = (key(n), Duration::ZERO, None, None);
        let body = TokenizedPost { post, tokens, key, note, language, tokenise, queue: None, classify: None };
        let (offset, timestamp_ms, key, value) = (Offset(n.into()), None, None, None);
        let original = Original {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp_ms,
            key,
            value,
            headers: Headers::default(),
            span: PostSpan::default(),
        };
        let receipt = Receipt::new(0, offset, Epoch(1), Sequence(n.into()));
        Envelope { body, receipt, original: original.into(), received: Instant::now() }
    }

    fn numbers(batch: Batch) -> Vec<i64> {
        batch.iter().map(|row| row.post.receipt.offset().0).collect()
    }

    #[tokio::test]
    async fn a_suspect_runs_alone_and_while_no_other_run_lasts() {
        let state = tempfile::tempdir().unwrap();
        let open = || Suspects::open(state.path(), "pool", 3).unwrap();
        open().journal().unwrap().unwrap().enter([key(1), key(3)].iter());
        let (misses, misses_rx) = mpsc::channel(8);
        let (idle, idle_rx) = mpsc::channel(2);
        let limits = BatchLimits { max_tokens: 512, max_posts: 32 };
        let parts = Parts { limits, buckets: None, instances: 2, suspects: Arc::new(open()), idle: idle_rx };
        for n in 0..5 {
            misses.send(row(n)).await.unwrap();
        }
        let batcher = tokio::spawn(parts.run(misses_rx));
        let ask = || {
            let (ask, run) = oneshot::channel();
            idle.try_send(ask).unwrap();
            run
        };

        let (mut one, mut other) = (ask(), ask());
        // Whichever instance is chosen, the other waits until it asks again.
        for suspect in [1, 3] {
            let (run, first) = tokio::select! { run = &mut one => (run, true), run = &mut other => (run, false) };
            assert_eq!(numbers(run.unwrap()), [suspect]);
            let waits = if first { &mut other } else { &mut one };
            tokio::task::yield_now().await;
            assert!(waits.try_recv().is_err(), "a run beside that of a suspect");
            let again = ask();
            if first { one = again } else { other = again }
        }
        // Both are of use again: one gets what has waited, the other what comes.
        let (run, first) = tokio::select! { run = &mut one => (run, true), run = &mut other => (run, false) };
        assert_eq!(numbers(run.unwrap()), [0, 2, 4]);
        misses.send(row(5)).await.unwrap();
        assert_eq!(numbers(if first { other } else { one }.await.unwrap()), [5]);
        drop(misses);
        batcher.await.unwrap();
    }
}
