//! How a worker ends, told to or not, and that no post is missing afterwards.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kafka;
use crate::support::pool::{Pool, judged, post, posts};
use crate::support::records::Outgoing;
use crate::support::{PATIENCE, eventually};

/// A verdict topic that is not there, and a client that waits for it to appear: nothing can be acknowledged.
const PATIENT: [(&str, &str); 2] =
    [("kafka.options.topic.metadata.propagation.max.ms", "300000"), ("kafka.delivery_timeout", "5m")];

/// Records one by one and as long as they are: the broker's size limit then speaks of single records.
const ONE_BY_ONE: [(&str, &str); 2] =
    [("kafka.options.batch.num.messages", "1"), ("kafka.options.compression.codec", "none")];

#[test]
fn no_offset_is_committed_before_its_verdict_is_acknowledged() {
    let kafka = kafka!();
    let small = [("max.message.bytes", "6000")];
    let pool = Pool { verdicts: kafka.topic_with("small", 1, &small), ..Pool::new(&kafka, 1) };
    // A language tag of this length makes a verdict that the topic refuses.
    let refused = json!({"id": "refused", "text": "A claim.", "lang": "x".repeat(6000)}).to_string();
    pool.post(posts("before", 10));
    pool.post([Outgoing::new(refused)]);
    pool.post(posts("after", 10));
    let setup = || pool.setup().with(&ONE_BY_ONE);

    let mut worker = setup().start();
    assert_eq!(worker.wait(), 1);
    assert_eq!(worker.last_word().0, "verdict_undeliverable");
    let committed = pool.committed().get(&0).copied().unwrap_or_default();
    assert!(committed <= 10, "committed {committed}, and the verdict on offset 10 was refused");
    let published = judged(&kafka.read_all(&pool.verdicts));
    let unpublished = (0..committed).filter(|n| !published.contains(&format!("before-{n}"))).count();
    assert_eq!(unpublished, 0, "of those before {committed}");

    kafka.alter(&pool.verdicts, "max.message.bytes", "100000");
    let _worker = setup().start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 21);
}

#[test]
fn sigterm_under_load_finishes_what_is_in_flight_and_a_restart_judges_exactly_the_rest() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 4000));
    let mut worker = pool.setup().set("limits.max_in_flight", 64).start();
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);

    worker.sigterm();
    assert_eq!(worker.wait(), 0);

    let published = pool.count(&pool.verdicts);
    assert!(published < 4000, "stopped too late to prove anything");
    let committed: i64 = pool.committed().values().sum();
    assert_eq!(usize::try_from(committed).unwrap(), published, "what was published is what was committed");

    let _worker = pool.start();
    let verdicts = pool.verdicts_of_all();
    assert_eq!((verdicts.len(), judged(&verdicts).len()), (4000, 4000));
}

#[test]
fn after_a_kill_in_the_middle_and_a_restart_no_post_is_missing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 4000));
    let mut worker = pool.mortal().set("limits.max_in_flight", 64).start();
    eventually("offsets are committed", PATIENCE, || pool.committed(), |committed| !committed.is_empty());

    worker.kill9();

    let committed: i64 = pool.committed().values().sum();
    assert!(committed < 4000, "killed too late to prove anything");
    let _worker = pool.mortal().start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 4000);
}

#[test]
fn a_worker_that_makes_no_progress_ends_as_stalled_and_loses_nothing() {
    let kafka = kafka!();
    let pool = Pool { verdicts: kafka.name("not-yet"), ..Pool::new(&kafka, 1) };
    pool.post(posts("p", 5));
    let mut worker = pool.setup().with(&PATIENT).set("shutdown.stall_timeout", "1s").start();

    assert_eq!(worker.wait(), 1);

    assert_eq!(worker.last_word().0, "stalled");
    assert_eq!(pool.committed(), BTreeMap::new());
    kafka.topic("not-yet", 1);
    let _worker = pool.start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 5);
}

#[test]
fn a_second_signal_ends_the_worker_at_once() {
    let kafka = kafka!();
    let pool = Pool { verdicts: kafka.name("never"), ..Pool::new(&kafka, 1) };
    pool.post(posts("p", 5));
    let mut worker = pool.setup().with(&PATIENT).set("shutdown.grace", "10m").set("log.filter", "debug").start();
    worker.wait_for_log("\"verdict\"");

    worker.sigterm();
    worker.wait_for_log("finishing what is in flight");
    worker.sigterm();

    assert_eq!(worker.wait(), 1);
    assert_eq!(pool.committed(), BTreeMap::new());
}

#[test]
fn too_many_rejections_in_a_row_end_the_worker_and_step_over_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([post("fine", "A claim.")]);
    pool.post((0..20).map(|n| Outgoing::new(format!("broken {n}"))));
    let mut worker = pool.setup().set("limits.max_consecutive_rejections", 5).start();

    assert_eq!(worker.wait(), 1);

    assert_eq!(worker.last_word().0, "too_many_rejections");
    let (letters, committed) = (pool.count(&pool.dead_letters), pool.committed().get(&0).copied().unwrap_or_default());
    assert!(committed <= 1 + i64::try_from(letters).unwrap(), "committed {committed} with {letters} dead letters");
    assert!(letters < 20, "it ended before it had dead-lettered everything");
    let _worker = pool.start();
    pool.wait_until_all_is_committed();
    let letters = kafka.read_all(&pool.dead_letters);
    let distinct: std::collections::BTreeSet<_> = letters.iter().map(|letter| &letter.value).collect();
    assert_eq!(distinct.len(), 20);
}

#[test]
fn a_few_rejections_between_good_posts_end_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let mixed = |n| if n % 3 == 2 { post(&format!("p-{n}"), &format!("Claim {n}.")) } else { Outgoing::new("broken") };
    pool.post((0..30).map(mixed));
    let _worker = pool.setup().set("limits.max_consecutive_rejections", 3).start();

    pool.wait_until_all_is_committed();

    assert_eq!((pool.count(&pool.verdicts), pool.count(&pool.dead_letters)), (10, 20));
}

#[test]
fn a_missing_input_topic_ends_the_worker_and_is_named() {
    let kafka = kafka!();
    let pool = Pool { posts: kafka.name("nowhere"), ..Pool::new(&kafka, 1) };
    let mut worker = pool.start();

    assert_eq!(worker.wait(), 1);

    let (code, reason) = worker.last_word();
    assert_eq!(code, "kafka_lost");
    assert!(reason.contains(&pool.posts) && reason.contains("moderato check"), "{reason}");
}
