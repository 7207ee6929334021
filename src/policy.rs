//! The policy: what the model is asked, which labels it may answer, and what each score leads to.
//!
//! A policy file is YAML, or Markdown whose front matter holds everything but the prompt, which is the body.
//! All problems of a file are reported together. The digest identifies the content, however it was written down.

use std::{collections::HashSet, fmt, fs, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::hygiene::Mask;

const LABELS: std::ops::RangeInclusive<usize> = 2..=16;

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
        Self::parse(&text, kind).map_err(|error| PolicyError { file: path.display().to_string(), ..error })
    }

    /// Checks the text of a policy.
    pub fn parse(text: &str, kind: PolicyFormat) -> Result<Self, PolicyError> {
        let mut reader = Reader::default();
        let policy = reader.text(text, kind);
        match policy {
            Some(policy) if reader.problems.is_empty() => Ok(policy),
            _ => Err(PolicyError { file: "(text)".to_owned(), problems: reader.problems }),
        }
    }

    /// `sha256:` and the hexadecimal digest of the content; comments and layout of the file do not count.
    pub fn digest(&self) -> &str {
        &self.digest
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

    fn with_digest(mut self) -> Self {
        let labels: Vec<Value> = self
            .labels
            .iter()
            .map(|label| {
                json!({"id": *label.id, "description": label.description, "answer": label.answer,
                       "thresholds": label.thresholds})
            })
            .collect();
        let mut content = json!({"id": self.id, "revision": self.revision, "taxonomy": self.taxonomy,
                                 "prompt": self.prompt, "labels": labels});
        // What came later counts only where it is used: older policies keep their digests.
        if !self.mask.is_empty() {
            content["mask"] = json!(self.mask);
        }
        self.digest = format!("sha256:{}", hex::encode(Sha256::digest(content.to_string())));
        self
    }
}

/// Walks the document and keeps every problem; values that are wrong are replaced so that the walk goes on.
#[derive(Default)]
struct Reader {
    problems: Vec<PolicyProblem>,
}

impl Reader {
    fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(PolicyProblem { field: field.to_owned(), message: message.into() });
    }

    fn text(&mut self, text: &str, kind: PolicyFormat) -> Option<Policy> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let (yaml, body) = match kind {
            PolicyFormat::Yaml => (text.as_str(), None),
            PolicyFormat::Markdown => match front_matter(&text) {
                Some((yaml, body)) => (yaml, Some(body)),
                None => {
                    self.problem(
                        "file",
                        "begin with a line of ---, then id, revision, taxonomy and labels, then another ---",
                    );
                    return None;
                }
            },
        };
        // Only true and false are booleans: a label called `no` or `off` stays a word.
        let options = serde_saphyr::options! { strict_booleans: true };
        let document = match serde_saphyr::from_str_with_options::<Value>(yaml, options) {
            Ok(Value::Object(document)) => document,
            Ok(_) => {
                self.problem("file", "must be a map with the keys id, revision, taxonomy, prompt and labels");
                return None;
            }
            Err(error) => {
                self.problem("file", format!("is not valid YAML: {error}"));
                return None;
            }
        };
        Some(self.policy(document, body))
    }

    fn policy(&mut self, mut document: Map<String, Value>, body: Option<&str>) -> Policy {
        if let Some(body) = body
            && document.insert("prompt".to_owned(), body.into()).is_some()
        {
            self.problem("prompt", "stands in the front matter and in the body: keep the body, take it out above");
        }
        self.known_keys("", &document, &["id", "revision", "taxonomy", "prompt", "mask", "labels"]);
        let policy = Policy {
            id: self.name("id", document.get("id")),
            revision: self.words("revision", document.get("revision")),
            taxonomy: self.words("taxonomy", document.get("taxonomy")),
            prompt: self.words("prompt", document.get("prompt")),
            labels: self.labels(document.get("labels")),
            mask: self.mask(document.get("mask")),
            digest: String::new(),
        };
        policy.with_digest()
    }

    fn mask(&mut self, value: Option<&Value>) -> Vec<Mask> {
        let mut masks = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(names)) => names.iter().filter_map(|name| self.one_mask(name)).collect(),
            Some(_) => {
                self.problem("mask", "must be a list, such as [urls, handles]");
                Vec::new()
            }
        };
        // In one order, whatever the file's: equal masks, equal digests.
        masks.sort_unstable();
        masks.dedup();
        masks
    }

    fn one_mask(&mut self, name: &Value) -> Option<Mask> {
        let mask = name.as_str().and_then(Mask::from_name);
        if mask.is_none() {
            self.problem("mask", format!("has {name}; what can be masked is urls and handles"));
        }
        mask
    }

    fn labels(&mut self, value: Option<&Value>) -> Vec<PolicyLabel> {
        let Some(Value::Array(list)) = value else {
            self.problem("labels", "must be a list of labels, each with id, description and answer");
            return Vec::new();
        };
        if !LABELS.contains(&list.len()) {
            let (least, most) = (LABELS.start(), LABELS.end());
            self.problem("labels", format!("has {} entries; a policy has {least} to {most} labels", list.len()));
        }
        let labels: Vec<PolicyLabel> = list
            .iter()
            .enumerate()
            .filter_map(|(index, value)| self.label(&format!("labels[{index}]"), value))
            .collect();
        let (mut ids, mut answers) = (HashSet::new(), HashSet::new());
        for label in &labels {
            if !label.id.is_empty() && !ids.insert(label.id.clone()) {
                self.problem("labels", format!("the id {:?} is used twice; ids must differ", label.id));
            }
            if !label.answer.is_empty() && !answers.insert(&label.answer) {
                self.problem("labels", format!("the answer {:?} is used twice; answers must differ", label.answer));
            }
        }
        labels
    }

    fn label(&mut self, field: &str, value: &Value) -> Option<PolicyLabel> {
        let Value::Object(label) = value else {
            self.problem(field, "must be a map with id, description and answer");
            return None;
        };
        self.known_keys(field, label, &["id", "description", "answer", "thresholds"]);
        let at = |key: &str| format!("{field}.{key}");
        Some(PolicyLabel {
            id: self.name(&at("id"), label.get("id")).into(),
            description: self.words(&at("description"), label.get("description")),
            answer: self.answer(&at("answer"), label.get("answer")),
            thresholds: match label.get("thresholds") {
                None | Some(Value::Null) => None,
                Some(value) => self.thresholds(&at("thresholds"), value),
            },
        })
    }

    fn thresholds(&mut self, field: &str, value: &Value) -> Option<Thresholds> {
        let Value::Object(bands) = value else {
            self.problem(field, "must be a map such as {review: 0.40, act: 0.95}; leave it out to always allow");
            return None;
        };
        self.known_keys(field, bands, &["review", "act"]);
        let review = self.threshold(&format!("{field}.review"), bands.get("review"));
        let act = match bands.get("act") {
            None => None,
            value => Some(self.threshold(&format!("{field}.act"), value)?),
        };
        let bands = Thresholds { review: review?, act };
        if let Some(act) = act.filter(|act| bands.review > *act) {
            let message = format!("review is {} and act is {act}; review must not be above act", bands.review);
            self.problem(field, message);
        }
        Some(bands)
    }

    fn threshold(&mut self, field: &str, value: Option<&Value>) -> Option<f64> {
        let number = value.and_then(Value::as_f64).filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            let found = value.map_or_else(|| "is missing".to_owned(), |value| format!("is {value}"));
            self.problem(field, format!("{found}; write a number from 0 to 1, such as 0.40"));
        }
        number
    }

    /// Names become JSON values and metric labels: one spelling only.
    fn name(&mut self, field: &str, value: Option<&Value>) -> String {
        let name = self.words(field, value);
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if !plain || name.len() > 64 {
            self.problem(field, format!("is {name:?}; use at most 64 of a-z, 0-9, _ and -"));
        }
        name
    }

    /// Text without the blanks around it. Plain numbers are taken as written: `revision: 7`.
    fn words(&mut self, field: &str, value: Option<&Value>) -> String {
        let text = match value {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null) | None => String::new(),
            Some(other) => {
                self.problem(field, format!("is {other}; write text, in quotes if need be"));
                return String::new();
            }
        };
        if text.is_empty() {
            self.problem(field, "is missing or empty");
        }
        text
    }

    /// The blank before an answer is part of its token, so it stays.
    fn answer(&mut self, field: &str, value: Option<&Value>) -> String {
        match value {
            Some(Value::String(answer)) if !answer.trim().is_empty() => answer.clone(),
            _ => {
                self.problem(field, "must be the text that the model answers, in quotes, such as \" true\"");
                String::new()
            }
        }
    }

    fn known_keys(&mut self, field: &str, map: &Map<String, Value>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let place = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
            self.problem(&place, format!("is not a known key; known here are {}", known.join(", ")));
        }
    }
}

/// Splits a document into front matter and body.
fn front_matter(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("---\n")?;
    let end = rest.find("\n---\n")?;
    Some((&rest[..end + 1], &rest[end + 5..]))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
