//! What the model said of one post, and what it means as probabilities.

/// The raw scores of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowScores {
    /// One logit a label, in the policy's order.
    pub logits: Vec<f32>,
    /// Log of the sum of exponentials over the whole vocabulary.
    pub log_normalizer: f32,
}

impl RowScores {
    /// The labels' probabilities among themselves: they sum to 1.
    pub fn scores(&self) -> Vec<f64> {
        let logits = self.logits.iter().map(|logit| f64::from(*logit));
        // The greatest is taken out, so no exponential can overflow and at least one is 1. It must be the greatest,
        // not the one greatest by magnitude: beside a very negative logit the others would overflow.
        let greatest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.map(|logit| (logit - greatest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// The probability, over the whole vocabulary, that the model would answer with none of the labels.
    pub fn outside_mass(&self) -> f64 {
        let normalizer = f64::from(self.log_normalizer);
        let inside: f64 = self.logits.iter().map(|logit| (f64::from(*logit) - normalizer).exp()).sum();
        (1.0 - inside).clamp(0.0, 1.0)
    }

    /// How far the greatest score is ahead of the next; 1 where there is no next.
    pub(super) fn lead(&self) -> f64 {
        let mut scores = self.scores();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.first().unwrap_or(&1.0) - scores.get(1).unwrap_or(&0.0)
    }

    /// Whether every number is one.
    pub(super) fn is_finite(&self) -> bool {
        self.log_normalizer.is_finite() && self.logits.iter().all(|logit| logit.is_finite())
    }
}

/// Stable in the same way.
pub(super) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let greatest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    greatest + values.map(|value| (value - greatest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(logits: &[f32], log_normalizer: f32) -> RowScores {
        RowScores { logits: logits.to_vec(), log_normalizer }
    }

    #[test]
    fn equal_logits_share_the_probability() {
        assert_eq!(row(&[5.0; 4], 6.4).scores(), [0.25; 4]);
        assert_eq!(row(&[1e30; 2], 1e30).scores(), [0.5; 2]);
        assert_eq!(row(&[-1e30; 2], 0.0).scores(), [0.5; 2]);
    }

    #[test]
    fn extreme_logits_neither_overflow_nor_vanish() {
        assert_eq!(row(&[1e30, -1e30, 0.0], 1e30).scores(), [1.0, 0.0, 0.0]);
        assert_eq!(row(&[-1e30, 0.0, 0.0], 1.0).scores(), [0.0, 0.5, 0.5]);
        assert_eq!(row(&[f32::MAX, f32::MIN], f32::MAX).scores(), [1.0, 0.0]);
    }

    #[test]
    fn scores_are_the_softmax() {
        let scores = row(&[0.0, std::f32::consts::LN_2], 2.0).scores();
        assert!((scores[0] - 1.0 / 3.0).abs() < 1e-7 && (scores[1] - 2.0 / 3.0).abs() < 1e-7);
    }

    #[test]
    fn the_lead_is_the_distance_of_the_two_greatest() {
        let ln = |score: f32| score.ln();
        assert!((row(&[ln(0.25), ln(0.05), ln(0.4), ln(0.3)], 0.0).lead() - 0.1).abs() < 1e-6);
        assert_eq!(row(&[1.0], 1.0).lead(), 1.0);
    }

    #[test]
    fn the_mass_outside_the_labels_is_what_they_leave() {
        let half = -std::f32::consts::LN_2;
        assert!((row(&[half, half - 30.0], 0.0).outside_mass() - 0.5).abs() < 1e-7);
        assert_eq!(row(&[-1e30, -1e30], 0.0).outside_mass(), 1.0);
        // Rounding may put the labels a little over one: the rest is then nothing, not negative.
        assert_eq!(row(&[0.0, -20.0], -1e-6).outside_mass(), 0.0);
    }

    #[test]
    fn numbers_that_are_none_are_noticed() {
        assert!(row(&[1.0], 2.0).is_finite());
        assert!(!row(&[f32::NAN], 2.0).is_finite());
        assert!(!row(&[1.0], f32::INFINITY).is_finite());
    }
}
