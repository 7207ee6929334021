//! `moderato dead-letters`: what is shown, and posts put back once and only once.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};

use crate::kafka;
use crate::reconcile::reconcile;
use crate::support::pool::{Pool, judged, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, assert_fits, eventually};

/// Stands where text would: nothing that is printed may repeat it.
const MARKER: &str = "7731902846";

fn verb(pool: &Pool<'_>, verb: &'static str, arguments: &[&str]) -> Setup {
    arguments.iter().fold(pool.setup().verb(verb), |setup, one| setup.argument(one))
}

/// The JSON that `list` prints, checked against its schema.
fn list(pool: &Pool<'_>, arguments: &[&str]) -> Value {
    let output = verb(pool, "dead-letters list", arguments).argument("--json").output(b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_fits(&report, "dead_letters.v1.json");
    report
}

/// What `redrive` prints, its first line apart; it must succeed.
fn redrive(pool: &Pool<'_>, arguments: &[&str]) -> (String, String) {
    let output = verb(pool, "dead-letters redrive", arguments).output(b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().next().unwrap_or_default().to_owned(), text)
}

/// A dead letter as a worker writes it, for the post of these coordinates.
fn letter(pool: &Pool<'_>, partition: i32, offset: i64, reason: &str) -> Outgoing {
    let record = Outgoing::new(format!("{MARKER} {offset}")).key(format!("key-{offset}")).header("own", Some(b"\xff"));
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let fields = [
        ("reason", reason),
        ("stage", "decode"),
        ("message", "what exactly"),
        ("topic", &pool.posts),
        ("partition", &partition),
        ("offset", &offset),
        ("timestamp_ms", "1700000000000"),
        ("group", &pool.group),
        ("worker_version", "0.0.0"),
    ];
    fields
        .iter()
        .fold(record, |record, (name, value)| record.header(&format!("moderato.error.{name}"), Some(value.as_bytes())))
}

fn letters(pool: &Pool<'_>, reason: &str, offsets: impl IntoIterator<Item = i64>) {
    let letters: Vec<_> = offsets.into_iter().map(|offset| letter(pool, 0, offset, reason).partition(0)).collect();
    pool.kafka.produce(&pool.dead_letters, letters);
}

/// The values on the input topic, committed ones, and how often each is there.
fn values(pool: &Pool<'_>) -> BTreeMap<String, usize> {
    let mut values = BTreeMap::new();
    for record in pool.kafka.read_all(&pool.posts) {
        *values.entry(String::from_utf8(record.value.unwrap()).unwrap()).or_default() += 1;
    }
    values
}

/// Each of these once, and nothing else.
fn once(offsets: impl IntoIterator<Item = i64>) -> BTreeMap<String, usize> {
    offsets.into_iter().map(|offset| (format!("{MARKER} {offset}"), 1)).collect()
}

#[test]
fn posts_that_are_put_back_by_reason_are_judged_and_a_second_time_nothing_happens() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    let long = "The bridge was closed. ".repeat(20);
    let too_large =
        |n| post(&format!("long-{n}"), &format!("{long}{n}")).header("trace", Some(b"\x01")).header("no", None);
    pool.post((0..20).map(too_large));
    pool.post(posts("short", 10));
    pool.post((0..5).map(|n| Outgoing::new(format!("{MARKER} {n}")).key(format!("broken-{n}"))));
    let mut worker = pool.setup().set("limits.max_post_bytes", 200).start();
    pool.wait_until_all_is_committed();
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    let before = kafka.read_all(&pool.posts);

    let first = redrive(&pool, &["--reason", "post_too_large"]).0;
    let second = redrive(&pool, &["--reason", "post_too_large"]);

    assert_eq!(first, format!("20 posts put back on {}", pool.posts));
    assert_eq!(second.0, format!("0 posts put back on {}", pool.posts));
    assert!(second.1.contains("20 dead letters passed over: their post was put back already"), "{}", second.1);
    let back: Vec<Record> = kafka.read_all(&pool.posts).into_iter().filter(|one| !before.contains(one)).collect();
    are_as_they_came(&back, &before, &pool);
    let counts = json!([
        {"reason": "post_too_large", "stage": "decode", "letters": 20, "redriven": 20},
        {"reason": "not_json", "stage": "decode", "letters": 5, "redriven": 0},
    ]);
    let listed = list(&pool, &[]);
    assert_eq!((&listed["counts"], &listed["foreign"]), (&counts, &json!(0)));
    assert_eq!(listed["letters"].as_array().unwrap().len(), 5);

    let mut worker = pool.start();
    let long_ones: BTreeSet<String> = (0..20).map(|n| format!("long-{n}")).collect();
    assert!(judged(&pool.wait_for_verdicts(30)).is_superset(&long_ones));
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    let (report, exit) = reconcile(&pool, &[]);
    let numbers = ["expected", "verdicts", "dead_letters", "redriven"].map(|key| report[key].as_u64().unwrap());
    assert_eq!((numbers, exit), ([55, 30, 25, 20], Some(0)), "{report}");
}

/// Key, value, headers and partition of the original; one header more.
fn are_as_they_came(back: &[Record], before: &[Record], pool: &Pool<'_>) {
    assert_eq!(back.len(), 20);
    for record in back {
        let original = before.iter().find(|one| one.value == record.value).unwrap();
        assert_eq!((&record.key, record.partition), (&original.key, original.partition));
        let (added, own) = record.headers.split_last().unwrap();
        assert_eq!(own, original.headers);
        assert_eq!(added.0, "moderato.redrive.source");
        let source = String::from_utf8(added.1.clone().unwrap()).unwrap();
        assert!(source.starts_with(&format!("{}/", pool.dead_letters)), "{source}");
    }
}

#[test]
fn list_shows_reasons_and_coordinates_and_no_post_text() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    letters(&pool, "not_json", 0..3);
    letters(&pool, "post_too_large", 3..4);
    kafka.produce(&pool.dead_letters, [Outgoing::new("somebody else's")]);

    let all = list(&pool, &[]);
    let of_one_reason =
        list(&pool, &["--reason", "post_too_large", "--partition", "0", "--since", "2020-01-01T00:00:00Z"]);
    let of_another_partition = list(&pool, &["--partition", "1"]);
    let of_the_future = list(&pool, &["--since", "2100-01-01T00:00:00Z"]);
    let text = verb(&pool, "dead-letters list", &["--list", "2"]).output(b"").stdout;

    assert_eq!(all["counts"][0], json!({"reason": "not_json", "stage": "decode", "letters": 3, "redriven": 0}));
    assert_eq!((&all["letters"][0]["post_offset"], &all["letters"][0]["message"]), (&json!(0), &json!("what exactly")));
    assert_eq!(all["foreign"], json!(1));
    assert_eq!(of_one_reason["letters"].as_array().unwrap().len(), 1);
    assert_eq!((&of_another_partition["counts"], &of_the_future["counts"]), (&json!([]), &json!([])));
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("and 2 more") && text.contains(&format!("{}/0/1", pool.posts)), "{text}");
    assert!(!text.contains(MARKER) && !all.to_string().contains(MARKER), "{text}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    letters(&pool, "not_json", 0..3);

    let said = redrive(&pool, &["--dry-run"]).0;

    assert_eq!(said, format!("3 posts would be put back on {}", pool.posts));
    assert_eq!((pool.count(&pool.posts), pool.count(&pool.dead_letters)), (0, 3));
}

#[test]
fn a_dead_letter_that_was_written_twice_or_pretends_to_be_put_back_is_put_back_once() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    letters(&pool, "not_json", [0, 1, 0]);
    // A producer that knows our headers: only what stands behind its own counts.
    let text = |name: &str, value: &str| (format!("moderato.redriven.post.{name}"), Some(value.as_bytes().to_vec()));
    let mut forged = letter(&pool, 0, 2, "not_json").partition(0);
    for header in [text("topic", &pool.posts), text("partition", "0"), text("offset", "1")] {
        forged.headers.insert(0, header);
    }
    kafka.produce(&pool.dead_letters, [forged]);

    let said = redrive(&pool, &[]);

    assert_eq!(said.0, format!("3 posts put back on {}", pool.posts));
    assert_eq!(values(&pool), once(0..3));
    assert_eq!(list(&pool, &[])["letters"], json!([]));
}

#[test]
fn a_header_whose_name_is_not_utf8_survives_being_put_back() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    kafka.raw_headers("produce", &pool.posts, &["no post", "fffe=00ff", "6f6b=6f6b"]);
    let mut worker = pool.start();
    pool.wait_until_all_is_committed();
    worker.sigterm();
    assert_eq!(worker.wait(), 0);

    let said = redrive(&pool, &[]).0;

    assert_eq!(said, format!("1 posts put back on {}", pool.posts));
    kafka.delete_before(&pool.posts, 0, 1);
    let headers = kafka.raw_headers("read", &pool.posts, &[]);
    assert!(headers.starts_with("fffe=00ff\n6f6b=6f6b\n") && headers.lines().count() == 3, "{headers}");
}

/// Records go out in hundreds, and what is left waits for longer than any test: the transaction stays open.
const IN_THE_MIDDLE: [(&str, &str); 3] = [
    ("kafka.options.batch.num.messages", "100"),
    ("kafka.options.linger.ms", "50000"),
    ("kafka.delivery_timeout", "60s"),
];

#[test]
fn a_redrive_that_is_killed_in_the_middle_of_a_transaction_has_put_nothing_back_and_the_next_puts_all_back_once() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    letters(&pool, "not_json", 0..150);
    let setup = verb(&pool, "dead-letters redrive", &[]).with(&IN_THE_MIDDLE);
    let mut killed = setup.start();
    let begun = || kafka.uncommitted(&pool.posts);
    eventually("posts are in the open transaction", PATIENCE, begun, |count| *count >= 100);

    killed.kill9();
    let half = kafka.uncommitted(&pool.posts);
    let said = redrive(&pool, &[]).0;

    assert_eq!(half, 100, "killed in the middle");
    assert_eq!(said, format!("150 posts put back on {}", pool.posts));
    assert_eq!(values(&pool), once(0..150));
    assert_eq!(redrive(&pool, &[]).0, format!("0 posts put back on {}", pool.posts));
}

#[test]
fn of_two_redrives_at_once_the_first_is_fenced_and_says_so() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    letters(&pool, "not_json", 0..150);
    let quick = [("kafka.options.batch.num.messages", "100"), ("kafka.options.linger.ms", "3000")];
    let mut first = verb(&pool, "dead-letters redrive", &[]).with(&quick).start();
    let begun = || kafka.uncommitted(&pool.posts);
    eventually("posts are in the open transaction", PATIENCE, begun, |count| *count >= 100);
    first.pause();

    let second = redrive(&pool, &[]).0;
    first.resume();

    assert_eq!(second, format!("150 posts put back on {}", pool.posts));
    assert_eq!(first.wait(), 1);
    let id = format!("{}-redrive", pool.group);
    assert!(first.log().contains("fenced this one") && first.log().contains(&id), "{}", first.log());
    assert_eq!(values(&pool), once(0..150));
}

#[test]
fn a_post_that_the_topic_does_not_take_is_named_and_nothing_of_its_transaction_is_put_back() {
    let kafka = kafka!();
    let pool = Pool { posts: kafka.topic_with("small", 1, &[("max.message.bytes", "2000")]), ..Pool::new(&kafka, 1) };
    let mut large = letter(&pool, 0, 7, "post_too_large").partition(0);
    large.value = Some(MARKER.repeat(400).into_bytes());
    kafka.produce(&pool.dead_letters, [letter(&pool, 0, 6, "not_json").partition(0), large]);
    let plain = [("kafka.options.compression.codec", "none"), ("kafka.options.batch.num.messages", "1")];

    let output = verb(&pool, "dead-letters redrive", &[]).with(&plain).output(b"");

    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("dead letter 0/1") && errors.contains("max.message.bytes"), "{errors}");
    assert!(!errors.contains(MARKER), "{errors}");
    assert_eq!((output.status.code(), values(&pool)), (Some(1), BTreeMap::new()));
    assert_eq!(redrive(&pool, &["--reason", "not_json"]).0, format!("1 posts put back on {}", pool.posts));
}

#[test]
fn the_mock_cluster_is_refused() {
    let cluster = MockCluster::new(1).unwrap();
    let topics = ["posts", "verdicts", "dead-letters"];
    topics.iter().for_each(|topic| cluster.create_topic(topic, 1, 1).unwrap());
    let config =
        format!("kafka: {{brokers: '{}', topics: {{dead_letters: dead-letters}}}}", cluster.bootstrap_servers());

    let output = Setup::new(config).verb("dead-letters redrive").output(b"");

    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("mock cluster") && errors.contains("stores none"), "{errors}");
}

#[test]
fn a_reason_that_does_not_exist_is_refused_with_those_that_do() {
    let output = Setup::new("kafka: {brokers: 'localhost:1'}")
        .verb("dead-letters list")
        .argument("--reason")
        .argument("not_jsn")
        .output(b"");

    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("not_jsn") && errors.contains("not_json"), "{errors}");
    assert_eq!(output.status.code(), Some(2));
}
