//! The main job at length: 20,000 posts by a client of another language, through six partitions.

use std::collections::BTreeMap;

use crate::kafka;
use crate::support::pool::{Pool, judged};
use crate::support::{PATIENCE, eventually};

const POSTS: usize = 20_000;

#[test]
fn twenty_thousand_posts_of_an_outside_client_are_judged_in_order() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    assert_eq!(kafka.produce_from_outside(&pool.posts, &["--count", "20000"]), POSTS);
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!((verdicts.len(), judged(&verdicts).len()), (POSTS, POSTS));
    // Clients spread keys in ways of their own, so posts of one partition may go to several; none overtakes another.
    let mut last: BTreeMap<(i32, i64), i64> = BTreeMap::new();
    for verdict in &verdicts {
        let from = &verdict.json()["data"]["input"]["kafka"];
        let (partition, offset) = (from["partition"].as_i64().unwrap(), from["offset"].as_i64().unwrap());
        let before = last.insert((verdict.partition, partition), offset);
        assert!(before < Some(offset), "partition {partition}: {offset} after {before:?}");
    }
}

#[test]
fn twenty_thousand_posts_survive_a_kill_in_the_middle() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 6);
    assert_eq!(kafka.produce_from_outside(&pool.posts, &["--count", "20000"]), POSTS);
    let mut worker = pool.mortal().start();
    eventually("a part is judged", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 2_000);

    worker.kill9();

    let committed: i64 = pool.committed().values().sum();
    assert!(committed < 20_000, "killed too late to prove anything");
    let _worker = pool.mortal().start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), POSTS);
}
