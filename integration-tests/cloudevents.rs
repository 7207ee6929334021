//! Verdicts and notes as CloudEvents in binary mode: who reads verdicts goes on reading them.

use moderato::event;
use serde_json::{Value, json};

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::notes::NotesPool;
use crate::support::pool::{POLICY, Pool, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::{PATIENCE, assert_fits, repository};

/// Nearly every post is worth a look under this policy.
fn strict() -> tempfile::NamedTempFile {
    let policy = std::fs::read_to_string(repository(POLICY)).unwrap();
    let file = tempfile::Builder::new().suffix(".md").tempfile().unwrap();
    std::fs::write(file.path(), policy.replace("review: 0.40", "review: 0.01")).unwrap();
    file
}

/// The whole event of a record in binary mode, which fits the published schema.
fn whole(record: &Record, schema: &str) -> Value {
    let value = record.value.as_deref().unwrap();
    let json = event::json(value, |name| record.header(name)).unwrap();
    let event: Value = serde_json::from_slice(&json).unwrap();
    assert_fits(&event, schema);
    event
}

/// What the binding asks of a record in binary mode.
fn assert_binary(record: &Record, kind: &str) {
    let header = |name: &str| record.header(name).unwrap_or_else(|| panic!("{name} is missing: {record:?}"));
    assert_eq!(
        (header("ce_specversion"), header("ce_type"), header("content-type")),
        ("1.0", kind, "application/json")
    );
    assert!(header("ce_source").starts_with("urn:moderato:") && header("ce_dataschema").contains(":schema:"));
    assert!(header("ce_time").parse::<jiff::Timestamp>().is_ok());
    let data = record.json();
    assert_eq!(data["input"]["post_id"], header("ce_subject"), "the value is `data` alone: {data:#}");
    assert!(data.get("specversion").is_none() && data.get("data").is_none());
    assert_eq!(record.headers.iter().filter(|(name, _)| name == "content-type").count(), 1);
}

fn reconciled(pool: &Pool<'_>, settings: &[(&str, &str)]) -> Value {
    let output = pool.setup().with(settings).verb("reconcile").argument("--json").output(b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    report
}

/// Posts to verdicts, flagged posts to notes, all in binary mode.
fn judged_and_drafted(kafka: &Kafka, judging: &Pool<'_>) {
    let flagged = kafka.topic(&format!("{}-flagged", judging.delivery), 1);
    let drafting = Pool::named(kafka, &format!("{}-notes-", judging.delivery), 1);
    let drafting = NotesPool::of(Pool { posts: flagged.clone(), delivery: judging.delivery, ..drafting });
    judging.post(posts("p", 12).chain([
        post("line\nbreak \u{fc}", "A claim."),
        Outgoing::new("no post"),
        Outgoing::tombstone().key("p-1"),
    ]));
    let policy = strict();
    let policy = policy.path().display().to_string();
    let binary = ("kafka.cloudevents", "binary");
    let settings = [binary, ("kafka.topics.flagged", flagged.as_str()), ("policy", policy.as_str())];
    let _judge = judging.setup().with(&settings).start();
    let _drafter = drafting.setup().with(&[binary]).start();

    let verdicts = judging.verdicts_of_all();
    let (deleted, verdicts): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|record| record.value.is_none());
    assert_eq!((verdicts.len(), deleted.len()), (13, 1));
    assert_eq!(deleted[0].header("ce_id"), None, "a tombstone is no event");
    let events: Vec<Value> = verdicts.iter().map(|record| whole(record, "verdict.v1.json")).collect();
    for (record, event) in verdicts.iter().zip(&events) {
        assert_binary(record, "dev.moderato.verdict.v1");
        assert_eq!(record.header("moderato.verdict_id"), event["id"].as_str());
    }
    let report = reconciled(judging, &settings);
    assert_eq!((&report["whole"], &report["verdicts"], &report["dead_letters"]), (&json!(true), &json!(13), &json!(1)));

    let passed = kafka.read_all(&flagged);
    assert!(!passed.is_empty(), "no post is flagged, so nothing is proved");
    for record in &passed {
        let verdict: Value = serde_json::from_str(record.header("moderato.verdict").unwrap()).unwrap();
        assert!(events.contains(&verdict), "the header holds the whole event: {verdict:#}");
        assert_eq!(record.header("ce_id"), None, "the value is the post as it came");
    }
    let notes = kafka.read(&drafting.pool.verdicts, passed.len(), PATIENCE);
    assert_eq!(notes.len(), passed.len());
    for record in &notes {
        assert_binary(record, "dev.moderato.note.v1");
        let note = whole(record, "note.v1.json");
        let verdict = events.iter().find(|event| event["subject"] == note["subject"]).unwrap();
        assert_eq!(note["data"]["verdict"]["verdict_id"], verdict["id"]);
        assert_eq!(record.header("moderato.note_id"), note["id"].as_str());
    }
}

#[test]
fn in_binary_mode_verdicts_and_notes_are_data_with_headers_and_reconcile_and_drafting_read_them_in_both_deliveries() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 2) {
        judged_and_drafted(&kafka, &pool);
    }
}

#[test]
fn posts_of_a_cloud_event_in_either_mode_are_judged() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let data = json!({"id": "structured", "text": "A claim. (overheard)"});
    let event = json!({"specversion": "1.0", "id": "e-1", "source": "s", "type": "t", "data": data});
    let structured = Outgoing::new(event.to_string()).header("content-type", Some(b"application/cloudevents+json"));
    let attributes = [("ce_specversion", "1.0"), ("ce_id", "e-2"), ("ce_source", "s"), ("ce_type", "t")];
    let binary = post("binary", "A claim.").header("content-type", Some(b"application/json"));
    let binary = attributes.iter().fold(binary, |record, (name, value)| record.header(name, Some(value.as_bytes())));
    pool.post([structured, binary]);
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    let subjects: Vec<Value> = verdicts.iter().map(|record| record.json()["subject"].clone()).collect();
    assert_eq!(subjects, ["structured", "binary"]);
}
