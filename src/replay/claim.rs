//! What an old verdict says, and whether the one that is made of the same post now agrees.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::config::Determinism;
use crate::policy::Action;
use crate::verdict::{ActionReason, Fingerprint, Judgement, Revisions, VerdictV1};

/// What may differ between two fingerprints, in the order in which it is told; a verdict without one tells the last eight.
const PARTS: [&str; 13] = [
    "determinism",
    "bucket",
    "hardware",
    "provider_version",
    "threads",
    "model",
    "tokenizer",
    "prompt",
    "policy",
    "calibration",
    "provider",
    "onnxruntime",
    "precision",
];
/// The parts that only a fingerprint tells.
const CONDITIONS: usize = 5;

/// What a verdict says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The post's id.
    pub post: Box<str>,
    text: Box<str>,
    /// What was judged.
    pub judged: Judged,
    print: Print,
}

/// A judgement, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The label.
    pub label: Box<str>,
    /// Its score.
    pub score: f64,
    /// What was proposed.
    pub action: Action,
    /// What the scores called for, a used-up quota or not.
    called_for: Action,
    abstained: bool,
    /// Calibrated, raw, and outside the labels.
    scores: Vec<(Box<str>, f64)>,
}

/// What the bits of its scores hang on.
#[derive(Debug, Clone, PartialEq)]
struct Print {
    /// Computed of its parts.
    digest: Option<String>,
    /// Whether that is what the verdict says.
    sound: bool,
    strict: bool,
    parts: [Option<Box<str>>; PARTS.len()],
}

/// How an old verdict and the one that is made now compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Why the old one does not hold, if it does not.
    pub why: Vec<&'static str>,
    /// What was computed differently, if the fingerprints are not the same.
    pub other: Option<Vec<&'static str>>,
    /// The largest difference between two scores; none where one has a score that the other has not.
    pub difference: Option<f64>,
}

impl Claim {
    /// What this verdict says.
    pub fn of(verdict: &VerdictV1<'_>) -> Self {
        let data = &verdict.data;
        Self {
            post: (&*data.input.post_id).into(),
            text: (&*data.input.text_sha256).into(),
            judged: Judged::of(&data.verdict),
            print: Print::of(verdict),
        }
    }

    /// Whether it holds beside what is said now of the record at the same place. Under one fingerprint with strict
    /// determinism to the last bit; otherwise by post, text, label and action, and by scores within the tolerance.
    pub fn compared(&self, now: &Claim, tolerance: f64) -> Compared {
        let (then, again) = (&self.judged, &now.judged);
        let same = self.print.digest.is_some() && self.print.digest == now.print.digest;
        let exact = same && now.print.strict;
        let difference = difference(&then.scores, &again.scores);
        let scores_hold = match difference {
            Some(_) if exact => then.bits().eq(again.bits()),
            Some(difference) => difference <= tolerance,
            None => false,
        };
        let faults = [
            ("post", self.post != now.post),
            ("text", self.text != now.text),
            ("fingerprint", !self.print.sound),
            ("action", then.called_for != again.called_for),
            ("label", then.label != again.label),
            ("score", !scores_hold),
            ("abstained", exact && then.abstained != again.abstained),
        ];
        let why = faults.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect();
        Compared { why, other: (!same).then(|| self.print.differing(&now.print)), difference }
    }
}

impl Judged {
    fn of(judged: &Judgement<'_>) -> Self {
        let all = |kind: &str, scores: &BTreeMap<Cow<'_, str>, f64>| -> Vec<(Box<str>, f64)> {
            scores.iter().map(|(label, score)| (format!("{kind} {label}").into(), *score)).collect()
        };
        let mut scores = all("calibrated", &judged.scores);
        scores.extend(all("raw", &judged.raw_scores));
        scores.push(("label".into(), judged.score));
        scores.push(("outside".into(), judged.outside_labels));
        let held_back = judged.action_reason == ActionReason::Quota && judged.action == Action::Review;
        Self {
            label: (&*judged.label).into(),
            score: judged.score,
            action: judged.action,
            called_for: if held_back { Action::Act } else { judged.action },
            abstained: judged.abstained,
            scores,
        }
    }

    fn bits(&self) -> impl Iterator<Item = (&str, u64)> {
        self.scores.iter().map(|(what, score)| (&**what, score.to_bits()))
    }
}

/// None where they are not scores of the same.
fn difference(then: &[(Box<str>, f64)], again: &[(Box<str>, f64)]) -> Option<f64> {
    // Verdicts of older workers have no raw scores.
    let raw = |scores: &[(Box<str>, f64)]| scores.iter().any(|(what, _)| what.starts_with("raw "));
    let without = raw(then) != raw(again);
    let [then, again] = [then, again].map(|scores| {
        let told = scores.iter().filter(move |(what, _)| !(without && what.starts_with("raw ")));
        told.map(|(what, score)| (&**what, *score)).collect::<Vec<_>>()
    });
    let alike = then.len() == again.len() && then.iter().zip(&again).all(|((a, _), (b, _))| a == b);
    let apart = then.iter().zip(&again).map(|((_, a), (_, b))| (a - b).abs());
    alike.then(|| apart.fold(0.0, f64::max))
}

impl Print {
    fn of(verdict: &VerdictV1<'_>) -> Self {
        let (data, model) = (&verdict.data, &verdict.data.model);
        let calibration = data.verdict.calibration.as_ref().map(|calibration| &*calibration.revision);
        let execution = &model.execution;
        let mut parts = [const { None }; PARTS.len()];
        let revisions: [Option<&str>; PARTS.len() - CONDITIONS] = [
            Some(&model.digest),
            Some(&model.tokenizer_digest),
            Some(&model.prompt_digest),
            Some(&data.policy.digest),
            calibration,
            Some(&execution.provider),
            Some(&execution.onnxruntime),
            Some(&execution.precision),
        ];
        for (part, told) in parts[CONDITIONS..].iter_mut().zip(revisions) {
            *part = told.map(Into::into);
        }
        let Some(Fingerprint { digest: stated, conditions }) = &data.fingerprint else {
            return Self { digest: None, sound: true, strict: false, parts };
        };
        let revisions = Revisions {
            model: &model.digest,
            tokenizer: &model.tokenizer_digest,
            prompt: &model.prompt_digest,
            policy: &data.policy.digest,
            calibration,
        };
        let digest = Fingerprint::of(revisions, conditions).digest.into_owned();
        let strict = conditions.determinism == Determinism::Strict;
        let told = [
            Some(if strict { "strict" } else { "off" }.into()),
            conditions.bucket.as_deref().map(Into::into),
            Some(conditions.hardware.as_str().into()),
            conditions.provider_version.as_deref().map(Into::into),
            conditions.threads.map(|threads| threads.to_string().into()),
        ];
        parts.iter_mut().zip(told).for_each(|(part, told)| *part = told);
        Self { sound: digest == *stated, digest: Some(digest), strict, parts }
    }

    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let told = if self.digest.is_some() && other.digest.is_some() { 0 } else { CONDITIONS };
        let parts = PARTS.iter().zip(self.parts.iter().zip(&other.parts)).skip(told);
        let unlike: Vec<_> = parts.filter(|(_, (a, b))| a != b).map(|(part, _)| *part).collect();
        if unlike.is_empty() && told > 0 { vec!["no fingerprint"] } else { unlike }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::verdict::{Conditions, tests::conditions};

    /// A verdict of these conditions, with its fingerprint.
    fn verdict(conditions: &Conditions) -> Value {
        let revisions = Revisions { model: "m", tokenizer: "t", prompt: "p", policy: "q", calibration: None };
        json!({
            "specversion": "1.0", "id": "v", "source": "s", "type": "t", "subject": "p-1", "time": "2026-11-22T10:00:00Z",
            "datacontenttype": "application/json", "dataschema": "d",
            "data": {
                "verdict": {
                    "label": "a", "score": 0.75, "scores": {"a": 0.75, "b": 0.25}, "raw_scores": {"a": 0.75, "b": 0.25},
                    "outside_labels": 0.125, "action": "act", "action_reason": "thresholds", "action_label": "a", "thresholds": null,
                },
                "policy": {"id": "x", "revision": "1", "digest": "q", "taxonomy": "y"},
                "model": {
                    "name": "n", "digest": "m", "tokenizer_digest": "t", "prompt_digest": "p", "decoding": "d",
                    "execution": {"provider": "cpu", "precision": "fp32", "onnxruntime": "1.31.1"}, "computed_at": "c",
                },
                "input": {
                    "post_id": "p-1", "version": null, "lang": null, "text_sha256": "00", "truncated": false, "tokens_seen": 1,
                    "tokens_total": 1, "tokens_prompt": 1, "tags_neutralised": 0,
                    "kafka": {"topic": "posts", "partition": 0, "offset": 1, "timestamp_ms": null},
                },
                "fingerprint": serde_json::to_value(Fingerprint::of(revisions, conditions)).unwrap(),
                "answered_by": "model", "timing_ms": {"tokenise": 0.0, "queue": 0.0, "classify": 0.0, "total": 0.0},
                "idempotency_key": "k", "worker_version": "0",
            },
        })
    }

    fn claim(verdict: &Value) -> Claim {
        Claim::of(&serde_json::from_str(&verdict.to_string()).unwrap())
    }

    fn strict(place: &str, value: Value) -> Compared {
        let (now, mut old) = (verdict(&conditions()), verdict(&conditions()));
        *old.pointer_mut(place).unwrap() = value;
        claim(&old).compared(&claim(&now), 0.5)
    }

    #[test]
    fn under_one_strict_fingerprint_the_next_number_is_another_and_who_answered_does_not_matter() {
        let next = json!(0.75_f64.next_up());
        for place in ["score", "scores/a", "raw_scores/a"] {
            assert_eq!(strict(&format!("/data/verdict/{place}"), next.clone()).why, ["score"], "{place}");
        }
        assert_eq!(strict("/data/verdict/outside_labels", json!(0.0)).why, ["score"]);
        let cached = strict("/data/answered_by", json!("cache"));
        assert_eq!((cached.why, cached.other, cached.difference), (vec![], None, Some(0.0)));
    }

    #[test]
    fn under_another_fingerprint_the_tolerance_counts_and_what_differs_is_told() {
        let other = Conditions { precision: "int8".to_owned(), threads: Some(2), ..conditions() };
        let (mut old, now) = (verdict(&other), claim(&verdict(&conditions())));
        old["data"]["verdict"]["raw_scores"] = json!({"a": 0.5, "b": 0.5});
        old["data"]["model"]["execution"]["precision"] = json!("int8");
        let [within, beyond] = [0.25, 0.2].map(|tolerance| claim(&old).compared(&now, tolerance));
        assert_eq!((within.why, within.other), (vec![], Some(vec!["threads", "precision"])));
        assert_eq!((beyond.why, beyond.difference), (vec!["score"], Some(0.25)));

        // As older workers wrote them.
        old["data"]["fingerprint"] = Value::Null;
        old["data"]["verdict"]["raw_scores"] = json!({});
        let older = claim(&old).compared(&now, 0.0);
        assert_eq!((older.why, older.other), (vec![], Some(vec!["precision"])));
        old["data"]["verdict"]["scores"] = json!({"a": 0.75, "c": 0.25});
        let strange = claim(&old).compared(&now, 1.0);
        assert_eq!((strange.why, strange.difference), (vec!["score"], None), "scores of other labels");
    }

    #[test]
    fn what_a_quota_held_back_holds_and_what_somebody_altered_does_not() {
        let (mut old, now) = (verdict(&conditions()), claim(&verdict(&conditions())));
        old["data"]["verdict"]["action"] = json!("review");
        assert_eq!(claim(&old).compared(&now, 0.0).why, ["action"]);
        old["data"]["verdict"]["action_reason"] = json!("quota");
        assert_eq!(claim(&old).compared(&now, 0.0).why, [""; 0]);
        assert_eq!(strict("/data/input/post_id", json!("p-2")).why, ["post"]);
        assert_eq!(strict("/data/fingerprint/digest", json!("sha256:00")).why, ["fingerprint"]);
        assert_eq!(strict("/data/model/digest", json!("other")).why, ["fingerprint"]);
    }
}
