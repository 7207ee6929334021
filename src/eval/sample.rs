//! Judged rows, and every figure that is taken of them.
//!
//! A figure that the rows say nothing of (the AUC of a label that none of them has) is NaN here and left out of reports.

use super::ranking::Ranking;
use crate::policy::{Action, Thresholds};

/// Equal bins of the winning score, for the calibration error.
pub const BINS: usize = 15;

/// One row with the worker's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The label that it has, by its place in [`Frame::labels`].
    pub truth: usize,
    /// Calibrated scores in the same order; they sum to 1.
    pub scores: Vec<f64>,
    /// The scores before calibration; the same ones where the policy names none.
    pub raw: Vec<f64>,
    /// What the policy proposed.
    pub action: Action,
    /// Whether the verdict said that it does not know.
    pub abstained: bool,
    /// The post's language, detected or given.
    pub lang: Option<String>,
}

impl Judged {
    /// The label with the highest score; of equals the first, as in the worker.
    pub fn winner(&self) -> usize {
        winner(&self.scores)
    }

    /// How far the highest score lies above the second.
    pub fn margin(&self) -> f64 {
        let best = self.winner();
        let others = self.scores.iter().enumerate().filter(|(at, _)| *at != best).map(|(_, score)| *score);
        self.scores.get(best).copied().unwrap_or(0.0) - others.fold(0.0, f64::max)
    }
}

/// The place of the highest score; of equals the first.
pub fn winner(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

/// What all rows share.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The labels, in the policy's order.
    pub labels: Vec<String>,
    /// The policy's thresholds of each.
    pub thresholds: Vec<Option<Thresholds>>,
    /// Whether the scores went through a calibration.
    pub calibrated: bool,
}

/// The name of a figure: `macro_f1`, or with a label `auc.misinformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    name: &'static str,
    label: Option<usize>,
}

impl Key {
    /// The name as it stands in reports.
    pub fn dotted(self, frame: &Frame) -> String {
        let label = self.label.and_then(|label| frame.labels.get(label));
        label.map_or_else(|| self.name.to_owned(), |label| format!("{}.{label}", self.name))
    }
}

/// Rows that figures are taken of: all of them, or a slice.
pub struct Sample<'a> {
    frame: &'a Frame,
    rows: Vec<&'a Judged>,
    winners: Vec<usize>,
    rankings: Vec<Ranking>,
}

/// Figures with their names, in an order that is the same for every weighting of a sample.
struct Figures(Vec<(Key, f64)>);

impl Figures {
    fn put(&mut self, name: &'static str, value: f64) {
        self.0.push((Key { name, label: None }, value));
    }

    fn of(&mut self, name: &'static str, label: usize, value: f64) {
        self.0.push((Key { name, label: Some(label) }, value));
    }
}

impl<'a> Sample<'a> {
    /// Sorts the rows once for each label.
    pub fn new(frame: &'a Frame, rows: Vec<&'a Judged>) -> Self {
        let rank = |label| Ranking::new(rows.iter().map(|row| (row.scores[label], row.truth == label)));
        let rankings = (0..frame.labels.len()).map(rank).collect();
        let winners = rows.iter().map(|row| row.winner()).collect();
        Self { frame, rows, winners, rankings }
    }

    /// The rows.
    pub fn rows(&self) -> &[&'a Judged] {
        &self.rows
    }

    /// A label's rows in the order of its score.
    pub fn ranking(&self, label: usize) -> &Ranking {
        &self.rankings[label]
    }

    /// Rows by true label, then by the label they got.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let labels = self.frame.labels.len();
        let mut table = vec![vec![0; labels]; labels];
        for (row, winner) in self.rows.iter().zip(&self.winners) {
            table[row.truth][*winner] += 1;
        }
        table
    }

    /// Every figure, each row counted as often as `weights` says.
    pub fn figures(&self, weights: &[u32]) -> Vec<(Key, f64)> {
        let mut figures = Figures(self.labels_and_ranks(weights));
        let [ece, brier, nll] = self.probabilities(weights, |row| &row.scores);
        figures.put("ece", ece);
        figures.put("brier", brier);
        figures.put("nll", nll);
        if self.frame.calibrated {
            let [ece, brier, nll] = self.probabilities(weights, |row| &row.raw);
            figures.put("raw.ece", ece);
            figures.put("raw.brier", brier);
            figures.put("raw.nll", nll);
        }
        self.at_thresholds(weights, &mut figures);
        self.proposed(weights, &mut figures);
        figures.0
    }

    /// The figures of labels and of their order: those that need no trust in the scores as probabilities.
    pub fn labels_and_ranks(&self, weights: &[u32]) -> Vec<(Key, f64)> {
        let mut figures = Figures(Vec::with_capacity(80));
        self.labels_told_apart(weights, &mut figures);
        for (label, ranking) in self.rankings.iter().enumerate() {
            let ranked = ranking.figures(weights);
            figures.of("auc", label, ranked.auc);
            figures.of("average_precision", label, ranked.average_precision);
            figures.of("recall_at_fpr_1", label, ranked.recall_at_fpr_1);
            figures.of("recall_at_fpr_5", label, ranked.recall_at_fpr_5);
        }
        figures.0
    }

    fn labels_told_apart(&self, weights: &[u32], figures: &mut Figures) {
        let labels = self.frame.labels.len();
        let (mut hits, mut truths, mut given) = (vec![0.0; labels], vec![0.0; labels], vec![0.0; labels]);
        for ((row, winner), weight) in self.rows.iter().zip(&self.winners).zip(weights) {
            let weight = f64::from(*weight);
            truths[row.truth] += weight;
            given[*winner] += weight;
            if row.truth == *winner {
                hits[*winner] += weight;
            }
        }
        let (mut sum, mut count) = (0.0, 0.0);
        figures.put("accuracy", hits.iter().sum::<f64>() / truths.iter().sum::<f64>());
        for label in 0..labels {
            let f1 = 2.0 * hits[label] / (truths[label] + given[label]);
            // A label that is there and was never given has precision 0, as in scikit-learn.
            let precision = if given[label] > 0.0 || truths[label] == 0.0 { hits[label] / given[label] } else { 0.0 };
            figures.of("precision", label, precision);
            figures.of("recall", label, hits[label] / truths[label]);
            figures.of("f1", label, f1);
            if f1.is_finite() {
                (sum, count) = (sum + f1, count + 1.0);
            }
        }
        figures.put("macro_f1", sum / count);
    }

    /// Calibration error, Brier score and negative log likelihood.
    fn probabilities(&self, weights: &[u32], scores: impl Fn(&Judged) -> &[f64]) -> [f64; 3] {
        let mut bins = [(0.0, 0.0); BINS];
        let (mut brier, mut nll, mut all) = (0.0, 0.0, 0.0);
        for (row, weight) in self.rows.iter().zip(weights) {
            let (weight, scores) = (f64::from(*weight), scores(row));
            let best = winner(scores);
            let bin = &mut bins[bin_of(scores[best])];
            bin.0 += weight * scores[best];
            bin.1 += weight * f64::from(u8::from(best == row.truth));
            let miss = |(at, score): (usize, &f64)| (score - f64::from(u8::from(at == row.truth))).powi(2);
            brier += weight * scores.iter().enumerate().map(miss).sum::<f64>();
            nll -= weight * scores[row.truth].max(f64::MIN_POSITIVE).ln();
            all += weight;
        }
        let ece = bins.iter().map(|(score, right): &(f64, f64)| (score - right).abs()).sum::<f64>();
        [ece / all, brier / all, nll / all]
    }

    /// What the policy's own thresholds catch, and what they catch wrongly.
    fn at_thresholds(&self, weights: &[u32], figures: &mut Figures) {
        for (label, bands) in self.frame.thresholds.iter().enumerate() {
            let Some(bands) = bands else { continue };
            let (recall, fpr) = self.caught(weights, label, bands.review);
            figures.of("recall_at_review", label, recall);
            figures.of("fpr_at_review", label, fpr);
            if let Some(act) = bands.act {
                let (recall, fpr) = self.caught(weights, label, act);
                figures.of("recall_at_act", label, recall);
                figures.of("fpr_at_act", label, fpr);
            }
        }
    }

    /// Of the rows of the label and of all others, the shares whose score reaches `threshold`.
    fn caught(&self, weights: &[u32], label: usize, threshold: f64) -> (f64, f64) {
        let mut sides = [(0.0, 0.0); 2];
        for (row, weight) in self.rows.iter().zip(weights) {
            let (caught, all) = &mut sides[usize::from(row.truth == label)];
            *all += f64::from(*weight);
            if row.scores[label] >= threshold {
                *caught += f64::from(*weight);
            }
        }
        (sides[1].0 / sides[1].1, sides[0].0 / sides[0].1)
    }

    /// What the policy as it stands proposed, of all rows and of those of each label.
    fn proposed(&self, weights: &[u32], figures: &mut Figures) {
        const ACTIONS: [(Action, &str); 3] =
            [(Action::Allow, "action.allow"), (Action::Review, "action.review"), (Action::Act, "action.act")];
        let share = |label: Option<usize>, of: &dyn Fn(&Judged) -> bool| {
            let (mut some, mut all) = (0.0, 0.0);
            for (row, weight) in self.rows.iter().zip(weights).filter(|(row, _)| label.is_none_or(|at| at == row.truth))
            {
                all += f64::from(*weight);
                some += if of(row) { f64::from(*weight) } else { 0.0 };
            }
            some / all
        };
        for (action, name) in ACTIONS {
            figures.put(name, share(None, &|row| row.action == action));
            for label in 0..self.frame.labels.len() {
                figures.of(name, label, share(Some(label), &|row| row.action == action));
            }
        }
        figures.put("abstained", share(None, &|row| row.abstained));
    }
}

/// The bin of a score among [`BINS`] equal ones.
pub fn bin_of(score: f64) -> usize {
    ((score * BINS as f64) as usize).min(BINS - 1)
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
