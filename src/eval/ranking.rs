//! Rows in the order of one label's score: what can be said of that label against the rest, whatever the threshold.
//!
//! A row counts as often as its weight says: a bootstrap resample is another list of weights over the same order, so
//! nothing is sorted twice.

/// Most points of a curve that is drawn.
const POINTS: f64 = 160.0;

/// Rows from the highest score of a label to the lowest.
#[derive(Debug, Clone)]
pub struct Ranking(Vec<Place>);

#[derive(Debug, Clone, Copy)]
struct Place {
    row: usize,
    score: f64,
    positive: bool,
    /// The next row has a lower score: a threshold can stand here, but not between equal scores.
    ends_tie: bool,
}

/// What a ranking comes to; NaN where the rows hold only one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Chance that a row of the label scores higher than one of another; ties count half.
    pub auc: f64,
    /// Area under precision over recall.
    pub average_precision: f64,
    /// Highest recall at 1 % false positives or fewer.
    pub recall_at_fpr_1: f64,
    /// The same at 5 %.
    pub recall_at_fpr_5: f64,
}

/// Rows at or above a threshold.
#[derive(Debug, Clone, Copy, Default)]
struct Above {
    positives: f64,
    negatives: f64,
}

/// Both curves of a label, thinned for drawing, from the highest threshold to the lowest.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    /// False positive rate and recall.
    pub roc: Vec<[f64; 2]>,
    /// Recall and precision.
    pub precision_recall: Vec<[f64; 2]>,
}

impl Ranking {
    /// Each row's score, and whether it is of the label. A score that is no number ranks last.
    pub fn new(rows: impl Iterator<Item = (f64, bool)>) -> Self {
        let number = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
        let place = |(row, (score, positive))| Place { row, score: number(score), positive, ends_tie: true };
        let mut places: Vec<Place> = rows.enumerate().map(place).collect();
        places.sort_by(|a, b| b.score.total_cmp(&a.score));
        for at in 1..places.len() {
            places[at - 1].ends_tie = places[at - 1].score > places[at].score;
        }
        Self(places)
    }

    /// The figures, each row counted as often as `weights` says.
    pub fn figures(&self, weights: &[u32]) -> Ranked {
        let all = self.totals(weights);
        let (mut area, mut precision, mut recalls) = (0.0, 0.0, [0.0f64; 2]);
        self.walk(weights, |before, now| {
            let (positives, negatives) = (now.positives - before.positives, now.negatives - before.negatives);
            area += negatives * (before.positives + positives / 2.0);
            if positives > 0.0 {
                precision += positives * now.positives / (now.positives + now.negatives);
            }
            for (recall, most) in recalls.iter_mut().zip([0.01, 0.05]) {
                if now.negatives <= most * all.negatives {
                    *recall = recall.max(now.positives);
                }
            }
        });
        let both = all.positives > 0.0 && all.negatives > 0.0;
        let of_both = |value: f64| if both { value } else { f64::NAN };
        Ranked {
            auc: of_both(area / (all.positives * all.negatives)),
            average_precision: precision / all.positives,
            recall_at_fpr_1: of_both(recalls[0] / all.positives),
            recall_at_fpr_5: of_both(recalls[1] / all.positives),
        }
    }

    /// The curves over all rows; empty where the rows hold only one side.
    pub fn curves(&self) -> Curves {
        let weights = vec![1; self.0.len()];
        let all = self.totals(&weights);
        let mut curves = Curves::default();
        if all.positives == 0.0 || all.negatives == 0.0 {
            return curves;
        }
        curves.roc.push([0.0, 0.0]);
        self.walk(&weights, |_, now| {
            let recall = now.positives / all.positives;
            keep(&mut curves.roc, [now.negatives / all.negatives, recall]);
            keep(&mut curves.precision_recall, [recall, now.positives / (now.positives + now.negatives)]);
        });
        curves.roc.push([1.0, 1.0]);
        curves.precision_recall.push([1.0, all.positives / (all.positives + all.negatives)]);
        curves
    }

    fn totals(&self, weights: &[u32]) -> Above {
        self.0.iter().fold(Above::default(), |all, place| all.with(place, weights))
    }

    /// Calls `at` with what lies above each threshold, highest first, and what lay above the one before.
    fn walk(&self, weights: &[u32], mut at: impl FnMut(Above, Above)) {
        let (mut before, mut now) = (Above::default(), Above::default());
        for place in &self.0 {
            now = now.with(place, weights);
            if place.ends_tie {
                at(before, now);
                before = now;
            }
        }
    }
}

impl Above {
    fn with(mut self, place: &Place, weights: &[u32]) -> Self {
        let weight = weights.get(place.row).map_or(0.0, |weight| f64::from(*weight));
        *(if place.positive { &mut self.positives } else { &mut self.negatives }) += weight;
        self
    }
}

/// Adds a point that lies far enough from the last one to be seen.
fn keep(points: &mut Vec<[f64; 2]>, point: [f64; 2]) {
    let far = |last: &[f64; 2]| (last[0] - point[0]).abs() + (last[1] - point[1]).abs() >= 1.0 / POINTS;
    if points.last().is_none_or(far) {
        points.push(point);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranked(rows: &[(f64, bool)]) -> Ranked {
        Ranking::new(rows.iter().copied()).figures(&vec![1; rows.len()])
    }

    #[test]
    fn the_figures_are_those_worked_out_by_hand() {
        // From the top: + - + (+ -) -. Negatives see 1, 2.5 and 3 of 3 positives above them.
        let rows = [(0.9, true), (0.8, false), (0.7, true), (0.5, true), (0.5, false), (0.1, false)];
        let figures = ranked(&rows);
        assert!((figures.auc - (1.0 + 2.5 + 3.0) / 9.0).abs() < 1e-12);
        assert!((figures.average_precision - (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0).abs() < 1e-12);
        // No threshold has between none and a third of the negatives above it.
        assert!((figures.recall_at_fpr_5 - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn recall_at_five_percent_lets_one_of_twenty_through_and_not_two() {
        let negatives = (0..20).map(|n| (if n < 2 { 0.9 - f64::from(n) / 10.0 } else { 0.1 }, false));
        let rows: Vec<_> = negatives.chain([(0.95, true), (0.85, true), (0.7, true)]).collect();
        let figures = ranked(&rows);
        assert!((figures.recall_at_fpr_5 - 2.0 / 3.0).abs() < 1e-12);
        assert!((figures.recall_at_fpr_1 - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn equal_scores_tell_nothing_and_one_side_alone_has_no_figure() {
        assert!((ranked(&[(0.5, true), (0.5, false), (0.5, false)]).auc - 0.5).abs() < 1e-12);
        let figures = ranked(&[(0.5, true), (0.6, true)]);
        assert!(figures.auc.is_nan() && figures.recall_at_fpr_1.is_nan());
        assert!(ranked(&[]).average_precision.is_nan());
    }

    #[test]
    fn the_curves_begin_and_end_where_they_must() {
        let curves = Ranking::new([(0.9, true), (0.4, false), (0.3, true)].into_iter()).curves();
        assert_eq!((curves.roc.first(), curves.roc.last()), (Some(&[0.0, 0.0]), Some(&[1.0, 1.0])));
        assert_eq!(curves.precision_recall.first(), Some(&[0.5, 1.0]));
        assert_eq!(curves.precision_recall.last(), Some(&[1.0, 2.0 / 3.0]));
    }

    proptest! {
        #[test]
        fn auc_is_the_share_of_pairs_in_the_right_order_and_no_rising_map_changes_it(
            rows in prop::collection::vec((0u8..20, any::<bool>()), 1..40),
        ) {
            let rows: Vec<(f64, bool)> = rows.into_iter().map(|(score, side)| (f64::from(score) / 20.0, side)).collect();
            let mapped: Vec<_> = rows.iter().map(|(score, side)| ((3.0 * score).exp() - 7.0, *side)).collect();
            let auc = ranked(&rows).auc;
            let pairs = rows.iter().filter(|row| row.1).flat_map(|p| rows.iter().filter(|row| !row.1).map(move |n| (p.0, n.0)));
            let (right, count) = pairs.fold((0.0, 0.0), |(right, count), (p, n)| {
                (right + if p > n { 1.0 } else if p == n { 0.5 } else { 0.0 }, count + 1.0)
            });
            if count == 0.0 {
                prop_assert!(auc.is_nan());
            } else {
                prop_assert!((auc - right / count).abs() < 1e-9);
                prop_assert_eq!(auc, ranked(&mapped).auc);
            }
        }

        #[test]
        fn a_weight_counts_a_row_as_often_as_it_says(
            rows in prop::collection::vec((0u8..9, any::<bool>(), 0u32..4), 1..20),
        ) {
            let once = rows.iter().map(|(score, side, _)| (f64::from(*score), *side));
            let weights: Vec<u32> = rows.iter().map(|row| row.2).collect();
            let repeated: Vec<_> = rows.iter()
                .flat_map(|(score, side, times)| std::iter::repeat_n((f64::from(*score), *side), *times as usize))
                .collect();
            let (weighted, repeated) = (Ranking::new(once).figures(&weights), ranked(&repeated));
            let same = |a: f64, b: f64| (a - b).abs() < 1e-9 || (a.is_nan() && b.is_nan());
            prop_assert!(same(weighted.auc, repeated.auc));
            prop_assert!(same(weighted.average_precision, repeated.average_precision));
            prop_assert!(same(weighted.recall_at_fpr_5, repeated.recall_at_fpr_5));
        }
    }
}
