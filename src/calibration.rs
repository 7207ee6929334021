//! A calibration: what a model's raw scores mean, measured on labelled posts (`schemas/calibration.v1.json`).
//!
//! Written by `moderato eval --fit-calibration`, named by a policy. It belongs to one model under one prompt, and its
//! labels are those of one policy. All problems of a file are reported together.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{language, shape};

/// What `schema` says in every calibration of this version.
pub const SCHEMA: &str = "calibration.v1";
/// Equal bins of a score's histogram in `baseline`.
pub const BASELINE_BINS: usize = 20;

/// `calibration.v1`: from raw to calibrated scores, and what they were fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "calibration.v1", rename = "calibration.v1")]
pub struct CalibrationV1 {
    /// `calibration.v1`.
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    /// Its name, for people.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// The id of the policy that it was fitted under.
    pub policy: String,
    /// The taxonomy that the labels belong to.
    pub taxonomy: String,
    /// The model's name.
    pub model: String,
    /// Digest over every file of the model folder: whatever precision of it answers, it is this model.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub model_digest: String,
    /// Digest of the token ids of prompt and labels.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub prompt_digest: String,
    /// The policy's labels, in its order.
    #[schemars(length(min = 2, max = 16))]
    pub labels: Vec<String>,
    /// What was fitted.
    pub method: Method,
    /// For posts of any language, and of those that have no scaling of their own.
    pub overall: Scaling,
    /// By primary language tag, such as `en`.
    #[serde(default)]
    pub per_language: BTreeMap<String, Scaling>,
    /// What it was fitted on.
    pub fitted_on: FittedOn,
    /// By label: how many posts had their calibrated score in each of 20 equal bins, to see drift by.
    #[serde(default)]
    pub baseline: BTreeMap<String, Vec<u64>>,
}

/// What was fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One temperature; the order of the scores stays.
    Temperature,
    /// A temperature and a bias for each label; the order of the scores may change.
    TemperatureAndBias,
}

/// The calibrated score of label i is softmax over the labels of `ln(raw_i) / temperature + bias_i`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Labelled posts that it was fitted on.
    pub rows: usize,
    /// Above 1: the model was too sure of itself.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature: f64,
    /// By label; none is 0.
    #[serde(default)]
    pub bias: BTreeMap<String, f64>,
}

/// The labelled posts, and what the fit made better on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FittedOn {
    /// Labelled posts.
    pub rows: usize,
    /// SHA-256 of the labelled file, hex.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Mean negative log likelihood of the right label by the raw scores.
    pub nll_before: f64,
    /// The same by the calibrated scores.
    pub nll_after: f64,
    /// Expected calibration error of the raw scores.
    pub ece_before: f64,
    /// The same of the calibrated scores.
    pub ece_after: f64,
    /// When, RFC 3339.
    pub fitted_at: String,
}

/// Everything that is wrong with a calibration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationError {
    /// The file, where it came from one.
    pub file: String,
    /// `field: what is wrong`; at least one.
    pub problems: Vec<String>,
}

impl fmt::Display for CalibrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "calibration {}:", self.file)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for CalibrationError {}

impl CalibrationV1 {
    /// Reads a calibration file.
    pub fn load(path: &Path) -> Result<Self, CalibrationError> {
        let fault = |problems| CalibrationError { file: path.display().to_string(), problems };
        let text = fs::read_to_string(path).map_err(|error| fault(vec![format!("file: cannot be read: {error}")]))?;
        Self::parse(&text).map_err(|error| fault(error.problems))
    }

    /// Checks the text of a calibration.
    pub fn parse(text: &str) -> Result<Self, CalibrationError> {
        let fault = |problems| CalibrationError { file: "(text)".to_owned(), problems };
        let document: Value =
            serde_json::from_str(text).map_err(|error| fault(vec![format!("file: is not JSON: {error}")]))?;
        let breaches = shape::breaches_of(&schema_for!(CalibrationV1).to_value(), &document);
        if !breaches.is_empty() {
            return Err(fault(breaches));
        }
        let calibration: Self =
            serde_json::from_value(document).map_err(|error| fault(vec![format!("file: {error}")]))?;
        match calibration.problems() {
            problems if problems.is_empty() => Ok(calibration),
            problems => Err(fault(problems)),
        }
    }

    /// What the schema cannot say: labels that are known, numbers that are finite, a bias only where one was fitted.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let known = |label: &String| self.labels.contains(label);
        let labels = self.labels.join(", ");
        if (1..self.labels.len()).any(|i| self.labels[..i].contains(&self.labels[i])) {
            problems.push(format!("labels: {labels}: each may stand there once"));
        }
        if self.fitted_on.fitted_at.parse::<jiff::Timestamp>().is_err() {
            problems.push("fitted_on.fitted_at: write a time such as 2026-11-22T08:00:00Z".to_owned());
        }
        let own = self.per_language.iter().map(|(language, scaling)| (format!("per_language.{language}"), scaling));
        for (place, scaling) in std::iter::once(("overall".to_owned(), &self.overall)).chain(own) {
            for (label, bias) in &scaling.bias {
                if !known(label) {
                    problems.push(format!("{place}.bias.{label}: is no label; the labels are {labels}"));
                }
                if bias.abs() > 100.0 {
                    problems.push(format!("{place}.bias.{label}: is {bias}; -100 to 100 is a bias"));
                }
                if self.method == Method::Temperature && *bias != 0.0 {
                    problems.push(format!("{place}.bias.{label}: is {bias}; the method temperature has no bias"));
                }
            }
        }
        for language in
            self.per_language.keys().filter(|language| language::primary(language).as_ref() != Some(language))
        {
            problems
                .push(format!("per_language.{language}: write a primary language tag in small letters, such as en"));
        }
        for (label, bins) in &self.baseline {
            if !known(label) {
                problems.push(format!("baseline.{label}: is no label; the labels are {labels}"));
            }
            if bins.len() != BASELINE_BINS {
                problems.push(format!("baseline.{label}: has {} bins; {BASELINE_BINS} are right", bins.len()));
            }
        }
        problems
    }

    /// `sha256:` and the hexadecimal digest of the content; the layout of the file does not count.
    pub fn revision(&self) -> String {
        // Plain numbers and strings: this cannot fail.
        let content = serde_json::to_value(self).unwrap_or_default().to_string();
        format!("sha256:{}", hex::encode(Sha256::digest(content)))
    }

    /// In what this is not for the model and prompt with these digests; `None` where it is.
    pub fn mismatch(&self, model_digest: &str, prompt_digest: &str) -> Option<String> {
        let Self { model, model_digest: fitted, .. } = self;
        if fitted != model_digest {
            return Some(format!(
                "it was fitted for the model {model} ({fitted}), and the model here is {model_digest}"
            ));
        }
        let fitted = &self.prompt_digest;
        (fitted != prompt_digest)
            .then(|| format!("it was fitted under another prompt ({fitted}), and the policy's is {prompt_digest}"))
    }

    /// The scaling for posts of this language (BCP 47), and the tag it stands under where it is the language's own.
    pub fn scaling(&self, lang: Option<&str>) -> (&Scaling, Option<&str>) {
        let own = lang.filter(|_| !self.per_language.is_empty()).and_then(language::primary);
        match own.and_then(|lang| self.per_language.get_key_value(&lang)) {
            Some((tag, scaling)) => (scaling, Some(tag)),
            None => (&self.overall, None),
        }
    }

    /// Calibrated scores from raw ones, both in the order of [`Self::labels`]; they sum to 1 whatever the raw ones are.
    pub fn apply(&self, raw: &[f64], lang: Option<&str>) -> Vec<f64> {
        let (Scaling { temperature, bias, .. }, _) = self.scaling(lang);
        let bias = |label: &String| if bias.is_empty() { 0.0 } else { bias.get(label).copied().unwrap_or(0.0) };
        // A raw 0 is a score too small for a float, not an impossible one: its logarithm stays finite. So does NaN's.
        let log = |score: f64| score.max(f64::MIN_POSITIVE).ln().min(0.0);
        let logits = raw.iter().zip(&self.labels).map(|(score, label)| log(*score) / temperature + bias(label));
        let mut scores: Vec<f64> = logits.collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores.iter_mut().for_each(|logit| *logit = (*logit - most).exp());
        let sum: f64 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= sum);
        scores
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        let digest = format!("sha256:{}", "0a".repeat(32));
        json!({
            "schema": "calibration.v1", "id": "cal-1", "policy": "p", "taxonomy": "t/1", "model": "m",
            "model_digest": digest, "prompt_digest": digest, "labels": ["a", "b", "c"],
            "method": "temperature_and_bias",
            "overall": {"rows": 90, "temperature": 2.0, "bias": {"b": 0.5}},
            "per_language": {"de": {"rows": 40, "temperature": 4.0}},
            "fitted_on": {"rows": 90, "sha256": "0a".repeat(32), "nll_before": 1.0, "nll_after": 0.5,
                          "ece_before": 0.2, "ece_after": 0.01, "fitted_at": "2026-11-22T08:00:00Z"},
            "baseline": {"a": vec![1; 20]},
        })
    }

    fn read(document: &Value) -> Result<CalibrationV1, CalibrationError> {
        CalibrationV1::parse(&document.to_string())
    }

    fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut document = good();
        change(&mut document);
        read(&document).unwrap_err().problems
    }

    #[test]
    fn scores_are_scaled_by_temperature_and_bias_and_by_the_language_where_it_has_its_own() {
        let calibration = read(&good()).unwrap();
        let raw = [0.7, 0.2, 0.1];
        let expected: Vec<f64> = {
            let odds = [0.7f64.sqrt(), 0.2f64.sqrt() * 0.5f64.exp(), 0.1f64.sqrt()];
            odds.iter().map(|odd| odd / odds.iter().sum::<f64>()).collect()
        };
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&calibration.apply(&raw, None), &expected));
        assert_eq!(calibration.apply(&raw, Some("fr")), calibration.apply(&raw, None));
        assert_ne!(calibration.apply(&raw, Some("de-AT")), calibration.apply(&raw, None));
        assert_eq!(calibration.scaling(Some("DE")).1, Some("de"));
        assert_eq!(calibration.scaling(Some("fr")).1, None);
    }

    #[test]
    fn the_revision_follows_the_content_and_not_the_layout() {
        let calibration = read(&good()).unwrap();
        let pretty = serde_json::to_string_pretty(&good()).unwrap();
        assert_eq!(CalibrationV1::parse(&pretty).unwrap().revision(), calibration.revision());
        let written = serde_json::to_string(&calibration).unwrap();
        assert_eq!(CalibrationV1::parse(&written).unwrap().revision(), calibration.revision());
        let mut warmer = calibration.clone();
        warmer.overall.temperature += 1e-9;
        assert_ne!(warmer.revision(), calibration.revision());
        assert!(calibration.revision().starts_with("sha256:") && calibration.revision().len() == 71);
    }

    #[test]
    fn every_problem_of_a_file_is_told_at_once() {
        let found = problems(|document| {
            document["schema"] = json!("calibration.v2");
            document["colour"] = json!("red");
            document["overall"]["temperature"] = json!(0);
            document["model_digest"] = json!("abc");
            document.as_object_mut().unwrap().remove("method");
        });
        assert_eq!(found.len(), 5, "{found:#?}");
        for part in ["schema:", "colour", "overall.temperature:", "model_digest:", "method"] {
            assert!(found.iter().any(|problem| problem.contains(part)), "{part} is not in {found:#?}");
        }
        let found = problems(|document| {
            document["method"] = json!("temperature");
            document["labels"] = json!(["a", "b", "b"]);
            document["per_language"] = json!({"DE-at": {"rows": 1, "temperature": 1, "bias": {"x": 0}}});
            document["baseline"] = json!({"z": [1]});
            document["fitted_on"]["fitted_at"] = json!("yesterday");
        });
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(CalibrationV1::parse("{").unwrap_err().problems[0].starts_with("file: is not JSON"));
    }

    #[test]
    fn a_score_of_nothing_or_of_everything_stays_a_number() {
        let calibration = read(&good()).unwrap();
        for raw in [[1.0, 0.0, 0.0], [0.0; 3], [1.0; 3], [f64::NAN, 1.0, 0.0], [f64::INFINITY, 0.0, 0.0]] {
            let scores = calibration.apply(&raw, None);
            assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{raw:?}: {scores:?}");
            assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        assert!(calibration.apply(&[1.0, 0.0, 0.0], None)[0] > 0.999);
    }

    proptest! {
        #[test]
        fn calibrated_scores_are_probabilities_and_a_temperature_alone_keeps_their_order(
            logits in prop::array::uniform3(-300.0..300.0f64), temperature in 0.01..100.0f64,
        ) {
            let mut calibration = read(&good()).unwrap();
            calibration.overall = Scaling { rows: 1, temperature, bias: BTreeMap::new() };
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let raw = logits.map(|logit| logit.exp() / sum);
            let scores = calibration.apply(&raw, None);
            prop_assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for (i, j) in [(0, 1), (1, 2), (0, 2)] {
                prop_assert!(raw[i] < raw[j] || scores[i] >= scores[j], "{:?} became {:?}", raw, scores);
            }
        }
    }
}
