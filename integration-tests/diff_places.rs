//! `moderato diff`: the places that verdicts and posts are read from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::diff::{Desk, diff, jsonl, some_posts, told};
use crate::kafka;
use crate::support::kafka::outside;
use crate::support::pool::{Pool, posts};
use crate::support::records::Outgoing;
use crate::support::worker::Setup;

fn asked(pool: &Pool<'_>, arguments: &[&str]) -> Setup {
    arguments.iter().fold(pool.setup().verb("diff"), |setup, one| setup.argument(one))
}

fn refused(pool: &Pool<'_>, arguments: &[&str]) -> String {
    let output = asked(pool, arguments).output(b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// Judged by a live worker, and its topic of verdicts.
fn judged_live(pool: &Pool<'_>) -> String {
    let worker = pool.setup().set("determinism", "strict").start();
    pool.wait_until_all_is_committed();
    worker.stop();
    format!("topic:{}", pool.verdicts)
}

#[test]
fn of_several_replays_in_one_topic_the_one_that_is_named_is_compared_and_which_there_are_is_told() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 40).chain([Outgoing::new("no json").key("k")]));
    let live = judged_live(&pool);
    let desk = Desk::new();
    let eager = desk.policy("eager.md", &[("review: 0.40, act: 0.95}", "review: 0, act: 0}")]);
    let audit = kafka.topic("audit", 2);
    let replay = |id: &str, setup: Setup| {
        let output = setup.argument("--id").argument(id).argument("--to-topic").argument(&audit).output(b"");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let again = || pool.mortal().verb("replay").set("determinism", "strict");
    replay("r1", again());
    replay("r2", again().set("policy", &eager));
    let audit = format!("topic:{audit}");

    let (first, exit) = told(asked(&pool, &[&live, &audit, "--replay", "r1"]));
    let counts = |side: &Value| {
        ["verdicts", "other_replays", "without_verdict", "repeats"].map(|key| side[key].as_u64().unwrap())
    };
    assert_eq!((&first["same"], exit), (&json!(true), Some(0)), "{}", first["all"]);
    assert_eq!((counts(&first["a"]), counts(&first["b"])), ([40, 0, 0, 0], [40, 40, 2, 0]));
    assert_eq!(first["b"]["unread"]["count"], json!(0));

    let (second, exit) = told(asked(&pool, &[&live, &audit, "--replay", "r2"]));
    assert_eq!((&second["all"]["pairs"], exit), (&json!(40), Some(3)));
    let to_act: u64 = (0..3).map(|from| second["action_matrix"][from][2].as_u64().unwrap()).sum();
    assert_eq!(to_act, 40, "{}", second["action_matrix"]);
    let (both, _) = told(asked(&pool, &[&audit, &audit, "--replay", "r1", "--replay", "r2"]));
    assert_eq!((&both["all"], &both["action_matrix"]), (&second["all"], &second["action_matrix"]));

    let unsaid = refused(&pool, &[&live, &audit]);
    assert!(unsaid.contains("several replays") && unsaid.contains("r1 (40), r2 (40)"), "{unsaid}");
    let unknown = refused(&pool, &[&live, &audit, "--replay", "r3"]);
    assert!(unknown.contains("no verdict of replay r3, but of r1 (40), r2 (40)"), "{unknown}");
    let thrice = refused(&pool, &[&live, &audit, "--replay", "r1", "--replay", "r2", "--replay", "r3"]);
    assert!(thrice.contains("say it once, for both sides, or twice"), "{thrice}");
}

#[test]
fn an_archive_in_parquet_is_a_side_like_the_topic_that_it_was_made_of() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    pool.post(posts("p", 60));
    let live = judged_live(&pool);
    let desk = Desk::new();
    let archive = desk.path("archive").display().to_string();
    let output = pool.setup().verb("archive").argument("--to").argument(&archive).output(b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let (same, exit) = told(asked(&pool, &[&live, &archive]));
    assert_eq!((&same["same"], &same["all"]["pairs"], exit), (&json!(true), &json!(60), Some(0)));

    let candidate = desk.policy("candidate.md", &[("review: 0.40, act: 0.95}", "review: 0.1, act: 0.4}")]);
    let [of_topic, of_archive] = [&live, &archive].map(|side| {
        let side = [side, "--policy", &candidate, "--from", "0:3", "--to", "0:20,1:20"];
        told(asked(&pool, &side)).0
    });
    assert!(of_archive["all"]["actions"].as_u64().unwrap() > 0, "{}", of_archive["all"]);
    for part in ["all", "action_matrix", "label_matrix", "by_label", "blast_radius"] {
        assert_eq!(of_topic[part], of_archive[part], "{part}");
    }
    assert_eq!(of_topic["a"]["outside"], of_archive["a"]["outside"]);
}

#[test]
fn posts_in_parquet_are_judged_like_the_same_in_lines() {
    let desk = Desk::new();
    let lines = desk.write("posts.jsonl", &jsonl(&some_posts(40)));
    let parquet = desk.path("posts.parquet").display().to_string();
    let sql = format!("COPY (SELECT * FROM read_json_auto('{lines}')) TO '{parquet}' (FORMAT parquet)");
    outside("duck.py", &[&sql]);
    let candidate = desk.policy("candidate.md", &[("review: 0.40", "review: 0.1")]);

    let [of_lines, of_parquet] = [&lines, &parquet].map(|file| {
        diff(&[
            "--judge",
            file,
            "--policy",
            &candidate,
            "--set",
            "determinism=strict",
            "--posts",
            file,
            "--slice",
            "lang",
        ])
        .0
    });

    assert!(of_parquet["all"]["actions"].as_u64().unwrap() > 0);
    for part in ["all", "action_matrix", "label_matrix", "by_label", "slices"] {
        assert_eq!(of_lines[part], of_parquet[part], "{part}");
    }
    let texts = |report: &Value| -> BTreeMap<String, Value> {
        let flips = report["flips"]["first"].as_array().unwrap();
        flips.iter().map(|flip| (flip["post_id"].to_string(), flip["text"].clone())).collect()
    };
    assert!(texts(&of_parquet).values().all(Value::is_string));
    assert_eq!(texts(&of_lines), texts(&of_parquet));
}

#[test]
fn posts_of_a_topic_give_flips_their_texts_and_fields_to_slice_by() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let posts: Vec<Value> = some_posts(30)
        .into_iter()
        .enumerate()
        .map(|(n, mut post)| {
            post["desk"] = json!(["east", "west"][n % 2]);
            post
        })
        .collect();
    let key = |post: &Value| post["id"].as_str().unwrap().to_owned();
    pool.post(posts.iter().map(|post| Outgoing::new(post.to_string()).key(key(post))));
    pool.post([Outgoing::tombstone().key("p0"), Outgoing::new("no json").key("k")]);
    let live = judged_live(&pool);
    let desk = Desk::new();
    let eager = desk.policy("eager.md", &[("review: 0.40, act: 0.95}", "review: 0, act: 0}")]);
    let from = format!("topic:{}", pool.posts);

    let asked_for = [&*live, "--policy", &eager, "--posts", &from, "--slice", "desk", "--list", "100"];
    let (report, exit) = told(asked(&pool, &asked_for));

    assert_eq!((&report["all"]["pairs"], exit), (&json!(30), Some(3)));
    let flips = report["flips"]["first"].as_array().unwrap();
    assert!(flips.len() > 20);
    let texts: BTreeMap<String, &Value> = posts.iter().map(|post| (key(post), &post["text"])).collect();
    for flip in flips {
        assert_eq!(&flip["text"], texts[flip["post_id"].as_str().unwrap()]);
    }
    let slices = report["slices"].as_array().unwrap();
    let desks: Vec<_> = slices.iter().filter(|slice| slice["field"] == "desk").map(|slice| &slice["pairs"]).collect();
    assert_eq!(desks, [&json!(15), &json!(15)]);
}
