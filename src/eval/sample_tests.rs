use proptest::prelude::*;

use super::*;

fn frame(labels: usize) -> Frame {
    Frame {
        labels: ["a", "b", "c"][..labels].iter().map(|label| (*label).to_owned()).collect(),
        thresholds: vec![Some(Thresholds { review: 0.5, act: Some(0.8) }), None, None][..labels].to_vec(),
        calibrated: false,
    }
}

fn row(truth: usize, scores: &[f64]) -> Judged {
    let action = if scores[0] >= 0.8 { Action::Act } else { Action::Allow };
    Judged { truth, scores: scores.to_vec(), raw: scores.to_vec(), action, abstained: truth == 1, lang: None }
}

fn figure(rows: &[Judged], labels: usize, name: &str) -> f64 {
    let frame = frame(labels);
    let sample = Sample::new(&frame, rows.iter().collect());
    let figures = sample.figures(&vec![1; rows.len()]);
    figures.iter().find(|(key, _)| key.dotted(&frame) == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// Two of a: one right (0.9), one taken for b (0.6); two of b: one right (0.7), one taken for a (0.7).
fn four() -> Vec<Judged> {
    vec![row(0, &[0.9, 0.1]), row(0, &[0.4, 0.6]), row(1, &[0.3, 0.7]), row(1, &[0.7, 0.3])]
}

#[track_caller]
fn is(name: &str, expected: f64) {
    let found = figure(&four(), 2, name);
    assert!((found - expected).abs() < 1e-12, "{name} is {found}, not {expected}");
}

#[test]
fn the_figures_of_four_rows_are_those_worked_out_by_hand() {
    is("accuracy", 0.5);
    is("precision.a", 0.5);
    is("recall.b", 0.5);
    is("macro_f1", 0.5);
    is("auc.a", 0.75);
    is("brier", (0.02 + 0.72 + 0.18 + 0.98) / 4.0);
    is("nll", -(0.9f64.ln() + 0.4f64.ln() + 0.7f64.ln() + 0.3f64.ln()) / 4.0);
    // Bins of 1/15: 0.9 is alone and right; 0.6 is alone and wrong; the two of 0.7 are right once.
    is("ece", (0.1 + 0.6 + 2.0 * 0.2) / 4.0);
    is("recall_at_review.a", 0.5);
    is("fpr_at_review.a", 0.5);
    is("recall_at_act.a", 0.5);
    is("fpr_at_act.a", 0.0);
    is("action.act", 0.25);
    is("action.act.a", 0.5);
    is("action.allow.b", 1.0);
    is("abstained", 0.5);
}

#[test]
fn a_label_that_is_nowhere_does_not_enter_the_macro_f1_and_one_that_is_given_wrongly_does() {
    let rows = [row(0, &[0.8, 0.1, 0.1]), row(1, &[0.1, 0.8, 0.1])];
    assert_eq!(figure(&rows, 3, "macro_f1"), 1.0);
    assert!(figure(&rows, 3, "f1.c").is_nan());
    let rows = [row(0, &[0.8, 0.1, 0.1]), row(1, &[0.1, 0.1, 0.8])];
    assert!((figure(&rows, 3, "macro_f1") - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(figure(&rows, 3, "precision.b"), 0.0);
}

#[test]
fn the_confusion_matrix_has_the_truth_in_its_rows() {
    let (frame, rows) = (frame(2), four());
    let rows = [&rows[..], &rows[1..2]].concat();
    let sample = Sample::new(&frame, rows.iter().collect());
    assert_eq!(sample.confusion(), [[1, 2], [1, 1]]);
}

#[test]
fn raw_scores_have_figures_of_their_own_where_there_is_a_calibration() {
    let frame = Frame { calibrated: true, ..frame(2) };
    let rows = [Judged { raw: vec![0.6, 0.4], ..row(0, &[1.0, 0.0]) }];
    let sample = Sample::new(&frame, rows.iter().collect());
    let figures = sample.figures(&[1]);
    let named = |name: &str| figures.iter().find(|(key, _)| key.dotted(&frame) == name).unwrap().1;
    assert_eq!(named("ece"), 0.0);
    assert!((named("raw.ece") - 0.4).abs() < 1e-12);
}

proptest! {
    #[test]
    fn calibration_error_and_brier_score_stay_in_their_bounds(
        rows in prop::collection::vec((0usize..3, prop::array::uniform3(0.001..1.0f64)), 1..60),
    ) {
        let judged: Vec<Judged> = rows.into_iter().map(|(truth, weights)| {
            let sum: f64 = weights.iter().sum();
            row(truth, &weights.map(|weight| weight / sum))
        }).collect();
        prop_assert!((0.0..=1.0).contains(&figure(&judged, 3, "ece")));
        prop_assert!((0.0..=2.0).contains(&figure(&judged, 3, "brier")));
        prop_assert!(figure(&judged, 3, "nll") >= 0.0);
    }

    #[test]
    fn a_judge_that_is_always_right_and_sure_has_no_error(truths in prop::collection::vec(0usize..3, 1..30)) {
        let judged: Vec<Judged> = truths.iter().map(|truth| {
            let mut scores = [0.0; 3];
            scores[*truth] = 1.0;
            row(*truth, &scores)
        }).collect();
        prop_assert_eq!(figure(&judged, 3, "accuracy"), 1.0);
        prop_assert_eq!(figure(&judged, 3, "macro_f1"), 1.0);
        prop_assert_eq!(figure(&judged, 3, "ece"), 0.0);
    }
}
