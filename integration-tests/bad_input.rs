//! Records that are no posts: each becomes a dead letter with nothing of it changed, and the next post is judged.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kafka;
use crate::support::PATIENCE;
use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, judged, post};
use crate::support::records::{Outgoing, Record};

/// Stands in each bad record where text would: no message may repeat it.
const MARKER: &str = "7731902846";

/// Headers of every shape that Kafka allows.
const HEADERS: [(&str, Option<&[u8]>); 5] = [
    ("trace", Some(b"first")),
    ("trace", Some(b"second")),
    ("nothing", None),
    ("bytes", Some(b"\xff\x00\xfe")),
    ("moderato.error.reason", Some(b"an older one")),
];

fn bad(value: impl Into<Vec<u8>>) -> Outgoing {
    let record = Outgoing::new(value).key(b"\x00key\xff").timestamp(1_700_000_000_000);
    HEADERS.iter().fold(record, |record, (name, value)| record.header(name, *value))
}

/// A bad record and a good post after it; hands back the dead letter.
fn dead_letter_of(kafka: &Kafka, value: &[u8], settings: &[(&str, &str)]) -> Record {
    let pool = Pool::new(kafka, 1);
    pool.post([bad(value), post("next", "A claim.")]);
    let mut worker = pool.setup().with(settings).start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts), ["next".to_owned()].into());
    assert_eq!(pool.committed(), BTreeMap::from([(0, 2)]));
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    assert!(!worker.log().contains(MARKER), "the log repeats the post");
    let mut letters = kafka.read_all(&pool.dead_letters);
    assert_eq!(letters.len(), 1);
    let letter = letters.remove(0);
    is_unchanged(&letter, value);
    says_where_it_came_from(&letter, &pool);
    letter
}

fn is_unchanged(letter: &Record, value: &[u8]) {
    assert_eq!(letter.key.as_deref(), Some(b"\x00key\xff".as_slice()));
    assert!(letter.value.as_deref() == Some(value), "the value is not what was produced");
    let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    assert_eq!(headers.take(HEADERS.len()).collect::<Vec<_>>(), HEADERS);
}

fn says_where_it_came_from(letter: &Record, pool: &Pool<'_>) {
    let added: BTreeMap<_, _> = letter.headers[HEADERS.len()..].iter().cloned().collect();
    let text = |name: &str| {
        let value = added.get(&format!("moderato.error.{name}")).and_then(Option::as_deref);
        std::str::from_utf8(value.unwrap_or_else(|| panic!("no header {name}"))).unwrap()
    };
    assert_eq!((text("topic"), text("partition"), text("offset")), (pool.posts.as_str(), "0", "0"));
    assert_eq!((text("timestamp_ms"), text("group")), ("1700000000000", pool.group.as_str()));
    assert_eq!(text("worker_version"), env!("CARGO_PKG_VERSION"));
    let message = text("message");
    assert!(!message.is_empty() && !message.contains(MARKER), "{message}");
}

fn reason(letter: &Record) -> (Option<&str>, Option<&str>) {
    (letter.header("moderato.error.reason"), letter.header("moderato.error.stage"))
}

#[test]
fn what_is_not_utf8_is_a_dead_letter() {
    let kafka = kafka!();
    let value = [br#"{"id":"bad","text":"7731902846 "#.as_slice(), b"\xc3\x28", br#""}"#].concat();
    assert_eq!(reason(&dead_letter_of(&kafka, &value, &[])), (Some("not_utf8"), Some("decode")));
}

#[test]
fn what_is_not_json_is_a_dead_letter() {
    let kafka = kafka!();
    let value = format!("{{id: bad, text: {MARKER}");
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("not_json"), Some("decode")));
}

#[test]
fn json_of_the_wrong_shape_is_a_dead_letter() {
    let kafka = kafka!();
    let value = json!(["bad", MARKER]).to_string();
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("wrong_shape"), Some("decode")));
}

#[test]
fn a_post_without_its_text_is_a_dead_letter() {
    let kafka = kafka!();
    let value = json!({"id": "bad", "body": MARKER}).to_string();
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("wrong_shape"), Some("decode")));
}

#[test]
fn a_hundred_thousand_open_brackets_are_a_dead_letter() {
    let kafka = kafka!();
    let value = format!(r#"{{"id":"bad","text":"{MARKER}","more":{}"#, "[".repeat(100_000));
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("not_json"), Some("decode")));
    let bare = "[".repeat(100_000);
    let pool = Pool::named(&kafka, "bare-", 1);
    pool.post([Outgoing::new(bare), post("next", "A claim.")]);
    let _worker = pool.start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 1);
}

#[test]
fn a_number_where_text_belongs_is_a_dead_letter() {
    let kafka = kafka!();
    let value = format!(r#"{{"id":"bad","text":{MARKER}}}"#);
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("wrong_shape"), Some("decode")));
}

#[test]
fn a_lone_surrogate_is_a_dead_letter() {
    let kafka = kafka!();
    let value = format!(r#"{{"id":"bad","text":"{MARKER} \ud83d and no more"}}"#);
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("not_json"), Some("decode")));
}

#[test]
fn duplicate_keys_are_a_dead_letter() {
    let kafka = kafka!();
    let value = format!(r#"{{"id":"bad","text":"harmless","text":"{MARKER}"}}"#);
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("wrong_shape"), Some("decode")));
}

#[test]
fn an_empty_text_is_a_dead_letter() {
    let kafka = kafka!();
    let value = json!({"id": "bad", "text": " \n\t\u{3000}", "lang": MARKER}).to_string();
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("empty_text"), Some("decode")));
}

#[test]
fn a_text_of_ten_megabytes_is_a_dead_letter() {
    let kafka = kafka!();
    let value = json!({"id": "bad", "text": MARKER.repeat(1_000_000)}).to_string();
    assert_eq!(reason(&dead_letter_of(&kafka, value.as_bytes(), &[])), (Some("post_too_large"), Some("decode")));
}

#[test]
fn a_post_whose_json_is_over_the_limit_is_a_dead_letter() {
    let kafka = kafka!();
    let value = json!({"id": "bad", "text": "short", "more": MARKER.repeat(10)}).to_string();
    let limit = (value.len() - 1).to_string();
    let letter = dead_letter_of(&kafka, value.as_bytes(), &[("limits.max_post_bytes", &limit)]);
    assert_eq!(reason(&letter), (Some("post_too_large"), Some("decode")));
}

#[test]
fn a_header_whose_name_is_not_utf8_ends_nothing_and_stays_on_a_dead_letter() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let good = json!({"id": "good", "text": "A claim."}).to_string();
    for value in ["no post", good.as_str()] {
        kafka.raw_headers("produce", &pool.posts, &[value, "fffe=00ff", "6f6b=6f6b"]);
    }
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts), ["good".to_owned()].into());
    let headers = kafka.raw_headers("read", &pool.dead_letters, &[]);
    assert!(headers.starts_with("fffe=00ff\n6f6b=6f6b\n"), "{headers}");
}

#[test]
fn a_dead_letter_topic_that_cannot_be_written_stops_the_worker_and_nothing_is_lost() {
    let kafka = kafka!();
    let small = kafka.topic_with("small", 1, &[("max.message.bytes", "2000")]);
    let pool = Pool { dead_letters: small, ..Pool::new(&kafka, 1) };
    pool.post([post("before", "A claim."), Outgoing::new("no post ".repeat(500)), post("after", "Another claim.")]);
    let plain = || pool.setup().set("kafka.options.compression.codec", "none");

    let mut worker = plain().start();
    assert_eq!(worker.wait(), 1);
    assert_eq!(worker.last_word().0, "dead_letter_undeliverable");
    assert!(pool.committed().get(&0) <= Some(&1), "the offset of the refused dead letter was passed");

    kafka.alter(&pool.dead_letters, "max.message.bytes", "100000");
    let _worker = plain().start();
    assert_eq!(judged(&pool.verdicts_of_all()).len(), 2);
    let letters = kafka.read(&pool.dead_letters, 1, PATIENCE);
    assert_eq!(letters[0].value.as_deref(), Some("no post ".repeat(500).as_bytes()));
}
