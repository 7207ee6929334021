//! How far the scores of now have moved from those that the calibration was fitted on. Where posts or their authors change,
//! scores come to mean something else, long before anyone has labelled the new posts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::calibration::{BASELINE_BINS, CalibrationV1};

/// Verdicts of one generation; what is told is of the last whole one and the running one together.
const GENERATION: u64 = 5_000;
/// Fewer verdicts say nothing.
const LEAST: u64 = 200;

/// Histograms of calibrated scores, by label.
#[derive(Debug, Default)]
pub struct Drift(Mutex<Scores>);

#[derive(Debug, Default)]
struct Scores {
    labels: BTreeMap<String, Label>,
    verdicts: u64,
}

#[derive(Debug)]
struct Label {
    /// Shares, which sum to 1.
    baseline: Vec<f64>,
    last: Vec<u64>,
    running: Vec<u64>,
}

impl Drift {
    /// Begins anew, from this calibration's baseline; without one nothing is told.
    pub fn begin(&self, calibration: Option<&CalibrationV1>) {
        let baselines = calibration.map(|calibration| calibration.baseline.iter()).into_iter().flatten();
        let labels = baselines.filter(|(_, counts)| counts.iter().sum::<u64>() > 0).map(|(label, counts)| {
            let all = counts.iter().sum::<u64>() as f64;
            let baseline = counts.iter().map(|count| *count as f64 / all).collect();
            let empty = vec![0; counts.len().max(BASELINE_BINS)];
            (label.clone(), Label { baseline, last: empty.clone(), running: empty })
        });
        *self.lock() = Scores { labels: labels.collect(), verdicts: 0 };
    }

    /// One verdict's calibrated scores.
    pub fn add<'a>(&self, scores: impl Iterator<Item = (&'a str, f64)>) {
        let mut all = self.lock();
        if all.labels.is_empty() {
            return;
        }
        for (label, score) in scores {
            if let Some(Label { baseline, running, .. }) = all.labels.get_mut(label) {
                let bins = baseline.len();
                let bin = ((score.clamp(0.0, 1.0) * bins as f64) as usize).min(bins - 1);
                running[bin] += 1;
            }
        }
        all.verdicts += 1;
        if all.verdicts.is_multiple_of(GENERATION) {
            for label in all.labels.values_mut() {
                label.last = std::mem::replace(&mut label.running, vec![0; label.last.len()]);
            }
        }
    }

    /// Total variation distance of each label's histogram from its baseline, 0 to 1; none before there are enough verdicts.
    pub fn distances(&self) -> Vec<(String, f64)> {
        let all = self.lock();
        let distance = |label: &Label| {
            let seen: Vec<u64> = label.last.iter().zip(&label.running).map(|(last, running)| last + running).collect();
            let count: u64 = seen.iter().sum();
            let apart = |(share, seen): (&f64, &u64)| (share - *seen as f64 / count as f64).abs();
            (count >= LEAST).then(|| label.baseline.iter().zip(&seen).map(apart).sum::<f64>() / 2.0)
        };
        all.labels.iter().filter_map(|(name, label)| Some((name.clone(), distance(label)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Scores> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift() -> Drift {
        let mut baseline = [0; BASELINE_BINS];
        (baseline[0], baseline[BASELINE_BINS - 1]) = (300, 100);
        let label = Label {
            baseline: baseline.iter().map(|count| f64::from(*count) / 400.0).collect(),
            last: vec![0; BASELINE_BINS],
            running: vec![0; BASELINE_BINS],
        };
        Drift(Mutex::new(Scores { labels: [("bad".to_owned(), label)].into(), verdicts: 0 }))
    }

    fn told(drift: &Drift) -> f64 {
        drift.distances()[0].1
    }

    #[test]
    fn scores_as_they_were_are_no_drift_and_others_are_as_far_as_their_share() {
        let drift = drift();
        for n in 0..400 {
            drift.add([("bad", if n % 4 == 0 { 1.0 } else { 0.0 }), ("unknown", f64::NAN)].into_iter());
        }
        assert!(told(&drift) < 1e-9);
        for _ in 0..400 {
            drift.add([("bad", 0.5)].into_iter());
        }
        assert!((told(&drift) - 0.5).abs() < 1e-9, "half of all verdicts lie where none lay");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let drift = drift();
        for _ in 0..2 * GENERATION {
            drift.add([("bad", 0.5)].into_iter());
        }
        assert!((told(&drift) - 1.0).abs() < 1e-9);
        for n in 0..2 * GENERATION {
            drift.add([("bad", if n % 4 == 0 { 1.0 } else { 0.0 })].into_iter());
        }
        assert!(told(&drift) < 1e-9);
    }

    #[test]
    fn a_few_verdicts_and_a_policy_without_baseline_tell_nothing() {
        let drift = drift();
        drift.add([("bad", 0.5)].into_iter());
        assert!(drift.distances().is_empty());
        drift.begin(None);
        (0..1_000).for_each(|_| drift.add([("bad", 0.5)].into_iter()));
        assert!(drift.distances().is_empty());
    }
}
