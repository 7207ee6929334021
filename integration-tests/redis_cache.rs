//! The cache in Redis: it saves runs of the model, and nothing that happens to it costs a verdict.

use std::collections::BTreeMap;

use redis::Commands as _;
use serde_json::Value;

use crate::support::pool::{Pool, answered_by, judged, post, posts, same_posts, scores};
use crate::support::records::Record;
use crate::support::redis::{answers, keys};
use crate::support::{PATIENCE, eventually, free_port, repository};
use crate::{kafka, redis};

/// Scores in the order of the posts, of a pool with one partition.
fn scores_in_order(verdicts: &[Record]) -> Vec<Value> {
    verdicts.iter().map(scores).collect()
}

fn all_by(source: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(source.to_owned(), count)])
}

#[test]
fn a_second_worker_answers_everything_from_the_first_ones_cache() {
    let (kafka, redis) = (kafka!(), redis!());
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    first.post(same_posts(0..100));
    second.post(same_posts(0..100));
    let worker = first.cached(&redis.url, &redis.name("cache")).start();
    let fresh = first.verdicts_of_all();
    worker.stop();

    let worker = second.cached(&redis.url, &redis.name("cache")).start();
    let repeated = second.verdicts_of_all();

    assert_eq!(answered_by(&fresh), all_by("model", 100));
    assert_eq!(answered_by(&repeated), all_by("cache", 100));
    assert_eq!(scores_in_order(&repeated), scores_in_order(&fresh));
    assert!(worker.stop().contains("\"runs\":0"));
}

#[test]
fn another_policy_does_not_read_the_first_ones_answers() {
    let (kafka, redis) = (kafka!(), redis!());
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    first.post(same_posts(0..20));
    second.post(same_posts(0..20));
    let worker = first.cached(&redis.url, &redis.name("cache")).start();
    first.wait_until_all_is_committed();
    worker.stop();

    let policy = repository("model/policies/misinformation.yaml");
    let _worker = second.cached(&redis.url, &redis.name("cache")).set("policy", policy.display()).start();

    assert_eq!(answered_by(&second.verdicts_of_all()), all_by("model", 20));
}

#[test]
fn garbage_wrong_types_and_foreign_values_under_a_key_are_misses() {
    let (kafka, redis) = (kafka!(), redis!());
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    first.post(same_posts(0..6));
    second.post(same_posts(0..6));
    let worker = first.cached(&redis.url, &redis.name("cache")).start();
    let fresh = first.verdicts_of_all();
    worker.stop();
    let mut link = redis.connection();
    let keys = answers(&mut link, &redis.name("cache"));
    let values: Vec<Vec<u8>> = keys.iter().map(|key| link.get(key).unwrap()).collect();
    let _: () = link.set(&keys[0], b"\xff\xfe garbage").unwrap();
    let _: () = link.set(&keys[1], "").unwrap();
    let _: () = link.set(&keys[2], &values[2][..values[2].len() / 2]).unwrap();
    let _: () = link.set(&keys[3], &values[4]).unwrap();
    let _: () = link.del(&keys[4]).unwrap();
    let _: () = link.rpush(&keys[4], "a list").unwrap();

    let _worker = second.cached(&redis.url, &redis.name("cache")).start();
    let repeated = second.verdicts_of_all();

    assert_eq!(keys.len(), 6);
    assert_eq!(answered_by(&repeated), BTreeMap::from([("model".to_owned(), 5), ("cache".to_owned(), 1)]));
    assert_eq!(scores_in_order(&repeated), scores_in_order(&fresh));
}

#[test]
fn a_redis_that_is_absent_at_the_start_costs_no_verdict() {
    let (kafka, _recorded) = (kafka!(), redis!());
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 200));
    let nobody = format!("redis://127.0.0.1:{}/", free_port());
    let _worker = pool.cached(&nobody, "p").start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!((judged(&verdicts).len(), answered_by(&verdicts)), (200, all_by("model", 200)));
}

#[test]
fn a_redis_killed_in_the_middle_costs_no_verdict_and_is_used_again_when_it_is_back() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut private = redis.private();
    let pool = Pool::new(&kafka, 2);
    let mut worker = pool.cached(&private.url, "p").set("limits.max_in_flight", 64).start();
    pool.post(posts("before", 400));
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

    private.kill();
    pool.post(posts("without", 200));
    pool.wait_until_all_is_committed();
    worker.wait_for_log("redis does not answer");
    private.restart();
    // Posts go on until one of them probes: the breaker lets a call through once a second.
    let mut rounds = 0;
    let again = || {
        rounds += 1;
        pool.post(posts(&format!("after-{rounds}"), 10));
        redis::cmd("DBSIZE").query::<usize>(&mut private.connection()).unwrap()
    };
    eventually("answers are kept again", PATIENCE, again, |keys| *keys > 0);

    let verdicts = pool.verdicts_of_all();
    assert_eq!(judged(&verdicts).len(), 600 + 10 * rounds);
    assert!(worker.count_in_log("redis answers again") > 0);
}

#[test]
fn a_redis_that_hangs_costs_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let mut private = redis.private();
    let pool = Pool::new(&kafka, 2);
    let _worker = pool.cached(&private.url, "p").start();
    pool.post(posts("before", 50));
    pool.wait_until_all_is_committed();

    private.pause();
    pool.post(posts("hanging", 200));

    assert_eq!(judged(&pool.verdicts_of_all()).len(), 250);
    private.resume();
}

#[test]
fn a_user_without_write_rights_reads_what_is_there_and_costs_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let private = redis.private();
    let rights = ["on", ">reader's password", "~*", "-@all", "+mget", "+ping"];
    let () = redis::cmd("ACL").arg("SETUSER").arg("reader").arg(&rights).query(&mut private.connection()).unwrap();
    let (first, second) = (Pool::named(&kafka, "first-", 1), Pool::named(&kafka, "second-", 1));
    first.post(same_posts(0..20));
    second.post(same_posts(0..40));
    let worker = first.cached(&private.url, "p").start();
    first.wait_until_all_is_committed();
    worker.stop();
    let written = keys(&mut private.connection(), "*");

    let reader = second.cached(&private.url, "p").set("cache.redis.username", "reader");
    let worker = reader.environment("MODERATO__CACHE__REDIS__PASSWORD", "reader's password").start();
    let verdicts = second.verdicts_of_all();

    let expected = BTreeMap::from([("cache".to_owned(), 20), ("model".to_owned(), 20)]);
    assert_eq!(answered_by(&verdicts), expected);
    assert_eq!(keys(&mut private.connection(), "*"), written, "it wrote nothing");
    assert!(worker.stop().contains("redis refuses a command"));
}

#[test]
fn a_password_from_a_file_is_used_and_never_printed() {
    let (kafka, redis) = (kafka!(), redis!());
    let private = redis.private();
    let secret = "correct horse/battery@staple";
    let () = redis::cmd("CONFIG").arg(&["SET", "requirepass", secret]).query(&mut private.connection()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{secret}\n")).unwrap();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 20));
    let setup = || pool.cached(&private.url, "p").set("cache.redis.password_file", file.path().display());

    let checked = setup().verb("check").output(b"");
    let worker = setup().set("log.filter", "trace").start();
    pool.wait_until_all_is_committed();
    let log = worker.stop();

    let mut link = redis::Client::open(private.url.as_str()).unwrap().get_connection().unwrap();
    let () = redis::cmd("AUTH").arg(secret).query(&mut link).unwrap();
    assert_eq!(answers(&mut link, "p").len(), 20, "it was used");
    let said = [checked.stdout, checked.stderr].concat();
    let said = String::from_utf8(said).unwrap() + &log;
    let parts = ["correct horse", "battery", "correct%20horse"];
    assert!(parts.iter().all(|part| !said.contains(part)), "a log or the check repeats the password");
    assert!(checked.status.success(), "{said}");
}

#[test]
fn no_key_in_redis_and_no_value_holds_post_text() {
    let (kafka, redis) = (kafka!(), redis!());
    let pool = Pool::new(&kafka, 1);
    pool.post((0..10).map(|n| post(&format!("id-marker-{n}"), &format!("text-marker {n}"))));
    let _worker = pool.cached(&redis.url, &redis.name("cache")).start();
    pool.wait_until_all_is_committed();

    let (mut link, prefix) = (redis.connection(), redis.name("cache"));
    let (all, answers) = (keys(&mut link, &format!("{prefix}*")), answers(&mut link, &prefix));
    let posts = keys(&mut link, &format!("{prefix}:post:*"));

    assert_eq!((answers.len(), posts.len(), all.len()), (10, 10, 20), "{all:?}");
    for key in &all {
        let digest = key.rsplit(':').next().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        assert!(!key.contains("marker"), "{key}");
        assert!(link.ttl::<_, i64>(key).unwrap() > 0, "every key expires");
    }
    let values: Vec<String> = link.mget(&answers).unwrap();
    let members: Vec<String> = posts.iter().flat_map(|key| link.smembers::<_, Vec<String>>(key).unwrap()).collect();
    assert!(values.iter().chain(&members).all(|value| !value.contains("marker")), "{values:?} {members:?}");
}
