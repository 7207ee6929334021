//! Judging by a graph in Hugging Face's convention: all logits and the whole cache come back, and we take the
//! last row of each post.
//!
//! Slower than the classify graph and there for folders made by others, and as the measure that the classify
//! graph is held to. Owns the batching that such a graph allows: its own prefix rows, or one row at a time.

use std::borrow::Cow;

use half::f16;
use ort::{
    session::{Session, SessionInputValue, SessionOutputs},
    value::{DynValue, Tensor, TensorElementType},
};
use tracing::warn;

use super::{
    contract::{CacheShape, Contract, present_names},
    error::{ModelError, run_failed},
    prefix::PrefixCache,
    scores::{RowScores, log_sum_exp},
};

/// Ids beyond the end of a row; the attention mask hides them.
const PADDING: i64 = 0;

/// What the graph wants to be given.
#[derive(Debug, Clone)]
pub(super) struct FullInputs {
    pub cache: CacheShape,
    position_ids: bool,
}

type Inputs<'a> = Vec<(Cow<'a, str>, SessionInputValue<'a>)>;

impl FullInputs {
    /// The inputs of a graph that follows `contract`, or nothing for another convention.
    pub(super) fn of_contract(contract: &Contract) -> Option<Self> {
        match contract {
            Contract::Full { cache, position_ids, .. } => Some(Self { cache: *cache, position_ids: *position_ids }),
            Contract::Cascade { .. } | Contract::Draft { .. } => None,
        }
    }

    /// Rows padded on the right to `width`, after the past that `prefix` stands for.
    pub(super) fn of<'a>(
        &self,
        rows: &[&[u32]],
        width: usize,
        prefix: Option<&'a PrefixCache>,
    ) -> Result<Inputs<'a>, ModelError> {
        let past = prefix.map_or(0, PrefixCache::tokens);
        let batch = rows.len();
        let (mut ids, mut mask) = (Vec::with_capacity(batch * width), Vec::with_capacity(batch * (past + width)));
        for row in rows {
            let padding = width - row.len();
            ids.extend(row.iter().map(|id| i64::from(*id)).chain(std::iter::repeat_n(PADDING, padding)));
            mask.extend(std::iter::repeat_n(1i64, past + row.len()).chain(std::iter::repeat_n(0, padding)));
        }
        let mut inputs: Inputs<'a> = vec![
            ("input_ids".into(), matrix([batch, width], ids)?),
            ("attention_mask".into(), matrix([batch, past + width], mask)?),
        ];
        if self.position_ids {
            let positions = (0..batch).flat_map(|_| past..past + width).map(|position| position as i64).collect();
            inputs.push(("position_ids".into(), matrix([batch, width], positions)?));
        }
        if let Some(prefix) = prefix {
            inputs.extend(prefix.inputs(batch)?);
        }
        Ok(inputs)
    }

    /// Runs the prompt once. `shape` is the element type that its cache will be used with.
    pub(super) fn prompt_cache(
        &self,
        session: &mut Session,
        shape: CacheShape,
        prompt: &[u32],
    ) -> Result<PrefixCache, ModelError> {
        Ok(self.continued(session, shape, &PrefixCache::empty(self.cache), prompt)?.1)
    }

    /// One row after `past`: the logits of its last token, and the cache grown by the row.
    pub(super) fn continued(
        &self,
        session: &mut Session,
        shape: CacheShape,
        past: &PrefixCache,
        row: &[u32],
    ) -> Result<(Vec<f32>, PrefixCache), ModelError> {
        let outputs = session.run(self.of(&[row], row.len(), Some(past))?).map_err(run_failed)?;
        let present = present_names(shape.layers)
            .into_iter()
            .map(|name| outputs.get(&name).ok_or_else(|| ModelError::run(format!("the full graph gives no {name}"))));
        let cache = PrefixCache::of(shape, past.tokens() + row.len(), present)?;
        let logits = logits_of(&outputs)?;
        let vocabulary = vocabulary(logits);
        let last = (row.len() - 1) * vocabulary;
        Ok((slice(logits, last..last + vocabulary)?, cache))
    }
}

fn logits_of<'a>(outputs: &'a SessionOutputs<'_>) -> Result<&'a DynValue, ModelError> {
    outputs.get("logits").ok_or_else(|| ModelError::run("the graph gives no logits"))
}

fn vocabulary(logits: &DynValue) -> usize {
    logits.shape().last().copied().and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
}

fn matrix(dims: [usize; 2], values: Vec<i64>) -> Result<SessionInputValue<'static>, ModelError> {
    Ok(Tensor::from_array((dims, values)).map_err(run_failed)?.into())
}

/// A `full` graph with its prompt.
pub(super) struct FullEngine {
    pub session: Session,
    pub inputs: FullInputs,
    /// The prompt's cache, or an empty one if the prompt goes with every row.
    pub prefix: PrefixCache,
    /// Ids put before every row; empty if the cache stands for them.
    pub before: Vec<u32>,
    pub labels: Vec<u32>,
    /// The graph refuses several rows on one past.
    pub one_row: bool,
}

impl FullEngine {
    /// Scores every row.
    pub(super) fn classify(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        let whole: Vec<Vec<u32>> = rows.iter().map(|row| [&self.before, *row].concat()).collect();
        let rows: Vec<&[u32]> = whole.iter().map(Vec::as_slice).collect();
        if self.one_row || rows.len() == 1 {
            return self.one_by_one(&rows);
        }
        match self.run(&rows) {
            Ok(scores) => Ok(scores),
            Err(refusal @ ModelError::Run { device_lost: true, .. }) => Err(refusal),
            Err(refusal) => {
                // Some kernels refuse a batch on a past without their name telling so. If single rows work, that was it.
                let scores = self.one_by_one(&rows).map_err(|_| refusal)?;
                warn!("the graph refuses batches on a prompt cache: running one row at a time from now on");
                self.one_row = true;
                Ok(scores)
            }
        }
    }

    fn one_by_one(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        let mut scores = Vec::with_capacity(rows.len());
        for row in rows {
            scores.extend(self.run(&[row])?);
        }
        Ok(scores)
    }

    fn run(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        self.prefix.expand(rows.len());
        let past_is_real = self.prefix.tokens() > 0;
        // An empty past has one row only by chance of its name: it is made for the batch at hand.
        let empty;
        let prefix = if past_is_real {
            &self.prefix
        } else {
            empty = PrefixCache::empty(self.inputs.cache);
            &empty
        };
        let inputs = self.inputs.of(rows, width, Some(prefix))?;
        let outputs = self.session.run(inputs).map_err(run_failed)?;
        let logits = logits_of(&outputs)?;
        let vocabulary = vocabulary(logits);
        let last = |row: &&[u32], index: usize| (index * width + row.len() - 1) * vocabulary;
        rows.iter()
            .enumerate()
            .map(|(index, row)| {
                let start = last(row, index);
                score_row(&self.labels, &slice(logits, start..start + vocabulary)?)
            })
            .collect()
    }
}

/// One row of the logits, in single precision.
fn slice(logits: &DynValue, range: std::ops::Range<usize>) -> Result<Vec<f32>, ModelError> {
    let outside = || ModelError::run("the graph's logits are smaller than its batch");
    if logits.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (_, numbers) = logits.try_extract_tensor::<f16>().map_err(run_failed)?;
        return Ok(numbers.get(range).ok_or_else(outside)?.iter().map(|number| number.to_f32()).collect());
    }
    let (_, numbers) = logits.try_extract_tensor::<f32>().map_err(run_failed)?;
    Ok(numbers.get(range).ok_or_else(outside)?.to_vec())
}

fn score_row(labels: &[u32], logits: &[f32]) -> Result<RowScores, ModelError> {
    let outside =
        |id: u32| ModelError::run(format!("label token {id} is outside the model's vocabulary of {}", logits.len()));
    let of_label = |id: &u32| logits.get(*id as usize).copied().ok_or_else(|| outside(*id));
    Ok(RowScores {
        logits: labels.iter().map(of_label).collect::<Result<_, _>>()?,
        log_normalizer: log_sum_exp(logits.iter().map(|logit| f64::from(*logit))) as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_logits_are_gathered_and_the_normaliser_covers_the_vocabulary() {
        let scores = score_row(&[2, 0], &[0.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(scores.logits, [0.0, 0.0]);
        assert!((scores.outside_mass() - 0.5).abs() < 1e-6);
        assert!(score_row(&[4], &[0.0; 4]).is_err());
    }
}
