//! The worker's own verdicts, read back: what each row was answered, and who answered.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::report::JudgeRef;
use super::sample::Judged;
use crate::policy::Action;
use crate::verdict::VerdictV1;

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The worker judged it.
    Judged(Answer),
    /// The worker would have sent it to the dead letters; its reason.
    Unjudged(String),
}

/// A verdict, by the policy's labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Calibrated scores, in the policy's order.
    pub scores: Vec<f64>,
    /// The scores before calibration.
    pub raw: Vec<f64>,
    /// What was proposed.
    pub action: Action,
    /// Whether the verdict says that it does not know.
    pub abstained: bool,
    /// The post's language, detected or given: the one that a calibration goes by.
    pub lang: Option<String>,
}

/// Everything that the worker said of one file.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// One for each post, in their order.
    pub outcomes: Vec<Outcome>,
    /// Who judged; none where nothing was judged.
    pub judge: Option<JudgeRef>,
}

#[derive(Deserialize)]
struct ErrorLine {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    reason: String,
}

impl Verdicts {
    /// Takes the next line that came off the road.
    pub fn take(&mut self, line: &[u8], labels: &[String]) -> Result<(), String> {
        if let Ok(ErrorLine { error }) = serde_json::from_slice(line) {
            self.outcomes.push(Outcome::Unjudged(error.reason));
            return Ok(());
        }
        let verdict: VerdictV1 = serde_json::from_slice(line).map_err(|error| format!("a verdict: {error}"))?;
        let (judgement, input) = (&verdict.data.verdict, &verdict.data.input);
        let in_order = |scores: &BTreeMap<Cow<'_, str>, f64>| -> Result<Vec<f64>, String> {
            let score = |label: &String| scores.get(label.as_str()).copied();
            let scores: Option<Vec<f64>> = labels.iter().map(score).collect();
            scores.ok_or_else(|| "a verdict lacks the score of a label of the policy".to_owned())
        };
        let lang = input.lang_detected.as_ref().or(input.lang.as_ref());
        let answer = Answer {
            scores: in_order(&judgement.scores)?,
            raw: in_order(&judgement.raw_scores)?,
            action: judgement.action,
            abstained: judgement.abstained,
            lang: lang.map(ToString::to_string),
        };
        self.outcomes.push(Outcome::Judged(answer));
        self.judge.get_or_insert_with(|| JudgeRef::of(&verdict));
        Ok(())
    }
}

impl Answer {
    /// The answer among some of the labels only, those at `places` in the policy, for a row that has the label `truth`
    /// among them.
    pub fn among(&self, places: &[usize], truth: usize) -> Judged {
        let of = |scores: &[f64]| -> Vec<f64> {
            let picked = places.iter().map(|place| scores.get(*place).copied().unwrap_or(0.0));
            let sum: f64 = picked.clone().sum();
            let even = 1.0 / places.len() as f64;
            picked.map(|score| if sum > 0.0 { score / sum } else { even }).collect()
        };
        Judged {
            truth,
            scores: of(&self.scores),
            raw: of(&self.raw),
            action: self.action,
            abstained: self.abstained,
            lang: self.lang.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_among_some_of_the_labels_are_renormalised() {
        let answer = Answer {
            scores: vec![0.2, 0.5, 0.3],
            raw: vec![0.0, 1.0, 0.0],
            action: Action::Allow,
            abstained: false,
            lang: None,
        };
        let judged = answer.among(&[0, 2], 1);
        assert!((judged.scores[0] - 0.4).abs() < 1e-12 && (judged.scores[1] - 0.6).abs() < 1e-12);
        assert_eq!(judged.raw, [0.5, 0.5]);
        assert_eq!((judged.winner(), judged.truth), (1, 1));
    }

    #[test]
    fn what_the_worker_rejected_keeps_its_reason_and_anything_else_is_no_verdict() {
        let mut verdicts = Verdicts::default();
        let line = br#"{"error":{"line":3,"reason":"too_many_tokens","stage":"prepare","message":"m"}}"#;
        verdicts.take(line, &[]).unwrap();
        assert_eq!(verdicts.outcomes, [Outcome::Unjudged("too_many_tokens".to_owned())]);
        assert!(verdicts.take(b"null", &[]).is_err());
    }
}
