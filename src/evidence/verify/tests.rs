use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::evidence::link::Head;

const TOPIC: &str = "posts";
const OUTPUTS: i32 = 3;

/// A record as it stands in the output topic.
#[derive(Debug, Clone)]
struct Written {
    link: Option<String>,
    source: (i32, i64),
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    timestamp_ms: i64,
}

/// The output topic, by partition.
type Log = BTreeMap<i32, Vec<Written>>;

fn record(partition: i32, offset: i64, value: &str, timestamp_ms: i64) -> Written {
    let (key, value) = (format!("post-{}", offset % 50), Some(value.as_bytes().to_vec()));
    Written { link: None, source: (partition, offset), key: key.into_bytes(), value, timestamp_ms }
}

fn content(written: &Written) -> Content<'_> {
    let Written { source: (partition, offset), key, value, .. } = written;
    Content { topic: TOPIC, partition: *partition, offset: *offset, key: Some(key), value: value.as_deref() }
}

fn linked(mut written: Written, head: &mut Head) -> Written {
    let (link, next) = head.next(&content(&written));
    *head = next;
    written.link = Some(link.to_string());
    written
}

/// By key, as producers do it.
fn output_of(written: &Written) -> i32 {
    written.key.iter().fold(0, |sum, byte| (sum + i32::from(*byte)) % OUTPUTS)
}

/// The heads behind each of `posts` verdicts of an input partition, which are appended to the log.
fn judge(log: &mut Log, mut head: Head, partition: i32, posts: std::ops::Range<i64>, run: i64) -> Vec<Head> {
    let mut heads = Vec::new();
    for offset in posts {
        let value = format!(r#"{{"time":{run},"data":{{"verdict":{{"label":"l{offset}"}}}}}}"#);
        let written = linked(record(partition, offset, &value, run * 1_000_000 + offset), &mut head);
        log.entry(output_of(&written)).or_default().push(written);
        heads.push(head);
    }
    heads
}

fn begin(partition: i32) -> Head {
    Head::begin(Hex([u8::try_from(partition).unwrap() + 1; 8]), TOPIC, partition)
}

fn rules() -> Rules {
    let cut = BTreeSet::new();
    Rules { window: 1000, compacted: false, repeats_allowed: true, cut, settled_ms: None, list: 100 }
}

fn proven(head: &Head) -> Proven {
    Proven { instance: head.instance, seq: head.links - 1, hash: head.hash }
}

/// Reads the partitions in turns that `pace` tells.
fn read(log: &Log, rules: Rules, checkpoints: &[Proven], pace: u64) -> AuditV1 {
    let mut verifier = Verifier::new("verdicts", rules, checkpoints.iter().copied());
    let mut next: BTreeMap<i32, usize> = log.keys().map(|partition| (*partition, 0)).collect();
    let mut pace = pace | 1;
    while next.iter().any(|(partition, at)| *at < log[partition].len()) {
        pace = pace.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let partition = i32::try_from((pace >> 33) % next.len() as u64).unwrap();
        let Some(written) = log.get(&partition).and_then(|all| all.get(next[&partition])) else { continue };
        verifier.enter(&Seen {
            at: Place { partition, offset: next[&partition] as i64 },
            timestamp_ms: written.timestamp_ms,
            link: written.link.as_deref(),
            source: Some((TOPIC, written.source.0, written.source.1)),
            key: Some(&written.key),
            value: written.value.as_deref(),
        });
        *next.get_mut(&partition).unwrap() += 1;
    }
    verifier.finish(Vec::new())
}

/// Two input partitions, 100 posts each, published by turns.
fn whole() -> (Log, Vec<Head>) {
    let mut log = Log::new();
    let (mut heads, mut other) = (vec![begin(0)], begin(1));
    for start in (0..100).step_by(10) {
        heads.extend(judge(&mut log, heads[heads.len() - 1], 0, start..start + 10, 1));
        other = *judge(&mut log, other, 1, start..start + 10, 1).last().unwrap();
    }
    (log, heads[1..].to_vec())
}

fn find(log: &Log, source: (i32, i64)) -> (i32, usize) {
    let found = log.iter().find_map(|(partition, all)| {
        all.iter().position(|written| written.source == source).map(|index| (*partition, index))
    });
    found.expect("a record of that post")
}

fn place((partition, index): (i32, usize)) -> Place {
    Place { partition, offset: index as i64 }
}

fn at(log: &mut Log, (partition, index): (i32, usize)) -> &mut Written {
    &mut log.get_mut(&partition).unwrap()[index]
}

fn firsts(report: &AuditV1) -> Vec<(Kind, Place)> {
    report.first.iter().map(|fault| (fault.kind, fault.at)).collect()
}

proptest! {
    #[test]
    fn what_was_written_is_whole_in_whatever_order_its_partitions_are_read(pace: u64, window in 60usize..400) {
        let report = read(&whole().0, Rules { window, ..rules() }, &[], pace);
        prop_assert!(report.whole, "{:?}", report.first);
        prop_assert_eq!(report.chains.iter().map(|chain| chain.links).collect::<Vec<_>>(), [100, 100]);
    }

    #[test]
    fn an_altered_record_is_found_at_its_place(pace: u64, post in 0i64..100, what in 0..7) {
        let (mut log, _) = whole();
        let victim = find(&log, (0, post));
        let written = at(&mut log, victim);
        let link: Link = written.link.clone().unwrap().parse().unwrap();
        let relinked = |link: Link| Some(link.to_string());
        match what {
            0 => written.value.as_mut().unwrap()[3] ^= 1,
            1 => written.key.push(b'x'),
            2 => written.value = None,
            3 => written.link = relinked(Link { hash: link.prev, ..link }),
            4 => written.link = relinked(Link { prev: link.hash, ..link }),
            5 => written.link = relinked(Link { before: Hex([9; 16]), ..link }),
            _ => written.link = None,
        }
        // Without a link, the first record of a partition could be from before the chain.
        let begins = what == 6 && victim.1 == 0;
        let last = what == 6 && post == 99;
        let report = read(&log, rules(), &[], pace);
        if !begins && !last {
            prop_assert_eq!(firsts(&report), [(Kind::Altered, place(victim))], "{:?}", report.first);
            prop_assert_eq!(report.first[0].source, Some(SourceRange::one(post)));
        }
        prop_assert!(!report.whole);
    }

    #[test]
    fn a_record_with_another_number_is_found_at_its_place(pace: u64, post in 0i64..99, other in 0u64..2000) {
        let (mut log, _) = whole();
        let victim = find(&log, (0, post));
        let written = at(&mut log, victim);
        let link: Link = written.link.clone().unwrap().parse().unwrap();
        prop_assume!(other != link.seq);
        written.link = Some(Link { seq: other, ..link }.to_string());
        let report = read(&log, rules(), &[], pace);
        prop_assert!(firsts(&report).iter().any(|(_, at)| *at == place(victim)), "{:?}", report.first);
    }

    #[test]
    fn a_record_written_over_with_its_own_link_is_found_by_the_next(pace: u64, post in 0i64..99) {
        let (mut log, _) = whole();
        let victim = find(&log, (0, post));
        let written = at(&mut log, victim);
        let link: Link = written.link.clone().unwrap().parse().unwrap();
        written.value = Some(b"{}".to_vec());
        let mut head = Head { instance: link.instance, links: link.seq, hash: link.prev, key: link.before };
        *written = linked(written.clone(), &mut head);
        let report = read(&log, rules(), &[], pace);
        prop_assert_eq!(firsts(&report), [(Kind::Altered, place(victim))], "{:?}", report.first);
    }

    #[test]
    fn a_removed_record_is_found_before_the_one_that_follows(pace: u64, post in 0i64..99, count in 1usize..5) {
        let (mut log, _) = whole();
        let end = (post + count as i64).min(99);
        for gone in post..end {
            let (partition, index) = find(&log, (0, gone));
            log.get_mut(&partition).unwrap().remove(index);
        }
        let report = read(&log, rules(), &[], pace);
        prop_assert_eq!(firsts(&report), [(Kind::Removed, place(find(&log, (0, end))))], "{:?}", report.first);
        prop_assert_eq!(report.first[0].source, Some(SourceRange { from: post, to: end - 1 }));
        prop_assert_eq!(report.first[0].records, (end - post) as u64);
    }

    #[test]
    fn an_inserted_record_is_found_at_its_place(pace: u64, post in 0i64..100, what in 0..5, into in 1usize..60) {
        let (mut log, heads) = whole();
        let (partition, _) = find(&log, (0, post));
        let mut record = log[&partition][find(&log, (0, post)).1].clone();
        let before = heads.get(usize::try_from(post).unwrap().wrapping_sub(1)).copied().unwrap_or(begin(0));
        match what {
            0 => {}
            1 => record.value = Some(b"{}".to_vec()),
            2 => record.link = None,
            // Linked as the worker would link it, for another post.
            3 => {
                record.source.1 = 1_000_000;
                record.timestamp_ms += 1;
                record = linked(record, &mut before.clone());
            }
            _ => {
                record.value = Some(br#"{"data":{"verdict":{"label":"forged"}}}"#.to_vec());
                record = linked(record, &mut before.clone());
            }
        }
        let own = find(&log, (0, post)).1;
        let into = match what {
            // It counts as the later one.
            4 => log[&partition].len().min(own + into),
            _ => into.min(log[&partition].len()),
        };
        // At the very end nothing tells which of two was there first.
        prop_assume!(post < 95 && (what != 0 || into > own) && (what != 4 || into > own));
        log.get_mut(&partition).unwrap().insert(into, record);
        let report = read(&log, rules(), &[], pace);
        let inserted = Place { partition, offset: into as i64 };
        prop_assert_eq!(firsts(&report), [(Kind::Inserted, inserted)], "{:?}", report.first);
    }

    #[test]
    fn two_records_that_changed_places_are_found_at_the_first(pace: u64, one in 0usize..60, other in 0usize..60) {
        let (mut log, _) = whole();
        let partition = log[&0].iter().map(|written| written.source.0).collect::<Vec<_>>();
        prop_assume!(one < other && other < partition.len() && partition[one] == partition[other]);
        log.get_mut(&0).unwrap().swap(one, other);
        let report = read(&log, rules(), &[], pace);
        let first = Place { partition: 0, offset: one as i64 };
        prop_assert_eq!(firsts(&report), [(Kind::Reordered, first)], "{:?}", report.first);
    }

    /// A crash: what was published beyond the committed head is published again, not all of it having arrived before.
    #[test]
    fn what_a_crash_repeats_is_told_as_such(
        pace: u64, committed in 1usize..60, beyond in 1i64..30, lost in proptest::collection::btree_set(0i64..30, 0..6)
    ) {
        let mut log = Log::new();
        let heads = judge(&mut log, begin(0), 0, 0..60, 1);
        let from = committed as i64;
        let mut crashed = log.clone();
        for all in crashed.values_mut() {
            all.retain(|written| {
                let ahead = written.source.1 - from;
                ahead < 0 || (ahead < beyond && !lost.contains(&ahead))
            });
        }
        let resumed = judge(&mut crashed, heads[committed - 1], 0, from..100, 2);
        let repeated = (0..beyond.min(60 - from)).filter(|ahead| !lost.contains(ahead)).count();
        let signed = [proven(&heads[committed - 1]), proven(&resumed[resumed.len() - 1])];

        let report = read(&crashed, rules(), &signed, pace);
        prop_assert!(report.whole, "{:?}", report.first);
        let chain = &report.chains[0];
        prop_assert_eq!((chain.links, chain.repeats, chain.signed_to), (100, repeated as u64, Some(99)));
        prop_assert_eq!(chain.repeats_that_differ, 0);
        let strict = read(&crashed, Rules { repeats_allowed: false, ..rules() }, &signed, pace);
        prop_assert_eq!(strict.faults, repeated as u64);
    }
}

#[test]
fn a_chain_made_anew_from_some_record_on_is_found_by_what_was_signed() {
    let (log, heads) = whole();
    let mut forged = Log::new();
    let mut head = begin(0);
    for written in log.values().flatten().filter(|written| written.source.0 == 0).cloned().collect::<Vec<_>>() {
        forged.entry(output_of(&written)).or_default().push(written);
    }
    let mut all: Vec<&mut Written> = forged.values_mut().flatten().collect();
    all.sort_by_key(|written| written.source.1);
    for written in all {
        if written.source.1 == 40 {
            written.value = Some(b"{}".to_vec());
        }
        *written = linked(written.clone(), &mut head);
    }
    assert!(read(&forged, rules(), &[], 1).whole, "nothing but a signature tells");
    let report = read(&forged, rules(), &[proven(&heads[30]), proven(&heads[60])], 1);
    assert_eq!(firsts(&report), [(Kind::Altered, place(find(&forged, (0, 60))))]);
    assert_eq!(report.chains[0].signed_to, Some(30));
}

#[test]
fn an_end_that_was_cut_off_is_found_by_what_was_signed() {
    let (mut log, heads) = whole();
    for all in log.values_mut() {
        all.retain(|written| written.source.0 == 1 || written.source.1 < 90);
    }
    assert!(read(&log, rules(), &[], 1).whole);
    let report = read(&log, rules(), &[proven(&heads[95])], 1);
    let fault = &report.first[0];
    assert_eq!((report.faults, fault.kind, fault.seq, fault.records), (1, Kind::Removed, Some(90), 6));
    let stranger = Proven { instance: Hex([77; 8]), ..proven(&heads[4]) };
    assert_eq!(read(&log, rules(), &[stranger], 1).first[0].what, "a signed chain of which no record is there");
}

#[test]
fn what_retention_deleted_is_no_fault_and_what_lies_behind_it_is() {
    let (mut log, _) = whole();
    log.get_mut(&1).unwrap().drain(..30);
    assert!(!read(&log, rules(), &[], 1).whole);
    let cut = Rules { cut: [1].into(), ..rules() };
    let report = read(&log, cut.clone(), &[], 1);
    assert!(report.whole, "{:?}", report.first);
    assert_eq!(report.chains.iter().map(|chain| chain.cut).sum::<u64>(), 30);
    log.get_mut(&1).unwrap().remove(5);
    assert_eq!(firsts(&read(&log, cut, &[], 1)).len(), 1);
}

#[test]
fn what_compaction_replaced_is_proved_by_the_later_record_of_its_key() {
    let (mut log, _) = whole();
    let compacted = Rules { compacted: true, ..rules() };
    // post-7 is at 7 and at 57.
    let (partition, index) = find(&log, (0, 7));
    log.get_mut(&partition).unwrap().remove(index);
    let report = read(&log, compacted.clone(), &[], 1);
    assert_eq!((report.whole, report.chains[0].erased, report.chains[0].unproved), (true, 1, 0));
    let (partition, index) = find(&log, (0, 57));
    log.get_mut(&partition).unwrap().remove(index);
    let report = read(&log, compacted, &[], 1);
    assert_eq!((report.chains[0].erased, report.chains[0].unproved), (0, 2));
}

#[test]
fn a_partition_that_begins_anew_is_told_and_a_chain_inside_another_is_found() {
    let mut log = Log::new();
    judge(&mut log, begin(0), 0, 0..100, 1);
    let anew = Head::begin(Hex([9; 8]), TOPIC, 0);
    let mut later = log.clone();
    judge(&mut later, anew, 0, 100..200, 2);
    let report = read(&later, rules(), &[], 1);
    assert_eq!((report.whole, report.chains.iter().filter(|chain| chain.anew).count()), (true, 1));

    let mut inside = log.clone();
    let mut head = anew;
    let forged = linked(record(0, 5, "{}", 1), &mut head);
    let partition = output_of(&forged);
    inside.get_mut(&partition).unwrap().insert(3, forged);
    let report = read(&inside, rules(), &[], 1);
    assert_eq!(firsts(&report), [(Kind::Inserted, Place { partition, offset: 3 })]);
}

#[test]
fn records_from_before_the_chain_are_counted_and_a_topic_without_one_is_not_whole() {
    let mut log = Log::new();
    for offset in 0..50 {
        let written = record(0, offset, "{}", offset);
        log.entry(output_of(&written)).or_default().push(written);
    }
    assert!(!read(&log, rules(), &[], 1).whole);
    judge(&mut log, begin(0), 0, 50..100, 1);
    let report = read(&log, rules(), &[], 1);
    assert_eq!((report.whole, report.before_chain, report.linked), (true, 50, 50));
}

#[test]
fn two_judgements_are_the_same_whenever_they_were_given_and_in_whichever_form() {
    let event = |time: u8, label: &str| format!(r#"{{"time":{time},"data":{{"verdict":{{"label":"{label}"}}}}}}"#);
    let same = |one: &str, other: &str| judged(Some(one.as_bytes())) == judged(Some(other.as_bytes()));
    assert!(same(&event(1, "a"), &event(2, "a")) && !same(&event(1, "a"), &event(1, "b")));
    assert!(same(&event(1, "a"), r#"{"data":{"verdict":{"label":"a","score":0.3}}}"#));
    assert!(same(r#"{"verdict":{"label":"a"},"timing_ms":1}"#, &event(1, "a")));
    assert!(same(
        r#"{"data":{"note":{"text":"n"},"verdict":{"label":"a"}}}"#,
        r#"{"note":{"text":"n"},"verdict":{"label":"b"}}"#
    ));
    assert!(!same("no JSON", "no JSON either") && judged(None) == 0);
}
