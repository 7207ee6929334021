//! `moderato export`: verdicts of the real program in, checked drafts out.

use std::fs;

use serde_json::{Value, json};

use crate::calibration::{Judged, calibration};
use crate::support::pool::lines;
use crate::support::repository;
use crate::support::worker::moderato;

const SETTINGS: &str = r#"
uri: "https://social.example/posts/{id}"
atproto: {labeler: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}
activitystreams: {actor: "https://social.example/services/moderato"}
dsa:
  statement:
    decision_visibility: [DECISION_VISIBILITY_CONTENT_LABELLED]
    decision_ground: DECISION_GROUND_INCOMPATIBLE_CONTENT
    incompatible_content_ground: Rule 7, false claims
    incompatible_content_explanation: Rule 7 has false claims labelled.
"#;

const FORMATS: [&str; 4] = ["community-notes", "atproto-label", "activitystreams-flag", "dsa-statement"];

/// Verdicts on two posts: one held for misinformation beyond doubt, by a calibration that says so of everything.
fn verdicts() -> Vec<Value> {
    let certain = calibration(1.0, &json!({"misinformation": 50.0}));
    let input = ["A claim about hedgehogs.", "Another claim about hedgehogs."].join("\n");
    let verdicts = Judged::by("calibration: cal.json", &certain).verdicts(&input);
    assert_eq!(verdicts[0]["data"]["verdict"]["label"], "misinformation");
    verdicts
}

/// What `export` writes, says and returns for these lines.
fn export(arguments: &[&str], settings: &str, input: &[Value]) -> (Vec<Value>, String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    fs::write(&file, settings).unwrap();
    let file = file.display().to_string();
    let input: Vec<String> = input.iter().map(Value::to_string).collect();
    let arguments: Vec<&str> = ["export", "--settings", &file].into_iter().chain(arguments.iter().copied()).collect();
    let output = moderato(&arguments, input.join("\n").as_bytes());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (lines(&output.stdout), told, output.status.code())
}

fn note(verdict: &Value) -> Value {
    json!({
        "type": "dev.moderato.note.v1", "subject": verdict["subject"], "time": "2026-11-22T08:00:00Z",
        "data": {
            "note": {"status": "draft", "summary": "The post says X. Y states Z [e1].", "citations": ["e1"],
                     "fixed_form": false},
            "verdict": {"verdict_id": verdict["id"], "label": "misinformation", "score": 0.9, "action": "act"},
            "input": {"lang": "en"},
        },
    })
}

#[test]
fn every_form_is_drafted_from_a_verdict_and_keeps_to_its_schema() {
    let mut verdict = verdicts().remove(0);
    verdict["platform"] =
        json!({"created_at": "2026-11-20T08:00:00Z", "evidence": [{"id": "e1", "url": "https://example.org/1"}]});
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.jsonl");
    fs::write(&notes, note(&verdict).to_string()).unwrap();

    for format in FORMATS {
        let arguments = ["--format", format, "--topic", "health", "--notes", &notes.display().to_string()];
        let (drafts, told, exit) = export(&arguments, SETTINGS, std::slice::from_ref(&verdict));

        assert_eq!((drafts.len(), exit), (1, Some(0)), "{format}: {told}");
        let schema = fs::read(repository(&format!("schemas/export/{format}.v1.json"))).unwrap();
        let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
        assert!(schema.is_valid(&drafts[0]["record"]), "{}", drafts[0]);
        assert_eq!((&drafts[0]["status"], &drafts[0]["verdict_id"]), (&json!("draft"), &verdict["id"]));
        assert!(!drafts[0].to_string().contains("hedgehogs"), "{}", drafts[0]);
    }
}

#[test]
fn what_may_not_be_said_is_withheld_and_counted_and_what_cannot_be_read_is_named() {
    let [mut opinion, mut unsure]: [Value; 2] = verdicts().try_into().unwrap();
    opinion["data"]["verdict"]["label"] = json!("opinion_or_satire");
    unsure["data"]["verdict"]["abstained"] = json!(true);
    let mut satire = unsure.clone();
    satire["data"]["verdict"]["abstained"] = json!(false);
    satire["platform"] = json!({"reasons": ["misinterpreted_satire"]});
    let broken = json!({"type": "dev.moderato.verdict.v1"});

    for format in ["atproto-label", "dsa-statement"] {
        let input = [opinion.clone(), broken.clone(), unsure.clone(), satire.clone()];
        let (drafts, told, exit) = export(&["--format", format, "--topic", "health"], SETTINGS, &input);

        assert!(drafts.is_empty(), "{drafts:?}");
        for part in
            ["line 2: has not the shape of verdict.v1", "abstained 1, label 1, misinterpreted_satire 1; not read: 1"]
        {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        assert_eq!(exit, Some(1));
    }
}

#[test]
fn verdicts_of_workers_without_calibration_are_read_too() {
    let mut verdict = verdicts().remove(0);
    for key in ["raw_scores", "calibration", "abstained", "bands"] {
        verdict["data"]["verdict"].as_object_mut().unwrap().remove(key).unwrap();
    }
    for key in ["lang_detected", "lang_confidence"] {
        verdict["data"]["input"].as_object_mut().unwrap().remove(key).unwrap();
    }

    let (drafts, told, exit) = export(&["--format", "activitystreams-flag"], SETTINGS, &[verdict]);

    assert_eq!((drafts.len(), exit), (1, Some(0)), "{told}");
}

#[test]
fn settings_without_what_the_form_needs_end_it_before_anything_is_read() {
    for (format, part) in [("atproto-label", "atproto.labeler"), ("dsa-statement", "decision_ground")] {
        let (drafts, told, exit) = export(&["--format", format], "topic: health", &[]);
        assert!(drafts.is_empty() && told.contains(part), "{told}");
        assert_eq!(exit, Some(2));
    }
}
