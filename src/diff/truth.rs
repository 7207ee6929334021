//! Which side was right: accuracy of both with intervals, and McNemar's test.

use super::report::TruthReport;
use crate::eval::bootstrap::Resampling;
use crate::eval::report::Estimate;

/// Whether each labelled pair is right in `a` and in `b`.
#[derive(Debug, Default)]
pub struct Marks(Vec<[bool; 2]>);

impl Marks {
    /// One pair.
    pub fn add(&mut self, right: [bool; 2]) {
        self.0.push(right);
    }

    fn count(&self, right: [bool; 2]) -> u64 {
        self.0.iter().filter(|mark| **mark == right).count() as u64
    }

    /// The figures of a file of that name and digest.
    pub fn report(&self, (name, sha256, unused): (&str, &str, u64), resampling: Resampling) -> TruthReport {
        let intervals = resampling.intervals(self.0.len(), |weights| self.figures(weights));
        let once = vec![1; self.0.len()];
        let mut estimates = self.figures(&once).into_iter().enumerate().map(|(at, value)| {
            let (low, high) = intervals.get(at).copied().flatten().unzip();
            Estimate { value, low, high }
        });
        let mut estimate = || estimates.next().unwrap_or(Estimate { value: 0.0, low: None, high: None });
        let (only_a, only_b) = (self.count([true, false]), self.count([false, true]));
        TruthReport {
            name: name.to_owned(),
            sha256: sha256.to_owned(),
            unused,
            pairs: self.0.len() as u64,
            both: self.count([true, true]),
            only_a,
            only_b,
            neither: self.count([false, false]),
            accuracy: [estimate(), estimate()],
            accuracy_change: estimate(),
            mcnemar_p: mcnemar(only_a, only_b),
            bootstrap: [resampling.resamples as u64, resampling.seed],
        }
    }

    /// Accuracy of `a`, of `b`, and by how much the latter is greater.
    fn figures(&self, weights: &[u32]) -> Vec<f64> {
        let (mut all, mut right) = (0.0, [0.0; 2]);
        for (mark, weight) in self.0.iter().zip(weights) {
            let weight = f64::from(*weight);
            all += weight;
            for (sum, is_right) in right.iter_mut().zip(mark) {
                *sum += weight * f64::from(u8::from(*is_right));
            }
        }
        let share = right.map(|right| if all > 0.0 { right / all } else { 0.0 });
        vec![share[0], share[1], share[1] - share[0]]
    }
}

/// The exact two-sided p of McNemar's test: of so many pairs on which only one side is right, each is as likely to be either.
fn mcnemar(only_a: u64, only_b: u64) -> f64 {
    let (n, least) = (only_a + only_b, only_a.min(only_b));
    // ln of C(n, k) / 2^n, from k to k + 1; a term too small for a float adds nothing.
    let (mut term, mut sum) = (-(n as f64) * std::f64::consts::LN_2, 0.0);
    for k in 0..=least {
        sum += term.exp();
        term += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemars_exact_test_gives_the_published_values() {
        let close =
            |a: u64, b: u64, p: f64| assert!((mcnemar(a, b) - p).abs() < 5e-4 * p, "{a} {b}: {}", mcnemar(a, b));
        // By hand: 2 (1 + 10) / 2^10.
        close(1, 9, 22.0 / 1024.0);
        // And 2 (1 + 20 + 190 + 1140 + 4845) / 2^20.
        close(4, 16, 0.011_818);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(7, 7), 1.0);
        assert!((mcnemar(3, 12) - mcnemar(12, 3)).abs() < 1e-15);
        // 100,000 against 101,000 of a million pairs: by the normal approximation 2.23 standard deviations.
        assert!((mcnemar(100_000, 101_000) - 0.0258).abs() < 5e-4, "{}", mcnemar(100_000, 101_000));
    }

    #[test]
    fn the_side_that_is_right_more_often_is_told_with_an_interval_around_the_difference() {
        let mut marks = Marks::default();
        for n in 0..400 {
            marks.add([n % 4 != 0, n % 10 != 0]);
        }
        let report = marks.report(("labels.jsonl", "00", 3), Resampling { resamples: 500, seed: 1 });
        assert_eq!([report.both, report.only_a, report.only_b, report.neither], [280, 20, 80, 20]);
        assert_eq!([report.accuracy[0].value, report.accuracy[1].value], [0.75, 0.9]);
        let Estimate { value, low, high } = report.accuracy_change;
        assert!((value - 0.15).abs() < 1e-12);
        // Standard error of the difference of paired shares: sqrt((0.25 - 0.0225) / 400).
        let half = 1.96 * (0.2275f64 / 400.0).sqrt();
        assert!((low.unwrap() - (0.15 - half)).abs() < 0.01 && (high.unwrap() - (0.15 + half)).abs() < 0.01);
        assert!(report.mcnemar_p < 1e-8);
    }
}
