//! Several workers with the same questions: through Redis each is answered once, whoever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use moderato::cache::{Cache, Question};
use moderato::config::{CacheSettings, RedisSettings};
use moderato::receipt::{Headers, Offset, Original};
use moderato::reply::{Kind, Reply};
use moderato::verdict::{Answer, Execution, Keyring, VerdictKey};
use redis::Commands as _;
use serde_json::Value;

use crate::support::pool::{MORTAL, Pool, answered_by, judged, post, same_posts};
use crate::support::records::{Outgoing, Record};
use crate::support::redis::{answers, keys};
use crate::support::worker::Worker;
use crate::support::{PATIENCE, eventually};
use crate::{kafka, redis};

/// What a worker says when it waits for another one.
const WAITS: &str = "waiting for another worker's answers";

/// The questions that the model was run for, once for each run.
fn run(verdicts: &[Record]) -> Vec<String> {
    let data = |verdict: &Record| verdict.json()["data"].clone();
    let by_model = verdicts.iter().map(data).filter(|data| data["answered_by"] == "model");
    by_model.map(|data| data["idempotency_key"].as_str().unwrap().to_owned()).collect()
}

/// Stops the workers and sees that they met, and that each of so many texts was run once. Redis need not answer in time
/// on a busy machine: a call that it did not excuses the questions in it, and no others.
fn assert_run_once(verdicts: &[Record], texts: usize, workers: Vec<Worker>) {
    let totals: Vec<Value> = workers.into_iter().map(Worker::totals).collect();
    let total = |key: &str| totals.iter().map(|totals| totals[key].as_u64().unwrap()).sum::<u64>();
    let (runs, unanswered) = (run(verdicts), usize::try_from(total("cache_unreachable")).unwrap());
    let questions: BTreeSet<&String> = runs.iter().collect();
    assert_eq!(questions.len(), texts);
    assert!(runs.len() <= texts + 64 * unanswered, "{} runs of {texts} texts, {unanswered} calls failed", runs.len());
    assert!(total("cache_waited") > 0, "no two workers ever met, so nothing was proved");
}

/// A long post, so that the model has something to do; posts of equal numbers are equal.
fn long_post(number: usize) -> Outgoing {
    post(&number.to_string(), &format!("Claim {number}: it was never tested. ").repeat(40))
}

#[test]
fn twenty_thousand_posts_of_five_hundred_texts_on_three_workers_run_each_text_once() {
    const TEXTS: usize = 500;
    let (kafka, redis) = (kafka!(), redis!());
    let pool = Pool::new(&kafka, 6);
    let start = || pool.cached(&redis.url, &redis.name("cache")).start();
    let workers = vec![start(), start(), start()];
    let assigned = |line: &str| line.contains("partitions assigned") && !line.contains("\"[]\"");
    let consumes = |worker: &&Worker| worker.log().lines().any(assigned);
    eventually(
        "three workers have partitions",
        PATIENCE,
        || workers.iter().filter(consumes).count(),
        |count| *count == 3,
    );

    // Every partition has the same long texts in the same order, so that the workers meet.
    let text = |n: usize| format!("Claim {}: it was never tested. ", n / 6 % TEXTS).repeat(10);
    let partition = |n: usize| i32::try_from(n % 6).unwrap();
    pool.post((0..20_000).map(|n| post(&format!("p-{n}"), &text(n)).partition(partition(n))));
    let verdicts = pool.verdicts_of_all();

    assert_eq!((verdicts.len(), judged(&verdicts).len()), (20_000, 20_000));
    assert_run_once(&verdicts, TEXTS, workers);
}

#[test]
fn two_workers_with_few_permits_that_want_each_others_texts_both_finish() {
    const TEXTS: usize = 300;
    let (kafka, redis) = (kafka!(), redis!());
    let (even, odd) = (Pool::named(&kafka, "even-", 1), Pool::named(&kafka, "odd-", 1));
    even.post(same_posts(0..TEXTS));
    // 1, 0, 3, 2, ...: each claims first what the other one wants next.
    odd.post(same_posts((0..TEXTS).map(|n| n ^ 1)));
    let start = |pool: &Pool<'_>| pool.cached(&redis.url, &redis.name("cache")).set("limits.max_in_flight", 3).start();
    let workers = vec![start(&even), start(&odd)];

    let verdicts = [even.verdicts_of_all(), odd.verdicts_of_all()].concat();

    assert_eq!(verdicts.len(), 2 * TEXTS);
    assert_run_once(&verdicts, TEXTS, workers);
}

#[test]
fn what_a_killed_worker_was_judging_is_taken_over_by_the_one_that_waits_for_it() {
    const TEXTS: usize = 600;
    let (kafka, redis) = (kafka!(), redis!());
    let (prefix, mut link) = (redis.name("cache"), redis.connection());
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    let claims = |link: &mut _| keys(link, &format!("{prefix}:claim:*"));
    let start = |pool: &Pool<'_>| {
        let setup = pool.cached(&redis.url, &prefix).set("log.filter", "debug").set("model.instances", 1);
        let worker = setup.with(&MORTAL).start();
        eventually("the worker has its partition", PATIENCE, || kafka.members(&pool.group), |members| *members == 1);
        worker
    };
    let (mut holder, mut waiter) = (start(&first), start(&second));

    first.post((0..TEXTS).map(long_post));
    eventually("the first worker claims questions", PATIENCE, || claims(&mut link).len(), |claims| *claims > 0);
    second.post((0..TEXTS).map(long_post));
    waiter.wait_for_log(WAITS);
    holder.kill9();
    let own = format!("/{}", holder.pid());
    let mut get = |key: &str| link.get::<_, Option<String>>(key).unwrap();
    // One may lapse or be let go of while it is looked at; one beside an answer has had its time.
    let orphan = |claim: &String| {
        let held = get(claim).is_some_and(|told| told.ends_with(&own));
        held && get(&format!("{prefix}:v1:{}", question(claim))).is_none()
    };
    let left = claims(&mut redis.connection()).into_iter();
    let orphans: BTreeSet<String> = left.filter(orphan).map(|claim| question(&claim)).collect();
    let verdicts = second.verdicts_of_all();

    assert!(!orphans.is_empty(), "the first worker was killed when it had nothing left to do");
    assert_eq!((verdicts.len(), judged(&verdicts).len()), (TEXTS, TEXTS));
    let runs: BTreeSet<String> = run(&verdicts).into_iter().collect();
    let orphans: BTreeSet<String> = orphans.iter().map(|question| verdict_key(question, &verdicts[0])).collect();
    assert!(orphans.is_subset(&runs), "{} of {} were taken over", orphans.intersection(&runs).count(), orphans.len());
    let _successor = first.cached(&redis.url, &prefix).start();
    assert_eq!(judged(&first.verdicts_of_all()).len(), TEXTS, "nor is what it had published or not lost");
}

/// The key of the verdict on a question, under the policy of another verdict.
fn verdict_key(question: &str, like: &Record) -> String {
    let digest = like.json()["data"]["policy"]["digest"].as_str().unwrap().to_owned();
    VerdictKey::from_hex(question.as_bytes()).unwrap().under(&digest).to_string()
}

/// The question in the name of a claim or an answer.
fn question(claim: &str) -> String {
    claim.trim_end_matches('}').rsplit(':').next().unwrap().to_owned()
}

/// Six posts and the questions they ask, in order, and where their answers lie under another prefix.
struct Known {
    questions: Vec<String>,
    answered: String,
}

fn learn(pool: &Pool<'_>, redis: &crate::support::redis::Redis) -> Known {
    pool.post(same_posts(0..6));
    let answered = redis.name("learned");
    let worker = pool.cached(&redis.url, &answered).start();
    let verdicts = pool.verdicts_of_all();
    let kept = answers(&mut redis.connection(), &answered);
    let asked: BTreeMap<String, String> =
        kept.iter().map(|kept| question(kept)).map(|asked| (verdict_key(&asked, &verdicts[0]), asked)).collect();
    let of = |verdict: &Record| asked[verdict.json()["data"]["idempotency_key"].as_str().unwrap()].clone();
    let questions = verdicts.iter().map(of).collect();
    worker.stop();
    Known { questions, answered }
}

/// Claims all of the questions for somebody who neither answers nor dies.
fn claim_all(known: &Known, link: &mut redis::Connection, prefix: &str) -> Vec<String> {
    let name = |question: &String| format!("{prefix}:claim:{{{prefix}:v1:{question}}}");
    let claims: Vec<String> = known.questions.iter().map(name).collect();
    claims.iter().for_each(|claim| link.set(claim, "somebody").unwrap());
    claims
}

#[test]
fn a_claimed_question_waits_for_its_answer_or_for_the_end_of_its_claim() {
    let (kafka, redis) = (kafka!(), redis!());
    let known = learn(&Pool::named(&kafka, "learn-", 1), &redis);
    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    let pool = Pool::new(&kafka, 1);
    let claims = claim_all(&known, &mut link, &prefix);
    let mut worker = pool.cached(&redis.url, &prefix).set("log.filter", "debug").start();
    pool.post(same_posts(0..6));
    worker.wait_for_log(WAITS);

    // The first three are answered, the others given up.
    for question in &known.questions[..3] {
        let answer: Vec<u8> = link.get(format!("{}:v1:{question}", known.answered)).unwrap();
        let () = link.set(format!("{prefix}:v1:{question}"), answer).unwrap();
    }
    let () = link.del(&claims[3..]).unwrap();
    let verdicts = pool.verdicts_of_all();

    let sources: Vec<_> = verdicts.iter().map(|verdict| verdict.json()["data"]["answered_by"].clone()).collect();
    assert_eq!(sources, ["cache", "cache", "cache", "model", "model", "model"]);
    assert_eq!(worker.totals()["cache_waited"], 6);
}

#[test]
fn a_claim_that_never_ends_is_waited_for_no_longer_than_half_the_stall_timeout() {
    let (kafka, redis) = (kafka!(), redis!());
    let known = learn(&Pool::named(&kafka, "learn-", 1), &redis);
    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    claim_all(&known, &mut link, &prefix);
    let pool = Pool::new(&kafka, 1);
    pool.post(same_posts(0..6));
    let worker = pool.cached(&redis.url, &prefix).set("shutdown.stall_timeout", "8s").start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(answered_by(&verdicts), BTreeMap::from([("model".to_owned(), 6)]));
    assert_eq!(worker.totals()["cache_waited"], 6);
}

#[test]
fn a_redis_that_dies_keeps_nobody_waiting_for_what_was_claimed_in_it() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut private = redis.private();
    let known = learn(&Pool::named(&kafka, "learn-", 1), &redis);
    claim_all(&known, &mut private.connection(), "p");
    let pool = Pool::new(&kafka, 1);
    pool.post(same_posts(0..6));
    let mut worker = pool.cached(&private.url, "p").set("log.filter", "debug").start();
    worker.wait_for_log(WAITS);

    private.kill();

    assert_eq!(answered_by(&pool.verdicts_of_all()), BTreeMap::from([("model".to_owned(), 6)]));
}

#[test]
fn a_worker_that_is_told_to_stop_does_not_wait_for_another_one_to_the_end() {
    let (kafka, redis) = (kafka!(), redis!());
    let known = learn(&Pool::named(&kafka, "learn-", 1), &redis);
    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    claim_all(&known, &mut link, &prefix);
    let pool = Pool::new(&kafka, 1);
    pool.post(same_posts(0..6));
    let setup = pool.cached(&redis.url, &prefix).set("log.filter", "debug");
    let mut worker = setup.set("kafka.drain_timeout", "1s").set("shutdown.grace", "1s").start();
    worker.wait_for_log(WAITS);

    worker.sigterm();

    assert_eq!(worker.wait(), 0);
}

#[test]
fn workers_without_claims_wait_for_nobody() {
    let (kafka, redis) = (kafka!(), redis!());
    let known = learn(&Pool::named(&kafka, "learn-", 1), &redis);
    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    claim_all(&known, &mut link, &prefix);
    let pool = Pool::new(&kafka, 1);
    pool.post(same_posts(0..6));
    let worker = pool.cached(&redis.url, &prefix).set("cache.redis.claims", false).start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(answered_by(&verdicts), BTreeMap::from([("model".to_owned(), 6)]));
    assert_eq!(worker.totals()["cache_waited"], 0);
}

/// Answers of two labels.
const TWO: Kind = Kind::Scores { labels: 2 };

/// A cache as a worker has it, in this process.
fn cache(redis: &crate::support::redis::Redis) -> Cache {
    let settings = RedisSettings {
        urls: vec![redis.url.as_str().into()],
        cluster: false,
        ca_pem: None,
        timeout: Duration::from_millis(500),
        ttl: PATIENCE,
        prefix: redis.name("cache"),
        claims: Some(PATIENCE),
        hmac_key: None,
    };
    Cache::open(&CacheSettings::Redis(settings), Arc::default()).unwrap()
}

#[tokio::test]
async fn a_question_that_is_given_up_without_an_answer_is_open_to_the_next_worker() {
    let redis = redis!();
    let (first, second) = (cache(&redis), cache(&redis));
    let key = Keyring::new(&["a judge"]).key(&[1, 2, 3]);

    assert_eq!(first.ask(&[key], TWO).await, [Question::Open]);
    assert_eq!(second.ask(&[key], TWO).await, [Question::Elsewhere]);
    first.give_up(&key).await;

    assert_eq!(second.ask_again(&[key], TWO).await, [Question::Open]);
    assert_eq!(first.ask(&[key], TWO).await, [Question::Elsewhere]);
}

#[tokio::test]
async fn an_answer_ends_its_claim_at_once_and_is_there_for_whoever_waits() {
    let redis = redis!();
    let (first, second) = (cache(&redis), cache(&redis));
    let key = Keyring::new(&["a judge"]).key(&[1, 2, 3]);
    assert_eq!(first.ask(&[key], TWO).await, [Question::Open]);
    assert_eq!(second.ask(&[key], TWO).await, [Question::Elsewhere]);
    let claims = || keys(&mut redis.connection(), &format!("{}:claim:*", redis.name("cache")));
    assert_eq!(claims().len(), 1);

    let answer = Arc::new(Reply::Scores(answer()));
    first.put(key, &answer, &original()).await;

    assert_eq!(claims().len(), 0);
    assert_eq!(second.ask_again(&[key], TWO).await, [Question::Answered(answer)]);
}

fn answer() -> Answer {
    let execution =
        Execution { provider: "cpu".into(), nodes: BTreeMap::new(), precision: "fp32".into(), onnxruntime: "1".into() };
    let computed_at = "2026-11-22T00:00:00Z".to_owned();
    Answer {
        scores: vec![0.25, 0.75],
        outside_labels: 0.5,
        execution: Arc::new(execution),
        computed_at,
        language: None,
        conditions: None,
    }
}

/// The record that was judged.
fn original() -> Original {
    let (topic, key, value) = ("posts".into(), None, None);
    Original {
        topic,
        partition: 0,
        offset: Offset(0),
        timestamp_ms: None,
        key,
        value,
        headers: Headers::default(),
        span: moderato::telemetry::trace::PostSpan::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_claim_outlives_its_lease_while_its_holder_lives_and_not_much_longer() {
    let redis = redis!();
    let (first, second) = (cache(&redis), cache(&redis));
    let key = Keyring::new(&["a judge"]).key(&[1, 2, 3]);
    assert_eq!(first.ask(&[key], TWO).await, [Question::Open]);
    let claim = keys(&mut redis.connection(), &format!("{}:claim:*", redis.name("cache"))).remove(0);
    let mut link = redis.connection();
    let mut left = || link.pttl::<_, i64>(&claim).unwrap();

    // It is renewed when what is left of it grows.
    let mut seen = left();
    let grows = || {
        let before = seen;
        seen = left();
        seen > before
    };
    eventually("the claim is renewed", PATIENCE, grows, |renewed| *renewed);
    assert_eq!(second.ask(&[key], TWO).await, [Question::Elsewhere]);

    // Its holder is gone, and with it the renewals.
    drop(first);
    eventually("the claim lapses", PATIENCE, || left() < 0, |lapsed| *lapsed);
    assert_eq!(second.ask_again(&[key], TWO).await, [Question::Open]);
}
