//! A model that hangs, refuses a post, or has no memory for a run.

use crate::kafka;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, post, posts};

#[test]
fn a_model_that_hangs_ends_the_worker_as_stalled_and_its_successor_loses_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 300));
    let setup = || pool.mortal().set("limits.max_batch_posts", 8).set("shutdown.stall_timeout", "2s");
    let mut hung = setup().fault("model_run", "10*off->return(hang)").start();

    assert_eq!(hung.wait(), 1);

    assert_eq!(hung.last_word().0, "stalled");
    assert!(pool.committed().get(&0) < Some(&300));
    let _successor = setup().start();
    Account::of(&pool).is_whole();
}

#[test]
fn a_post_that_the_model_fails_on_is_found_among_the_others_and_only_it_is_dead_lettered() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("before", 30).chain([post("bad", "A claim with Venom in it.")]).chain(posts("after", 30)));
    let _worker = pool.setup().fault("model_run", "return(error:Venom)").start();

    let account = Account::of(&pool);

    assert_eq!(account.is_whole(), 0);
    assert_eq!(account.judged(), 60);
    assert_eq!(account.reasons(), [("model_refused".to_owned(), "infer".to_owned())]);
    assert_eq!(account.dead_letters()[0].1.key.as_deref(), Some(b"bad".as_slice()));
}

#[test]
fn a_run_without_the_memory_for_it_is_done_in_halves_that_have_it() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 200));
    let worker = pool.setup().fault("model_run", "return(memory:4)").start();

    let account = Account::of(&pool);

    assert_eq!(account.is_whole(), 0);
    assert_eq!(account.judged(), 200);
    let halved = worker.count_in_log("Failed to allocate memory");
    assert!(halved > 0 && worker.count_in_log("trying its halves") == halved, "{halved} runs were halved");
}
