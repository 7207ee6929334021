//! Drafting by the graph made for it: all rows in one run, their caches kept in place from run to run.
//!
//! The bound rows are always the leading ones: a row joins behind the last, and the last takes the place of one that is
//! over.

use ort::{
    memory::Allocator,
    session::IoBinding,
    value::{DynTensor, Tensor},
};

use super::{
    super::{
        contract::{CacheShape, prompt_names},
        error::{ModelError, run_failed},
        prefix::PrefixCache,
        shared::SharedSession,
    },
    DraftLimits,
    buffers::RowBuffers,
    drafter::Next,
};

/// The prompt's cache as a graph wants it, for all drafters of a session.
pub(super) struct KeptPrompt {
    /// Key and value layer by layer.
    tensors: Vec<(String, DynTensor)>,
    cache: CacheShape,
    tokens: usize,
    /// Given once beside the rows, not as the beginning of each.
    shared: bool,
}

impl KeptPrompt {
    pub(super) fn new(prompt: PrefixCache, cache: CacheShape, shared: bool) -> Result<Self, ModelError> {
        let tokens = prompt.tokens();
        let mut tensors = prompt.into_tensors()?;
        if shared {
            for (index, ((name, tensor), own)) in tensors.iter_mut().zip(prompt_names(cache.layers)).enumerate() {
                *name = own;
                if index % 2 == 0 {
                    *tensor = transposed(tensor, cache, tokens).map_err(run_failed)?;
                }
            }
        }
        Ok(Self { tensors, cache, tokens, shared })
    }
}

/// [1, heads, tokens, size] -> [1, heads, size, tokens].
fn transposed(keys: &DynTensor, cache: CacheShape, tokens: usize) -> ort::Result<DynTensor> {
    let (_, keys) = keys.try_extract_tensor::<f32>()?;
    let size = cache.head_dim;
    let mut out: Vec<f32> = Vec::with_capacity(keys.len());
    for head in keys.chunks_exact((tokens * size).max(1)) {
        for d in 0..size {
            out.extend(head.iter().skip(d).step_by(size));
        }
    }
    Ok(Tensor::from_array(([1, cache.kv_heads, size, tokens], out))?.upcast())
}

/// A `draft` graph with its prompt bound, for one thread.
pub(super) struct KeptEngine {
    session: SharedSession,
    buffers: RowBuffers,
    joining: IoBinding,
    stepping: IoBinding,
    /// How many rows `stepping` has bound.
    bound: usize,
    /// Tokens that a row has in its buffer before it joins.
    start: usize,
    /// Tokens that each row has in its buffer.
    lengths: Vec<usize>,
}

impl KeptEngine {
    /// Takes memory for all rows; `longest` is what follows the prompt.
    pub(super) fn new(
        session: SharedSession,
        prompt: &KeptPrompt,
        limits: DraftLimits,
        longest: usize,
    ) -> Result<Self, ModelError> {
        let start = if prompt.shared { 0 } else { prompt.tokens };
        let mut buffers = RowBuffers::new(prompt.cache, limits.max_rows, start + longest, prompt.shared)?;
        let (mut joining, mut stepping) = (session.binding()?, session.binding()?);
        if prompt.shared {
            for (name, tensor) in &prompt.tensors {
                joining.bind_input(name, tensor).map_err(run_failed)?;
                stepping.bind_input(name, tensor).map_err(run_failed)?;
            }
        } else {
            buffers.begin_with(&prompt.tensors)?;
        }
        Ok(Self { session, buffers, joining, stepping, bound: 0, start, lengths: Vec::new() })
    }

    /// A row behind the others.
    pub(super) fn join(&mut self, ids: &[u32]) -> Result<Next, ModelError> {
        let row = self.lengths.len();
        self.buffers.bind(&mut self.joining, row..row + 1)?;
        let next = run(&self.session, &mut self.joining, ids, &[self.start])?;
        self.lengths.push(self.start + ids.len());
        next.into_iter().next().ok_or_else(|| ModelError::run("the draft graph gives no token"))
    }

    /// One token more for every row.
    pub(super) fn step(&mut self, last: &[u32]) -> Result<Vec<Next>, ModelError> {
        if self.bound != last.len() {
            self.buffers.bind(&mut self.stepping, 0..last.len())?;
            self.bound = last.len();
        }
        let next = run(&self.session, &mut self.stepping, last, &self.lengths)?;
        self.lengths.iter_mut().for_each(|length| *length += 1);
        Ok(next)
    }

    /// The last row takes the place of one that is over.
    pub(super) fn leave(&mut self, row: usize) -> Result<(), ModelError> {
        let last = self.lengths.len() - 1;
        self.lengths.swap_remove(row);
        if row == last { Ok(()) } else { self.buffers.move_row(last, row) }
    }
}

/// Runs as many rows as there are lengths, each with as many ids.
fn run(
    session: &SharedSession,
    binding: &mut IoBinding,
    ids: &[u32],
    lengths: &[usize],
) -> Result<Vec<Next>, ModelError> {
    let rows = lengths.len();
    let bind = |binding: &mut IoBinding| -> ort::Result<(Tensor<i64>, Tensor<f32>)> {
        let ids = ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        let lengths = lengths.iter().map(|length| *length as i64).collect::<Vec<_>>();
        let mut next_ids = Tensor::<i64>::new(&Allocator::default(), [rows])?;
        let mut next_logits = Tensor::<f32>::new(&Allocator::default(), [rows])?;
        binding.bind_input("input_ids", &Tensor::from_array(([rows, ids.len() / rows], ids))?)?;
        binding.bind_input("lengths", &Tensor::from_array(([rows], lengths))?)?;
        binding.bind_output("next_ids", &mut next_ids)?;
        binding.bind_output("next_logits", &mut next_logits)?;
        Ok((next_ids, next_logits))
    };
    let (ids, logits) = bind(binding).map_err(run_failed)?;
    session.run(binding)?;
    let both = ids.extract_tensor().1.iter().zip(logits.extract_tensor().1);
    both.map(|(id, logit)| {
        let id = u32::try_from(*id).map_err(|_| ModelError::run(format!("the draft graph gives the token {id}")))?;
        Ok(Next { id, logit: *logit })
    })
    .collect()
}
