//! Too many rejections of one partition stop the worker instead of filling the dead-letter topic.

use crate::kafka;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, post};
use crate::support::records::Outgoing;

fn good(n: usize, partition: i32) -> Outgoing {
    post(&format!("good-{partition}-{n}"), &format!("Claim {n} on {partition}.")).partition(partition)
}

fn broken(n: usize, partition: i32) -> Outgoing {
    // With a key, so that its dead letter has its place in one partition and an order there.
    Outgoing::new(format!("broken {n}")).key(format!("{n}")).partition(partition)
}

/// The worker ended over partition 1; with the limits lifted, the next one finishes.
fn is_stopped_over_partition_1(pool: &Pool<'_>, limits: &[(&str, &str)], limit: &str) {
    let mut worker = pool.setup().with(limits).start();

    assert_eq!(worker.wait(), 1);

    let (code, reason) = worker.last_word();
    assert_eq!(code, "too_many_rejections");
    assert!(reason.contains("partition 1: ") && reason.contains(limit), "{reason}");
    let letters = pool.count(&pool.dead_letters);
    assert!(letters < 300, "{letters} dead letters: it ended before it had dead-lettered everything");
    let lifted = [("limits.max_rejection_ratio", "1.0"), ("limits.max_consecutive_rejections", "1000000")];
    let _patient = pool.setup().with(&lifted).start();
    Account::of(pool).is_whole();
}

#[test]
fn a_partition_most_of_whose_posts_are_rejected_stops_the_worker_and_is_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    // Two in three, never more than two in a row; as many good ones on the other partition.
    pool.post((0..450).map(|n| if n % 3 == 0 { good(n, 1) } else { broken(n, 1) }));
    pool.post((0..450).map(|n| good(n, 0)));
    is_stopped_over_partition_1(&pool, &[], "limits.max_rejection_ratio: 0.5");
}

#[test]
fn rejections_in_a_row_are_counted_for_each_partition_and_the_partition_is_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post((0..300).flat_map(|n| [good(n, 0), broken(n, 1)]));
    let limits = [("limits.max_consecutive_rejections", "20")];
    is_stopped_over_partition_1(&pool, &limits, "20 posts in a row (limits.max_consecutive_rejections)");
}

#[test]
fn a_partition_half_of_whose_posts_are_rejected_stops_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post((0..500).map(|n| if n % 2 == 0 { good(n, 0) } else { broken(n, 0) }));
    let _worker = pool.start();
    let account = Account::of(&pool);
    assert_eq!((account.is_whole(), account.judged()), (0, 250));
}
