//! Posts that change: a later version supersedes, and a tombstone takes what was kept of the post along.

use std::collections::BTreeMap;

use redis::Commands as _;
use serde_json::{Value, json};

use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, answered_by};
use crate::support::records::{Outgoing, Record};
use crate::support::redis::{answers, keys};
use crate::support::worker::Setup;
use crate::{kafka, redis};

/// A version of a post, its text told by two words.
fn version(key: &str, version: u64, text: &str) -> Outgoing {
    let value = json!({"id": key, "text": format!("Claim: {text}."), "version": version});
    Outgoing::new(value.to_string()).key(key)
}

fn tombstone(key: &str) -> Outgoing {
    Outgoing::tombstone().key(key)
}

/// What a compacted topic keeps: the last record of each key. Partitions hold disjoint keys.
fn compacted(records: Vec<Record>) -> BTreeMap<String, Record> {
    let key = |record: &Record| String::from_utf8(record.key.clone().unwrap()).unwrap();
    records.into_iter().map(|record| (key(&record), record)).collect()
}

fn input(record: &Record) -> Value {
    record.json()["data"]["input"].clone()
}

#[test]
fn of_an_edited_post_the_last_verdict_is_on_the_last_version_and_says_so() {
    const POSTS: usize = 40;
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    // Versions of one post follow each other closely and are of all lengths, so that they overtake each other inside.
    let edits =
        |n: usize| (1..=5).map(move |v| version(&format!("post-{n}"), v, &format!("{n} {v}").repeat(40 / v as usize)));
    pool.post((0..POSTS).flat_map(edits));
    let _worker = pool.setup().set("limits.max_batch_posts", 2).start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(verdicts.len(), 5 * POSTS);
    let mut offsets: BTreeMap<Vec<u8>, Vec<(u64, i64)>> = BTreeMap::new();
    for verdict in &verdicts {
        let input = input(verdict);
        let told = (input["version"].as_u64().unwrap(), input["kafka"]["offset"].as_i64().unwrap());
        offsets.entry(verdict.key.clone().unwrap()).or_default().push(told);
    }
    assert!(offsets.values().all(|told| told.is_sorted() && told.len() == 5), "{offsets:?}");
    let last = compacted(verdicts);
    assert_eq!(last.len(), POSTS);
    assert!(last.values().all(|verdict| input(verdict)["version"] == 5));
}

#[test]
fn an_edit_without_a_version_is_told_by_its_later_offset() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let edit = |text: &str| Outgoing::new(json!({"id": "p", "text": text}).to_string()).key("p");
    pool.post([edit("the first text"), edit("the second text")]);
    let _worker = pool.start();

    let last = compacted(pool.verdicts_of_all());

    assert_eq!((&input(&last["p"])["version"], &input(&last["p"])["kafka"]["offset"]), (&Value::Null, &json!(1)));
}

/// Two versions of a post and its tombstone, and another post that stays.
fn edited_and_deleted() -> [Outgoing; 4] {
    [
        version("deleted", 1, "the first text"),
        version("deleted", 2, "the second text"),
        version("stays", 1, "its own text"),
        tombstone("deleted"),
    ]
}

/// The same texts in other posts.
fn repeated() -> [Outgoing; 3] {
    [
        version("again-1", 1, "the first text"),
        version("again-2", 1, "the second text"),
        version("again-3", 1, "its own text"),
    ]
}

/// Judges all of it; hands back who answered the repeated texts.
fn deletes_and_repeats(kafka: &Kafka, setup: impl Fn(&Pool<'_>) -> Setup) -> Vec<String> {
    let pool = Pool::new(kafka, 1);
    // All there before the worker starts, so that the tombstone arrives with what it deletes.
    pool.post(edited_and_deleted());
    let _worker = setup(&pool).start();
    pool.wait_until_all_is_committed();
    pool.post(repeated());
    let records = pool.verdicts_of_all();
    assert_eq!(records.len(), 7);
    assert!(records[3].value.is_none(), "the tombstone leaves after the versions that came before it");
    records[4..].iter().map(|verdict| verdict.json()["data"]["answered_by"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tombstone_removes_the_answers_to_every_version_of_its_post_from_redis_and_no_others() {
    let (kafka, redis) = (kafka!(), redis!());
    let (prefix, mut link) = (redis.name("cache"), redis.connection());
    let pool = Pool::named(&kafka, "judged-", 1);
    pool.post(edited_and_deleted());
    let worker = pool.cached(&redis.url, &prefix).start();
    pool.wait_until_all_is_committed();
    worker.stop();

    assert_eq!(answers(&mut link, &prefix).len(), 1, "the other post's");
    assert_eq!(keys(&mut link, &format!("{prefix}:*")).len(), 2, "and what says that it is the other post's");
    let sources = deletes_and_repeats(&kafka, |pool| pool.cached(&redis.url, &redis.name("again")));
    assert_eq!(sources, ["model", "model", "cache"], "nor does the worker keep them at hand");
}

#[test]
fn a_tombstone_removes_the_answers_to_every_version_of_its_post_from_the_cache_in_process() {
    let kafka = kafka!();
    let sources = deletes_and_repeats(&kafka, |pool| pool.setup().set("cache.kind", "in_process"));
    assert_eq!(sources, ["model", "model", "cache"]);
}

#[test]
fn a_tombstone_passes_when_redis_is_gone_and_when_it_holds_rubbish_for_the_post() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut private = redis.private();
    let pool = Pool::new(&kafka, 1);
    let worker = pool.cached(&private.url, "p").start();
    pool.post([version("first", 1, "the first text"), version("second", 1, "the second text")]);
    pool.wait_until_all_is_committed();
    let mut link = private.connection();
    for set in keys(&mut link, "p:post:*") {
        let () = link.set(set, "no set").unwrap();
    }

    pool.post([tombstone("first")]);
    pool.wait_until_all_is_committed();
    assert_eq!(keys(&mut link, "p:post:*").len(), 1, "the rubbish is gone with its post");
    private.kill();
    pool.post([tombstone("second"), version("third", 1, "the third text")]);
    let records = pool.verdicts_of_all();

    let deleted: Vec<_> = records.iter().filter(|record| record.value.is_none()).map(|record| &record.key).collect();
    assert_eq!(deleted, [&Some(b"first".to_vec()), &Some(b"second".to_vec())]);
    let judged: Vec<Record> = records.iter().filter(|record| record.value.is_some()).cloned().collect();
    assert_eq!(answered_by(&judged), BTreeMap::from([("model".to_owned(), 3)]));
    assert!(worker.totals()["cache_unreachable"].as_u64().unwrap() > 0);
}
