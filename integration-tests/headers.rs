//! What a sender can do beside the text: headers without end, and batches that unpack to a thousand times their size.

use std::collections::BTreeSet;
use std::fs;

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, judged, post};
use crate::support::records::{Outgoing, Record};

type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// The dead letter of a bad record with these headers, and the verdict on a good post with the same.
fn sent_with(kafka: &Kafka, headers: Headers<'_>) -> (Record, Record) {
    let posts = kafka.topic_with("wide", 1, &[("max.message.bytes", "4194304")]);
    let pool = Pool { posts, ..Pool::new(kafka, 1) };
    let with = |record: Outgoing| headers.iter().fold(record, |record, (name, value)| record.header(name, *value));
    pool.post([with(Outgoing::new("no post")), with(post("good", "A claim."))]);
    let _worker = pool.start();

    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts), ["good".to_owned()].into());
    (kafka.read_all(&pool.dead_letters).remove(0), verdicts.into_iter().next().unwrap())
}

/// The headers that came with the post.
fn copied(letter: &Record) -> Vec<&str> {
    let names = letter.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| !name.starts_with("moderato.error.")).collect()
}

#[test]
fn of_ten_thousand_headers_a_dead_letter_carries_the_first_256_and_counts_the_rest() {
    let kafka = kafka!();
    let names: Vec<String> = (0..10_000).map(|n| format!("header-{n}")).collect();
    let headers: Vec<(&str, Option<&[u8]>)> =
        names.iter().map(|name| (name.as_str(), Some(b"value".as_slice()))).collect();

    let (letter, verdict) = sent_with(&kafka, &headers);

    assert_eq!(copied(&letter), names[..256]);
    assert_eq!(letter.header("moderato.error.headers_dropped"), Some("9744"));
    assert_eq!(letter.header("moderato.error.reason"), Some("not_json"));
    assert!(verdict.headers.len() < 10, "{:?}", verdict.headers);
}

#[test]
fn a_header_of_a_megabyte_is_dropped_and_those_beside_it_stay_on_the_dead_letter() {
    let kafka = kafka!();
    let (huge, wide) = (vec![b'x'; 1 << 20], vec![b'y'; 60 * 1024]);

    let (letter, _) =
        sent_with(&kafka, &[("before", Some(b"1")), ("huge", Some(&huge)), ("wide", Some(&wide)), ("after", None)]);

    assert_eq!(copied(&letter), ["before", "wide", "after"]);
    assert_eq!(letter.header("moderato.error.headers_dropped"), Some("1"));
}

#[test]
fn a_bogus_trace_and_huge_baggage_are_copied_to_a_dead_letter_alone_and_never_to_a_verdict() {
    let kafka = kafka!();
    let baggage = "key=value,".repeat(5_000);
    let headers: Headers<'_> = &[
        ("traceparent", Some(b"00-zzzz\xff-not a trace")),
        ("tracestate", Some(b"\x00\x01")),
        ("baggage", Some(baggage.as_bytes())),
        ("moderato.verdict_id", Some(b"forged")),
        ("content-type", Some(b"text/html")),
    ];

    let (letter, verdict) = sent_with(&kafka, headers);

    assert_eq!(copied(&letter), ["traceparent", "tracestate", "baggage", "moderato.verdict_id", "content-type"]);
    assert_eq!(letter.header("moderato.error.headers_dropped"), None);
    let names: BTreeSet<&str> = verdict.headers.iter().map(|(name, _)| name.as_str()).collect();
    let own = ["content-type", "moderato.source.offset", "moderato.source.partition", "moderato.source.topic"];
    assert_eq!(names, own.into_iter().chain(["moderato.verdict_id"]).collect());
    assert_eq!(verdict.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(verdict.header("moderato.verdict_id"), verdict.json()["id"].as_str());
}

/// Most memory that the worker ever held, in MiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn batches_that_unpack_to_a_thousand_times_their_size_stay_within_the_workers_memory() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    // 900 posts of 900 KB, 810 MB in all, in batches of 20 MB which the broker holds as 20 KB or less.
    let text = "A claim of one word, again and again. ".repeat(24_000);
    let noise = |n: usize| {
        (0..60).map(|m| format!("{:x}", (n * 60 + m).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect::<String>()
    };
    let records = (0..900).map(|n| post(&format!("post-{n}"), &format!("{} {text}", noise(n))));
    kafka.produce_with(&pool.posts, records, &[("compression.codec", "zstd"), ("batch.size", "20000000")]);

    let worker = pool.start();
    let verdicts = pool.verdicts_of_all();

    assert_eq!(judged(&verdicts).len(), 900);
    let peak = peak(worker.pid());
    println!("most memory held: {peak} MiB");
    assert!(peak < 512, "{peak} MiB");
}
