use std::fs;

use tempfile::TempDir;

use super::*;
use crate::verdict::Keyring;

fn key(n: u32) -> VerdictKey {
    Keyring::new(&["m"]).key(&[n])
}

fn open(state: &TempDir) -> Suspects {
    Suspects::open(state.path(), "pool/1", 3).unwrap()
}

/// A process that ends in the middle of a run with these posts.
fn end_in_a_run(state: &TempDir, posts: &[u32]) {
    let suspects = open(state);
    let keys: Vec<_> = posts.iter().map(|n| key(*n)).collect();
    suspects.journal().unwrap().unwrap().enter(keys.iter());
}

#[test]
fn a_post_is_suspect_after_one_ended_process_and_poison_after_three() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(open(&state).standing(&key(1)), Standing::Clear);
    end_in_a_run(&state, &[1, 2]);
    let suspects = open(&state);
    assert_eq!([1, 2, 3].map(|n| suspects.standing(&key(n))), [Standing::Suspect, Standing::Suspect, Standing::Clear]);
    end_in_a_run(&state, &[1]);
    end_in_a_run(&state, &[1]);
    let suspects = open(&state);
    assert_eq!(suspects.standing(&key(1)), Standing::Poison { attempts: 3 });
    assert_eq!(suspects.standing(&key(2)), Standing::Suspect);
}

#[test]
fn a_suspect_that_is_answered_is_acquitted_for_the_next_process_too() {
    let state = tempfile::tempdir().unwrap();
    end_in_a_run(&state, &[1, 2]);
    let suspects = open(&state);
    suspects.acquit([key(1), key(7)].iter());
    assert_eq!(suspects.standing(&key(1)), Standing::Clear);
    let next = open(&state);
    assert_eq!([1, 2].map(|n| next.standing(&key(n))), [Standing::Clear, Standing::Suspect]);
}

#[test]
fn a_run_that_is_over_leaves_no_suspect_and_neither_does_an_orderly_end() {
    let state = tempfile::tempdir().unwrap();
    let suspects = open(&state);
    let mut over = suspects.journal().unwrap().unwrap();
    over.enter([key(1), key(2)].iter());
    over.leave();
    let mut running = suspects.journal().unwrap().unwrap();
    running.enter([key(3)].iter());
    suspects.close(false);
    drop((over, running, suspects));
    let next = open(&state);
    assert!((1..4).all(|n| next.standing(&key(n)) == Standing::Clear));
}

#[test]
fn an_end_that_a_run_brought_about_leaves_its_posts_suspected() {
    let state = tempfile::tempdir().unwrap();
    let suspects = open(&state);
    let mut running = suspects.journal().unwrap().unwrap();
    running.enter([key(3)].iter());
    suspects.close(true);
    drop((running, suspects));
    assert_eq!(open(&state).standing(&key(3)), Standing::Suspect);
}

#[test]
fn the_journal_of_a_living_process_is_left_alone() {
    let state = tempfile::tempdir().unwrap();
    let alive = open(&state);
    let mut journal = alive.journal().unwrap().unwrap();
    journal.enter([key(1)].iter());
    let beside = open(&state);
    assert_eq!(beside.standing(&key(1)), Standing::Clear);
    let own = beside.journal().unwrap().unwrap();
    assert_ne!(own.path(), journal.path());
    drop((journal, alive));
    assert_eq!(open(&state).standing(&key(1)), Standing::Suspect);
}

#[test]
fn half_a_line_of_a_process_that_ended_while_it_wrote_is_passed_over() {
    let state = tempfile::tempdir().unwrap();
    end_in_a_run(&state, &[1]);
    let journal = state.path().join("pool_1/0.journal");
    let whole = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("{whole}{}", &key(2).to_string()[..20])).unwrap();
    let suspects = open(&state);
    assert_eq!([1, 2].map(|n| suspects.standing(&key(n))), [Standing::Suspect, Standing::Clear]);
}

#[test]
fn a_shorter_run_leaves_nothing_of_a_longer_one() {
    let state = tempfile::tempdir().unwrap();
    let suspects = open(&state);
    let mut journal = suspects.journal().unwrap().unwrap();
    journal.enter([key(1), key(2), key(3)].iter());
    journal.leave();
    journal.enter([key(4)].iter());
    let text = fs::read_to_string(journal.path()).unwrap();
    assert_eq!(text, format!("{}\n", key(4)));
}
