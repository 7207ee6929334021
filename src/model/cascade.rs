//! Judging by the classify graph: one prompt cache for all rows, and the label rows of each post's last token only.
//!
//! The prompt's cache and the label ids are bound once: binding copies a tensor to the device where the graph wants it,
//! so that on a GPU they are copied there once and stay. What comes back from there is the label rows alone.

use std::iter;

use ort::{
    memory::Allocator,
    session::{IoBinding, Session},
    value::{DynTensor, Tensor},
};

use super::{
    buckets::Bucket,
    error::{ModelError, run_failed},
    scores::RowScores,
    shared::SharedSession,
};

/// Ids beyond the end of a row: any valid one does, since rows only look back.
const PADDING: i64 = 0;

/// A `classify` graph with its prompt bound, for one thread.
pub(super) struct CascadeEngine {
    session: SharedSession,
    binding: IoBinding,
    labels: usize,
    /// See [`spread`]; of no matter where a run's shape is left to its rows.
    spread: usize,
}

/// How many places a row's logits take, so that each row's begin where the widest vectors do: sums over the vocabulary
/// are made of other parts elsewhere. One for a vocabulary that fills whole vectors, as nearly all do.
pub(super) fn spread(vocabulary: Option<usize>) -> usize {
    const VECTOR: usize = 16;
    VECTOR / vocabulary.map_or(1, |tokens| 1 << tokens.trailing_zeros().min(VECTOR.trailing_zeros()))
}

impl CascadeEngine {
    /// Binds what stays the same; `prefix` is shared by all engines of one session.
    pub(super) fn new(
        session: SharedSession,
        prefix: &[(String, DynTensor)],
        labels: &[u32],
        spread: usize,
    ) -> Result<Self, ModelError> {
        let mut binding = session.binding()?;
        for (name, tensor) in prefix {
            binding.bind_input(name, tensor).map_err(run_failed)?;
        }
        let ids: Vec<i64> = labels.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::from_array(([labels.len()], ids)).map_err(run_failed)?;
        binding.bind_input("label_ids", &ids).map_err(run_failed)?;
        // Copies to a device are only queued by binding.
        binding.synchronize_inputs().map_err(run_failed)?;
        Ok(Self { session, binding, labels: labels.len(), spread })
    }

    /// The session that it runs.
    pub(super) fn session(&self) -> &Session {
        self.session.session()
    }

    /// The handle to it.
    pub(super) fn shared(&self) -> &SharedSession {
        &self.session
    }

    /// Scores every row in one run: of that shape, or of the smallest that holds them.
    pub(super) fn classify(&mut self, rows: &[&[u32]], shape: Option<Bucket>) -> Result<Vec<RowScores>, ModelError> {
        let smallest = || Bucket { rows: rows.len(), width: rows.iter().map(|row| row.len()).max().unwrap_or(0) };
        let (shape, spread) = shape.map_or_else(|| (smallest(), 1), |shape| (shape, self.spread));
        let mut ids = vec![PADDING; shape.tokens()];
        for (place, row) in ids.chunks_exact_mut(shape.width.max(1)).zip(rows) {
            place.iter_mut().zip(*row).for_each(|(place, id)| *place = i64::from(*id));
        }
        // A row of padding is asked for its first token.
        let last = |index: usize| (index * shape.width + rows.get(index).map_or(0, |row| row.len() - 1)) as i64;
        let positions = (0..shape.rows).flat_map(|index| iter::repeat_n(last(index), spread)).collect();
        let (logits, normalizers) = self.bind(shape, ids, positions).map_err(run_failed)?;
        self.session.run(&mut self.binding)?;
        let (_, logits) = logits.extract_tensor();
        let (_, normalizers) = normalizers.extract_tensor();
        let scored = logits.chunks_exact(self.labels).zip(normalizers).step_by(spread).take(rows.len());
        Ok(scored
            .map(|(logits, log_normalizer)| RowScores { logits: logits.to_vec(), log_normalizer: *log_normalizer })
            .collect())
    }

    /// Binds one run's rows, and where its results go: host memory, so that from a GPU only the label rows come back.
    fn bind(&mut self, shape: Bucket, ids: Vec<i64>, positions: Vec<i64>) -> ort::Result<(Tensor<f32>, Tensor<f32>)> {
        let asked = positions.len();
        let mut logits = Tensor::<f32>::new(&Allocator::default(), [asked, self.labels])?;
        let mut normalizers = Tensor::<f32>::new(&Allocator::default(), [asked])?;
        self.binding.bind_input("input_ids", &Tensor::from_array(([shape.rows, shape.width], ids))?)?;
        self.binding.bind_input("logit_positions", &Tensor::from_array(([asked], positions))?)?;
        self.binding.synchronize_inputs()?;
        self.binding.bind_output("logits", &mut logits)?;
        self.binding.bind_output("log_normalizer", &mut normalizers)?;
        Ok((logits, normalizers))
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn rows_of_logits_begin_where_whole_vectors_do() {
        assert_eq!([Some(49_152), Some(32_000), Some(546), Some(7), None].map(spread), [1, 1, 8, 16, 16]);
    }
}
