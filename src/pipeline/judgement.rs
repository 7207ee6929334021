//! What a policy makes of a raw answer: calibrated scores, bands, the action and its reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::policy::{Action, Policy};
use crate::verdict::{ActionReason, Answer, CalibrationRef, Judgement};

/// What besides the scores decides.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The model saw only part of the post.
    pub truncated: bool,
    /// The post's language, where it is known.
    pub language: Option<&'a str>,
    /// The policy's calibration was fitted for the model that answered.
    pub matches_model: bool,
}

/// The label is the highest score; the action is the strictest that any label's own thresholds call for, so that a post
/// that is 45 % misinformation is looked at even where another label leads. The answer has a score for each of the
/// policy's labels: the model and the cache see to that.
pub fn judgement<'a>(policy: &'a Policy, answer: &Answer, seen: Circumstances<'_>) -> Judgement<'a> {
    let raw = &answer.scores;
    let scores = policy.calibration.as_ref().map(|calibration| calibration.apply(raw, seen.language));
    let scores = scores.as_ref().unwrap_or(raw);
    let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
    let bands = policy.bands(scores);
    let abstained = policy.abstains(scores[best]);
    let strictest = (0..bands.len()).max_by_key(|&i| (bands[i], i == best));
    let called = strictest.map_or(Action::Allow, |i| bands[i]);
    let decider = strictest.filter(|_| called != Action::Allow).unwrap_or(best);
    let (action, action_reason) = match called {
        // Scores in a language that the model does not know mean nothing, high ones neither.
        _ if !policy.can_judge(seen.language) => (Action::Review, ActionReason::UnsupportedLanguage),
        Action::Allow if abstained => (Action::Review, ActionReason::Abstained),
        // Nobody has looked at what was cut out, so nobody can say that it is harmless.
        Action::Allow if seen.truncated => (Action::Review, ActionReason::NotWhollySeen),
        called => (called, ActionReason::Thresholds),
    };
    Judgement {
        label: (&*policy.labels[best].id).into(),
        score: scores[best],
        scores: by_label(policy, scores.iter().copied()),
        raw_scores: by_label(policy, raw.iter().copied()),
        calibration: calibration(policy, seen),
        outside_labels: answer.outside_labels,
        abstained,
        bands: by_label(policy, bands.iter().copied()),
        action,
        action_reason,
        action_label: (&*policy.labels[decider].id).into(),
        thresholds: policy.labels[decider].thresholds,
    }
}

fn by_label<T>(policy: &Policy, values: impl Iterator<Item = T>) -> BTreeMap<Cow<'_, str>, T> {
    policy.labels.iter().map(|label| Cow::Borrowed(&*label.id)).zip(values).collect()
}

fn calibration<'a>(policy: &'a Policy, seen: Circumstances<'_>) -> Option<CalibrationRef<'a>> {
    let calibration = policy.calibration.as_ref()?;
    Some(CalibrationRef {
        id: calibration.id.as_str().into(),
        revision: policy.calibration_revision().into(),
        method: calibration.method,
        language: calibration.scaling(seen.language).1.map(Cow::Borrowed),
        matches_model: seen.matches_model,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::calibration::CalibrationV1;
    use crate::policy::PolicyFormat;
    use crate::verdict::Execution;

    const WHOLE: Circumstances<'static> = Circumstances { truncated: false, language: None, matches_model: true };

    fn policy(more: &str) -> Policy {
        let text = format!(
            "id: p\nrevision: r\ntaxonomy: t/1\nprompt: Judge.\nlabels:\n\
             - {{id: bad, description: d, answer: a, thresholds: {{review: 0.4, act: 0.9}}}}\n\
             - {{id: odd, description: d, answer: b, thresholds: {{review: 0.6}}}}\n\
             - {{id: fine, description: d, answer: c}}\n{more}"
        );
        Policy::parse(&text, PolicyFormat::Yaml).unwrap()
    }

    fn calibrated(mut policy: Policy, temperature: f64) -> Policy {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let calibration = json!({
            "schema": "calibration.v1", "id": "cal-1", "policy": "p", "taxonomy": "t/1", "model": "m",
            "model_digest": digest, "prompt_digest": digest, "labels": ["bad", "odd", "fine"],
            "method": "temperature_and_bias", "overall": {"rows": 90, "temperature": temperature},
            "per_language": {"de": {"rows": 40, "temperature": 1, "bias": {"fine": 9}}},
            "fitted_on": {"rows": 90, "sha256": "0a".repeat(32), "nll_before": 1.0, "nll_after": 0.5,
                          "ece_before": 0.2, "ece_after": 0.01, "fitted_at": "2026-11-22T08:00:00Z"},
        });
        policy.calibration = Some(Arc::new(CalibrationV1::parse(&calibration.to_string()).unwrap()));
        policy
    }

    fn answer(scores: [f64; 3]) -> Answer {
        let execution = Execution {
            provider: "cpu".into(),
            nodes: BTreeMap::new(),
            precision: "fp32".into(),
            onnxruntime: "1.31.1".into(),
        };
        Answer {
            scores: scores.into(),
            outside_labels: 0.0,
            execution: Arc::new(execution),
            computed_at: "2026-11-22T00:00:00Z".into(),
            language: None,
            conditions: None,
        }
    }

    /// Label, action and reason.
    fn told(policy: &Policy, scores: [f64; 3], seen: Circumstances<'_>) -> (String, Action, ActionReason) {
        let judged = judgement(policy, &answer(scores), seen);
        (judged.label.into_owned(), judged.action, judged.action_reason)
    }

    #[test]
    fn without_calibration_both_scores_are_the_models() {
        let policy = policy("");
        let judged = judgement(&policy, &answer([0.45, 0.05, 0.5]), WHOLE);
        assert_eq!((&*judged.label, judged.score, &judged.scores), ("fine", 0.5, &judged.raw_scores));
        assert_eq!((judged.calibration, judged.abstained), (None, false));
        assert_eq!((judged.action, &*judged.action_label), (Action::Review, "bad"));
        assert_eq!(judged.bands.values().copied().collect::<Vec<_>>(), [Action::Review, Action::Allow, Action::Allow]);
    }

    #[test]
    fn thresholds_and_label_go_by_the_calibrated_scores_and_the_raw_ones_stay() {
        let policy = calibrated(policy(""), 4.0);
        let raw = [0.92, 0.05, 0.03];
        let judged = judgement(&policy, &answer(raw), WHOLE);
        assert_eq!(judged.raw_scores.values().copied().collect::<Vec<_>>(), [0.92, 0.03, 0.05]);
        assert!(judged.score < 0.6 && judged.score == judged.scores["bad"], "{judged:?}");
        assert_eq!((judged.bands["bad"], judged.action), (Action::Review, Action::Review));
        let german = judgement(&policy, &answer(raw), Circumstances { language: Some("de"), ..WHOLE });
        assert_eq!((&*german.label, german.action), ("fine", Action::Allow));
        let named = [judged, german].map(|judged| judged.calibration.unwrap());
        assert_eq!((named[0].language.as_deref(), named[1].language.as_deref()), (None, Some("de")));
        assert_eq!(&*named[0].id, "cal-1");
    }

    #[test]
    fn a_post_that_no_score_speaks_for_is_for_a_person() {
        let policy = policy("abstain_below: 0.55\n");
        assert_eq!(told(&policy, [0.2, 0.3, 0.5], WHOLE), ("fine".into(), Action::Review, ActionReason::Abstained));
        assert_eq!(told(&policy, [0.2, 0.25, 0.55], WHOLE).1, Action::Allow);
        // Whoever looks at it wants to know what called for that first.
        assert_eq!(told(&policy, [0.5, 0.3, 0.2], WHOLE).2, ActionReason::Thresholds);
        assert!(judgement(&policy, &answer([0.5, 0.3, 0.2]), WHOLE).abstained);
    }

    #[test]
    fn a_language_that_the_policy_does_not_name_is_for_a_person_whatever_the_scores() {
        let policy = policy("languages: [en]\n");
        let german = Circumstances { language: Some("de"), ..WHOLE };
        for scores in [[0.99, 0.0, 0.01], [0.0, 0.0, 1.0]] {
            let (_, action, reason) = told(&policy, scores, german);
            assert_eq!((action, reason), (Action::Review, ActionReason::UnsupportedLanguage));
        }
        for language in [Some("en"), None] {
            let seen = Circumstances { language, ..WHOLE };
            assert_eq!(told(&policy, [0.99, 0.0, 0.01], seen).1, Action::Act);
        }
    }

    #[test]
    fn a_post_that_was_not_wholly_seen_is_never_allowed() {
        let cut = Circumstances { truncated: true, ..WHOLE };
        let told = told(&policy(""), [0.0, 0.0, 1.0], cut);
        assert_eq!((told.1, told.2), (Action::Review, ActionReason::NotWhollySeen));
    }

    proptest! {
        #[test]
        fn the_action_is_the_strictest_band_and_never_less_than_review_where_the_verdict_abstains(
            weights in prop::array::uniform3(0.0..1.0f64), temperature in 0.1..10.0f64, least in 0.0..0.9f64,
            truncated in any::<bool>(), calibrate in any::<bool>(),
        ) {
            let policy = policy(&format!("abstain_below: {least}\n"));
            let policy = if calibrate { calibrated(policy, temperature) } else { policy };
            let sum = weights.iter().sum::<f64>().max(1e-9);
            let judged = judgement(&policy, &answer(weights.map(|w| w / sum)), Circumstances { truncated, ..WHOLE });
            let strictest = judged.bands.values().copied().max().unwrap();
            let highest = judged.scores.values().copied().fold(0.0, f64::max);
            prop_assert_eq!(judged.score, highest);
            prop_assert_eq!(judged.abstained, highest < least);
            let least_action = if judged.abstained || truncated { Action::Review } else { Action::Allow };
            prop_assert_eq!(judged.action, strictest.max(least_action));
            prop_assert_eq!(judged.action_reason == ActionReason::Thresholds, judged.action == strictest);
            prop_assert!(!(judged.abstained && judged.action == Action::Act));
        }
    }
}
