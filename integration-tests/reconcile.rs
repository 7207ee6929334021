//! `moderato reconcile`: the account of every record, against topics that are whole and topics that are not.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::producer::Producer as _;
use serde_json::{Value, json};

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, post, posts};
use crate::support::records::Outgoing;
use crate::support::{PATIENCE, eventually};

/// The JSON that the verb prints, checked against its schema, and its exit code.
pub fn reconcile(pool: &Pool<'_>, arguments: &[&str]) -> (Value, Option<i32>) {
    let setup = pool.setup().verb("reconcile").argument("--json");
    arguments.iter().fold(setup, |setup, one| setup.argument(one)).report("reconcile.v1.json")
}

/// What the verb says where it cannot begin, and its exit code.
fn refusal(pool: &Pool<'_>, arguments: &[&str]) -> (String, Option<i32>) {
    let output = arguments.iter().fold(pool.setup().verb("reconcile"), |setup, one| setup.argument(one)).output(b"");
    assert!(output.stdout.is_empty());
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

/// A record of the verdict topic for the post of these coordinates.
fn verdict(pool: &Pool<'_>, partition: i32, offset: i64, id: &str) -> Outgoing {
    from(Outgoing::new("{}"), pool, partition, offset).header("moderato.verdict_id", Some(id.as_bytes()))
}

fn from(record: Outgoing, pool: &Pool<'_>, partition: i32, offset: i64) -> Outgoing {
    record
        .header("moderato.source.topic", Some(pool.posts.as_bytes()))
        .header("moderato.source.partition", Some(partition.to_string().as_bytes()))
        .header("moderato.source.offset", Some(offset.to_string().as_bytes()))
}

/// A verdict for each of these offsets of partition 0.
fn judge(pool: &Pool<'_>, offsets: impl IntoIterator<Item = i64>) {
    let verdicts = offsets.into_iter().map(|offset| verdict(pool, 0, offset, &format!("id-{offset}")));
    pool.kafka.produce(&pool.verdicts, verdicts.collect::<Vec<_>>());
}

/// The numbers under these keys; a fault's number is its count.
fn counts<const N: usize>(report: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| {
        let value = &report[key];
        value["count"].as_u64().or(value.as_u64()).unwrap_or_else(|| panic!("no number {key} in {report}"))
    })
}

const FAULTS: [&str; 3] = ["missing", "duplicates", "strangers"];

#[test]
fn after_a_normal_run_with_tombstones_and_dead_letters_the_range_is_whole() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 60));
    pool.post((0..5).map(|n| Outgoing::tombstone().key(format!("p-{n}"))));
    pool.post((0..7).map(|n| Outgoing::new(format!("no post {n}")).key(format!("{n}"))));
    let _worker = pool.start();
    pool.wait_until_all_is_committed();

    let (report, exit) = reconcile(&pool, &[]);

    let keys = ["expected", "expected_tombstones", "verdicts", "tombstones", "dead_letters", "outside"];
    assert_eq!(counts(&report, keys), [72, 5, 60, 5, 7, 0]);
    assert_eq!((counts(&report, FAULTS), &report["whole"], exit), ([0; 3], &json!(true), Some(0)));
    let output = pool.setup().verb("reconcile").output(b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("whole: every record is accounted for\n") && !text.contains("NOT"), "{text}");
}

#[test]
fn after_a_run_in_transactions_the_range_is_whole() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 60));
    pool.post([Outgoing::tombstone().key("p-0"), Outgoing::new("no post")]);
    let _worker = pool.setup().set("kafka.delivery", "exactly_once").start();
    pool.wait_until_all_is_committed();

    let (report, exit) = reconcile(&pool, &[]);

    assert_eq!(counts(&report, ["expected", "verdicts", "tombstones", "dead_letters"]), [62, 60, 1, 1]);
    assert_eq!((counts(&report, FAULTS), exit), ([0; 3], Some(0)));
}

#[test]
fn flagged_posts_may_be_few_and_none_may_be_there_twice_or_come_from_nowhere() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let flagged = kafka.topic("flagged", 1);
    let setting = format!("kafka.topics.flagged={flagged}");
    pool.post(posts("p", 4));
    judge(&pool, 0..4);
    kafka.produce(&flagged, [from(Outgoing::new("a post"), &pool, 0, 1)]);

    let (few, exit_of_few) = reconcile(&pool, &["--to", "end", "--set", &setting]);
    kafka.produce(&flagged, [1, 9].map(|offset| from(Outgoing::new("a post"), &pool, 0, offset)));
    let (more, exit_of_more) = reconcile(&pool, &["--to", "end", "--set", &setting]);

    assert_eq!((counts(&few, FAULTS), few["flagged"].as_u64(), exit_of_few), ([0; 3], Some(1), Some(0)));
    assert_eq!((counts(&more, FAULTS), more["flagged"].as_u64(), exit_of_more), ([0, 1, 1], Some(1), Some(1)));
}

#[test]
fn a_missing_verdict_a_duplicate_and_a_stranger_are_each_found_and_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 6).map(|post| post.partition(1)));
    let ids = [(0, "a"), (1, "b"), (1, "b"), (2, "c"), (2, "other"), (4711, "d")];
    kafka.produce(&pool.verdicts, ids.map(|(offset, id)| verdict(&pool, 1, offset, id).partition(0)));
    kafka.produce(&pool.verdicts, [Outgoing::new("{}").partition(1), verdict(&pool, 7, 0, "e").partition(1)]);

    let (report, exit) = reconcile(&pool, &["--to", "end"]);

    assert_eq!(exit, Some(1));
    assert_eq!(counts(&report, ["expected", "verdicts", "duplicates_that_differ"]), [6, 3, 1]);
    let missing = [3, 4, 5].map(|offset| json!({"partition": 1, "offset": offset}));
    assert_eq!(report["missing"], json!({"count": 3, "first": missing}));
    let at = |partition, offset| json!({"topic": pool.verdicts, "partition": partition, "offset": offset});
    let duplicates = json!([
        {"partition": 1, "offset": 1, "at": at(0, 2), "same": true},
        {"partition": 1, "offset": 2, "at": at(0, 4), "same": false},
    ]);
    assert_eq!(report["duplicates"], json!({"count": 2, "first": duplicates}));
    let mut strangers = report["strangers"]["first"].as_array().unwrap().clone();
    strangers.sort_by_key(|stranger| stranger["why"].as_str().unwrap().to_owned());
    let wanted = [
        json!({"at": at(0, 5), "why": "beyond_the_end", "partition": 1, "offset": 4711}),
        json!({"at": at(1, 0), "why": "no_coordinates", "partition": null, "offset": null}),
        json!({"at": at(1, 1), "why": "no_partition", "partition": 7, "offset": 0}),
    ];
    assert_eq!(strangers, wanted);
    let output =
        pool.setup().verb("reconcile").argument("--to").argument("end").argument("--list").argument("1").output(b"");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [&format!("missing {}/1/3", pool.posts), "missing and 2 more", "stranger and 2 more", "NOT whole"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_verdict_that_was_published_twice_is_a_fault_unless_repeats_are_allowed() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 3));
    judge(&pool, [0, 1, 1, 2]);

    let strict = reconcile(&pool, &["--to", "end"]);
    let lenient = reconcile(&pool, &["--to", "end", "--allow-repeats"]);
    kafka.produce(&pool.verdicts, [verdict(&pool, 0, 2, "another")]);
    let differs = reconcile(&pool, &["--to", "end", "--allow-repeats"]);

    assert_eq!((strict.1, lenient.1, differs.1), (Some(1), Some(0), Some(1)));
    assert_eq!(counts(&lenient.0, FAULTS), [0, 1, 0]);
}

#[test]
fn only_what_the_group_has_committed_is_expected_unless_the_end_is_asked_for() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 10));
    judge(&pool, 0..6);
    kafka.commit(&pool.group, &pool.posts, &[(0, 4)]);

    let (finished, exit) = reconcile(&pool, &[]);
    let (all, exit_of_all) = reconcile(&pool, &["--to", "end"]);
    let (part, exit_of_part) = reconcile(&pool, &["--from", "0:2", "--to", "0:7"]);

    assert_eq!((counts(&finished, ["expected", "verdicts", "outside"]), exit), ([4, 4, 2], Some(0)));
    assert_eq!((counts(&all, ["expected", "missing"]), exit_of_all), ([10, 4], Some(1)));
    assert_eq!((counts(&part, ["expected", "verdicts", "outside", "missing"]), exit_of_part), ([5, 4, 2, 1], Some(1)));
}

#[test]
fn a_range_may_begin_and_end_at_a_time() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    // 2026-01-01T00:00:00Z and a second more for each post.
    let at = |n: usize| 1_767_225_600_000 + 1000 * i64::try_from(n).unwrap();
    pool.post(posts("p", 10).enumerate().map(|(n, post)| post.timestamp(at(n))));
    judge(&pool, 3..7);

    let times = ["--from", "2026-01-01T00:00:03Z", "--to", "2026-01-01T00:00:07Z"];
    let (report, exit) = reconcile(&pool, &times);

    assert_eq!((counts(&report, ["expected", "verdicts"]), exit), ([4, 4], Some(0)));
}

#[test]
fn transaction_markers_and_aborted_transactions_are_no_posts_even_at_the_end() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    kafka.produce_in_transaction(&pool.posts, posts("kept", 3), true); // 0 to 2, and a marker at 3
    kafka.produce_in_transaction(&pool.posts, posts("aborted", 4), false); // 4 to 7, and a marker at 8
    pool.post(posts("plain", 1)); // 9
    kafka.produce_in_transaction(&pool.posts, posts("aborted", 500), false);
    let verdicts = |offsets: &[i64]| offsets.iter().map(|n| verdict(&pool, 0, *n, &n.to_string())).collect::<Vec<_>>();
    kafka.produce_in_transaction(&pool.verdicts, verdicts(&[0, 1, 2, 9]), true);
    kafka.produce_in_transaction(&pool.verdicts, verdicts(&[0, 5]), false);

    let (report, exit) = reconcile(&pool, &["--to", "end"]);
    assert_eq!((counts(&report, FAULTS), counts(&report, ["expected", "verdicts"])), ([0; 3], [4, 4]), "{report}");
    assert_eq!(exit, Some(0));

    judge(&pool, [3, 5]);
    let (report, exit) = reconcile(&pool, &["--to", "end"]);
    assert_eq!((counts(&report, FAULTS), exit), ([0, 0, 2], Some(1)));
    assert_eq!(report["strangers"]["first"][1]["why"], "no_record");
}

#[test]
fn a_verdict_in_an_open_transaction_is_waited_for() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 2));
    judge(&pool, [0]);
    let open = kafka.open_transaction(&pool.verdicts, [verdict(&pool, 0, 1, "held back")]);
    let setup = pool.setup().verb("reconcile").argument("--to").argument("end").set("log.filter", "info");
    let mut verb = setup.start();

    verb.wait_for_log("waiting for a transaction to end");
    open.commit_transaction(PATIENCE).unwrap();

    assert_eq!(verb.wait(), 0);
    assert!(verb.log().contains("whole: every record is accounted for"), "{}", verb.log());
}

#[test]
fn what_retention_deleted_is_a_gap_and_only_a_fault_if_the_group_had_not_finished_it() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 10));
    judge(&pool, 0..10);
    kafka.delete_before(&pool.posts, 0, 5);

    kafka.commit(&pool.group, &pool.posts, &[(0, 10)]);
    let (finished, exit) = reconcile(&pool, &[]);
    assert_eq!((counts(&finished, ["expected", "outside", "missing"]), exit), ([5, 5, 0], Some(0)));
    assert_eq!(finished["retention_gaps"], json!([]));
    let (asked, exit) = reconcile(&pool, &["--from", "0:2"]);
    let gap = |from, to, finished| json!({"partition": 0, "from": from, "to": to, "finished": finished});
    assert_eq!((&asked["retention_gaps"], exit), (&json!([gap(2, 5, true)]), Some(0)));

    kafka.commit(&pool.group, &pool.posts, &[(0, 3)]);
    let (unfinished, exit) = reconcile(&pool, &[]);
    assert_eq!((&unfinished["retention_gaps"], exit), (&json!([gap(3, 5, false)]), Some(1)));
}

#[test]
fn verdicts_that_retention_deleted_are_missing_and_the_topic_is_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 4));
    judge(&pool, 0..4);
    kafka.delete_before(&pool.verdicts, 0, 1);

    let (report, exit) = reconcile(&pool, &["--to", "end"]);

    assert_eq!((counts(&report, FAULTS), exit), ([1, 0, 0], Some(1)));
    assert_eq!(report["outputs"][0]["topic"], json!(pool.verdicts));
    assert_eq!(report["outputs"][0]["cut_partitions"], json!([0]));
}

#[test]
fn records_that_were_compacted_away_are_neither_missing_nor_strangers() {
    let kafka = kafka!();
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "1"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "1"),
    ];
    let pool = Pool { posts: kafka.topic_with("compacted", 1, &settings), ..Pool::new(&kafka, 1) };
    // One after the other: each has a segment of its own, and all but the last can be compacted.
    let records = (0..20).map(|n| post("the-same", &format!("Version {n}.")));
    records.for_each(|record| drop(pool.post([record])));
    let left = || kafka.read_all(&pool.posts).iter().map(|record| record.offset).collect::<Vec<_>>();
    let left = eventually("the broker compacts", 2 * PATIENCE, left, |left| left.len() < 10);
    judge(&pool, 0..20);

    let (report, exit) = reconcile(&pool, &["--to", "end"]);

    let keys = ["expected", "verdicts", "compacted_away"];
    let [expected, verdicts, gone] = counts(&report, keys);
    assert_eq!((counts(&report, FAULTS), exit), ([0; 3], Some(0)), "{report}");
    assert!(expected == verdicts && expected + gone == 20 && gone > 10, "{left:?}: {report}");
}

#[test]
fn a_topic_a_partition_a_group_and_a_place_that_are_not_there_are_told() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 1));
    let nowhere = |pool| Pool { verdicts: kafka.name("nowhere"), ..pool };

    let (topic, exit_of_topic) = refusal(&nowhere(Pool::named(&kafka, "other-", 1)), &["--to", "end"]);
    let (partition, exit_of_partition) = refusal(&pool, &["--from", "2:0"]);
    let (group, exit_of_group) = refusal(&pool, &[]);
    let (place, exit_of_place) = refusal(&pool, &["--to", "tomorrow"]);

    assert!(topic.contains("nowhere") && topic.contains("kafka.topics.verdicts"), "{topic}");
    assert!(partition.contains("has no partition 2; it has 2"), "{partition}");
    assert!(group.contains(&pool.group) && group.contains("--to end"), "{group}");
    assert!(place.contains("`tomorrow` is no place"), "{place}");
    let exits = [exit_of_topic, exit_of_partition, exit_of_group, exit_of_place];
    assert_eq!(exits, [Some(1), Some(2), Some(2), Some(2)]);
}

#[test]
fn neither_model_nor_policy_is_needed() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let setup = pool.setup().verb("reconcile").argument("--to").argument("end");
    let setup = setup.set("model.path", "/not/here").set("policy", "/nor/here").set("model.onnxruntime", "/nor/here");

    let output = setup.output(b"");

    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A measurement, not a promise of the suite: minutes of producing. `cargo test --release --test integration -- --ignored
/// --nocapture ten_million`.
#[test]
#[ignore = "producing ten million records takes minutes; the command stands above"]
fn ten_million_offsets_are_accounted_for_in_less_than_512_mb() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 4);
    let mut made: BTreeMap<i32, i64> = BTreeMap::new();
    for _ in 0..100 {
        fill(&kafka, &pool, &mut made, 100_000);
    }
    let started = Instant::now();
    let verb = pool.setup().verb("reconcile").argument("--to").argument("end").argument("--json").start();
    let mut peak = 0;
    let look = || {
        peak = peak.max(peak_memory(verb.pid()));
        verb.log().lines().find(|line| line.starts_with('{')).map(str::to_owned)
    };
    let report = eventually("the account is done", 10 * PATIENCE, look, Option::is_some).unwrap();
    eprintln!("{} MB at most, {:.0?}: {report}", peak >> 10, started.elapsed());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((counts(&report, ["expected", "verdicts"]), &report["whole"]), ([10_000_000; 2], &json!(true)));
    assert!((1..512 << 10).contains(&peak), "{peak} KiB");
}

/// KiB of memory that the process has had at most; 0 once it is gone.
pub fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn fill(kafka: &Kafka, pool: &Pool<'_>, made: &mut BTreeMap<i32, i64>, count: i64) {
    let part = count / 4;
    let mut verdicts = Vec::new();
    for partition in 0..4 {
        let first = made.entry(partition).or_default();
        verdicts.extend(
            (*first..*first + part).map(|n| verdict(pool, partition, n, &format!("{n:064x}")).partition(partition)),
        );
        *first += part;
    }
    kafka.produce(&pool.posts, verdicts.iter().map(|one| Outgoing::new("x").partition(one.partition.unwrap())));
    kafka.produce(&pool.verdicts, verdicts);
}
