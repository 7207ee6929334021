//! The policy: what the model is asked, which labels it may answer, and what each score leads to.
//!
//! A policy file is YAML, or Markdown whose front matter holds everything but the prompt, which is the body.
//! All problems of a file are reported together. The digest identifies the content, however it was written down.

mod reader;

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::reader::Reader;
use crate::calibration::CalibrationV1;
use crate::hygiene::Mask;

/// A checked policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Short name, snake_case.
    pub id: String,
    /// The author's own word for this state of the policy; [`Policy::digest`] is what identifies it.
    pub revision: String,
    /// The taxonomy that the label ids belong to.
    pub taxonomy: String,
    /// The system prompt, without blanks around it.
    pub prompt: String,
    /// The labels, in the order of their scores.
    pub labels: Vec<PolicyLabel>,
    /// What is masked in a post before the model reads it.
    pub mask: Vec<Mask>,
    /// What turns raw scores into calibrated ones; its labels are the policy's, in the same order.
    pub calibration: Option<Arc<CalibrationV1>>,
    calibration_revision: String,
    /// Whether a calibration that was fitted for another model or prompt is used all the same.
    pub calibration_for_other_model: bool,
    /// Below this highest score a verdict abstains.
    pub abstain_below: Option<f64>,
    /// Primary language tags that the model can judge; empty for all.
    pub languages: Vec<String>,
    digest: String,
}

/// One label that a post can get.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyLabel {
    /// Short name, snake_case: what verdicts carry.
    pub id: Arc<str>,
    /// What the label means, for people.
    pub description: String,
    /// What the model says for it: one token after the prompt.
    pub answer: String,
    /// From which scores on something is proposed; a label without thresholds always allows.
    pub thresholds: Option<Thresholds>,
    /// How often the label may act by itself.
    pub act_quota: Option<Quota>,
}

/// So many verdicts of one worker in a window; beyond, the action is `review`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Verdicts that may act.
    pub most: u64,
    /// Counted from when the policy came into force, then anew.
    pub window: Duration,
}

/// Scores below `review` allow; from `review` on a person looks; from `act` on the worker proposes to act.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Thresholds {
    /// 0 to 1, at most `act`.
    pub review: f64,
    /// 0 to 1; without it the label never acts by itself.
    pub act: Option<f64>,
}

/// What the policy proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing to do.
    Allow,
    /// A person should look.
    Review,
    /// The platform should act.
    Act,
}

impl Action {
    /// As verdicts spell it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Review => "review",
            Action::Act => "act",
        }
    }
}

/// How a policy is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyFormat {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.md` with YAML front matter between two lines of `---`.
    Markdown,
}

/// Everything that is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file, where it came from one.
    pub file: String,
    /// At least one.
    pub problems: Vec<PolicyProblem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyProblem {
    /// Where in the file, such as `labels[1].thresholds.act`.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}:", self.file)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {}: {}", problem.field, problem.message))
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Reads a policy file; its ending says how it is written.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let fault = |message: String| PolicyError {
            file: path.display().to_string(),
            problems: vec![PolicyProblem { field: "file".to_owned(), message }],
        };
        let kind = match path.extension().and_then(|ending| ending.to_str()) {
            Some("yaml" | "yml") => PolicyFormat::Yaml,
            Some("md") => PolicyFormat::Markdown,
            _ => return Err(fault("the name must end in .yaml, .yml or .md".to_owned())),
        };
        let text = fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse_in(folder, &text, kind).map_err(|error| PolicyError { file: path.display().to_string(), ..error })
    }

    /// Checks the text of a policy; a calibration that it names is looked for where the program runs.
    pub fn parse(text: &str, kind: PolicyFormat) -> Result<Self, PolicyError> {
        Self::parse_in(Path::new(""), text, kind)
    }

    fn parse_in(folder: &Path, text: &str, kind: PolicyFormat) -> Result<Self, PolicyError> {
        let mut reader = Reader::new(folder);
        let policy = reader.text(text, kind);
        match policy {
            Some(policy) if reader.problems.is_empty() => Ok(policy),
            _ => Err(PolicyError { file: "(text)".to_owned(), problems: reader.problems }),
        }
    }

    /// `sha256:` and the hexadecimal digest of the content, the calibration's included; comments and layout of the file
    /// do not count.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The revision of the calibration; empty where there is none.
    pub fn calibration_revision(&self) -> &str {
        &self.calibration_revision
    }

    /// What the label's thresholds propose for this score. A score that is no number is for a person.
    pub fn action(&self, label_index: usize, score: f64) -> Action {
        match self.labels.get(label_index).and_then(|label| label.thresholds) {
            None => Action::Allow,
            Some(bands) if bands.act.is_some_and(|act| score >= act) => Action::Act,
            Some(bands) if score < bands.review => Action::Allow,
            Some(_) => Action::Review,
        }
    }

    /// The band that each label's own thresholds put its score in, in the order of the labels.
    pub fn bands(&self, scores: &[f64]) -> Vec<Action> {
        scores.iter().enumerate().map(|(i, score)| self.action(i, *score)).collect()
    }

    /// Whether so high a highest score is too low to speak for any label. A score that is no number is.
    pub fn abstains(&self, highest: f64) -> bool {
        self.abstain_below.is_some_and(|least| highest.is_nan() || highest < least)
    }

    /// Whether the model can judge posts in this language; none known is no reason against it.
    pub fn can_judge(&self, language: Option<&str>) -> bool {
        self.languages.is_empty()
            || language.is_none_or(|language| self.languages.iter().any(|known| known == language))
    }

    fn with_digest(mut self) -> Self {
        let labels: Vec<Value> = self
            .labels
            .iter()
            .map(|label| {
                let mut content = json!({"id": *label.id, "description": label.description, "answer": label.answer,
                                         "thresholds": label.thresholds});
                if let Some(Quota { most, window }) = label.act_quota {
                    content["act_quota"] = json!({"most": most, "window_ms": window.as_millis() as u64});
                }
                content
            })
            .collect();
        self.calibration_revision = self.calibration.as_ref().map(|fit| fit.revision()).unwrap_or_default();
        let mut content = json!({"id": self.id, "revision": self.revision, "taxonomy": self.taxonomy,
                                 "prompt": self.prompt, "labels": labels});
        // Only where they are set: a policy that has none of them keeps the digest it always had.
        let optional = [
            ("mask", (!self.mask.is_empty()).then(|| json!(self.mask))),
            ("calibration", self.calibration.as_ref().map(|_| json!(self.calibration_revision))),
            ("calibration_for_other_model", self.calibration_for_other_model.then(|| json!("allow"))),
            ("abstain_below", self.abstain_below.map(|least| json!(least))),
            ("languages", (!self.languages.is_empty()).then(|| json!(self.languages))),
        ];
        for (key, value) in optional.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            content[key] = value;
        }
        self.digest = format!("sha256:{}", hex::encode(Sha256::digest(content.to_string())));
        self
    }
}

#[cfg(test)]
mod tests;
