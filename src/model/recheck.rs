//! A second look in fp32 at the rows that int8 leaves close. Integer products move a score by a hundredth or so; where
//! the two best scores lie further apart than that, the label is the same, and where they do not, chance would decide.

use super::{buckets::Bucket, cascade::CascadeEngine, error::ModelError, scores::RowScores};

/// The fp32 graph beside an int8 one, for one thread.
pub(super) struct Recheck {
    engine: CascadeEngine,
    margin: f64,
}

impl Recheck {
    pub(super) fn new(engine: CascadeEngine, margin: f64) -> Self {
        Self { engine, margin }
    }

    /// The same rows, with the scores of fp32 where those of int8 are close.
    pub(super) fn settle(
        &mut self,
        rows: &[&[u32]],
        mut scores: Vec<RowScores>,
        shape: Option<Bucket>,
    ) -> Result<Vec<RowScores>, ModelError> {
        let close: Vec<usize> = (0..rows.len()).filter(|row| scores[*row].lead() < self.margin).collect();
        if close.is_empty() {
            return Ok(scores);
        }
        let again: Vec<&[u32]> = close.iter().map(|row| rows[*row]).collect();
        for (row, exact) in close.into_iter().zip(self.engine.classify(&again, shape)?) {
            scores[row] = exact;
        }
        Ok(scores)
    }

    /// Every row in fp32, close or not.
    pub(super) fn all(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        self.engine.classify(rows, None)
    }
}
