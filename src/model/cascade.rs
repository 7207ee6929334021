//! Judging by the classify graph: one prompt cache for all rows, and the label rows of each post's last token only.
//!
//! The prompt's cache and the label ids are bound once: binding copies a tensor to the device where the graph wants it,
//! so that on a GPU they are copied there once and stay. What comes back from there is the label rows alone.

use ort::{
    memory::MemoryInfo,
    session::{IoBinding, Session, SessionOutputs},
    value::Tensor,
};

use super::{
    error::{ModelError, run_failed},
    prefix::PrefixCache,
    scores::RowScores,
};

/// Ids beyond the end of a row: any valid one does, since rows only look back.
const PADDING: i64 = 0;

/// A `classify` graph with its prompt bound.
pub(super) struct CascadeEngine {
    session: Session,
    binding: IoBinding,
    labels: usize,
}

impl CascadeEngine {
    /// Binds what stays the same.
    pub(super) fn new(session: Session, prefix: PrefixCache, labels: &[u32]) -> Result<Self, ModelError> {
        let mut binding = session.create_binding().map_err(run_failed)?;
        for (name, tensor) in prefix.into_tensors()? {
            binding.bind_input(name, &tensor).map_err(run_failed)?;
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
        &self.session
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
        self.bind(rows.len(), width, ids, positions).map_err(run_failed)?;
        let outputs = self.session.run_binding(&self.binding).map_err(run_failed)?;
        scores(&outputs, rows.len(), self.labels)
    }

    fn bind(&mut self, rows: usize, width: usize, ids: Vec<i64>, positions: Vec<i64>) -> ort::Result<()> {
        self.binding.bind_input("input_ids", &Tensor::from_array(([rows, width], ids))?)?;
        self.binding.bind_input("logit_positions", &Tensor::from_array(([rows], positions))?)?;
        self.binding.synchronize_inputs()?;
        // A binding keeps the last run's output buffer; another batch size would not fit into it.
        self.binding.bind_output_to_device("logits", &MemoryInfo::default())?;
        self.binding.bind_output_to_device("log_normalizer", &MemoryInfo::default())
    }
}

fn scores(outputs: &SessionOutputs<'_>, rows: usize, labels: usize) -> Result<Vec<RowScores>, ModelError> {
    let numbers = |name: &str, length: usize| {
        let output = outputs.get(name).ok_or_else(|| ModelError::run(format!("the classify graph gives no {name}")))?;
        let (_, numbers) = output.try_extract_tensor::<f32>().map_err(run_failed)?;
        if numbers.len() == length {
            Ok(numbers)
        } else {
            Err(ModelError::run(format!("{name} has {} numbers where {length} belong", numbers.len())))
        }
    };
    let logits = numbers("logits", rows * labels)?.chunks_exact(labels);
    let normalizers = numbers("log_normalizer", rows)?;
    Ok(logits
        .zip(normalizers)
        .map(|(logits, log_normalizer)| RowScores { logits: logits.to_vec(), log_normalizer: *log_normalizer })
        .collect())
}
