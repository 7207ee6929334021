use std::collections::BTreeMap;

use super::*;
use crate::eval::assemble::{Answers, Inputs};
use crate::eval::bootstrap::Resampling;
use crate::eval::dataset::{Dataset, Wanted};
use crate::eval::sample::Frame;
use crate::policy::Thresholds;

const SECRET: &str = "the text of the post";

/// The report of a judge that is always right, on rows with hostile names.
fn report() -> EvalV1 {
    let labels = ["misinformation", "opinion"].map(str::to_owned).to_vec();
    let frame = Frame {
        labels: labels.clone(),
        thresholds: vec![Some(Thresholds { review: 0.4, act: Some(0.9) }), None],
        calibrated: false,
    };
    let row = |label: &str, attack: &str| {
        serde_json::json!({"text": SECRET, "clean_text": SECRET, "label": label, "attack": attack, "source": "<script>",
                           "attacker_target": "opinion"})
        .to_string()
    };
    let file = [row("misinformation", "evasion_leet"), row("opinion", "a<b")].join("\n");
    let wanted = Wanted { labels: labels.clone(), adversarial: true, ..Wanted::default() };
    let dataset = Dataset::parse("folder/set.jsonl", file.as_bytes(), &wanted).unwrap();
    let resampling = Resampling { resamples: 20, seed: 1 };
    let inputs = Inputs { frame: &frame, policy_labels: &labels, dataset: &dataset, resampling, notes: None };
    let answers: Answers = inputs.perfect(&["precision=int8".to_owned()]);
    let mut report = inputs.report(&answers);
    report.data.unjudged = BTreeMap::from([("too_many_tokens".to_owned(), 1)]);
    report
}

#[test]
fn the_page_asks_for_nothing_from_outside_and_runs_no_script() {
    let page = page(&report());
    for part in ["http:", "https:", "<script", "<link", "<img", "@import", "url(", "onload=", "onclick="] {
        assert!(!page.contains(part), "{part} is in the page");
    }
}

#[test]
fn the_page_holds_no_post_and_no_name_as_markup() {
    let page = page(&report());
    assert!(!page.contains(SECRET));
    assert!(page.contains("&lt;script&gt;") && page.contains("family a&lt;b"));
}

#[test]
fn every_section_that_the_figures_call_for_is_there() {
    let page = page(&report());
    for part in [
        "The labels",
        "Confusion matrix",
        "ROC curves",
        "Precision-recall curves",
        "Reliability diagram",
        "Scores of misinformation by true label",
        "What a threshold would do",
        "The policy as it stands",
        "by source",
        "precision=int8",
        "Under attack",
        "too_many_tokens",
        "SHA-256 of the data",
    ] {
        assert!(page.contains(part), "{part:?} is not in the page");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), page.matches("<desc").count(), "a chart without words");
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split(['>', ' ']).next()) {
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None if ["!doctype", "meta", "br", "path", "rect", "circle"].contains(&tag.trim_end_matches('/')) => {}
            None => open.push(tag),
        }
    }
    assert!(open.is_empty(), "{open:?} is never closed");
}
