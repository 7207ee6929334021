//! From the text of a policy to a checked one, or to everything that is wrong with it.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::{Policy, PolicyFormat, PolicyLabel, PolicyProblem, Quota, Thresholds};
use crate::calibration::CalibrationV1;
use crate::hygiene::Mask;
use crate::language;

const LABELS: std::ops::RangeInclusive<usize> = 2..=16;
const KEYS: [&str; 10] = [
    "id",
    "revision",
    "taxonomy",
    "prompt",
    "mask",
    "labels",
    "calibration",
    "calibration_for_other_model",
    "abstain_below",
    "languages",
];

/// Walks the document and keeps every problem; values that are wrong are replaced so that the walk goes on.
pub(super) struct Reader<'a> {
    /// Where the files lie that a policy names.
    folder: &'a Path,
    pub(super) problems: Vec<PolicyProblem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder, problems: Vec::new() }
    }

    fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(PolicyProblem { field: field.to_owned(), message: message.into() });
    }

    pub(super) fn text(&mut self, text: &str, kind: PolicyFormat) -> Option<Policy> {
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
        self.known_keys("", &document, &KEYS);
        let taxonomy = self.words("taxonomy", document.get("taxonomy"));
        let labels = self.labels(document.get("labels"));
        let policy = Policy {
            id: self.name("id", document.get("id")),
            revision: self.words("revision", document.get("revision")),
            prompt: self.words("prompt", document.get("prompt")),
            mask: self.mask(document.get("mask")),
            calibration: self.calibration(document.get("calibration"), &taxonomy, &labels),
            calibration_revision: String::new(),
            calibration_for_other_model: self.allowed(document.get("calibration_for_other_model")),
            abstain_below: self.abstain_below(document.get("abstain_below"), &labels),
            languages: self.languages(document.get("languages")),
            taxonomy,
            labels,
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
        self.known_keys(field, label, &["id", "description", "answer", "thresholds", "act_quota"]);
        let at = |key: &str| format!("{field}.{key}");
        Some(PolicyLabel {
            id: self.name(&at("id"), label.get("id")).into(),
            description: self.words(&at("description"), label.get("description")),
            answer: self.answer(&at("answer"), label.get("answer")),
            thresholds: match label.get("thresholds") {
                None | Some(Value::Null) => None,
                Some(value) => self.thresholds(&at("thresholds"), value),
            },
            act_quota: match label.get("act_quota") {
                None | Some(Value::Null) => None,
                Some(value) => self.quota(&at("act_quota"), value),
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

    fn quota(&mut self, field: &str, value: &Value) -> Option<Quota> {
        let Value::Object(quota) = value else {
            self.problem(field, "must be a map such as {most: 100, window: 1h}; leave it out for no end");
            return None;
        };
        self.known_keys(field, quota, &["most", "window"]);
        let most = quota.get("most").and_then(Value::as_u64);
        let window = quota.get("window").and_then(Value::as_str).and_then(|text| text.parse::<SignedDuration>().ok());
        let window = window.and_then(|window| Duration::try_from(window).ok()).filter(|window| window.as_secs() > 0);
        if most.is_none() || window.is_none() {
            self.problem(
                field,
                format!("is {value}; write a number and a duration, such as {{most: 100, window: 1h}}"),
            );
        }
        Some(Quota { most: most?, window: window? })
    }

    fn threshold(&mut self, field: &str, value: Option<&Value>) -> Option<f64> {
        let number = value.and_then(Value::as_f64).filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            let found = value.map_or_else(|| "is missing".to_owned(), |value| format!("is {value}"));
            self.problem(field, format!("{found}; write a number from 0 to 1, such as 0.40"));
        }
        number
    }

    fn calibration(
        &mut self,
        value: Option<&Value>,
        taxonomy: &str,
        labels: &[PolicyLabel],
    ) -> Option<Arc<CalibrationV1>> {
        let file = value.filter(|value| !value.is_null())?;
        let Value::String(file) = file else {
            self.problem(
                "calibration",
                format!("is {file}; name the file that `moderato eval --fit-calibration` wrote"),
            );
            return None;
        };
        let calibration = match CalibrationV1::load(&self.folder.join(file)) {
            Ok(calibration) => calibration,
            Err(error) => {
                for problem in &error.problems {
                    self.problem("calibration", format!("{}: {problem}", error.file));
                }
                return None;
            }
        };
        let own: Vec<&str> = labels.iter().map(|label| &*label.id).collect();
        let again = "fit it again under this policy";
        if own != calibration.labels {
            let (theirs, own) = (calibration.labels.join(", "), own.join(", "));
            self.problem("calibration", format!("{file} is for the labels {theirs}; the policy has {own}: {again}"));
        }
        if calibration.taxonomy != taxonomy {
            let theirs = &calibration.taxonomy;
            self.problem("calibration", format!("{file} is for the taxonomy {theirs}, not {taxonomy}: {again}"));
        }
        Some(Arc::new(calibration))
    }

    fn allowed(&mut self, value: Option<&Value>) -> bool {
        match value.map(|value| value.as_str()) {
            None | Some(Some("refuse")) => false,
            Some(Some("allow")) => true,
            _ => {
                self.problem("calibration_for_other_model", "must be allow or refuse; refuse is the default");
                false
            }
        }
    }

    fn abstain_below(&mut self, value: Option<&Value>, labels: &[PolicyLabel]) -> Option<f64> {
        let least = self.threshold("abstain_below", Some(value.filter(|value| !value.is_null())?))?;
        for label in labels {
            // Or a verdict could say that it does not know and act all the same.
            if let Some(act) = label.thresholds.and_then(|bands| bands.act).filter(|act| *act < least) {
                let message = format!("is {least} and label {} acts from {act}; act must not be below it", label.id);
                self.problem("abstain_below", message);
            }
        }
        Some(least)
    }

    fn languages(&mut self, value: Option<&Value>) -> Vec<String> {
        let list = match value {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(list)) if !list.is_empty() => list,
            Some(_) => {
                self.problem("languages", "must be a list of language tags, such as [en, de]; leave it out for all");
                return Vec::new();
            }
        };
        let mut languages: Vec<String> = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let tag = value.as_str().unwrap_or_default();
            match language::primary(tag) {
                Some(primary) if primary == tag => languages.push(primary),
                Some(primary) => {
                    self.problem(&format!("languages[{index}]"), format!("is {value}; the primary tag is {primary}"));
                }
                None => self.problem(&format!("languages[{index}]"), format!("is {value}; write a tag such as en")),
            }
        }
        languages.sort();
        languages.dedup();
        languages
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
