//! What becomes of a post: one verdict, in order, that says what made it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::kafka;
use crate::support::pool::{POLICY, Pool, answered_by, judged, post, posts, scores};
use crate::support::records::{Outgoing, Record};
use crate::support::{PATIENCE, assert_fits, model, repository};

#[test]
fn every_post_becomes_one_verdict_with_its_key_that_fits_the_published_schema() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 60));
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!((verdicts.len(), judged(&verdicts).len()), (60, 60));
    for verdict in &verdicts {
        let value = verdict.json();
        assert_fits(&value, "verdict.v1.json");
        assert_eq!(verdict.key.as_deref(), value["subject"].as_str().map(str::as_bytes));
        let sum: f64 = scores(verdict).as_object().unwrap().values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-9, "scores sum to {sum}");
    }
}

#[test]
fn a_verdict_names_the_model_the_policy_and_the_record_that_made_it() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let text = "The moon landing was filmed in a shed.";
    let value = json!({"id": "p1", "text": text, "lang": "en", "version": 7, "likes": 3}).to_string();
    pool.post([Outgoing::new(value).key("k").partition(1).timestamp(1_700_000_000_000)]);
    let _worker = pool.start();

    let verdict = &pool.wait_for_verdicts(1)[0];

    let value = verdict.json();
    let (data, id) = (&value["data"], &value["id"]);
    assert_eq!(data["model"]["digest"], digest_of_the_files());
    let policy = moderato::policy::Policy::load(&repository(POLICY)).unwrap();
    assert_eq!(
        data["policy"],
        json!({"id": policy.id, "revision": policy.revision, "digest": policy.digest(), "taxonomy": policy.taxonomy})
    );
    assert_eq!(data["model"]["execution"]["provider"], "cpu");
    assert_eq!(data["model"]["execution"]["precision"], "fp32");
    let input = &data["input"];
    assert_eq!(
        input["kafka"],
        json!({"topic": pool.posts, "partition": 1, "offset": 0, "timestamp_ms": 1_700_000_000_000_i64})
    );
    assert_eq!(input["text_sha256"], hex::encode(Sha256::digest(text)));
    assert_eq!((&input["lang"], &input["version"]), (&json!("en"), &json!(7)));
    assert_eq!(verdict.header("moderato.verdict_id"), id.as_str());
    assert_eq!(value["source"], format!("urn:moderato:{}", pool.group));
}

/// As the verdict's schema says: names and digests of the folder's files, in order.
fn digest_of_the_files() -> String {
    let manifest = std::fs::read(model("tiny-fp32").join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let line = |file: &Value| format!("{}\0{}\n", file["path"].as_str().unwrap(), file["sha256"].as_str().unwrap());
    let lines: String = manifest["files"].as_array().unwrap().iter().map(line).collect();
    format!("sha256:{}", hex::encode(Sha256::digest(lines)))
}

#[test]
fn verdicts_of_a_partition_leave_in_the_order_its_posts_came() {
    let kafka = kafka!();
    // One verdict partition: whatever overtakes is seen.
    let pool = Pool { verdicts: kafka.topic("one", 1), ..Pool::new(&kafka, 2) };
    pool.post((0..400).map(|n: usize| {
        // Short after long, so that the short one is ready first; every tenth has a twin before it.
        let claims = if n.is_multiple_of(7) { 60 } else { 1 + n % 3 };
        let text = if n % 10 == 9 { "The same old claim.".to_owned() } else { format!("Claim {n}! ").repeat(claims) };
        post(&format!("p-{n}"), &text).partition(i32::try_from(n % 2).unwrap())
    }));
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(verdicts.len(), 400);
    let mut by_partition: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for verdict in &verdicts {
        let from = &verdict.json()["data"]["input"]["kafka"];
        by_partition.entry(from["partition"].as_i64().unwrap()).or_default().push(from["offset"].as_i64().unwrap());
    }
    let in_order: Vec<i64> = (0..200).collect();
    assert_eq!(by_partition, BTreeMap::from([(0, in_order.clone()), (1, in_order)]));
}

#[test]
fn a_tombstone_is_passed_on_with_its_key_and_says_where_it_came_from() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([post("p1", "First said."), Outgoing::tombstone().key("p1"), post("p2", "Said later.")]);
    let mut worker = pool.start();

    let records = pool.verdicts_of_all();

    let tombstone = &records[1];
    assert_eq!((tombstone.key.as_deref(), &tombstone.value), (Some(b"p1".as_slice()), &None));
    let from = ["topic", "partition", "offset"].map(|part| tombstone.header(&format!("moderato.source.{part}")));
    assert_eq!(from, [Some(pool.posts.as_str()), Some("0"), Some("1")]);
    assert_eq!((records.len(), records[2].key.as_deref()), (3, Some(b"p2".as_slice())));
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    let stopped: Value = serde_json::from_str(&worker.wait_for_log("\"stopped\"")).unwrap();
    assert_eq!((&stopped["tombstones"], &stopped["verdicts"]), (&json!(1), &json!(2)));
}

#[test]
fn a_null_key_and_a_null_header_are_legal_and_the_key_travels() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let keyless = Outgoing { key: None, ..post("p1", "Nobody's claim.") }.header("trace", None);
    pool.post([keyless, Outgoing::tombstone().header("trace", None), post("p2", "Somebody's claim.").key("")]);
    let _worker = pool.start();

    let records = pool.verdicts_of_all();

    let keys: Vec<_> = records.iter().map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [None, None, Some(b"".as_slice())]);
    assert_eq!(pool.count(&pool.dead_letters), 0);
}

#[test]
fn posts_of_an_aborted_transaction_are_not_judged_and_hold_up_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    kafka.produce_in_transaction(&pool.posts, posts("kept", 3), true);
    kafka.produce_in_transaction(&pool.posts, posts("aborted", 3), false);
    pool.post(posts("after", 2));
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    let expected = ["after-0", "after-1", "kept-0", "kept-1", "kept-2"].map(str::to_owned);
    assert_eq!((verdicts.len(), judged(&verdicts)), (5, expected.into()));
    // Three, its end, three aborted, their end, two: the next offset has gone over all of it.
    assert_eq!(pool.committed(), BTreeMap::from([(0, 10)]));
}

#[test]
fn posts_of_the_same_text_run_the_model_once() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    // Long ones first: while the model is busy with them, those of the same text are in flight together.
    pool.post((0..200).map(|n| post(&format!("long-{n}"), &format!("Claim {n}: it goes {}.", "on and ".repeat(100)))));
    pool.post((0..200).map(|n| post(&format!("same-{n}"), "A claim that everybody shares.")));
    let _worker = pool.setup().set("limits.max_batch_posts", 1).start();

    let verdicts = pool.verdicts_of_all();

    let by = answered_by(&verdicts[200..]);
    assert_eq!((judged(&verdicts).len(), by.get("model")), (400, Some(&1)), "{by:?}");
    assert!(by.get("twin") > Some(&0), "those in flight wait for the first one's answer: {by:?}");
    assert!(verdicts[200..].iter().all(|verdict| scores(verdict) == scores(&verdicts[200])));
}

#[test]
fn fewer_permits_than_posts_still_judge_every_post() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 100));
    let _worker = pool.setup().set("limits.max_in_flight", 4).start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!((verdicts.len(), judged(&verdicts).len()), (100, 100));
}

#[test]
fn a_long_post_is_truncated_and_its_verdict_says_so() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([post("long", &"So it goes on. ".repeat(50)), post("short", "It ends.")]);
    let _worker = pool.setup().set("limits.max_input_tokens", 20).start();

    let verdicts = pool.verdicts_of_all();

    let read = |verdict: &Record| {
        let input = verdict.json()["data"]["input"].clone();
        (input["truncated"].clone(), input["tokens_seen"].as_u64().unwrap(), input["tokens_total"].as_u64().unwrap())
    };
    let (truncated, seen, total) = read(&verdicts[0]);
    assert_eq!(truncated, true);
    // The mark where the middle is missing may cost tokens of its own.
    assert!((1..=20).contains(&seen) && total > 20, "{seen} of {total}");
    let (truncated, seen, total) = read(&verdicts[1]);
    assert!(truncated == false && seen == total && seen <= 20, "{seen} of {total}");
}

#[test]
fn a_long_post_is_a_dead_letter_where_the_config_says_reject() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([post("long", &"So it goes on. ".repeat(50)), post("short", "It ends.")]);
    let _worker = pool.setup().set("limits.max_input_tokens", 20).set("limits.on_overlong", "reject").start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts), ["short".to_owned()].into());
    let letter = &kafka.read(&pool.dead_letters, 1, PATIENCE)[0];
    assert_eq!(letter.header("moderato.error.reason"), Some("too_many_tokens"));
    assert_eq!(letter.header("moderato.error.stage"), Some("tokenise"));
}

#[test]
fn a_text_of_ten_megabytes_is_judged_where_the_limits_let_it_in() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([post("huge", &"All of it is true. ".repeat(10_000_000 / 19)), post("next", "Short.")]);
    let _worker = pool.setup().set("limits.max_post_bytes", 16 << 20).start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts).len(), 2);
    assert_eq!(verdicts[0].json()["data"]["input"]["truncated"], true);
}
