//! The same rows judged twice, with one setting changed: what the change costs in labels and figures.

use super::bootstrap::Resampling;
use super::evaluate::Metrics;
use super::report::{Estimate, JudgeRef, ParityReport};
use super::sample::{Frame, Judged, Sample};

/// A row is clear where its two highest scores lie further apart than this.
const CLEAR: f64 = 0.2;

/// Two runs over the same rows, one beside the other.
pub struct Runs<'a> {
    /// As configured.
    pub first: Vec<&'a Judged>,
    /// With the setting.
    pub second: Vec<&'a Judged>,
}

/// What `setting`, under which `judge` judged the second run, changes.
pub fn compare(
    frame: &Frame,
    runs: Runs<'_>,
    setting: String,
    judge: JudgeRef,
    resampling: Resampling,
) -> (ParityReport, Metrics) {
    let Runs { first, second } = runs;
    let differs: Vec<bool> = first.iter().zip(&second).map(|(a, b)| a.winner() != b.winner()).collect();
    let clear: Vec<bool> = first.iter().map(|row| row.margin() > CLEAR).collect();
    let apart: Vec<f64> = first.iter().zip(&second).map(|(a, b)| difference(a, b)).collect();
    let report = ParityReport {
        setting,
        judge,
        rows: first.len(),
        clear_rows: clear.iter().filter(|clear| **clear).count(),
        labels_differ: differs.iter().filter(|differs| **differs).count(),
        clear_labels_differ: differs.iter().zip(&clear).filter(|(differs, clear)| **differs && **clear).count(),
    };
    let rows = first.len();
    let samples = (Sample::new(frame, first), Sample::new(frame, second));
    // Both runs of a row are drawn together: what the rows have in common cancels out.
    let measure = |weights: &[u32]| {
        let share = |count: &dyn Fn(usize) -> bool, of: &dyn Fn(usize) -> bool| {
            let sum = |holds: &dyn Fn(usize) -> bool| {
                (0..rows).filter(|row| holds(*row)).map(|row| f64::from(weights[row])).sum::<f64>()
            };
            sum(&|row| of(row) && count(row)) / sum(of)
        };
        let mean = apart.iter().zip(weights).map(|(apart, weight)| apart * f64::from(*weight)).sum::<f64>()
            / weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        let mut figures =
            vec![share(&|row| differs[row], &|_| true), share(&|row| differs[row], &|row| clear[row]), mean];
        figures.extend(changes(&samples, frame, weights).into_iter().map(|(_, change)| change));
        figures
    };
    let all = vec![1; rows];
    let intervals = resampling.intervals(rows, measure);
    let names = ["labels_differ", "clear_labels_differ", "mean_difference"].map(str::to_owned).into_iter();
    let names = names.chain(changes(&samples, frame, &all).into_iter().map(|(name, _)| name));
    let mut metrics: Metrics = names
        .zip(measure(&all))
        .enumerate()
        .filter_map(|(at, (name, value))| {
            let estimate = Estimate::new(value, intervals.get(at).copied().flatten())?;
            Some((format!("{}{name}", report.prefix()), estimate))
        })
        .collect();
    let most = apart.iter().copied().fold(0.0, f64::max);
    metrics.extend(Estimate::new(most, None).map(|most| (format!("{}max_difference", report.prefix()), most)));
    (report, metrics)
}

/// The greatest difference of a label's score.
fn difference(a: &Judged, b: &Judged) -> f64 {
    a.scores.iter().zip(&b.scores).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// By how much AUC and macro-F1 move.
fn changes(samples: &(Sample<'_>, Sample<'_>), frame: &Frame, weights: &[u32]) -> Vec<(String, f64)> {
    let figures = |sample: &Sample<'_>| -> Vec<(String, f64)> {
        let named = sample.labels_and_ranks(weights).into_iter().map(|(key, value)| (key.dotted(frame), value));
        named.filter(|(name, _)| name == "macro_f1" || name.starts_with("auc.")).collect()
    };
    let changed = |((name, before), (_, after)): ((String, f64), (String, f64))| {
        let name =
            if name == "macro_f1" { "macro_f1_change".to_owned() } else { name.replacen("auc.", "auc_change.", 1) };
        (name, after - before)
    };
    figures(&samples.0).into_iter().zip(figures(&samples.1)).map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;

    fn frame() -> Frame {
        Frame { labels: vec!["a".to_owned(), "b".to_owned()], thresholds: vec![None; 2], calibrated: false }
    }

    fn run(scores: [f64; 4]) -> Vec<Judged> {
        let row = |(at, score): (usize, f64)| Judged {
            truth: at % 2,
            scores: vec![score, 1.0 - score],
            raw: vec![score, 1.0 - score],
            action: Action::Allow,
            abstained: false,
            lang: None,
        };
        scores.into_iter().enumerate().map(row).collect()
    }

    fn compared(one: &[Judged], other: &[Judged]) -> (ParityReport, Metrics) {
        let runs = Runs { first: one.iter().collect(), second: other.iter().collect() };
        compare(&frame(), runs, "precision=int8".to_owned(), JudgeRef::default(), Resampling { resamples: 50, seed: 1 })
    }

    #[test]
    fn what_differs_is_counted_and_rows_with_a_clear_margin_apart() {
        // Clear rows are the first and the last; of them the last changes its label.
        let (one, other) = (run([0.9, 0.45, 0.55, 0.2]), run([0.8, 0.55, 0.55, 0.6]));
        let (report, metrics) = compared(&one, &other);
        assert_eq!((report.rows, report.clear_rows, report.labels_differ, report.clear_labels_differ), (4, 2, 2, 1));
        let value = |name: &str| metrics[&format!("parity.precision=int8.{name}")].value;
        assert_eq!((value("labels_differ"), value("clear_labels_differ")), (0.5, 0.5));
        assert!((value("max_difference") - 0.4).abs() < 1e-12);
        assert!((value("mean_difference") - (0.1 + 0.1 + 0.4) / 4.0).abs() < 1e-12);
        // All right before; the two of b are taken for a after.
        assert!((value("macro_f1_change") - (1.0 / 3.0 - 1.0)).abs() < 1e-12);
        assert!((value("auc_change.a") - (0.625 - 1.0)).abs() < 1e-12);
    }

    #[test]
    fn the_same_answers_differ_in_nothing() {
        let one = run([0.9, 0.45, 0.55, 0.2]);
        let (report, metrics) = compared(&one, &one);
        assert_eq!(report.labels_differ, 0);
        assert!(metrics.values().all(|estimate| estimate.value == 0.0), "{metrics:?}");
    }
}
