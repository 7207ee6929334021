//! Pairs, counted: matrices, histograms by label, slices.

use std::collections::{BTreeMap, HashMap};

use super::join::Pair;
use super::names::{Name, Names};
use super::report::{Changes, LabelDiff, SliceDiff};
use super::side::{Row, Side};
use crate::calibration::BASELINE_BINS;
use crate::eval::dataset::{self, Dataset, WITHOUT};
use crate::policy::Action;

/// What the posts may be sliced by besides their language: the value of each field for each post that has any.
#[derive(Debug, Default)]
pub struct Fields {
    /// The fields, in order.
    pub names: Vec<String>,
    /// By the post's id, one value a field.
    pub values: HashMap<String, Vec<String>>,
}

impl Fields {
    /// Those of a labelled file.
    pub fn of(dataset: &Dataset, asked: &[String]) -> Self {
        let value =
            |row: &dataset::Row, field: &String| row.slices.get(field).cloned().unwrap_or_else(|| WITHOUT.to_owned());
        let values =
            dataset.rows.iter().map(|row| (row.id.clone(), asked.iter().map(|field| value(row, field)).collect()));
        Self { names: asked.to_vec(), values: values.collect() }
    }
}

/// Counts pair by pair.
#[derive(Debug)]
pub struct Counter<'a> {
    a: &'a Side,
    b: &'a Side,
    tolerance: f64,
    labels: &'a [Name],
    /// All pairs.
    pub all: Changes,
    /// The greatest change of any label's score.
    pub greatest: f64,
    /// By label in `a`, then in `b`.
    pub label_matrix: Vec<Vec<u64>>,
    /// By action in `a`, then in `b`.
    pub action_matrix: [[u64; 3]; 3],
    scores: Vec<Scores>,
    slices: BTreeMap<(usize, String), Changes>,
}

#[derive(Debug, Clone, Default)]
struct Scores {
    got: [u64; 2],
    sum: [f64; 2],
    change: f64,
    histogram: [[u64; BASELINE_BINS]; 2],
}

impl<'a> Counter<'a> {
    /// Of these sides, for these labels.
    pub fn new((a, b): (&'a Side, &'a Side), labels: &'a [Name], tolerance: f64) -> Self {
        let count = labels.len();
        Self {
            a,
            b,
            tolerance,
            labels,
            all: Changes::default(),
            greatest: 0.0,
            label_matrix: vec![vec![0; count]; count],
            action_matrix: [[0; 3]; 3],
            scores: vec![Scores::default(); count],
            slices: BTreeMap::new(),
        }
    }

    /// One pair; whether label or action differ.
    pub fn add(&mut self, (one, other): Pair, names: &Names, fields: &Fields) -> bool {
        let (a, b) = (&self.a.rows[one], &self.b.rows[other]);
        let change = score_change((self.a, a), (self.b, b));
        self.greatest = self.greatest.max(change);
        let changes = changes(a, b, change > self.tolerance);
        self.all.add(&changes);
        self.action_matrix[a.action as usize][b.action as usize] += 1;
        let place = |label: Name| self.labels.iter().position(|known| *known == label);
        if let (Some(from), Some(to)) = (place(a.label), place(b.label)) {
            self.label_matrix[from][to] += 1;
            self.scores[from].got[0] += 1;
            self.scores[to].got[1] += 1;
        }
        self.add_scores(a, b);
        let lang = names.word(a.lang).to_owned();
        self.slices.entry((0, lang)).or_default().add(&changes);
        let values = fields.values.get(&*a.post);
        for at in 0..fields.names.len() {
            let value = values.and_then(|values| values.get(at)).map_or(WITHOUT, |value| value);
            self.slices.entry((at + 1, value.to_owned())).or_default().add(&changes);
        }
        changes.labels + changes.actions > 0
    }

    fn add_scores(&mut self, a: &Row, b: &Row) {
        for (label, scores) in self.labels.iter().zip(&mut self.scores) {
            let [one, other] = [(self.a, a), (self.b, b)].map(|(side, row)| score(side, row, *label));
            for (at, score) in [one, other].into_iter().enumerate() {
                scores.sum[at] += score;
                scores.histogram[at][bin(score)] += 1;
            }
            scores.change += (one - other).abs();
        }
    }

    /// One for each label.
    pub fn by_label(&self, names: &Names) -> Vec<LabelDiff> {
        let pairs = self.all.pairs.max(1) as f64;
        let diff = |(label, scores): (&Name, &Scores)| LabelDiff {
            label: names.word(*label).to_owned(),
            got: scores.got,
            mean_score: scores.sum.map(|sum| sum / pairs),
            mean_change: scores.change / pairs,
            histogram: scores.histogram,
            drift: total_variation(&scores.histogram[0], &scores.histogram[1]),
        };
        self.labels.iter().zip(&self.scores).map(diff).collect()
    }

    /// By language, then by the other fields; the greatest slices first.
    pub fn slices(&self, fields: &Fields) -> Vec<SliceDiff> {
        let name = |at: usize| at.checked_sub(1).and_then(|at| fields.names.get(at)).map_or("language", |name| name);
        let mut slices: Vec<_> = self.slices.iter().collect();
        slices.sort_by_key(|((at, _), changes)| (*at, std::cmp::Reverse(changes.pairs)));
        let slice = |((at, value), changes): (&(usize, String), &Changes)| SliceDiff {
            field: name(*at).to_owned(),
            value: value.clone(),
            changes: *changes,
        };
        slices.into_iter().map(slice).collect()
    }
}

impl Changes {
    fn add(&mut self, one: &Self) {
        self.pairs += one.pairs;
        self.labels += one.labels;
        self.actions += one.actions;
        self.scores += one.scores;
        self.acts_gained += one.acts_gained;
        self.acts_lost += one.acts_lost;
        self.allow_and_act += one.allow_and_act;
    }
}

fn changes(a: &Row, b: &Row, score: bool) -> Changes {
    let acts = [a.action, b.action].map(|action| action == Action::Act);
    Changes {
        pairs: 1,
        labels: u64::from(a.label != b.label),
        actions: u64::from(a.action != b.action),
        scores: u64::from(score),
        acts_gained: u64::from(acts[1] && !acts[0]),
        acts_lost: u64::from(acts[0] && !acts[1]),
        allow_and_act: u64::from(severity(a, b) == 2),
    }
}

/// How many steps lie between two actions.
pub fn severity(a: &Row, b: &Row) -> u8 {
    (a.action as u8).abs_diff(b.action as u8)
}

fn score(side: &Side, row: &Row, label: Name) -> f64 {
    side.scores(row).find(|(own, _)| *own == label).map_or(0.0, |(_, score)| score)
}

/// The greatest change of any label's score; a label that one side does not know has 0 there. A score that is no number
/// differs from all that are.
pub fn score_change((side_a, a): (&Side, &Row), (side_b, b): (&Side, &Row)) -> f64 {
    let change = |(label, one): (Name, f64)| (one - score(side_b, b, label)).abs();
    let new = side_b.scores(b).filter(|(label, _)| side_a.scores(a).all(|(own, _)| own != *label));
    let changes = side_a.scores(a).map(change).chain(new.map(|(_, score)| score.abs()));
    changes.fold(0.0, |most, change| if change.is_nan() { 1.0 } else { most.max(change) })
}

fn bin(score: f64) -> usize {
    ((score.clamp(0.0, 1.0) * BASELINE_BINS as f64) as usize).min(BASELINE_BINS - 1)
}

fn total_variation(a: &[u64], b: &[u64]) -> f64 {
    let [all_a, all_b] = [a, b].map(|counts| counts.iter().sum::<u64>().max(1) as f64);
    a.iter().zip(b).map(|(a, b)| (*a as f64 / all_a - *b as f64 / all_b).abs()).sum::<f64>() / 2.0
}
