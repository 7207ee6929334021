//! `moderato explain`: everything that the topics know of a post, in order, and nothing of its text unless it was asked for.

use serde_json::{Value, json};

use crate::kafka;
use crate::support::notes::NotesPool;
use crate::support::pool::{Pool, posts};
use crate::support::records::Outgoing;
use crate::support::repository;
use crate::support::worker::Setup;

/// The JSON that the verb prints, checked against its schema, and its exit code.
fn explain(setup: Setup, arguments: &[&str]) -> (Value, Option<i32>) {
    let setup = setup.verb("explain").argument("--json");
    arguments.iter().fold(setup, |setup, one| setup.argument(one)).report("explain.v1.json")
}

fn kinds(report: &Value) -> Vec<&str> {
    report["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

fn version(id: &str, version: u64) -> Outgoing {
    let text = format!("Version {version}: the bridge was closed. (whispered)");
    Outgoing::new(json!({"id": id, "text": text, "version": version, "lang": "en"}).to_string()).key(id)
}

#[test]
fn the_story_of_a_post_from_its_first_version_to_its_deletion_is_told_in_order() {
    let kafka = kafka!();
    let judging = Pool::new(&kafka, 3);
    let [passed_on, shadow] = ["flagged", "shadow"].map(|name| kafka.topic(name, 2));
    let drafting = NotesPool::of(Pool { posts: passed_on.clone(), ..Pool::named(&kafka, "notes-", 1) });
    let strict = judging.state.path().join("strict.md");
    let policy = std::fs::read_to_string(repository(crate::support::pool::POLICY)).unwrap();
    std::fs::write(&strict, policy.replace("review: 0.40", "review: 0.0")).unwrap();
    let setup = || {
        judging
            .setup()
            .with(&[("kafka.topics.flagged", &passed_on), ("kafka.topics.notes", &drafting.pool.verdicts)])
            .set("policy", strict.display())
            .set("kafka.topics.shadow", &shadow)
    };
    let _judge =
        setup().set("shadow.share", 1).set("shadow.policy", repository(crate::support::pool::POLICY).display()).start();
    let _drafter = drafting.setup().start();
    judging.post(posts("other", 40));
    judging.post([version("the-post", 1)]);
    judging.wait_until_all_is_committed();
    judging.post([version("the-post", 2), Outgoing::new("no post").key("the-post")]);
    judging.wait_until_all_is_committed();
    judging.post([Outgoing::tombstone().key("the-post")]);
    judging.wait_until_all_is_committed();
    let notes = kafka.read(&drafting.pool.verdicts, 2, crate::support::PATIENCE);
    assert!(!notes.is_empty());
    drafting.pool.wait_until_all_is_committed();
    kafka.read(&shadow, 42, crate::support::PATIENCE);

    let (report, exit) = explain(setup(), &["the-post"]);

    assert_eq!(exit, Some(0));
    let mut found = kinds(&report);
    assert_eq!((found[0], *found.last().unwrap()), ("post", "tombstone"));
    found.sort_unstable();
    let wanted = [
        "dead_letter",
        "flagged",
        "flagged",
        "note",
        "note",
        "post",
        "post",
        "post",
        "shadow",
        "shadow",
        "tombstone",
        "tombstone",
        "verdict",
        "verdict",
    ];
    assert_eq!(found, wanted, "{report:#}");
    let events = report["events"].as_array().unwrap();
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    assert!(events.iter().map(|event| event["time"].as_str().unwrap()).is_sorted());
    assert_eq!((&of("post")[0]["version"], &of("post")[2]["readable"]), (&json!(1), &json!(false)));
    assert_eq!(of("dead_letter")[0]["reason"], "not_json");
    for (n, verdict) in of("verdict").into_iter().enumerate() {
        assert_eq!(verdict["verdict"]["subject"], "the-post");
        assert_eq!(verdict["verdict"]["data"]["input"]["text_sha256"], of("post")[n]["text_sha256"]);
        assert_eq!(of("flagged")[n]["verdict_id"], verdict["verdict"]["id"]);
        assert_eq!(of("note")[n]["note"]["data"]["verdict"]["verdict_id"], verdict["verdict"]["id"]);
    }
    assert!(!report.to_string().contains("whispered"));
    let (with_text, _) = explain(setup(), &["the-post", "--show-text"]);
    assert!(with_text["events"][0]["text"].as_str().unwrap().contains("whispered"));

    let output = setup().verb("explain").argument("the-post").output(b"");
    let story = String::from_utf8(output.stdout).unwrap();
    for words in [
        "post the-post",
        "  posted  (",
        "version 2, en",
        "  judged  (",
        "answered by",
        "thresholds",
        "prompt      sha256:",
        "note ",
        "checks: ",
        "could not be judged",
        "not_json, at decode",
        "deleted: a tombstone",
        "looked in",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(!story.contains("whispered"));
}

#[test]
fn what_a_replay_said_of_a_post_is_told_apart_from_what_was_said_live() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let audit = kafka.topic("audit", 2);
    let named = || pool.mortal().set("kafka.topics.audit", &audit);
    // A producer's own header makes no replay of a dead letter.
    let broken = Outgoing::new("no post").key("the-post").header("moderato.replay_id", Some(b"forged"));
    pool.post(posts("other", 5).chain([version("the-post", 1), broken, Outgoing::tombstone().key("the-post")]));
    let live = named().start();
    pool.wait_until_all_is_committed();
    live.stop();
    let range = ["--id", "october", "--from", "beginning", "--to", "end"];
    let replay = range.iter().fold(named().verb("replay"), |setup, one| setup.argument(one)).output(b"");
    assert_eq!(replay.status.code(), Some(0), "{}", String::from_utf8_lossy(&replay.stderr));

    let (report, exit) = explain(named(), &["the-post"]);
    let output = named().verb("explain").argument("the-post").output(b"");

    assert_eq!(exit, Some(0));
    let events = report["events"].as_array().unwrap();
    let told = |audited: bool| -> Vec<_> {
        let events = events.iter().filter(|event| (event["topic"] == audit) == audited && event["kind"] != "post");
        let told = |event: &Value| (event["kind"].as_str().unwrap().to_owned(), event["replay_id"].clone());
        let mut told: Vec<_> = events.map(told).collect();
        told.sort_by(|one, other| one.0.cmp(&other.0));
        told
    };
    let kinds =
        |kinds: &[&str], id: Value| -> Vec<_> { kinds.iter().map(|kind| (kind.to_string(), id.clone())).collect() };
    assert_eq!(told(true), kinds(&["dead_letter", "replay", "tombstone"], json!("october")), "{report:#}");
    let live = ["dead_letter", "tombstone", "tombstone", "verdict"];
    assert_eq!(told(false), kinds(&live, Value::Null), "{report:#}");
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    let flags: Vec<_> =
        of("dead_letter").iter().map(|event| (event["topic"] == audit, event["replay"].clone())).collect();
    assert_eq!(flags, [(false, json!(false)), (true, json!(true))]);
    let (live, again) = (&of("verdict")[0]["verdict"], &of("replay")[0]["verdict"]);
    assert_eq!((&again["id"], &again["data"]["replay"]["id"]), (&live["id"], &json!("october")));
    let story = String::from_utf8(output.stdout).unwrap();
    for words in
        ["judged again by a replay", "could not be judged by a replay", "replay      october", "kafka.topics.audit"]
    {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(!story.contains("forged"), "{story}");
}

#[test]
fn of_a_post_that_nobody_knows_it_is_said_where_was_looked() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 20));
    let gone = format!("{}-gone", pool.group);
    let setup = || pool.setup().set("kafka.topics.notes", &gone);

    let (report, exit) = explain(setup(), &["p-20"]);
    let output = setup().verb("explain").argument("p-20").output(b"");
    let empty = setup().verb("explain").argument("").output(b"");

    assert_eq!((kinds(&report).len(), exit), (0, Some(1)));
    assert_eq!((&report["looked"][0]["topic"], &report["looked"][0]["records"]), (&json!(pool.posts), &json!(20)));
    let story = String::from_utf8(output.stdout).unwrap();
    for words in [
        "nothing was found",
        &format!("looked in {} (kafka.topics.posts): 20 records", pool.posts),
        &format!("not looked in {gone} (kafka.topics.notes)"),
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert_eq!(empty.status.code(), Some(2));
}

#[test]
fn a_post_is_known_by_its_id_whatever_its_key_is_and_only_between_the_times_that_are_asked_for() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    // 2026-01-01T00:00:00Z and a second more for each.
    let at = |n: i64| 1_767_225_600_000 + 1000 * n;
    let keyed = |key: &str, n: i64, id: &str| {
        Outgoing::new(json!({"id": id, "text": "x"}).to_string()).key(key).timestamp(at(n))
    };
    let escaped = r#"{"id":"\u0061nother","text":"x"}"#;
    pool.post([keyed("author-1", 0, "another"), keyed("another", 1, "third"), Outgoing::new(escaped).timestamp(at(2))]);
    pool.post([keyed("author-2", 3, "another")]);

    let (all, _) = explain(pool.setup(), &["another"]);
    let (some, _) =
        explain(pool.setup(), &["another", "--from", "2026-01-01T00:00:01Z", "--to", "2026-01-01T00:00:03Z"]);

    let times = |report: &Value| -> Vec<String> {
        report["events"].as_array().unwrap().iter().map(|event| event["time"].as_str().unwrap().to_owned()).collect()
    };
    let second = |n: i64| format!("2026-01-01T00:00:0{n}.000Z");
    assert_eq!(times(&all), [second(0), second(2), second(3)]);
    assert_eq!(times(&some), [second(2)]);
}
