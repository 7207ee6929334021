//! Drafting by a graph in Hugging Face's convention: each row has a cache of its own that a run gives back grown.
//!
//! One row at a time, and the whole cache copied for every token: slow, and there for folders made by others and as the
//! measure that the other graphs are held to.

use ort::session::Session;

use super::{
    super::{error::ModelError, full::FullInputs, prefix::PrefixCache},
    drafter::Next,
};

/// A `full` graph with its prompt, and the rows' caches.
pub(super) struct GrowingEngine {
    session: Session,
    inputs: FullInputs,
    prompt: PrefixCache,
    rows: Vec<PrefixCache>,
}

impl GrowingEngine {
    /// Runs the prompt.
    pub(super) fn new(mut session: Session, inputs: FullInputs, prompt: &[u32]) -> Result<Self, ModelError> {
        let prompt = inputs.prompt_cache(&mut session, inputs.cache, prompt)?;
        Ok(Self { session, inputs, prompt, rows: Vec::new() })
    }

    /// A row behind the others.
    pub(super) fn join(&mut self, ids: &[u32]) -> Result<Next, ModelError> {
        let (logits, cache) = self.inputs.continued(&mut self.session, self.inputs.cache, &self.prompt, ids)?;
        self.rows.push(cache);
        Ok(Next::of(&logits))
    }

    /// One token more for every row.
    pub(super) fn step(&mut self, last: &[u32]) -> Result<Vec<Next>, ModelError> {
        let mut next = Vec::with_capacity(last.len());
        for (row, id) in self.rows.iter_mut().zip(last) {
            let (logits, cache) = self.inputs.continued(&mut self.session, self.inputs.cache, row, &[*id])?;
            *row = cache;
            next.push(Next::of(&logits));
        }
        Ok(next)
    }

    /// The last row takes the place of one that is over.
    pub(super) fn leave(&mut self, row: usize) {
        self.rows.swap_remove(row);
    }
}
