//! Workers that come and go: partitions change hands, posts do not get lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::kafka;
use crate::support::pool::{Pool, judged, posts};
use crate::support::records::Record;
use crate::support::worker::Worker;
use crate::support::{PATIENCE, eventually};

/// Keeps a backlog until told to stop, so that posts are in flight whenever something happens; hands back how many.
fn keep_posting(pool: &Pool<'_>, stop: &AtomicBool) -> usize {
    let mut posted = 0;
    while !stop.load(Ordering::Relaxed) {
        if posted < pool.count(&pool.verdicts) + 3000 {
            pool.post(posts(&format!("from-{posted}"), 1000));
            posted += 1000;
        }
    }
    posted
}

fn wait_for_members(pool: &Pool<'_>, count: usize) {
    eventually("the group is stable", PATIENCE, || pool.kafka.members(&pool.group), |members| *members == count);
}

/// A cooperative rebalance begins with assignments of nothing; those do not count.
fn wait_for_partitions(worker: &Worker) {
    let some = |line: &str| line.contains("\"partitions assigned\"") && !line.contains("\"partitions\":\"[]\"");
    eventually("it has partitions", PATIENCE, || worker.log().lines().any(some), |has| *has);
}

#[test]
fn a_worker_that_joins_and_leaves_under_load_neither_loses_nor_repeats_a_post() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    let slow = || pool.setup().set("limits.max_batch_posts", 1).start();
    let (first, stop) = (slow(), AtomicBool::new(false));
    wait_for_partitions(&first);

    let (posted, second) = thread::scope(|scope| {
        let posting = scope.spawn(|| keep_posting(&pool, &stop));
        let mut second = slow();
        wait_for_members(&pool, 2);
        wait_for_partitions(&second);
        assert!(first.count_in_log("\"partitions revoked\"") > 0, "the first one gives partitions up");
        let before = pool.count(&pool.verdicts);
        eventually("both judge", PATIENCE, || pool.count(&pool.verdicts), |count| *count > before + 200);
        second.sigterm();
        assert_eq!(second.wait(), 0);
        let stopped: serde_json::Value = serde_json::from_str(&second.wait_for_log("\"stopped\"")).unwrap();
        assert!(stopped["verdicts"].as_u64() > Some(0), "the second one took part: {stopped}");
        wait_for_members(&pool, 1);
        stop.store(true, Ordering::Relaxed);
        (posting.join().unwrap(), second)
    });

    let verdicts = pool.verdicts_of_all();
    assert_eq!(judged(&verdicts).len(), posted);
    let twice = repeated(&verdicts);
    assert!(twice.is_empty(), "judged twice: {twice:#?}\nthe worker that left:\n{}", second.log());
}

/// Posts with more than one verdict: the record that each was on, and when it was given.
fn repeated(verdicts: &[Record]) -> Vec<String> {
    let mut by_post: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for verdict in verdicts {
        let json = verdict.json();
        let said = format!("{} at {}", json["data"]["input"]["kafka"], json["time"]);
        by_post.entry(json["subject"].to_string()).or_default().push(said);
    }
    by_post.into_iter().filter(|(_, said)| said.len() > 1).map(|(post, said)| format!("{post}: {said:?}")).collect()
}

#[test]
fn three_workers_started_at_once_share_the_partitions_and_lose_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    pool.post(posts("before", 1500));

    let workers = [pool.start(), pool.start(), pool.start()];
    wait_for_members(&pool, 3);
    workers.iter().for_each(wait_for_partitions);
    pool.post(posts("after", 1500));

    let verdicts = pool.verdicts_of_all();
    assert_eq!(judged(&verdicts).len(), 3000);
}

#[test]
fn a_worker_that_dies_leaves_its_partitions_to_the_other_and_no_post_is_missing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    let (survivor, mut victim) = (pool.mortal().start(), pool.mortal().start());
    wait_for_members(&pool, 2);
    [&survivor, &victim].into_iter().for_each(wait_for_partitions);
    pool.post(posts("p", 4000));
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

    victim.kill9();

    assert_eq!(judged(&pool.verdicts_of_all()).len(), 4000);
}

#[test]
fn a_worker_that_freezes_loses_its_partitions_and_takes_part_again_when_it_wakes() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    let (awake, mut sleeper) = (pool.mortal().start(), pool.mortal().start());
    wait_for_members(&pool, 2);
    [&awake, &sleeper].into_iter().for_each(wait_for_partitions);
    pool.post(posts("before", 2000));
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

    sleeper.pause();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 2000);
    sleeper.resume();
    sleeper.wait_for_log("\"lost\":true");
    wait_for_members(&pool, 2);
    pool.post(posts("after", 500));

    assert_eq!(judged(&pool.verdicts_of_all()).len(), 2500);
    sleeper.sigterm();
    assert_eq!(sleeper.wait(), 0);
}
