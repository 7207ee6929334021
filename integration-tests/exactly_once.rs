//! `kafka.delivery: exactly_once` on a real broker, seen as its readers see it: committed transactions only.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kafka;
use crate::support::pool::{POLICY, Pool, judged, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually, model, repository};

/// A worker of the pool whose death the group and the transaction coordinator notice soon.
fn worker(pool: &Pool<'_>, id: &str) -> Setup {
    pool.mortal().with(&[("kafka.delivery", "exactly_once"), ("kafka.worker_id", id), ("kafka.delivery_timeout", "8s")])
}

/// Every post of the pool has a verdict that readers of committed records see, and none has two.
fn assert_each_once(pool: &Pool<'_>, posts: usize) -> Vec<Record> {
    pool.wait_until_all_is_committed();
    // What a dead worker left open hides what comes after it, until the broker gives it up.
    let look = || pool.kafka.read_all(&pool.verdicts);
    let verdicts = eventually("all is visible", PATIENCE, look, |verdicts| judged(verdicts).len() == posts);
    let mut seen = BTreeMap::<_, Vec<_>>::new();
    for verdict in &verdicts {
        let json = verdict.json();
        let given = format!("{} at {}", json["data"]["input"]["kafka"], json["time"]);
        seen.entry(json["subject"].as_str().unwrap().to_owned()).or_default().push(given);
    }
    let twice: Vec<_> = seen.iter().filter(|(_, given)| given.len() > 1).take(3).collect();
    assert!(twice.is_empty(), "judged twice, among others: {twice:#?}");
    verdicts
}

fn some_verdicts(pool: &Pool<'_>, count: usize) {
    let more = pool.count(&pool.verdicts) + count;
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count >= more);
}

#[test]
fn verdicts_dead_letters_tombstones_and_flagged_posts_appear_together_with_their_offsets() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let flagged = kafka.topic("flagged", 1);
    pool.post(posts("p", 40));
    pool.post([Outgoing::new("broken").key("b"), Outgoing::tombstone().key("p-1")]);
    // Under this policy nearly every post is worth a look.
    let folder = tempfile::tempdir().unwrap();
    let strict = folder.path().join("strict.md");
    let policy = std::fs::read_to_string(repository(POLICY)).unwrap();
    std::fs::write(&strict, policy.replace("review: 0.40", "review: 0.01")).unwrap();
    let strict = strict.display().to_string();
    let _worker = worker(&pool, "one").with(&[("kafka.topics.flagged", &flagged), ("policy", &strict)]).start();

    pool.wait_until_all_is_committed();

    let all = kafka.read_all(&pool.verdicts).into_iter();
    let (tombstones, verdicts): (Vec<_>, Vec<_>) = all.partition(|record| record.value.is_none());
    assert_eq!((verdicts.len(), tombstones.len(), kafka.read_all(&pool.dead_letters).len()), (40, 1, 1));
    let called_for: Vec<_> =
        verdicts.iter().filter(|verdict| verdict.json()["data"]["verdict"]["action"] != "allow").collect();
    let passed = kafka.read_all(&flagged);
    assert!(!called_for.is_empty(), "no post is flagged, so nothing is proved");
    assert_eq!(passed.len(), called_for.len());
    for (passed, verdict) in passed.iter().zip(called_for) {
        assert_eq!(passed.json()["id"], verdict.json()["subject"], "the post itself");
        assert_eq!(passed.header("moderato.verdict").map(str::as_bytes), verdict.value.as_deref(), "with its verdict");
    }
}

#[test]
fn workers_that_are_killed_again_and_again_leave_each_post_with_one_verdict() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    pool.post(posts("p", 6000));
    let slow = |id: &str| worker(&pool, id).set("limits.max_in_flight", 256).start();
    let _steady = slow("steady");
    for _ in 0..3 {
        let mut victim = slow("victim");
        some_verdicts(&pool, 300);
        victim.kill9();
    }

    let _last = slow("victim");

    assert_each_once(&pool, 6000);
}

#[test]
fn a_worker_that_freezes_inside_a_busy_road_publishes_nothing_twice_when_it_wakes() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    let slow = |id: &str| worker(&pool, id).set("limits.max_batch_posts", 1).start();
    let (_awake, mut sleeper) = (slow("awake"), slow("sleeper"));
    eventually("both take part", PATIENCE, || kafka.members(&pool.group), |members| *members == 2);
    pool.post(posts("before", 3000));
    some_verdicts(&pool, 200);

    sleeper.pause();
    assert_each_once(&pool, 3000);
    sleeper.resume();
    pool.post(posts("after", 500));

    assert_each_once(&pool, 3500);
}

#[test]
fn workers_that_join_and_leave_under_load_judge_each_post_once() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    pool.post(posts("p", 6000));
    let slow = |id: &str| worker(&pool, id).set("limits.max_in_flight", 128).start();
    let _steady = slow("steady");
    some_verdicts(&pool, 100);
    for id in ["second", "third"] {
        let mut guest = slow(id);
        eventually("it takes part", PATIENCE, || kafka.members(&pool.group), |members| *members == 2);
        some_verdicts(&pool, 200);
        guest.sigterm();
        assert_eq!(guest.wait(), 0);
    }

    assert_each_once(&pool, 6000);
}

#[test]
fn a_second_worker_of_the_same_id_fences_the_first_which_says_so_and_ends() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let mut first = worker(&pool, "same").start();
    first.wait_for_log("\"partitions assigned\"");
    let mut second = worker(&pool, "same").start();
    // Until the second has opened its producer, the first may judge everything and have nothing left to be fenced at.
    second.wait_for_log("\"partitions assigned\"");
    pool.post(posts("p", 2000));
    assert_eq!(first.wait(), 1);

    let (code, message) = first.last_word();
    assert_eq!(code, "fenced");
    assert!(message.contains(&format!("{}-same", pool.group)) && message.contains("kafka.worker_id"), "{message}");
    assert_each_once(&pool, 2000);
}

#[test]
fn a_verdict_that_the_topic_refuses_commits_nothing_of_its_transaction() {
    let kafka = kafka!();
    let small = [("max.message.bytes", "6000")];
    let pool = Pool { verdicts: kafka.topic_with("small", 1, &small), ..Pool::new(&kafka, 1) };
    pool.post(posts("before", 10));
    let refused = json!({"id": "refused", "text": "A claim.", "lang": "x".repeat(6000)}).to_string();
    pool.post([Outgoing::new(refused)]);
    let one_by_one = [("kafka.options.batch.num.messages", "1"), ("kafka.options.compression.codec", "none")];
    let mut worker_ = worker(&pool, "one").with(&one_by_one).start();

    assert_eq!(worker_.wait(), 1);

    assert_eq!(worker_.last_word().0, "verdict_undeliverable");
    let visible = kafka.read_all(&pool.verdicts).len();
    assert_eq!(pool.committed().get(&0).copied().unwrap_or_default(), i64::try_from(visible).unwrap());
    kafka.alter(&pool.verdicts, "max.message.bytes", "100000");
    let _worker = worker(&pool, "one").start();
    assert_each_once(&pool, 11);
}

#[test]
fn a_post_is_not_judged_again_because_its_transaction_was_aborted() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    pool.post(posts("p", 2000));
    let slow = |id: &str| worker(&pool, id).set("limits.max_batch_posts", 1).start();
    let mut sleeper = slow("sleeper");
    some_verdicts(&pool, 100);

    sleeper.pause();
    eventually("the group gave it up", PATIENCE, || kafka.members(&pool.group), |members| *members == 0);
    sleeper.resume();

    assert_each_once(&pool, 2000);
    sleeper.sigterm();
    assert_eq!(sleeper.wait(), 0);
}

#[test]
fn exactly_once_is_refused_against_the_mock_cluster() {
    let demo = Setup::new("").verb("demo").with(&[
        ("model.path", &*model("tiny-fp32").to_string_lossy()),
        ("policy", &*repository(POLICY).to_string_lossy()),
        ("kafka.delivery", "exactly_once"),
    ]);

    let said = demo.output(b"");

    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("mock cluster") && said.contains("kafka.delivery: at_least_once"), "{said}");
}
