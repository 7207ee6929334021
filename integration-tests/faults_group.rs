//! Members of the group that freeze, hang or are joined by new partitions.

use crate::kafka;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, posts};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually};

/// A worker that the group gives up after three seconds without a heartbeat, or without a poll.
fn impatient(pool: &Pool<'_>, name: &str) -> Setup {
    pool.member(name).set("kafka.options.max.poll.interval.ms", 3000)
}

fn verdicts_appear(pool: &Pool<'_>) {
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);
}

#[test]
fn the_late_verdicts_of_a_worker_that_froze_beyond_session_and_poll_interval_move_no_offset() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 6) {
        pool.post(posts("p", 3000));
        let mut sleeper = impatient(&pool, "sleeper").set("limits.max_batch_posts", 1).start();
        verdicts_appear(&pool);

        sleeper.pause();
        let _awake = impatient(&pool, "awake").start();
        pool.wait_until_all_is_committed();
        let (committed, published) = (pool.committed(), pool.count(&pool.verdicts));
        sleeper.resume();
        sleeper.wait_for_log("\"lost\":true");
        if pool.delivery == "at_least_once" {
            eventually("late verdicts come", PATIENCE, || pool.count(&pool.verdicts), |count| *count > published);
        }
        eventually("both are members", PATIENCE, || kafka.members(&pool.group), |members| *members == 2);

        assert_eq!(pool.committed(), committed);
        Account::of(&pool).is_whole();
        sleeper.sigterm();
        assert_eq!(sleeper.wait(), 0);
        assert_eq!(pool.committed(), committed);
    }
}

#[test]
fn a_worker_that_hangs_while_its_partitions_are_taken_is_given_up_and_the_others_finish() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 6) {
        pool.post(posts("p", 2000));
        let slow = |name: &str| impatient(&pool, name).set("limits.max_batch_posts", 1);
        let hung = slow("hung").fault("revoke", "return(hang)").start();
        verdicts_appear(&pool);

        let _second = slow("second").start();

        Account::of(&pool).is_whole();
        assert_eq!(hung.count_in_log("partitions revoked"), 0, "it hangs");
    }
}

#[test]
fn partitions_added_to_a_running_topic_are_judged_from_their_first_post() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let _worker = pool.setup().set("kafka.options.topic.metadata.refresh.interval.ms", 500).start();
    pool.post(posts("before", 50));
    verdicts_appear(&pool);

    kafka.add_partitions(&pool.posts, 4);
    pool.post(posts("after", 400).zip((0..4).cycle()).map(|(post, partition)| post.partition(partition)));

    let account = Account::of(&pool);
    assert_eq!((account.is_whole(), account.judged()), (0, 450));
}
