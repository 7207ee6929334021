//! Fitting a calibration: the temperature, and if asked the biases, that make labelled rows most likely.
//!
//! The calibrated score of label i is softmax over the labels of ln(raw_i) / temperature + bias_i. In 1/temperature and
//! the biases the likelihood has one top and no other, so Newton's steps find it from anywhere.

use super::sample::Judged;

/// Temperatures that a calibration may have.
const COOLEST: f64 = 0.01;
const HOTTEST: f64 = 100.0;
/// A bias is fitted for a label that so many rows have; one of fewer is 0.
pub const LEAST_FOR_A_BIAS: usize = 20;
/// Steps that are enough by far: ten are usual.
const STEPS: usize = 100;
/// Keeps a bias finite where the rows would let it run away; a hundred rows outweigh it.
const RIDGE: f64 = 1e-4;

/// One labelled row, raw.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// The label that it has.
    pub truth: usize,
    /// Logarithms of the raw scores.
    logs: Vec<f64>,
}

impl RawRow {
    /// A raw 0 is a score too small for a float: its logarithm stays finite, as where a calibration is applied.
    pub fn new(truth: usize, raw: &[f64]) -> Self {
        Self { truth, logs: raw.iter().map(|score| score.max(f64::MIN_POSITIVE).ln()).collect() }
    }
}

impl From<&Judged> for RawRow {
    fn from(row: &Judged) -> Self {
        Self::new(row.truth, &row.raw)
    }
}

/// What was fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Rows that it was fitted on.
    pub rows: usize,
    /// Above 1: the model was too sure of itself.
    pub temperature: f64,
    /// One a label; all 0 where only the temperature was fitted.
    pub bias: Vec<f64>,
}

impl Fitted {
    /// Fits `rows`, which have a score for each of `labels` labels.
    pub fn to(rows: &[RawRow], labels: usize, per_label: bool) -> Self {
        let mut point = Point { coolness: 1.0, bias: vec![0.0; labels] };
        let free = free(rows, labels, per_label);
        let mut loss = point.loss(rows);
        for _ in 0..STEPS {
            let (gradient, curvature) = point.slopes(rows, &free);
            let Some(step) = solve(curvature, gradient) else { break };
            let Some((next, next_loss)) = point.downhill(&step, &free, rows, loss) else { break };
            let gained = loss - next_loss;
            (point, loss) = (next, next_loss);
            if gained < 1e-13 {
                break;
            }
        }
        // Only differences of biases count: their mean is 0.
        let mean = point.bias.iter().sum::<f64>() / labels as f64;
        let bias = point.bias.iter().map(|bias| bias - mean).collect();
        Self { rows: rows.len(), temperature: 1.0 / point.coolness, bias: if per_label { bias } else { point.bias } }
    }

    /// The calibrated scores of a row.
    pub fn scores(&self, row: &RawRow) -> Vec<f64> {
        Point { coolness: 1.0 / self.temperature, bias: self.bias.clone() }.scores(row)
    }
}

/// The labels whose bias is free: those with rows enough, less the one with the most, from which the others are counted.
fn free(rows: &[RawRow], labels: usize, per_label: bool) -> Vec<usize> {
    if !per_label {
        return Vec::new();
    }
    let count = |label: usize| rows.iter().filter(|row| row.truth == label).count();
    let most = (0..labels).max_by_key(|label| count(*label));
    (0..labels).filter(|label| Some(*label) != most && count(*label) >= LEAST_FOR_A_BIAS).collect()
}

#[derive(Debug, Clone)]
struct Point {
    /// 1 / temperature.
    coolness: f64,
    bias: Vec<f64>,
}

impl Point {
    fn scores(&self, row: &RawRow) -> Vec<f64> {
        let logits = row.logs.iter().zip(&self.bias).map(|(log, bias)| log * self.coolness + bias);
        let mut scores: Vec<f64> = logits.collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores.iter_mut().for_each(|logit| *logit = (*logit - most).exp());
        let sum: f64 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= sum);
        scores
    }

    /// Mean negative log likelihood, and the ridge.
    fn loss(&self, rows: &[RawRow]) -> f64 {
        let nll: f64 = rows.iter().map(|row| -self.scores(row)[row.truth].max(f64::MIN_POSITIVE).ln()).sum();
        nll / rows.len() as f64 + RIDGE / 2.0 * self.bias.iter().map(|bias| bias * bias).sum::<f64>()
    }

    /// First and second derivatives of the loss, by coolness and then by each free bias.
    fn slopes(&self, rows: &[RawRow], free: &[usize]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let size = 1 + free.len();
        let (mut gradient, mut curvature) = (vec![0.0; size], vec![vec![0.0; size]; size]);
        for row in rows {
            let scores = self.scores(row);
            let mean: f64 = scores.iter().zip(&row.logs).map(|(score, log)| score * log).sum();
            let square: f64 = scores.iter().zip(&row.logs).map(|(score, log)| score * log * log).sum();
            gradient[0] += mean - row.logs[row.truth];
            curvature[0][0] += square - mean * mean;
            for (at, label) in free.iter().enumerate() {
                gradient[1 + at] += scores[*label] - f64::from(u8::from(row.truth == *label));
                curvature[0][1 + at] += scores[*label] * (row.logs[*label] - mean);
                for (beside, other) in free.iter().enumerate() {
                    let own = if label == other { scores[*label] } else { 0.0 };
                    curvature[1 + at][1 + beside] += own - scores[*label] * scores[*other];
                }
            }
        }
        let count = rows.len() as f64;
        gradient.iter_mut().chain(curvature.iter_mut().flatten()).for_each(|value| *value /= count);
        for (at, label) in free.iter().enumerate() {
            gradient[1 + at] += RIDGE * self.bias[*label];
            curvature[1 + at][1 + at] += RIDGE;
            curvature[1 + at][0] = curvature[0][1 + at];
        }
        // Where all scores of every row are equal, nothing is known of the temperature: it stays.
        curvature[0][0] += 1e-12;
        (gradient, curvature)
    }

    /// The whole step, or the longest half of a half of it, that makes the loss smaller.
    fn downhill(&self, step: &[f64], free: &[usize], rows: &[RawRow], loss: f64) -> Option<(Self, f64)> {
        (0..40).find_map(|halvings| {
            let length = 0.5f64.powi(halvings);
            let mut next = self.clone();
            next.coolness = (self.coolness - length * step[0]).clamp(1.0 / HOTTEST, 1.0 / COOLEST);
            for (label, step) in free.iter().zip(&step[1..]) {
                next.bias[*label] -= length * step;
            }
            let next_loss = next.loss(rows);
            (next_loss < loss).then_some((next, next_loss))
        })
    }
}

/// The solution of a small system of linear equations, by elimination; none where it has no single one.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for at in 0..size {
        let pivot = (at..size).max_by(|a, b| matrix[*a][at].abs().total_cmp(&matrix[*b][at].abs()))?;
        matrix.swap(at, pivot);
        right.swap(at, pivot);
        if matrix[at][at].abs() < 1e-300 || !matrix[at][at].is_finite() {
            return None;
        }
        for below in at + 1..size {
            let factor = matrix[below][at] / matrix[at][at];
            let (above, rest) = matrix.split_at_mut(below);
            for (cell, pivot) in rest[0][at..].iter_mut().zip(&above[at][at..]) {
                *cell -= factor * pivot;
            }
            right[below] -= factor * right[at];
        }
    }
    for at in (0..size).rev() {
        let known: f64 = (at + 1..size).map(|column| matrix[at][column] * right[column]).sum();
        right[at] = (right[at] - known) / matrix[at][at];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows whose labels are drawn from what a calibration of `temperature` and `bias` says of their raw scores.
    fn drawn(count: usize, temperature: f64, bias: [f64; 3], seed: u64) -> Vec<RawRow> {
        let mut random = fastrand::Rng::with_seed(seed);
        let truth = Fitted { rows: 0, temperature, bias: bias.to_vec() };
        let row = |_| {
            let logits = [(); 3].map(|()| (random.f64() - 0.5) * 8.0);
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let mut row = RawRow::new(0, &logits.map(|logit| logit.exp() / sum));
            let scores = truth.scores(&row);
            let draw = random.f64();
            row.truth = if draw < scores[0] {
                0
            } else if draw < scores[0] + scores[1] {
                1
            } else {
                2
            };
            row
        };
        (0..count).map(row).collect()
    }

    fn nll(fitted: &Fitted, rows: &[RawRow]) -> f64 {
        rows.iter().map(|row| -fitted.scores(row)[row.truth].ln()).sum::<f64>() / rows.len() as f64
    }

    #[test]
    fn a_known_temperature_and_known_biases_are_found_again() {
        let fitted = Fitted::to(&drawn(20_000, 2.5, [0.0; 3], 3), 3, false);
        assert!((fitted.temperature - 2.5).abs() < 0.15, "{fitted:?}");
        assert_eq!(fitted.bias, [0.0; 3]);
        let fitted = Fitted::to(&drawn(20_000, 0.7, [0.8, -0.5, -0.3], 4), 3, true);
        assert!((fitted.temperature - 0.7).abs() < 0.05, "{fitted:?}");
        assert!(
            fitted.bias.iter().zip([0.8, -0.5, -0.3]).all(|(found, bias)| (found - bias).abs() < 0.1),
            "{fitted:?}"
        );
    }

    #[test]
    fn no_temperature_beside_the_fitted_one_is_better() {
        let rows = drawn(500, 1.7, [0.0; 3], 5);
        let fitted = Fitted::to(&rows, 3, false);
        for factor in [0.98, 1.02] {
            let beside = Fitted { temperature: fitted.temperature * factor, ..fitted.clone() };
            assert!(nll(&beside, &rows) > nll(&fitted, &rows));
        }
    }

    #[test]
    fn rows_that_are_all_right_or_all_alike_leave_a_legal_temperature() {
        let right: Vec<_> =
            (0..30).map(|n| RawRow::new(n % 2, if n % 2 == 0 { &[0.9, 0.1] } else { &[0.1, 0.9] })).collect();
        let alike: Vec<_> = (0..30).map(|n| RawRow::new(n % 2, &[0.5, 0.5])).collect();
        let sure: Vec<_> = (0..30).map(|n| RawRow::new(n % 2, &[1.0, 0.0])).collect();
        for rows in [right, alike, sure] {
            for per_label in [false, true] {
                let fitted = Fitted::to(&rows, 2, per_label);
                assert!((COOLEST..=HOTTEST).contains(&fitted.temperature), "{fitted:?}");
                assert!(fitted.bias.iter().all(|bias| bias.abs() < 100.0), "{fitted:?}");
            }
        }
    }

    #[test]
    fn a_label_of_few_rows_gets_no_bias_of_its_own() {
        let mut rows = drawn(300, 1.0, [0.0; 3], 6);
        rows.retain(|row| row.truth != 2);
        let fitted = Fitted::to(&rows, 3, true);
        let free = free(&rows, 3, true);
        assert_eq!(free.len(), 1);
        assert!(fitted.bias.iter().all(|bias| bias.is_finite()), "{fitted:?}");
    }

    proptest! {
        #[test]
        fn a_fit_is_never_worse_than_the_raw_scores(
            temperature in 0.2..5.0f64, seed in 0u64..1000, per_label in any::<bool>(),
        ) {
            let rows = drawn(200, temperature, [0.4, 0.0, -0.4], seed);
            let raw = Fitted { rows: 0, temperature: 1.0, bias: vec![0.0; 3] };
            let fitted = Fitted::to(&rows, 3, per_label);
            prop_assert!(nll(&fitted, &rows) <= nll(&raw, &rows) + 1e-9);
        }
    }
}
