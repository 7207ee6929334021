//! The comparison as a whole, on verdicts that are made up.

use serde_json::{Value, json};

use super::report::Changes;
use super::*;
use crate::policy::{Action, Policy, PolicyFormat};
use crate::verdict::{ActionReason, VerdictV1};

/// A verdict on the post of that number, with the score of `bad`; from 0.5 on reviewed, from 0.9 on acted upon.
fn verdict(number: i64, bad: f64) -> Value {
    let action = if bad >= 0.9 {
        "act"
    } else if bad >= 0.5 {
        "review"
    } else {
        "allow"
    };
    let label = if bad >= 0.5 { "bad" } else { "fine" };
    let scores = json!({"bad": bad, "fine": 1.0 - bad});
    json!({
        "specversion": "1.0", "id": format!("{number}-{bad}"), "source": "urn:moderato:pool", "type": "dev.moderato.verdict.v1",
        "subject": format!("p{number}"), "time": "2026-11-22T10:00:00Z", "datacontenttype": "application/json",
        "dataschema": "urn:moderato:schema:verdict.v1",
        "data": {
            "verdict": {"label": label, "score": bad.max(1.0 - bad), "scores": scores, "raw_scores": scores,
                        "outside_labels": 0.0, "action": action, "action_reason": "thresholds", "action_label": label,
                        "thresholds": null},
            "policy": {"id": "p", "revision": "r", "digest": "sha256:00", "taxonomy": "t/1"},
            "model": {"name": "m", "digest": "sha256:01", "tokenizer_digest": "sha256:02", "prompt_digest": "sha256:03",
                      "decoding": "", "computed_at": "",
                      "execution": {"provider": "cpu", "precision": "fp32", "onnxruntime": "1.31.1"}},
            "input": {"post_id": format!("p{number}"), "version": null, "lang": "en-GB", "text_sha256": "00", "truncated": false,
                      "tokens_seen": 1, "tokens_total": 1, "tokens_prompt": 1, "tags_neutralised": 0,
                      "kafka": {"topic": "posts", "partition": 0, "offset": number, "timestamp_ms": 1000 * number}},
            "answered_by": "model", "timing_ms": {"tokenise": 0, "queue": 0, "classify": 0, "total": 0},
            "idempotency_key": "", "worker_version": "",
        },
    })
}

fn enter(names: &mut Names, side: &mut Side, verdicts: &[Value]) {
    for value in verdicts {
        let text = value.to_string();
        let verdict: VerdictV1<'_> = serde_json::from_str(&text).unwrap();
        side.take(names, &verdict, (&verdict.data.verdict, &verdict.data.policy));
    }
}

fn books(a: &[Value], b: &[Value]) -> Books {
    let mut books = Books::default();
    enter(&mut books.names, &mut books.a, a);
    enter(&mut books.names, &mut books.b, b);
    books
}

fn asked(fields: &Fields) -> Asked<'_> {
    Asked {
        by: None,
        tolerance: 0.0,
        list: 10,
        caps: &[],
        window: Duration::from_secs(10),
        policies: [None; 2],
        truth: None,
        fields,
        resampling: Resampling { resamples: 20, seed: 1 },
    }
}

pub(super) fn compared(a: &[Value], b: &[Value]) -> DiffV1 {
    compare(&mut books(a, b), &asked(&Fields::default())).report
}

pub(super) fn all(scores: &[f64]) -> Vec<Value> {
    scores.iter().enumerate().map(|(number, score)| verdict(number as i64, *score)).collect()
}

#[test]
fn the_same_verdicts_are_the_same_and_the_least_change_of_a_score_is_not() {
    let verdicts = all(&[0.1, 0.5, 0.95]);
    let report = compared(&verdicts, &verdicts);
    assert!(report.same && report.flips.count == 0);
    assert_eq!(report.by_label[0].drift, 0.0);
    let changed = all(&[0.1, 0.5, 0.95 + 1e-15]);
    let report = compared(&verdicts, &changed);
    assert!(!report.same && report.flips.count == 0);
    assert_eq!((report.all.scores, report.all.actions), (1, 0));
    let fields = Fields::default();
    let tolerant = Asked { tolerance: 1e-12, ..asked(&fields) };
    assert!(compare(&mut books(&verdicts, &changed), &tolerant).report.same);
}

#[test]
fn every_flip_is_counted_where_it_belongs_and_the_worst_come_first() {
    let (a, b) = (all(&[0.1, 0.1, 0.6, 0.95, 0.2]), all(&[0.1, 0.95, 0.7, 0.4, 0.6]));
    let report = compared(&a, &b);
    assert_eq!(report.action_matrix, [[1, 1, 1], [0, 1, 0], [1, 0, 0]]);
    assert_eq!(report.labels, ["bad", "fine"]);
    assert_eq!(report.label_matrix, [[1, 1], [2, 1]]);
    let Changes { pairs, labels, actions, scores, acts_gained, acts_lost, allow_and_act } = report.all;
    assert_eq!([pairs, labels, actions, scores], [5, 3, 3, 4]);
    assert_eq!([acts_gained, acts_lost, allow_and_act], [1, 1, 2]);
    let order: Vec<&str> = report.flips.first.iter().map(|flip| flip.post.post_id.as_str()).collect();
    assert_eq!(order, ["p1", "p3", "p4"]);
    assert!((report.greatest_score_change - 0.85).abs() < 1e-12);
    assert_eq!(report.slices.len(), 1);
    assert_eq!((report.slices[0].value.as_str(), report.slices[0].changes), ("en", report.all));
}

#[test]
fn what_begins_or_ceases_to_act_comes_before_a_greater_change_of_a_score() {
    let report = compared(&all(&[0.1, 0.75, 0.95]), &all(&[0.7, 0.91, 0.85]));
    let order: Vec<&str> = report.flips.first.iter().map(|flip| flip.post.post_id.as_str()).collect();
    assert_eq!(order, ["p1", "p2", "p0"]);
}

#[test]
fn repeats_count_once_and_a_later_verdict_takes_the_place_of_an_earlier_one() {
    let a = all(&[0.1, 0.2]);
    let b = [verdict(0, 0.95), verdict(0, 0.95), verdict(0, 0.1), verdict(0, 0.95), verdict(7, 0.3)];
    let report = compared(&a, &b);
    assert_eq!((report.b.verdicts, report.b.repeats, report.b.superseded), (2, 2, 1));
    assert_eq!((report.all.pairs, report.all.actions), (1, 0));
    assert_eq!((report.a.only_here.count, report.b.only_here.count), (1, 1));
    assert_eq!(report.a.only_here.first[0].post_id, "p1");
    assert_eq!(report.b.only_here.first[0].offset, 7);
    assert!(!report.same);
}

#[test]
fn verdicts_are_joined_by_post_where_no_topic_is_on_both_sides() {
    let a = all(&[0.1, 0.95]);
    let mut b = all(&[0.95, 0.1]);
    for (verdict, id) in b.iter_mut().zip(["p1", "p0"]) {
        verdict["data"]["input"]["post_id"] = json!(id);
    }
    let report = compared(&a, &b);
    assert_eq!((report.joined_by, report.other_posts, report.all.pairs), ("coordinates", 2, 0));
    b.iter_mut().for_each(|verdict| verdict["data"]["input"]["kafka"]["topic"] = json!("elsewhere"));
    let report = compared(&a, &b);
    assert_eq!((report.joined_by, report.all.pairs, report.all.actions), ("post", 2, 0));
}

#[test]
fn acts_are_counted_in_the_fullest_window_against_what_was_allowed() {
    let (a, b) = (all(&[0.1; 30]), all(&[0.95; 30]));
    let cap = |most| [Cap { label: Some("bad".to_owned()), most, window: Duration::from_secs(10) }];
    let fields = Fields::default();
    let radius = |most: u64| {
        let report = compare(&mut books(&a, &b), &Asked { caps: &cap(most), ..asked(&fields) }).report;
        let bad = &report.blast_radius[0];
        assert_eq!((bad.acts, bad.peak), ([0, 30], [0, 10]));
        bad.exceeded
    };
    assert!(!radius(10) && radius(9));
    let exceeded = compare(&mut books(&b, &b), &Asked { caps: &cap(9), ..asked(&fields) }).report;
    assert!(!exceeded.same, "a quota that would be used up is a finding, whatever was before");
}

#[test]
fn the_side_that_says_what_the_labels_say_was_right() {
    let (a, b) = (all(&[0.1, 0.1, 0.9, 0.9]), all(&[0.9, 0.1, 0.9, 0.1]));
    let labels = ["bad".to_owned(), "fine".to_owned()];
    let row = |id: &str, label: &str| format!("{}\n", json!({"id": id, "text": "t", "label": label}));
    let file = row("p0", "bad") + &row("p1", "fine") + &row("p3", "bad") + &row("p9", "bad");
    let wanted = crate::eval::dataset::Wanted { labels: labels.to_vec(), ..Default::default() };
    let dataset = Dataset::parse("labels", file.as_bytes(), &wanted).unwrap();
    let fields = Fields::default();
    let report = compare(&mut books(&a, &b), &Asked { truth: Some((&dataset, &labels)), ..asked(&fields) }).report;
    let truth = report.truth.unwrap();
    assert_eq!([truth.pairs, truth.both, truth.only_a, truth.only_b, truth.neither], [3, 1, 1, 1, 0]);
    assert_eq!((truth.unused, truth.mcnemar_p), (1, 1.0));
}

#[test]
fn posts_are_sliced_by_the_fields_that_are_known_of_them() {
    let fields = Fields {
        names: vec!["source".to_owned()],
        values: [("p0".to_owned(), vec!["feed".to_owned()]), ("p1".to_owned(), vec!["feed".to_owned()])].into(),
    };
    let report = compare(&mut books(&all(&[0.1, 0.1, 0.1]), &all(&[0.95, 0.1, 0.6])), &asked(&fields)).report;
    let told: Vec<_> =
        report.slices.iter().map(|one| (&*one.field, &*one.value, one.changes.pairs, one.changes.actions)).collect();
    assert_eq!(told, [("language", "en", 3, 2), ("source", "feed", 2, 1), ("source", "(none)", 1, 1)]);
}

#[test]
fn a_quota_turns_later_acts_to_review_and_they_still_count_as_called_for() {
    let text = "id: p\nrevision: r\ntaxonomy: t/1\nprompt: Judge.\nlabels:\n\
         - {id: bad, description: d, answer: a, thresholds: {review: 0.4, act: 0.9}, act_quota: {most: 2, window: 10s}}\n\
         - {id: fine, description: d, answer: c}\n";
    let policy = Policy::parse(text, PolicyFormat::Yaml).unwrap();
    let verdicts = all(&[0.95; 15]);
    let mut books = books(&verdicts, &verdicts);
    let rows = 0..books.b.rows.len();
    hold_to_quotas(&policy, &mut books.b, rows, &books.names);
    let acts: Vec<i64> = books.b.rows.iter().filter(|row| row.action == Action::Act).map(|row| row.offset).collect();
    assert_eq!(acts, [0, 1, 10, 11], "two in each window of ten seconds");
    assert!(books.b.rows.iter().all(Row::calls_for_act));
    let report = compare(&mut books, &asked(&Fields::default())).report;
    assert_eq!((report.blast_radius[0].acts, report.blast_radius[0].held), ([15, 15], 11));
    assert_eq!(report.flips.first[0].b.reason, ActionReason::Quota);
}
