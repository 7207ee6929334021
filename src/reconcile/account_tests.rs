use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn account(records: impl IntoIterator<Item = i64>) -> Account {
    let mut account = Account::new(false);
    account.open(0, 0, 100);
    account.kept(0, 0, 200);
    for offset in records {
        account.expect(0, offset, false);
    }
    account
}

#[test]
fn a_record_without_an_outcome_is_missing_and_a_gap_is_not() {
    let mut account = account([3, 5, 99]);
    assert_eq!(account.enter(0, 5, Outcome::Verdict("a")), Entry::First);
    assert_eq!(account.missing().collect::<Vec<_>>(), [(0, 3), (0, 99)]);
}

#[test]
fn a_second_outcome_is_told_to_be_the_same_or_another() {
    let mut account = account([1]);
    assert_eq!(account.enter(0, 1, Outcome::Verdict("a")), Entry::First);
    assert_eq!(account.enter(0, 1, Outcome::Verdict("a")), Entry::Duplicate { same: true });
    assert_eq!(account.enter(0, 1, Outcome::Verdict("b")), Entry::Duplicate { same: false });
    assert_eq!(account.enter(0, 1, Outcome::DeadLetter("not_json")), Entry::Duplicate { same: false });
    assert_eq!(account.missing().count(), 0);
}

#[test]
fn coordinates_of_no_record_are_strangers() {
    let mut account = account([1]);
    let verdict = Outcome::Verdict("a");
    assert_eq!(account.enter(0, 2, verdict), Entry::Stranger(Why::NoRecord));
    assert_eq!(account.enter(7, 1, verdict), Entry::Stranger(Why::NoPartition));
    assert_eq!(account.enter(0, 200, verdict), Entry::Stranger(Why::BeyondTheEnd));
    assert_eq!(account.enter(0, 199, verdict), Entry::Outside);
}

#[test]
fn what_retention_took_while_it_was_read_is_outside_and_what_was_compacted_is_told_apart() {
    let mut account = Account::new(true);
    account.open(0, 0, 100);
    account.kept(0, 10, 100);
    assert_eq!(account.enter(0, 9, Outcome::Verdict("a")), Entry::Outside);
    assert_eq!(account.enter(0, 11, Outcome::Verdict("a")), Entry::CompactedAway);
}

#[test]
fn a_tombstone_does_not_stand_for_a_verdict_nor_a_verdict_for_a_tombstone() {
    let mut account = account([1]);
    account.expect(0, 2, true);
    assert_eq!(account.enter(0, 1, Outcome::Tombstone), Entry::Stranger(Why::TombstoneForPost));
    assert_eq!(account.enter(0, 2, Outcome::Verdict("a")), Entry::Stranger(Why::OutcomeForTombstone));
    assert_eq!(account.missing().count(), 2);
    assert_eq!(account.enter(0, 2, Outcome::Tombstone), Entry::First);
}

#[test]
fn a_flagged_post_settles_nothing_and_is_counted_apart() {
    let mut account = account([1]);
    assert_eq!(account.enter(0, 1, Outcome::Flagged), Entry::First);
    assert_eq!(account.missing().count(), 1);
    assert_eq!(account.enter(0, 1, Outcome::Verdict("a")), Entry::First);
    assert_eq!(account.enter(0, 1, Outcome::Flagged), Entry::Duplicate { same: true });
    assert_eq!(account.enter(0, 2, Outcome::Flagged), Entry::Stranger(Why::NoRecord));
}

#[test]
fn ten_million_offsets_take_less_than_a_tenth_of_the_promise() {
    let mut account = Account::new(false);
    for partition in 0..3 {
        account.open(partition, 1_000_000, 4_333_334);
        for offset in 1_000_000..4_333_334 {
            account.expect(partition, offset, false);
            account.enter(partition, offset, Outcome::Verdict("an id of any length"));
        }
    }
    assert_eq!(account.missing().count(), 0);
    assert!(account.bytes() < 51 << 20, "{} bytes", account.bytes());
}

/// What can be told of a record with a map and no care for memory.
#[derive(Default)]
struct Plain {
    expected: BTreeSet<(i32, i64)>,
    came: BTreeMap<(i32, i64), Vec<String>>,
}

proptest! {
    #[test]
    fn any_records_and_any_outcomes_in_any_order_give_what_a_plain_map_gives(
        records in proptest::collection::vec((0..3_i32, 0..20_000_i64), 0..200),
        outcomes in proptest::collection::vec((0..4_i32, 0..20_000_i64, 0..3_u8, any::<prop::sample::Index>()), 0..400),
    ) {
        let mut account = Account::new(false);
        let mut plain = Plain::default();
        for partition in 0..3 {
            account.open(partition, 0, 20_000);
        }
        for (partition, offset) in &records {
            account.expect(*partition, *offset, false);
            plain.expected.insert((*partition, *offset));
        }
        for (partition, offset, id, index) in outcomes {
            // Half of them hit a record.
            let at = if id < 2 && !records.is_empty() { *index.get(&records) } else { (partition, offset) };
            let id = format!("id-{id}");
            let entry = account.enter(at.0, at.1, Outcome::Verdict(&id));
            let before = plain.came.get(&at);
            let wanted = match before {
                _ if at.0 >= 3 => Entry::Stranger(Why::NoPartition),
                _ if !plain.expected.contains(&at) => Entry::Stranger(Why::NoRecord),
                None => Entry::First,
                Some(before) => Entry::Duplicate { same: before[0] == id },
            };
            prop_assert_eq!(entry, wanted);
            if plain.expected.contains(&at) {
                plain.came.entry(at).or_default().push(id);
            }
        }
        let missing: Vec<_> = plain.expected.iter().filter(|at| !plain.came.contains_key(at)).copied().collect();
        prop_assert_eq!(account.missing().collect::<Vec<_>>(), missing);
    }
}
