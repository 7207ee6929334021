//! The harness proved: what the other tests take for granted.

use std::collections::BTreeMap;

use crate::support::oracle::Account;
use crate::support::pool::{Pool, posts};
use crate::support::records::Outgoing;
use crate::test_name;

use crate::support::{PATIENCE, child, eventually, kafka, redis, untold};

#[test]
fn a_record_comes_back_as_it_was_produced() {
    let Some(kafka) = kafka::unrecorded(test_name!()) else {
        return;
    };
    let topic = kafka.topic("posts", 3);
    let sent = [
        Outgoing::new("first").key("k").header("h", Some(b"v")).header("null", None).partition(1).timestamp(1_000),
        Outgoing::tombstone().key("k").partition(1),
        Outgoing::new("no key").partition(2),
    ];
    let placed = kafka.produce(&topic, sent.clone());
    assert_eq!(placed, [(1, 0), (1, 1), (2, 0)]);

    let mut read = kafka.read(&topic, 3, PATIENCE);
    read.sort_by_key(|record| (record.partition, record.offset));
    for (record, sent) in read.iter().zip(&sent) {
        assert_eq!((&record.key, &record.value, &record.headers), (&sent.key, &sent.value, &sent.headers));
    }
    assert_eq!(read[0].timestamp, Some(1_000));
    assert_eq!(read.len(), kafka.read_all(&topic).len());
    assert_eq!(kafka.end_offsets(&topic), BTreeMap::from([(0, 0), (1, 2), (2, 1)]));
}

#[test]
fn an_outside_client_shares_the_broker() {
    let Some(kafka) = kafka::unrecorded(test_name!()) else {
        return;
    };
    let topic = kafka.topic("posts", 6);
    let taken = kafka.produce_from_outside(&topic, &["--count", "1000"]);
    let records = kafka.read_all(&topic);
    let ids: std::collections::BTreeSet<_> = records.iter().map(|record| record.json()["id"].to_string()).collect();
    assert_eq!((taken, records.len(), ids.len()), (1000, 1000, 1000));
}

#[test]
fn a_committed_offset_is_told_and_a_missing_one_left_out() {
    let Some(kafka) = kafka::unrecorded(test_name!()) else {
        return;
    };
    let (topic, group) = (kafka.topic("posts", 2), kafka.name("group"));
    kafka.produce(&topic, (0..3).map(|n| Outgoing::new(format!("{n}")).partition(0)));
    assert_eq!(kafka.committed(&group, &topic), BTreeMap::new());

    kafka.commit(&group, &topic, &[(0, 2)]);
    assert_eq!(kafka.committed(&group, &topic), BTreeMap::from([(0, 2)]));
}

#[test]
fn a_private_redis_can_be_killed_and_started_again_empty() {
    let Some(redis) = redis::unrecorded(test_name!()) else {
        return;
    };
    let mut private = redis.private();
    let _: () = ::redis::cmd("SET").arg("k").arg("v").query(&mut private.connection()).expect("Redis takes it");
    private.kill();
    assert!(::redis::Client::open(private.url.as_str()).expect("an address").get_connection().is_err());
    private.restart();
    let value: Option<String> = ::redis::cmd("GET").arg("k").query(&mut private.connection()).expect("Redis answers");
    assert_eq!(value, None);
}

#[test]
fn a_dropped_process_is_gone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = child::watched(std::path::Path::new("sleep"), folder.path(), &folder.path().join("log"));
    command.arg("1000");
    let process = child::Guarded::start(command);
    let entry = std::path::PathBuf::from(format!("/proc/{}", process.pid()));
    assert!(entry.exists());
    drop(process);
    eventually("the process is gone", PATIENCE, || entry.exists(), |exists| !exists);
}

/// A verdict on a post of partition 0, as far as the oracle looks at it.
fn verdict(offset: i64, id: &str, score: f64) -> Outgoing {
    let value = serde_json::json!({"data": {"verdict": {"label": "none", "score": score}}}).to_string();
    let (partition, offset) = ("0", offset.to_string());
    let headers =
        [("moderato.source.partition", partition), ("moderato.source.offset", &offset), ("moderato.verdict_id", id)];
    headers
        .iter()
        .fold(Outgoing::new(value).key("k"), |record, (name, text)| record.header(name, Some(text.as_bytes())))
}

#[test]
fn the_oracle_sees_what_is_missing_strange_altered_or_out_of_order() {
    let Some(kafka) = kafka::unrecorded(test_name!()) else {
        return;
    };
    let again = |n| verdict(n, &n.to_string(), 0.5);
    let cases = [
        ("whole", vec![again(0), again(1), again(2)], Ok(0)),
        ("again", vec![again(0), again(1), again(0), again(1), again(2)], Ok(2)),
        ("missing", vec![again(0), again(2)], Err("missing: [(0, 1)]")),
        ("strange", vec![again(0), again(1), again(2), again(3)], Err("never posted: [(0, 3)]")),
        ("order", vec![again(1), again(0), again(2)], Err("0/0 came after 1")),
        ("id", vec![again(0), again(1), verdict(1, "other", 0.5), again(2)], Err("(0, 1) has two ids")),
        ("score", vec![again(0), again(1), verdict(1, "1", 0.6), again(2)], Err("(0, 1): 0.5 and 0.6")),
    ];
    for (name, verdicts, expected) in cases {
        let pool = Pool::named(&kafka, &format!("{name}-"), 1);
        pool.post(posts("p", 3));
        kafka.produce(&pool.verdicts, verdicts);
        let account = std::panic::AssertUnwindSafe(Account::now(&pool));
        let found = std::panic::catch_unwind(|| account.is_whole());
        let found = found.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
        match expected {
            Ok(repeated) => assert_eq!(found, Ok(repeated), "{name}"),
            Err(why) => assert!(found.as_ref().is_err_and(|said| said.contains(why)), "{name}: {found:?}"),
        }
    }
}

#[test]
fn a_word_of_a_post_or_of_a_secret_is_found_in_whatever_was_said() {
    untold::assert_untold(b"{\"level\":\"INFO\"}\n\xff nothing", "a log");
    for word in [untold::OVERHEARD, "battery", "hunter2"] {
        let said = format!("a line\n{{\"message\":\"a {word}!\"}}\n");
        let told = std::panic::catch_unwind(|| untold::assert_untold(said.as_bytes(), "a log"));
        assert!(told.is_err(), "{word} was not seen");
    }
}
