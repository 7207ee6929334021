//! The rows of one thread: who joined, what is written so far, who is done.

use std::sync::Arc;

use super::{
    super::{ModelError, Prompt},
    DraftLimits,
    growing::GrowingEngine,
    kept::KeptEngine,
};

/// One thread's way to draft. `&mut` throughout: it does one run at a time.
pub struct Drafter {
    engine: Engine,
    prompt: Arc<Prompt>,
    limits: DraftLimits,
    /// In the order of the engine's rows.
    rows: Vec<Row>,
    ignores_ends: bool,
}

/// How rows are run. Rows are numbered from 0; a new one is the last, and the last takes the place of one that leaves.
pub(super) enum Engine {
    Kept(Box<KeptEngine>),
    Growing(Box<GrowingEngine>),
}

impl Engine {
    fn join(&mut self, ids: &[u32]) -> Result<Next, ModelError> {
        match self {
            Self::Kept(engine) => engine.join(ids),
            Self::Growing(engine) => engine.join(ids),
        }
    }

    fn step(&mut self, last: &[u32]) -> Result<Vec<Next>, ModelError> {
        match self {
            Self::Kept(engine) => engine.step(last),
            Self::Growing(engine) => engine.step(last),
        }
    }

    fn leave(&mut self, row: usize) -> Result<(), ModelError> {
        match self {
            Self::Kept(engine) => engine.leave(row),
            Self::Growing(engine) => {
                engine.leave(row);
                Ok(())
            }
        }
    }
}

/// A text that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drafted {
    /// What the row was called when it joined.
    pub tag: u64,
    /// The text, without control tokens.
    pub text: String,
    /// Tokens of the text.
    pub tokens: usize,
    /// Why it ends there.
    pub ended: Ended,
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The model ended it.
    EndOfText,
    /// It has as many tokens as it may have.
    Length,
}

struct Row {
    tag: u64,
    written: Vec<u32>,
    /// What follows, computed and not yet looked at.
    next: u32,
    most: usize,
}

/// The token with the greatest logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Next {
    pub id: u32,
    pub logit: f32,
}

impl Next {
    /// Of two alike, the one with the lower id, as ONNX's ArgMax has it.
    pub(super) fn of(logits: &[f32]) -> Self {
        // What is no number counts as the greatest, so that it is noticed.
        let greatest = logits.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
        greatest.map_or(Self { id: 0, logit: f32::NAN }, |(id, logit)| Self { id: id as u32, logit: *logit })
    }

    fn checked(self) -> Result<u32, ModelError> {
        if self.logit.is_finite() {
            return Ok(self.id);
        }
        Err(ModelError::run("the model gave a logit that is no number: the weights or their precision are broken"))
    }
}

impl std::fmt::Debug for Drafter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drafter").field("rows", &self.rows.len()).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Drafter {
    pub(super) fn new(engine: Engine, prompt: Arc<Prompt>, limits: DraftLimits) -> Self {
        Self { engine, prompt, limits, rows: Vec::new(), ignores_ends: false }
    }

    /// For measuring: rows end by their length alone.
    pub fn ignore_ends(&mut self) {
        self.ignores_ends = true;
    }

    /// Runs what costs the most, so that what does not fit into memory fails before the first row comes.
    pub(super) fn warm_up(&mut self) -> Result<(), ModelError> {
        let tail = self.prompt.tail_ids();
        let row = vec![tail[0]; self.limits.max_input_tokens + tail.len()];
        let rows = self.limits.max_rows.min(2);
        for _ in 0..rows {
            self.engine.join(&row)?;
        }
        self.engine.step(&vec![tail[0]; rows])?;
        (0..rows).rev().try_for_each(|last| self.engine.leave(last))
    }

    /// How many more rows may join.
    pub fn room(&self) -> usize {
        self.limits.max_rows - self.rows.len()
    }

    /// How many rows are being written.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Takes up a row and runs what it begins with: the ids after the shared prefix, tail included. The caller sees to it
    /// that there is room and that the limits are kept. After an error the row has not joined; the others are as before.
    pub fn join(&mut self, tag: u64, ids: &[u32], max_new_tokens: usize) -> Result<(), ModelError> {
        let longest = self.limits.max_input_tokens + self.prompt.tail_ids().len();
        if ids.is_empty() || ids.len() > longest {
            return Err(ModelError::run(format!("a row has {} tokens; it may have 1 to {longest}", ids.len())));
        }
        if max_new_tokens == 0 || max_new_tokens > self.limits.max_new_tokens {
            let most = self.limits.max_new_tokens;
            return Err(ModelError::run(format!("{max_new_tokens} tokens are asked for; it may be 1 to {most}")));
        }
        if self.room() == 0 {
            return Err(ModelError::run(format!("there is no room beside {} rows", self.rows.len())));
        }
        let next = self.engine.join(ids)?;
        // The row counts for the engine only once it is listed here.
        let next = match next.checked() {
            Ok(next) => next,
            Err(error) => {
                self.engine.leave(self.rows.len())?;
                return Err(error);
            }
        };
        self.rows.push(Row { tag, written: Vec::with_capacity(max_new_tokens), next, most: max_new_tokens });
        Ok(())
    }

    /// Writes one token for every row. Rows that ended leave at once and are returned. After an error all rows are gone.
    pub fn step(&mut self) -> Result<Vec<Drafted>, ModelError> {
        let outcome = self.try_step();
        if outcome.is_err() {
            // From behind: nothing has to move.
            while let Some(last) = self.rows.len().checked_sub(1) {
                self.leave(last)?;
            }
        }
        outcome
    }

    fn try_step(&mut self) -> Result<Vec<Drafted>, ModelError> {
        let mut over = Vec::new();
        let mut index = 0;
        while let Some(row) = self.rows.get_mut(index) {
            let ended = if self.prompt.ends(row.next) && !self.ignores_ends {
                Some(Ended::EndOfText)
            } else {
                row.written.push(row.next);
                (row.written.len() == row.most).then_some(Ended::Length)
            };
            match ended {
                Some(ended) => {
                    let row = self.leave(index)?;
                    let (text, tokens) = (self.prompt.text(&row.written)?, row.written.len());
                    over.push(Drafted { tag: row.tag, text, tokens, ended });
                }
                None => index += 1,
            }
        }
        if !self.rows.is_empty() {
            let last: Vec<u32> = self.rows.iter().map(|row| row.next).collect();
            for (row, next) in self.rows.iter_mut().zip(self.engine.step(&last)?) {
                row.next = next.checked()?;
            }
        }
        Ok(over)
    }

    fn leave(&mut self, index: usize) -> Result<Row, ModelError> {
        let row = self.rows.swap_remove(index);
        self.engine.leave(index)?;
        Ok(row)
    }
}
