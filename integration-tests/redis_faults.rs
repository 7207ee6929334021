//! Redis at its worst: whatever it does, every post gets the verdict that it gets without Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use redis::Commands as _;

use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, answered_by, same_posts};
use crate::support::records::Record;
use crate::support::redis::{Private, answers};
use crate::support::secured::{self, Authority, Wrong};
use crate::support::{PATIENCE, eventually};
use crate::{kafka, redis};

/// Posts of the reference; the tests take from these.
const POSTS: usize = 600;

/// Label and scores of one post.
type Judgement = (String, BTreeMap<String, f64>);

/// By post id. A post that was judged twice is the test's failure.
fn judgements(verdicts: &[Record]) -> BTreeMap<String, Judgement> {
    let judgement = |record: &Record| {
        let verdict = record.json();
        let judged = &verdict["data"]["verdict"];
        let scores = judged["scores"].as_object().unwrap();
        let scores = scores.iter().map(|(label, score)| (label.clone(), score.as_f64().unwrap())).collect();
        (verdict["subject"].as_str().unwrap().to_owned(), (judged["label"].as_str().unwrap().to_owned(), scores))
    };
    let by_post: BTreeMap<_, _> = verdicts.iter().map(judgement).collect();
    assert_eq!(by_post.len(), verdicts.len(), "a post was judged twice");
    by_post
}

/// What a worker without any cache says of them.
fn reference(kafka: &Kafka) -> &'static BTreeMap<String, Judgement> {
    static REFERENCE: OnceLock<BTreeMap<String, Judgement>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let pool = Pool::named(kafka, "reference-", 1);
        pool.post(same_posts(0..POSTS));
        let _worker = pool.setup().set("cache.kind", "off").start();
        judgements(&pool.verdicts_of_all())
    })
}

/// Each of the first `count` posts has its one verdict, and that one says what it says without Redis.
fn assert_unaltered(verdicts: &[Record], count: usize, kafka: &Kafka) {
    let (found, reference) = (judgements(verdicts), reference(kafka));
    let missing: BTreeSet<usize> = (0..count).filter(|n| !found.contains_key(&n.to_string())).collect();
    assert_eq!((found.len(), missing), (count, BTreeSet::new()));
    for (post, (label, scores)) in &found {
        let (true_label, true_scores) = &reference[post];
        // Rows of another run may be padded otherwise, which moves the last digits.
        let moved = scores.iter().map(|(label, score)| (score - true_scores[label]).abs()).fold(0.0, f64::max);
        assert!(
            label == true_label && moved < 1e-5,
            "post {post}: {label} {scores:?}, not {true_label} {true_scores:?}"
        );
    }
}

#[test]
fn a_pause_longer_than_the_timeout_holds_no_post_back_and_alters_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let private = redis.private();
    let pool = Pool::new(&kafka, 2);
    let worker = pool.cached(&private.url, "p").set("cache.redis.timeout", "100ms").start();
    pool.post(same_posts(0..50));
    pool.wait_until_all_is_committed();

    let () = redis::cmd("CLIENT").arg(&["PAUSE", "600000", "ALL"]).query(&mut private.connection()).unwrap();
    pool.post(same_posts(50..POSTS));
    let verdicts = pool.verdicts_of_all();

    let mut asked =
        redis::Client::open(private.url.as_str()).unwrap().get_connection_with_timeout(Duration::from_secs(1));
    let paused = asked.as_mut().map_or(true, |link| {
        link.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        redis::cmd("PING").query::<String>(link).is_err()
    });
    assert!(paused, "the pause was over before the posts were");
    assert_unaltered(&verdicts, POSTS, &kafka);
    assert!(worker.totals()["cache_unreachable"].as_u64().unwrap() > 0);
}

#[test]
fn a_redis_that_is_killed_and_restarted_again_and_again_alters_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut private = redis.private();
    let pool = Pool::new(&kafka, 2);
    let worker = pool.cached(&private.url, "p").set("limits.max_in_flight", 32).start();

    for round in 0..6 {
        let from = round * POSTS / 6;
        pool.post(same_posts(from..from + POSTS / 6));
        eventually("some of them are judged", PATIENCE, || pool.count(&pool.verdicts), |count| *count > from);
        private.kill();
        eventually("most of them are judged", PATIENCE, || pool.count(&pool.verdicts), |count| *count > from + 50);
        private.restart();
    }

    assert_unaltered(&pool.verdicts_of_all(), POSTS, &kafka);
    assert!(worker.totals()["cache_unreachable"].as_u64().unwrap() > 0);
}

#[test]
fn a_full_memory_without_eviction_costs_what_is_new_and_nothing_that_was_kept() {
    let (kafka, redis) = (kafka!(), redis!());
    let private = redis.private();
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    first.post(same_posts(0..100));
    let worker = first.cached(&private.url, "p").start();
    first.wait_until_all_is_committed();
    worker.stop();
    let mut link = private.connection();
    for (key, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1")] {
        let () = redis::cmd("CONFIG").arg(&["SET", key, value]).query(&mut link).unwrap();
    }
    let kept = answers(&mut link, "p");

    second.post(same_posts(0..200));
    let worker = second.cached(&private.url, "p").start();
    let verdicts = second.verdicts_of_all();

    let each = BTreeMap::from([("cache".to_owned(), 100), ("model".to_owned(), 100)]);
    assert_eq!(answered_by(&verdicts), each);
    assert_unaltered(&verdicts, 200, &kafka);
    assert_eq!(answers(&mut link, "p"), kept);
    let totals = worker.totals();
    assert!(totals["cache_refused"].as_u64().unwrap() >= 100);
}

#[test]
fn a_sealed_answer_that_was_tampered_with_is_a_miss_and_is_counted() {
    const KEY: &str = "a key of at least thirty-two characters";
    let (kafka, redis) = (kafka!(), redis!());
    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    let pools = ["first-", "second-", "other-"].map(|name| Pool::named(&kafka, name, 1));
    let sealed = |pool: &Pool<'_>, prefix: &str, key: &str| {
        pool.post(same_posts(0..7));
        let setup = pool.cached(&redis.url, prefix).set("log.filter", "trace");
        setup.environment("MODERATO__CACHE__REDIS__HMAC_KEY", key).start()
    };
    let worker = sealed(&pools[0], &prefix, KEY);
    pools[0].wait_until_all_is_committed();
    let mut log = worker.stop();
    let keys = answers(&mut link, &prefix);
    let values: Vec<String> = link.mget(&keys).unwrap();
    let body = |value: &str| value.split_once(' ').unwrap().1.to_owned();
    // Scores turned round are as good as the true ones, but for the seal.
    let turned = |value: &str| {
        let mut body: serde_json::Value = serde_json::from_str(&body(value)).unwrap();
        body["scores"].as_array_mut().unwrap().reverse();
        body.to_string()
    };
    let seal = |value: &str| value.split_once(' ').unwrap().0.to_owned();
    let forged = [
        turned(&values[0]),
        format!("{} {}", seal(&values[1]), turned(&values[1])),
        format!("{} {}", seal(&values[2]), body(&values[3])),
        body(&values[3]),
        values[5].clone(),
        String::new(),
    ];
    keys.iter().zip(&forged).for_each(|(key, value)| link.set(key, value).unwrap());

    let worker = sealed(&pools[1], &prefix, KEY);
    let verdicts = pools[1].verdicts_of_all();

    assert_eq!(answered_by(&verdicts), BTreeMap::from([("model".to_owned(), 6), ("cache".to_owned(), 1)]));
    assert_unaltered(&verdicts, 7, &kafka);
    let second = worker.stop();
    assert!(second.contains("\"cache_damaged\":6,"), "{second}");
    assert!(second.contains("a value in redis is damaged"));
    // Whoever has another key believes none of it.
    let worker = sealed(&pools[2], &prefix, "another key of thirty-two characters");
    assert_eq!(answered_by(&pools[2].verdicts_of_all()), BTreeMap::from([("model".to_owned(), 7)]));
    log = log + &second + &worker.stop();
    assert!(!log.contains("thirty-two"), "the key is told");
}

#[test]
fn a_redis_whose_certificate_is_anothers_or_expired_is_not_asked_and_alters_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority").unwrap();
    for (name, wrong, told) in [("another", Wrong::Name, "not valid for name"), ("expired", Wrong::Time, "xpired")] {
        let certificate = authority.sign_wrongly(name, wrong);
        let (server, url) = secured::redis_with_certificate(&redis, &authority, &certificate);
        let pool = Pool::named(&kafka, &format!("{name}-"), 1);
        pool.post(same_posts(0..50));
        let setup = || pool.cached(&url, "p").set("cache.redis.ca_file", authority.certificate().display());

        let check = setup().verb("check").output(b"");
        let worker = setup().start();
        let verdicts = pool.verdicts_of_all();

        assert_unaltered(&verdicts, 50, &kafka);
        assert_eq!(answered_by(&verdicts), BTreeMap::from([("model".to_owned(), 50)]));
        assert_eq!(answers(&mut server.connection(), "p").len(), 0);
        worker.stop();
        let said = String::from_utf8(check.stdout).unwrap();
        let line = said.lines().find(|line| line.starts_with("FAIL  cache")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(told) && line.contains("cache.redis.ca_file"), "{line}");
    }
}

/// What a node of a cluster says of itself.
fn is_master(node: &Private) -> bool {
    let told: String = redis::cmd("INFO").arg("replication").query(&mut node.connection()).unwrap();
    told.contains("role:master")
}

#[test]
fn a_cluster_that_loses_a_master_in_the_middle_alters_no_verdict_and_its_successor_is_used() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut nodes = secured::redis_cluster(&redis);
    let replica = secured::redis_replica(&redis, &nodes);
    let pool = Pool::new(&kafka, 2);
    let setup = pool.cached(&nodes[1].url, "p").set("cache.redis.cluster", true);
    let worker = setup.set("limits.max_in_flight", 64).start();
    pool.post(same_posts(0..200));
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

    nodes[0].kill();
    pool.post(same_posts(200..400));
    pool.wait_until_all_is_committed();
    eventually("the replica has taken over", PATIENCE, || is_master(&replica), |master| *master);
    // Once the worker has found the new master too, answers are kept there.
    let kept = || answers(&mut replica.connection(), "p").len();
    let (before, mut next) = (kept(), 400);
    let again = || {
        // The others stay for the end: these ids must be new as long as the successor is not in use.
        if next < POSTS {
            pool.post(same_posts(next..next + 5));
            next += 5;
            pool.wait_until_all_is_committed();
        }
        kept()
    };
    eventually("its successor keeps answers", PATIENCE, again, |kept| *kept > before);

    assert_unaltered(&pool.verdicts_of_all(), next, &kafka);
    worker.stop();
}
