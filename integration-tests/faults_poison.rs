//! A post that ends the worker each time it is run: found among its companions, and given up in the end.

use crate::kafka;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, post, posts};
use crate::support::records::Outgoing;

/// Ten posts, the one in the middle with the word that the faults look for.
fn with_venom(pool: &Pool<'_>) {
    let venom = post("bad", "A claim with Venom in it.");
    let all: Vec<Outgoing> = posts("before", 20).chain([venom]).chain(posts("after", 20)).collect();
    pool.post(all);
}

/// All but one were judged, and that one is the poison.
fn is_given_up(pool: &Pool<'_>) {
    let account = Account::of(pool);
    account.is_whole();
    assert_eq!(account.judged(), 40);
    assert_eq!(account.reasons(), [("poison".to_owned(), "infer".to_owned())]);
    let (_, letter) = &account.dead_letters()[0];
    assert_eq!(letter.key.as_deref(), Some(b"bad".as_slice()));
    let message = letter.header("moderato.error.message").unwrap();
    assert!(message.contains("3 times") && !message.contains("Venom"), "{message}");
}

#[test]
fn a_post_that_kills_the_worker_three_times_is_dead_lettered_as_poison_and_its_companions_are_judged() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    with_venom(&pool);
    let deadly = || pool.mortal().set("model.instances", 2).fault("model_run", "return(kill:Venom)").start();

    for _ in 0..3 {
        assert_eq!(deadly().wait(), 137);
    }

    let _fourth = deadly();
    is_given_up(&pool);
}

#[test]
fn a_model_that_hangs_on_a_post_ends_as_stalled_and_the_third_time_that_post_is_dead_lettered() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    with_venom(&pool);
    let setup = || pool.mortal().set("shutdown.stall_timeout", "2s").fault("model_run", "return(hang:Venom)");

    for _ in 0..3 {
        let mut worker = setup().start();
        assert_eq!(worker.wait(), 1);
        assert_eq!(worker.last_word().0, "stalled");
    }

    let _fourth = setup().start();
    is_given_up(&pool);
}

#[test]
fn a_worker_that_ends_for_another_reason_makes_no_post_suspect() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post([Outgoing::new("broken")].into_iter().chain(posts("p", 200)));
    // Ended by the first rejection, while the model still runs the rest.
    let ending = || pool.setup().set("limits.max_consecutive_rejections", 1).set("limits.max_batch_posts", 1);
    let mut first = ending().start();
    assert_eq!(first.wait(), 1);
    assert_eq!(first.last_word().0, "too_many_rejections");

    let second = pool.start();

    Account::of(&pool).is_whole();
    assert_eq!(second.count_in_log("ended in the middle of a run"), 0);
}

#[test]
fn a_state_folder_that_cannot_be_written_ends_the_start_with_exit_2_and_is_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let mut worker = pool.setup().set("state_dir", "/proc/moderato").start();

    assert_eq!(worker.wait(), 2);

    let (code, reason) = worker.last_word();
    assert_eq!(code, "config");
    assert!(reason.contains("state_dir") && reason.contains("/proc/moderato"), "{reason}");
}
