//! Hands rows to the threads that write, whenever one has room: a row joins the texts that are being written there, and
//! nobody waits for the longest of a batch. A post that may have ended a process is written alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::pipeline::TokenizedPost;
use crate::pipeline::batcher::Waiting;
use crate::receipt::Envelope;
use crate::suspects::{Standing, Suspects};

/// A thread asking for rows.
pub struct Ask {
    /// How many it has room for.
    pub room: usize,
    /// How many it is writing; one that writes none waits for an answer with rows.
    pub writing: usize,
    /// Where they go.
    pub rows: oneshot::Sender<Vec<Waiting>>,
}

/// What the desk is built from.
pub struct Parts {
    /// How many threads there are.
    pub writers: usize,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// Threads that ask.
    pub asks: mpsc::Receiver<Ask>,
}

#[derive(Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    suspects: VecDeque<Waiting>,
    /// Threads that write nothing.
    idle: Vec<Ask>,
    /// A suspect is being written.
    alone: bool,
}

impl Parts {
    /// Runs until `misses` closes and what is left has been handed out.
    pub async fn run(mut self, mut misses: mpsc::Receiver<Envelope<TokenizedPost>>) {
        let (mut desk, mut open) = (Desk::default(), true);
        while open || !desk.waiting.is_empty() || !desk.suspects.is_empty() {
            tokio::select! {
                biased;
                arrived = misses.recv(), if open => match arrived {
                    Some(post) => {
                        let suspect = self.suspects.standing(&post.body.key) != Standing::Clear;
                        let row = Waiting { post, since: Instant::now() };
                        if suspect { desk.suspects.push_back(row) } else { desk.waiting.push_back(row) }
                    }
                    None => open = false,
                },
                asked = self.asks.recv() => match asked {
                    Some(ask) => desk.take(ask),
                    // Every thread is gone; they say why.
                    None => return,
                },
            }
            desk.serve(self.writers);
        }
    }
}

impl Desk {
    fn take(&mut self, ask: Ask) {
        if ask.writing == 0 {
            self.idle.push(ask);
        } else if self.alone || !self.suspects.is_empty() {
            // Its rows are finished, and none joins them.
            drop(ask.rows.send(Vec::new()));
        } else {
            self.hand(ask, usize::MAX);
        }
    }

    /// One that ended after it asked says why itself; its rows go with it, and the process is ending.
    fn hand(&mut self, ask: Ask, most: usize) {
        let count = self.waiting.len().min(ask.room).min(most);
        drop(ask.rows.send(self.waiting.drain(..count).collect()));
    }

    fn serve(&mut self, writers: usize) {
        if self.idle.len() == writers {
            self.alone = false;
            if let Some(suspect) = self.suspects.pop_front()
                && let Some(ask) = self.idle.pop()
            {
                self.alone = true;
                drop(ask.rows.send(vec![suspect]));
            }
        }
        if self.alone || !self.suspects.is_empty() {
            return;
        }
        while !self.waiting.is_empty()
            && let Some(ask) = self.idle.pop()
        {
            let share = self.waiting.len().div_ceil(self.idle.len() + 1);
            self.hand(ask, share);
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
