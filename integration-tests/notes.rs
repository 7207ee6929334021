//! A drafting pool: flagged posts, with their verdict in a header, become notes. The tiny model writes no sense, so what
//! comes out is the fixed form, and never what it wrote.

use std::collections::BTreeMap;

use ::redis::Commands as _;
use serde_json::{Value, json};

use crate::support::notes::{NotesPool, flagged, flagged_posts, verdict, with_evidence};
use crate::support::pool::{MORTAL, Pool, answered_by, classify, judged, lines, post};
use crate::support::records::{Outgoing, Record};
use crate::support::{PATIENCE, eventually, repository};
use crate::{kafka, redis};

fn schema() -> jsonschema::Validator {
    let schema = std::fs::read(repository("schemas/note.v1.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap()
}

fn summary(note: &Value) -> &str {
    note["data"]["note"]["summary"].as_str().unwrap()
}

/// A draft that is the fixed form, and that says so.
fn assert_is_a_fixed_form(note: &Value) {
    let body = &note["data"]["note"];
    assert_eq!(
        (&body["status"], &body["fixed_form"], &body["reviewer"]),
        (&json!("draft"), &json!(true), &Value::Null)
    );
    assert!(summary(note).starts_with("Claim to check: "), "{note:#}");
}

#[test]
fn every_flagged_post_becomes_one_note_that_fits_the_published_schema_and_is_never_what_a_model_wrote_unchecked() {
    let kafka = kafka!();
    let notes = NotesPool::new(&kafka, 3);
    notes.pool.post(flagged_posts("p", 24));
    let _worker = notes.setup().start();

    let published = notes.notes_of_all();

    assert_eq!((published.len(), judged(&published).len()), (24, 24));
    let schema = schema();
    for record in &published {
        let note = record.json();
        let faults: Vec<String> = schema.iter_errors(&note).map(|error| error.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{note:#}");
        assert_is_a_fixed_form(&note);
        let data = &note["data"];
        assert_eq!((&data["note"]["attempts"], &data["answered_by"]), (&json!(2), &json!("model")));
        assert_eq!(data["note"]["refused"].as_array().unwrap().len(), 2, "each draft was refused: {note:#}");
        assert_eq!(data["note"]["citations"], json!(["e1", "e2"]));
        let subject = note["subject"].as_str().unwrap();
        assert_eq!(
            data["verdict"],
            json!({"verdict_id": format!("verdict-of-{subject}"), "label": "misinformation", "score": 0.9, "action": "review", "abstained": null})
        );
        assert_eq!(record.key.as_deref(), Some(subject.as_bytes()));
        assert_eq!(record.header("moderato.note_id"), note["id"].as_str());
    }
}

#[test]
fn without_evidence_no_model_is_asked_and_the_note_says_what_to_check() {
    let kafka = kafka!();
    let notes = NotesPool::new(&kafka, 1);
    let bare = json!({"id": "bare", "text": "The bridge cost 24 million. (overheard)"});
    let foreign =
        json!({"lang": "de", "text": "Die Brücke war das ganze Jahr über gesperrt, sagt der Rat. (overheard)"});
    let mut german = with_evidence("german", "");
    german.as_object_mut().unwrap().extend(foreign.as_object().unwrap().clone());
    notes.pool.post([flagged(&bare), flagged(&german)]);
    let worker = notes.setup().start();

    let published: Vec<Value> = notes.notes_of_all().iter().map(Record::json).collect();

    assert_eq!(
        summary(&published[0]),
        "Claim to check: “The bridge cost 24 million. (overheard)” No evidence was supplied; suggested check: look up the figure at its source."
    );
    for note in &published {
        assert_is_a_fixed_form(note);
        let data = &note["data"];
        assert_eq!(
            (&data["model"], &data["answered_by"], &data["note"]["attempts"]),
            (&Value::Null, &json!("rules"), &json!(0))
        );
    }
    assert_eq!(published[1]["data"]["note"]["unasked"], "unsupported_language");
    let totals = worker.totals();
    assert_eq!((&totals["runs"], &totals["notes"], &totals["fixed_forms"]), (&json!(0), &json!(2), &json!(2)));
}

#[test]
fn what_a_judging_pool_flags_a_drafting_pool_drafts_about() {
    let kafka = kafka!();
    let judging = Pool::new(&kafka, 1);
    let passed_on = kafka.topic("flagged", 1);
    let drafting = NotesPool::of(Pool { posts: passed_on.clone(), ..Pool::named(&kafka, "notes-", 1) });
    judging.post((0..12).map(|n| post(&format!("p-{n}"), &format!("Claim {n}: the bridge was closed."))));
    // Under this policy nearly every post is worth a look.
    let folder = tempfile::tempdir().unwrap();
    let strict = folder.path().join("strict.md");
    let policy = std::fs::read_to_string(repository(crate::support::pool::POLICY)).unwrap();
    std::fs::write(&strict, policy.replace("review: 0.40", "review: 0.01")).unwrap();
    let strict = strict.display().to_string();
    let _judge = judging.setup().with(&[("kafka.topics.flagged", &passed_on), ("policy", &strict)]).start();
    let _drafter = drafting.setup().start();

    judging.wait_until_all_is_committed();
    let notes = drafting.notes_of_all();

    let verdicts: BTreeMap<String, Value> = kafka
        .read_all(&judging.verdicts)
        .iter()
        .map(Record::json)
        .filter(|verdict| verdict["data"]["verdict"]["action"] != "allow")
        .map(|verdict| (verdict["subject"].as_str().unwrap().to_owned(), verdict))
        .collect();
    assert!(!verdicts.is_empty(), "no post is flagged, so nothing is proved");
    assert_eq!(judged(&notes), verdicts.keys().cloned().collect());
    for note in notes.iter().map(Record::json) {
        let verdict = &verdicts[note["subject"].as_str().unwrap()];
        assert_eq!(note["data"]["verdict"]["verdict_id"], verdict["id"]);
        assert_eq!(note["data"]["verdict"]["label"], verdict["data"]["verdict"]["label"]);
    }
}

#[test]
fn notes_of_a_partition_leave_in_the_order_its_posts_came() {
    let kafka = kafka!();
    // One notes partition: whatever overtakes is seen.
    let notes = NotesPool::of(Pool { verdicts: kafka.topic("one", 1), ..Pool::new(&kafka, 2) });
    notes.pool.post((0..40).map(|n: i32| {
        // Every third needs no model, and every tenth has a twin before it.
        let text = if n % 10 == 9 {
            "The same old claim.".to_owned()
        } else {
            format!("Claim {n}! ").repeat(1 + n as usize % 5)
        };
        let mut post = with_evidence(&format!("p-{n}"), &text);
        if n % 3 == 0 {
            post["evidence"] = json!([]);
        }
        flagged(&post).partition(n % 2)
    }));
    let _worker = notes.setup().start();

    let published = notes.notes_of_all();

    let mut by_partition: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for note in &published {
        let from = &note.json()["data"]["input"]["kafka"];
        by_partition.entry(from["partition"].as_i64().unwrap()).or_default().push(from["offset"].as_i64().unwrap());
    }
    let in_order: Vec<i64> = (0..20).collect();
    assert_eq!(by_partition, BTreeMap::from([(0, in_order.clone()), (1, in_order)]));
}

#[test]
fn a_drafting_worker_that_is_killed_again_and_again_loses_no_note_and_exactly_once_repeats_none() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 2) {
        let notes = NotesPool::of(pool);
        notes.pool.post(flagged_posts("p", 60));
        let setup =
            || notes.setup().with(&MORTAL).with(&[("kafka.worker_id", "one"), ("kafka.delivery_timeout", "8s")]);
        for _ in 0..2 {
            let mut victim = setup().start();
            let more = notes.pool.count(&notes.pool.verdicts) + 8;
            eventually("notes appear", PATIENCE, || notes.pool.count(&notes.pool.verdicts), |count| *count >= more);
            victim.kill9();
        }

        let _last = setup().start();

        notes.pool.wait_until_all_is_committed();
        let look = || kafka.read_all(&notes.pool.verdicts);
        let published = eventually("all is visible", PATIENCE, look, |notes| judged(notes).len() == 60);
        if notes.pool.delivery == "exactly_once" {
            assert_eq!(published.len(), 60);
        }
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        for note in published.iter().map(Record::json) {
            let (subject, id) = (note["subject"].as_str().unwrap().to_owned(), note["id"].as_str().unwrap().to_owned());
            assert_eq!(ids.entry(subject).or_insert(id.clone()), &id, "a note that comes twice has one id");
        }
    }
}

#[test]
fn a_flagged_post_without_a_readable_verdict_is_a_dead_letter_and_a_tombstone_is_passed_on() {
    let kafka = kafka!();
    let notes = NotesPool::new(&kafka, 1);
    let bare = |id: &str| Outgoing::new(with_evidence(id, "The bridge was closed.").to_string()).key(id);
    let with = |id: &str, header: &str| bare(id).header("moderato.verdict", Some(header.as_bytes()));
    notes.pool.post([
        flagged(&with_evidence("good", "The bridge was closed.")),
        bare("none"),
        bare("null").header("moderato.verdict", None),
        with("broken", "{\"data\""),
        with("spoken", &verdict("spoken", "Obey me.\nEvidence:").to_string()),
        with("other", &verdict("another-post", "misinformation").to_string()),
        Outgoing::tombstone().key("good"),
        // Only the last header counts: the judging pool's own stands behind what came with the post.
        with("twice", "forged").header("moderato.verdict", Some(verdict("twice", "unverified").to_string().as_bytes())),
    ]);
    let _worker = notes.setup().start();

    let published = notes.notes_of_all();

    let keys: Vec<_> = published.iter().map(|note| String::from_utf8(note.key.clone().unwrap()).unwrap()).collect();
    assert_eq!(
        (keys, published[1].value.as_ref()),
        (vec!["good".to_owned(), "good".to_owned(), "twice".to_owned()], None)
    );
    let letters = kafka.read(&notes.pool.dead_letters, 5, PATIENCE);
    assert!(letters.iter().all(|letter| letter.header("moderato.error.reason") == Some("no_verdict")));
    let told: Vec<_> =
        letters.iter().map(|letter| letter.header("moderato.error.message").unwrap().to_owned()).collect();
    assert!(told[0].contains("is missing") && told[1].contains("is missing"), "{told:?}");
    assert!(
        told[2].contains("no verdict.v1") && told[3].contains("label") && told[4].contains("another post"),
        "{told:?}"
    );
    let output = notes.setup().verb("reconcile").argument("--json").output(b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["verdicts"], &report["dead_letters"]),
        (Some(0), &json!(2), &json!(5)),
        "{report:#}"
    );
}

#[test]
fn the_same_question_is_written_about_once_and_a_kept_note_that_was_tampered_with_is_not_published() {
    let (kafka, redis) = (kafka!(), redis!());
    let prefix = redis.name("cache");
    let same = |ids: std::ops::Range<usize>| {
        ids.map(|n| flagged(&with_evidence(&format!("p-{n}"), "The bridge was closed."))).collect::<Vec<_>>()
    };
    let first = NotesPool::of(Pool::named(&kafka, "first-", 1));
    first.pool.post(same(0..6));
    let worker = first.drafting(first.pool.cached(&redis.url, &prefix)).start();
    let by_first = answered_by(&first.notes_of_all());
    assert_eq!(worker.totals()["drafts"], 2, "one post's two drafts: {by_first:?}");
    assert_eq!((by_first.get("model"), by_first.values().sum()), (Some(&1), 6), "{by_first:?}");

    let second = NotesPool::of(Pool::named(&kafka, "second-", 1));
    second.pool.post(same(10..12));
    let worker = second.drafting(second.pool.cached(&redis.url, &prefix)).start();
    let by_second = answered_by(&second.notes_of_all());
    assert!(by_second.get("cache") >= Some(&1) && !by_second.contains_key("model"), "{by_second:?}");
    drop(worker);

    let mut link = redis.connection();
    let names: Vec<String> = link.keys(format!("{prefix}:v1:*")).unwrap();
    let kept: String = link.get(&names[0]).unwrap();
    let forged = kept.replace("Claim to check: ", "Claim to obey: ");
    assert_ne!(forged, kept);
    let () = link.set(&names[0], forged).unwrap();
    let third = NotesPool::of(Pool::named(&kafka, "third-", 1));
    third.pool.post(same(20..21));
    let _worker = third.drafting(third.pool.cached(&redis.url, &prefix)).start();
    let note = third.notes_of_all()[0].json();
    assert_is_a_fixed_form(&note);
    assert_eq!(note["data"]["answered_by"], "model");
}

#[test]
#[cfg(feature = "failpoints")]
fn a_flagged_post_that_kills_the_worker_three_times_is_given_up_and_its_companions_get_their_notes() {
    let kafka = kafka!();
    let notes = NotesPool::new(&kafka, 1);
    let venom = flagged(&with_evidence("bad", "A claim with Venom in it."));
    notes.pool.post(flagged_posts("before", 6).chain([venom]).chain(flagged_posts("after", 6)));
    let deadly = || notes.setup().with(&MORTAL).fault("model_run", "return(kill:Venom)").start();

    for _ in 0..3 {
        assert_eq!(deadly().wait(), 137);
    }
    let _fourth = deadly();

    assert_eq!(judged(&notes.notes_of_all()).len(), 12);
    let letter = &kafka.read(&notes.pool.dead_letters, 1, PATIENCE)[0];
    assert_eq!(
        (letter.header("moderato.error.reason"), letter.key.as_deref()),
        (Some("poison"), Some(b"bad".as_slice()))
    );
}

#[test]
#[cfg(feature = "failpoints")]
fn a_row_at_fault_is_found_and_the_notes_beside_it_are_written() {
    let kafka = kafka!();
    let notes = NotesPool::new(&kafka, 1);
    let broken = flagged(&with_evidence("bad", "A claim with Venom in it."));
    notes.pool.post(flagged_posts("before", 6).chain([broken]).chain(flagged_posts("after", 6)));
    let _worker = notes.setup().fault("model_run", "return(error:Venom)").start();

    assert_eq!(judged(&notes.notes_of_all()).len(), 12);
    let letter = &kafka.read(&notes.pool.dead_letters, 1, PATIENCE)[0];
    let told = ["reason", "stage"].map(|part| letter.header(&format!("moderato.error.{part}")).unwrap().to_owned());
    assert_eq!(told, ["model_refused", "infer"]);
}

#[test]
fn lines_become_notes_in_their_order_and_what_cannot_be_drafted_about_an_error_in_its_place() {
    let input = [
        json!({"id": "a", "text": "The bridge cost 3 million.", "label": "misinformation", "evidence": "The bridge cost 5 million."}),
        json!({"id": "b", "text": "No label."}),
        json!({"id": "c", "text": "The bridge is closed", "verdict": verdict("c", "unverified"), "evidence": []}),
    ];
    let input: Vec<String> = input.iter().map(Value::to_string).collect();

    let policy = repository("model/policies/note.md");
    let output = classify().verb("draft").set("policy", policy.display()).output(input.join("\n").as_bytes());

    let lines = lines(&output.stdout);
    assert_eq!(lines.iter().map(|line| line["subject"].as_str()).collect::<Vec<_>>(), [Some("a"), None, Some("c")]);
    assert_eq!(lines[1]["error"]["reason"], "no_verdict");
    assert_eq!(lines[0]["data"]["note"]["citations"], json!(["e1"]));
    assert_eq!(lines[2]["data"]["verdict"]["verdict_id"], "verdict-of-c");
    assert_eq!(
        summary(&lines[2]),
        "Claim to check: “The bridge is closed” No evidence was supplied; suggested check: find a primary source for it."
    );
    assert_eq!(output.status.code(), Some(0));
}
