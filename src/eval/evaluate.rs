//! Judged rows to figures with intervals, and to what the charts are drawn of.

use std::collections::BTreeMap;

use super::bootstrap::Resampling;
use super::report::{ActionRow, Estimate, LabelReport, ReliabilityBin, SliceRef, ThresholdRow};
use super::sample::{BINS, Frame, Judged, Sample, bin_of};
use crate::policy::Action;

/// Equal bins of a score's histogram.
pub const HISTOGRAM_BINS: usize = 20;

/// Figures by name.
pub type Metrics = BTreeMap<String, Estimate>;

/// Every figure of the sample, its name after `prefix`.
pub fn metrics(sample: &Sample<'_>, frame: &Frame, prefix: &str, resampling: Resampling) -> Metrics {
    let rows = sample.rows().len();
    let figures = sample.figures(&vec![1; rows]);
    let measure = |weights: &[u32]| sample.figures(weights).into_iter().map(|(_, value)| value).collect();
    let intervals = resampling.intervals(rows, measure);
    let named = figures.into_iter().enumerate().filter_map(|(at, (key, value))| {
        let estimate = Estimate::new(value, intervals.get(at).copied().flatten())?;
        Some((format!("{prefix}{}", key.dotted(frame)), estimate))
    });
    named.collect()
}

/// The figures of each slice: rows with the values of their fields.
pub fn slices(
    frame: &Frame,
    rows: &[(&Judged, &BTreeMap<String, String>)],
    resampling: Resampling,
) -> (Vec<SliceRef>, Metrics) {
    let mut groups: BTreeMap<(&String, &String), Vec<&Judged>> = BTreeMap::new();
    for (judged, values) in rows {
        for slice in *values {
            groups.entry(slice).or_default().push(judged);
        }
    }
    let (mut slices, mut metrics) = (Vec::new(), Metrics::new());
    for ((field, value), judged) in groups {
        let slice = SliceRef { field: field.clone(), value: value.clone(), rows: judged.len() };
        metrics.extend(self::metrics(&Sample::new(frame, judged), frame, &slice.prefix(), resampling));
        slices.push(slice);
    }
    (slices, metrics)
}

/// Winning scores beside how often they were right; empty bins are left out.
pub fn reliability(rows: &[&Judged]) -> Vec<ReliabilityBin> {
    let mut bins = [(0usize, 0.0, 0usize); BINS];
    for row in rows {
        let best = row.winner();
        let (count, score, right) = &mut bins[bin_of(row.scores[best])];
        *count += 1;
        *score += row.scores[best];
        *right += usize::from(best == row.truth);
    }
    let width = 1.0 / BINS as f64;
    let bin = |(at, (rows, score, right)): (usize, (usize, f64, usize))| ReliabilityBin {
        from: at as f64 * width,
        to: (at + 1) as f64 * width,
        rows,
        score: score / rows as f64,
        right: right as f64 / rows as f64,
    };
    bins.into_iter().enumerate().filter(|(_, (rows, ..))| *rows > 0).map(bin).collect()
}

/// One report a label.
pub fn by_label(sample: &Sample<'_>, frame: &Frame) -> Vec<LabelReport> {
    let report = |(label, name): (usize, &String)| {
        let curves = sample.ranking(label).curves();
        let of = |truth: usize| sample.rows().iter().filter(move |row| row.truth == truth);
        let scores = frame.labels.iter().enumerate().filter(|(truth, _)| of(*truth).count() > 0);
        LabelReport {
            label: name.clone(),
            support: of(label).count(),
            given: sample.rows().iter().filter(|row| row.winner() == label).count(),
            thresholds: frame.thresholds[label],
            roc: curves.roc,
            precision_recall: curves.precision_recall,
            scores: scores
                .map(|(truth, name)| (name.clone(), histogram(of(truth).map(|row| row.scores[label]))))
                .collect(),
            at: (1..20).map(|step| threshold(sample.rows(), frame, label, f64::from(step) / 20.0)).collect(),
        }
    };
    frame.labels.iter().enumerate().map(report).collect()
}

/// Scores in [`HISTOGRAM_BINS`] equal bins.
pub fn histogram(scores: impl Iterator<Item = f64>) -> Vec<usize> {
    let mut bins = vec![0; HISTOGRAM_BINS];
    for score in scores {
        bins[((score * HISTOGRAM_BINS as f64) as usize).min(HISTOGRAM_BINS - 1)] += 1;
    }
    bins
}

fn threshold(rows: &[&Judged], frame: &Frame, label: usize, threshold: f64) -> ThresholdRow {
    let review = frame.thresholds[label].map_or(f64::INFINITY, |bands| bands.review);
    let (mut reviewed, mut hits, mut others) = (0, 0, 0);
    for row in rows {
        match row.scores[label] {
            score if score >= threshold && row.truth == label => hits += 1,
            score if score >= threshold => others += 1,
            score => reviewed += usize::from(score >= review),
        }
    }
    let support = rows.iter().filter(|row| row.truth == label).count();
    let share = |part: usize, all: usize| (all > 0).then(|| part as f64 / all as f64);
    let of_all = |part: usize| share(part, rows.len()).unwrap_or_default();
    ThresholdRow {
        threshold,
        allowed: of_all(rows.len() - reviewed - hits - others),
        reviewed: of_all(reviewed),
        acted: of_all(hits + others),
        precision: share(hits, hits + others),
        recall: share(hits, support),
        false_positives: share(others, rows.len() - support),
    }
}

/// What the policy as it stands proposed, by true label.
pub fn actions(rows: &[&Judged], frame: &Frame) -> Vec<ActionRow> {
    let row = |(label, name): (usize, &String)| {
        let count = |of: &dyn Fn(&Judged) -> bool| rows.iter().filter(|row| row.truth == label && of(row)).count();
        ActionRow {
            label: name.clone(),
            rows: count(&|_| true),
            allow: count(&|row| row.action == Action::Allow),
            review: count(&|row| row.action == Action::Review),
            act: count(&|row| row.action == Action::Act),
            abstained: count(&|row| row.abstained),
        }
    };
    frame.labels.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Thresholds;

    fn frame() -> Frame {
        Frame {
            labels: vec!["a".to_owned(), "b".to_owned()],
            thresholds: vec![Some(Thresholds { review: 0.4, act: None }), None],
            calibrated: false,
        }
    }

    fn rows() -> Vec<Judged> {
        let row = |truth, score: f64| Judged {
            truth,
            scores: vec![score, 1.0 - score],
            raw: vec![score, 1.0 - score],
            action: if score >= 0.4 { Action::Review } else { Action::Allow },
            abstained: false,
            lang: None,
        };
        vec![row(0, 0.9), row(0, 0.45), row(1, 0.42), row(1, 0.1)]
    }

    #[test]
    fn a_threshold_acts_above_reviews_up_to_it_and_allows_the_rest() {
        let (frame, rows) = (frame(), rows());
        let sample = Sample::new(&frame, rows.iter().collect());
        let reports = by_label(&sample, &frame);
        let at = |threshold: f64| reports[0].at.iter().find(|row| (row.threshold - threshold).abs() < 1e-9).unwrap();
        let half = at(0.5);
        assert_eq!((half.allowed, half.reviewed, half.acted), (0.25, 0.5, 0.25));
        assert_eq!((half.precision, half.recall, half.false_positives), (Some(1.0), Some(0.5), Some(0.0)));
        let low = at(0.3);
        assert_eq!((low.allowed, low.reviewed, low.acted), (0.25, 0.0, 0.75));
        assert_eq!(at(0.95).precision, None);
        assert_eq!(reports[0].at.len(), 19);
        assert_eq!((reports[0].scores["b"][8], reports[0].scores["a"][18]), (1, 1));
    }

    #[test]
    fn actions_are_counted_by_the_label_that_a_row_has() {
        let (frame, rows) = (frame(), rows());
        let actions = actions(&rows.iter().collect::<Vec<_>>(), &frame);
        assert_eq!((actions[0].allow, actions[0].review), (0, 2));
        assert_eq!((actions[1].allow, actions[1].review, actions[1].rows), (1, 1, 2));
    }

    #[test]
    fn slices_have_names_of_their_own_and_only_their_rows() {
        let (frame, rows) = (frame(), rows());
        let values = ["x", "x", "y", "x"].map(|value| BTreeMap::from([("source".to_owned(), value.to_owned())]));
        let pairs: Vec<_> = rows.iter().zip(&values).collect();
        let (slices, metrics) = slices(&frame, &pairs, Resampling { resamples: 20, seed: 1 });
        assert_eq!(slices.iter().map(|slice| slice.rows).collect::<Vec<_>>(), [3, 1]);
        assert!((metrics["slice.source.x.accuracy"].value - 2.0 / 3.0).abs() < 1e-12);
        assert!(metrics["slice.source.x.accuracy"].low.is_some());
        assert!(!metrics.contains_key("slice.source.y.auc.a"), "one side alone has no AUC");
    }

    #[test]
    fn a_reliable_bin_is_right_as_often_as_it_says() {
        let rows = rows();
        let bins = reliability(&rows.iter().collect::<Vec<_>>());
        assert_eq!(bins.iter().map(|bin| bin.rows).sum::<usize>(), 4);
        let last = bins.last().unwrap();
        assert_eq!((last.rows, last.right), (2, 1.0));
        assert!((last.score - 0.9).abs() < 1e-12);
    }
}
