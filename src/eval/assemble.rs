//! Rows and verdicts put together to one report.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::adversarial::{self, Twins};
use super::bootstrap::Resampling;
use super::bounds::Bound;
use super::dataset::{Dataset, Row};
use super::report::{AdversarialReport, BootstrapRef, CanaryReport, DataRef, EvalV1, JudgeRef, ParityReport};
use super::sample::{Frame, Judged, Sample};
use super::verdicts::{Answer, Outcome, Verdicts};
use super::{evaluate, parity};
use crate::policy::Action;

/// What is known before the model has spoken.
pub struct Inputs<'a> {
    /// The labels that are judged among.
    pub frame: &'a Frame,
    /// The policy's labels.
    pub policy_labels: &'a [String],
    /// The labelled rows.
    pub dataset: &'a Dataset,
    /// How the intervals are made.
    pub resampling: Resampling,
    /// Canaries in notes, where notes were given.
    pub notes: Option<CanaryReport>,
}

/// What the model said.
#[derive(Default)]
pub struct Answers {
    /// Of every row.
    pub posts: Verdicts,
    /// Of every row's clean twin, in an adversarial set.
    pub clean: Option<Verdicts>,
    /// Of every row again, by setting.
    pub compared: Vec<(String, Verdicts)>,
}

impl Inputs<'_> {
    /// The report. Bounds are not yet checked.
    pub fn report(&self, answers: &Answers) -> EvalV1 {
        let frame = self.frame;
        let judged = self.judged(&answers.posts);
        let pairs = self.dataset.rows.iter().zip(&judged);
        let pairs: Vec<_> = pairs.filter_map(|(row, judged)| Some((judged.as_ref()?, &row.slices))).collect();
        let sample = Sample::new(frame, pairs.iter().map(|(judged, _)| *judged).collect());
        let mut metrics = evaluate::metrics(&sample, frame, "", self.resampling);
        let (slices, of_slices) = evaluate::slices(frame, &pairs, self.resampling);
        metrics.extend(of_slices);
        let mut comparisons = Vec::new();
        for (setting, verdicts) in &answers.compared {
            let (report, figures) = self.compare(&judged, setting, verdicts);
            metrics.extend(figures);
            comparisons.push(report);
        }
        let adversarial = answers.clean.as_ref().map(|clean| {
            let (report, figures) = self.adversarial(&judged, clean);
            metrics.extend(figures);
            report
        });
        EvalV1 {
            schema: "eval.v1",
            worker_version: env!("CARGO_PKG_VERSION"),
            evaluated_at: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            data: self.data(&answers.posts),
            judge: answers.posts.judge.clone().unwrap_or_default(),
            labels: frame.labels.clone(),
            restricted: frame.labels.len() < self.policy_labels.len(),
            bootstrap: BootstrapRef { resamples: self.resampling.resamples, seed: self.resampling.seed },
            metrics,
            confusion: sample.confusion(),
            reliability: evaluate::reliability(sample.rows()),
            by_label: evaluate::by_label(&sample, frame),
            actions: evaluate::actions(sample.rows(), frame),
            slices,
            parity: comparisons,
            adversarial,
            bounds: Vec::new(),
            passed: true,
        }
    }

    /// The verdicts of a judge that is always right: whatever figure these rows can have, it has.
    pub fn perfect(&self, settings: &[String]) -> Answers {
        let place = |truth: usize| self.policy_labels.iter().position(|label| *label == self.frame.labels[truth]);
        let answer = |row: &Row| {
            let mut scores = vec![0.0; self.policy_labels.len()];
            place(row.truth).into_iter().for_each(|at| scores[at] = 1.0);
            Outcome::Judged(Answer { raw: scores.clone(), scores, action: Action::Allow, abstained: false, lang: None })
        };
        let all = || Verdicts { outcomes: self.dataset.rows.iter().map(answer).collect(), judge: None };
        let adversarial = self.dataset.rows.iter().any(|row| row.attack.is_some());
        Answers {
            posts: all(),
            clean: adversarial.then(all),
            compared: settings.iter().map(|setting| (setting.clone(), all())).collect(),
        }
    }

    /// Each row's answer among the labels of the frame; none for a row that was not judged.
    pub fn judged(&self, verdicts: &Verdicts) -> Vec<Option<Judged>> {
        let position = |label: &String| self.policy_labels.iter().position(|known| known == label);
        let places: Vec<usize> = self.frame.labels.iter().filter_map(position).collect();
        let judged = |(row, outcome): (&Row, &Outcome)| match outcome {
            Outcome::Judged(answer) => Some(answer.among(&places, row.truth)),
            Outcome::Unjudged(_) => None,
        };
        self.dataset.rows.iter().zip(&verdicts.outcomes).map(judged).collect()
    }

    fn data(&self, verdicts: &Verdicts) -> DataRef {
        let mut unjudged = BTreeMap::new();
        for outcome in &verdicts.outcomes {
            if let Outcome::Unjudged(reason) = outcome {
                *unjudged.entry(reason.clone()).or_default() += 1;
            }
        }
        let rows = self.dataset.rows.len();
        DataRef {
            name: self.dataset.name.clone(),
            sha256: self.dataset.sha256.clone(),
            rows,
            judged: rows - unjudged.values().sum::<usize>(),
            unjudged,
        }
    }

    fn compare(
        &self,
        judged: &[Option<Judged>],
        setting: &str,
        verdicts: &Verdicts,
    ) -> (ParityReport, evaluate::Metrics) {
        let second = self.judged(verdicts);
        let both = judged.iter().zip(&second).filter_map(|(one, other)| Some((one.as_ref()?, other.as_ref()?)));
        let (first, second) = both.unzip();
        let judge: JudgeRef = verdicts.judge.clone().unwrap_or_default();
        let runs = parity::Runs { first, second };
        parity::compare(self.frame, runs, setting.to_owned(), judge, self.resampling)
    }

    fn adversarial(&self, judged: &[Option<Judged>], clean: &Verdicts) -> (AdversarialReport, evaluate::Metrics) {
        let clean = self.judged(clean);
        let rows = self.dataset.rows.iter().zip(judged).zip(&clean);
        let twins = rows.filter_map(|((row, attacked), clean)| {
            let (attack, clean, attacked) =
                (row.attack.as_ref()?, clean.as_ref()?.winner(), attacked.as_ref()?.winner());
            Some(Twins { family: &attack.family, truth: row.truth, target: attack.target, clean, attacked })
        });
        adversarial::report(&twins.collect::<Vec<_>>(), self.notes.clone())
    }
}

impl EvalV1 {
    /// Holds the figures against the bounds.
    pub fn bound(&mut self, bounds: &[Bound]) {
        self.bounds = bounds.iter().map(|bound| bound.check(&self.metrics)).collect();
        self.passed = self.bounds.iter().all(|bound| bound.met);
    }
}
