//! Judging by the classify graph: one prompt cache for all rows, and the label rows of each post's last token only.
//!
//! The prompt's cache and the label ids are bound once: binding copies a tensor to the device where the graph wants it,
//! so that on a GPU they are copied there once and stay. What comes back from there is the label rows alone.

use ort::{
    memory::Allocator,
    session::{IoBinding, Session},
    value::{DynTensor, Tensor},
};

use super::{
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
}

impl CascadeEngine {
    /// Binds what stays the same; `prefix` is shared by all engines of one session.
    pub(super) fn new(
        session: SharedSession,
        prefix: &[(String, DynTensor)],
        labels: &[u32],
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
        Ok(Self { session, binding, labels: labels.len() })
    }

    /// The session that it runs.
    pub(super) fn session(&self) -> &Session {
        self.session.session()
    }

    /// Scores every row in one run.
    pub(super) fn classify(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * width);
        for row in rows {
            ids.extend(row.iter().map(|id| i64::from(*id)));
            ids.resize(ids.len() + width - row.len(), PADDING);
        }
        let last = |(index, row): (usize, &&[u32])| (index * width + row.len() - 1) as i64;
        let positions: Vec<i64> = rows.iter().enumerate().map(last).collect();
        let (logits, normalizers) = self.bind(rows.len(), width, ids, positions).map_err(run_failed)?;
        self.session.run(&mut self.binding)?;
        let (_, logits) = logits.extract_tensor();
        let (_, normalizers) = normalizers.extract_tensor();
        let rows = logits.chunks_exact(self.labels).zip(normalizers);
        Ok(rows
            .map(|(logits, log_normalizer)| RowScores { logits: logits.to_vec(), log_normalizer: *log_normalizer })
            .collect())
    }

    /// Binds one run's rows, and where its results go: host memory, so that from a GPU only the label rows come back.
    fn bind(
        &mut self,
        rows: usize,
        width: usize,
        ids: Vec<i64>,
        positions: Vec<i64>,
    ) -> ort::Result<(Tensor<f32>, Tensor<f32>)> {
        let mut logits = Tensor::<f32>::new(&Allocator::default(), [rows, self.labels])?;
        let mut normalizers = Tensor::<f32>::new(&Allocator::default(), [rows])?;
        self.binding.bind_input("input_ids", &Tensor::from_array(([rows, width], ids))?)?;
        self.binding.bind_input("logit_positions", &Tensor::from_array(([rows], positions))?)?;
        self.binding.synchronize_inputs()?;
        self.binding.bind_output("logits", &mut logits)?;
        self.binding.bind_output("log_normalizer", &mut normalizers)?;
        Ok((logits, normalizers))
    }
}
