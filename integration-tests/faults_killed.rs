//! A worker killed at each point where something is half done: its successor leaves no post out.

use crate::support::oracle::Account;
use crate::support::pool::{Pool, answered_by, posts};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually};
use crate::{kafka, redis};

/// Commits so often, and so little in flight, that something committed too early would be missed.
const BUSY: [(&str, &str); 2] = [("kafka.commit_interval", "20ms"), ("limits.max_in_flight", "64")];
/// What a shell says of a program that SIGKILL ended.
const KILLED: i32 = 137;

/// Ends a worker by a fault, lets a second one finish, and holds what came of it to what was promised.
fn killed_and_succeeded(pool: &Pool<'_>, setup: impl Fn() -> Setup, point: &str, action: &str) {
    let mut victim = setup().with(&BUSY).fault(point, action).start();
    assert_eq!(victim.wait(), KILLED, "{}", victim.log());
    let committed: i64 = pool.committed().values().sum();
    assert!(committed < 600, "killed too late to prove anything");
    let _successor = setup().start();
    Account::of(pool).is_whole();
}

#[test]
fn a_worker_killed_before_it_publishes_leaves_no_post_out() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 3) {
        pool.post(posts("p", 600));
        killed_and_succeeded(&pool, || pool.member("one"), "before_produce", "200*off->return(kill)");
    }
}

#[test]
fn a_worker_killed_after_the_broker_took_a_verdict_and_before_the_commit_repeats_it_and_nothing_else() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 600));
    // No commit before the end: all that was published is published again, and must be the same.
    let setup = || pool.mortal().set("kafka.commit_interval", "10m").set("limits.max_in_flight", 64);
    let mut victim = setup().fault("after_produce", "200*off->return(kill)").start();
    assert_eq!(victim.wait(), KILLED, "{}", victim.log());
    let published = pool.count(&pool.verdicts);
    assert!(published >= 200 && pool.committed().is_empty(), "{published} published");
    let _successor = pool.mortal().start();
    assert_eq!(Account::of(&pool).is_whole(), published);
}

#[test]
fn a_worker_killed_after_the_cache_has_the_answer_leaves_it_to_the_next_and_no_post_out() {
    let (kafka, redis) = (kafka!(), redis!());
    for pool in Pool::of_each_delivery(&kafka, 3) {
        pool.post(posts("p", 600));
        let (prefix, url) = (redis.name(pool.delivery), redis.url.clone());
        let setup = || {
            let cached = [("cache.kind", "redis"), ("cache.redis.url", &url), ("cache.redis.prefix", &prefix)];
            pool.member("one").with(&cached)
        };
        killed_and_succeeded(&pool, setup, "after_cache_write", "200*off->return(kill)");
        let by = answered_by(&kafka.read_all(&pool.verdicts));
        assert!(by["cache"] > 0, "the successor found the answers of the one that was killed: {by:?}");
    }
}

#[test]
fn a_worker_killed_in_the_middle_of_a_run_leaves_no_post_out() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 3) {
        pool.post(posts("p", 600));
        killed_and_succeeded(&pool, || pool.member("one"), "model_run", "10*off->return(kill)");
    }
}

#[test]
fn a_worker_killed_while_its_partitions_are_taken_leaves_no_post_out() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 6) {
        pool.post(posts("before", 2000));
        let slow = |name: &str| pool.member(name).set("limits.max_batch_posts", 1);
        let mut victim = slow("victim").fault("revoke", "return(kill)").start();
        eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

        let _second = slow("second").start();

        assert_eq!(victim.wait(), KILLED, "{}", victim.log());
        pool.post(posts("after", 200));
        Account::of(&pool).is_whole();
    }
}

#[test]
fn a_worker_killed_inside_a_transaction_leaves_nothing_of_it_to_be_read() {
    let kafka = kafka!();
    let pool = Pool { delivery: "exactly_once", ..Pool::new(&kafka, 3) };
    pool.post(posts("p", 600));
    let setup = || pool.member("one").set("limits.max_in_flight", 64);
    let mut victim = setup().fault("inside_transaction", "2*off->return(kill)").start();
    assert_eq!(victim.wait(), KILLED, "{}", victim.log());
    let committed: i64 = pool.committed().values().sum();
    let visible = kafka.read_all(&pool.verdicts).len();
    assert_eq!(i64::try_from(visible).unwrap(), committed, "what is visible is what is committed");
    assert!(pool.count(&pool.verdicts) > visible + 2, "it wrote verdicts that nobody reads");
    let _successor = setup().start();
    assert_eq!(Account::of(&pool).is_whole(), 0);
}
