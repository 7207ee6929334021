//! `moderato replay --verify`: old verdicts hold, and exactly those are named that do not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::pool::{POLICY, Pool, answered_by, lines, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::repository;
use crate::support::worker::Setup;

const STRICT: [(&str, &str); 2] = [("determinism", "strict"), ("model.precision", "fp32")];

/// What it told: each event, the last one, and the exit code.
struct Told {
    events: Vec<Value>,
    exit: Option<i32>,
}

impl Told {
    fn of(setup: Setup) -> Self {
        let output = setup.argument("--progress").argument("json").output(b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let events = lines(&output.stdout);
        assert!(!events.is_empty(), "{said}");
        Self { events, exit: output.status.code() }
    }

    fn end(&self) -> &Value {
        self.events.last().unwrap()
    }

    fn failing(&self) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == "does_not_hold").collect()
    }

    fn counts(&self) -> [u64; 3] {
        ["hold", "do_not_hold", "not_verifiable"].map(|name| self.end()[name].as_u64().unwrap())
    }
}

fn verify(pool: &Pool<'_>) -> Setup {
    pool.setup().with(&STRICT).verb("replay").argument("--verify")
}

/// A pool that has judged so many posts, every fourth the same as another so that the cache answers for it.
fn judged<'a>(kafka: &'a Kafka, partitions: i32, count: usize, settings: &[(&str, &str)]) -> Pool<'a> {
    judged_by(Pool::new(kafka, partitions), count, settings)
}

fn judged_by<'a>(pool: Pool<'a>, count: usize, settings: &[(&str, &str)]) -> Pool<'a> {
    pool.post((0..count).map(|n| post(&format!("p-{n}"), &format!("Claim {}: it was never tested.", n - n % 4 / 3))));
    let worker = pool.setup().with(&STRICT).with(settings).start();
    pool.wait_until_all_is_committed();
    worker.stop();
    pool
}

/// A verdict with something else in it, as somebody would write it who may write to the topic.
fn forged(verdict: &Record, change: impl Fn(&mut Value)) -> Outgoing {
    let mut event = verdict.json();
    change(&mut event["data"]);
    let forged = Outgoing::new(event.to_string()).key(verdict.key.clone().unwrap());
    verdict.headers.iter().fold(forged, |record, (name, value)| record.header(name, value.as_deref()))
}

/// As what it is told, and what is changed in `data`.
type Forgery<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// The next number that can be told from it.
fn next(score: &Value) -> Value {
    json!(f64::from_bits(score.as_f64().unwrap().to_bits() + 1))
}

#[test]
fn verdicts_of_the_model_and_of_the_cache_hold_to_the_last_bit_in_either_mode_of_events() {
    let kafka = kafka!();
    for mode in ["structured", "binary"] {
        let one = [("limits.max_in_flight", "1"), ("cache.kind", "in_process"), ("kafka.cloudevents", mode)];
        let pool = judged_by(Pool::named(&kafka, mode, 2), 120, &one);
        let verdicts = kafka.read_all(&pool.verdicts);
        if mode == "structured" {
            assert!(answered_by(&verdicts)["cache"] >= 10, "{:?}", answered_by(&verdicts));
        }

        let told = Told::of(verify(&pool).argument("--tolerance").argument("0"));

        assert_eq!((told.counts(), told.exit), ([120, 0, 0], Some(0)), "{:?}", told.failing());
        assert_eq!((&told.end()["other_fingerprints"], &told.end()["finished"]), (&json!([]), &json!(true)));
    }
}

#[test]
fn exactly_what_was_forged_does_not_hold_and_a_single_bit_is_enough() {
    let kafka = kafka!();
    let pool = judged(&kafka, 2, 60, &[]);
    let verdicts = kafka.read_all(&pool.verdicts);
    let label = |data: &Value| data["verdict"]["label"].as_str().unwrap().to_owned();
    let forge: [Forgery<'_>; 6] = [
        ("score", &|data| {
            let label = label(data);
            data["verdict"]["raw_scores"][&label] = next(&data["verdict"]["raw_scores"][&label]);
        }),
        ("score", &|data| data["verdict"]["score"] = json!(0.99)),
        ("label", &|data| {
            let other = if label(data) == "unverified" { "misinformation" } else { "unverified" };
            data["verdict"]["label"] = json!(other);
        }),
        ("action", &|data| {
            data["verdict"]["action"] = json!(if data["verdict"]["action"] == "act" { "allow" } else { "act" });
        }),
        ("fingerprint", &|data| data["fingerprint"]["hardware"] = json!("an abacus")),
        ("text", &|data| data["input"]["text_sha256"] = json!("0".repeat(64))),
    ];
    let altered: Vec<_> = forge.iter().zip(&verdicts).map(|((_, change), verdict)| forged(verdict, change)).collect();
    let at = kafka.produce(&pool.verdicts, altered);
    // Of a post that nobody ever sent; and the same verdict once more, which is none the worse for it.
    let inserted = forged(&verdicts[9], |data| data["input"]["kafka"]["offset"] = json!(5_000));
    let inserted = kafka.produce(&pool.verdicts, [inserted, forged(&verdicts[10], |_| {})]);

    let told = Told::of(verify(&pool));

    assert_eq!((told.counts(), told.exit), ([60, 7, 0], Some(3)), "{:?}", told.failing());
    assert_eq!(told.end()["repeats"], 1);
    let place = |(partition, offset): &(i32, i64)| format!("{}/{partition}/{offset}", pool.verdicts);
    let expected = forge.iter().map(|(what, _)| *what).zip(&at).chain([("no such post", &inserted[0])]);
    for (what, at) in expected {
        let event = told.failing().into_iter().find(|event| event["verdict_at"] == place(at));
        let event = event.unwrap_or_else(|| panic!("{what} at {at:?} is not listed: {:?}", told.failing()));
        assert_eq!(event["why"], json!([what]), "{event}");
    }

    let output = verify(&pool).output(b"");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(at.iter().all(|at| table.contains(&place(at))), "{table}");
    assert!(table.contains("60 hold, 7 do not") && output.status.code() == Some(3), "{table}");
}

#[test]
fn another_threshold_leaves_exactly_those_verdicts_that_it_would_not_have_given() {
    let kafka = kafka!();
    let pool = judged(&kafka, 1, 80, &[]);
    let verdicts = kafka.read_all(&pool.verdicts);
    let score = |record: &Record| record.json()["data"]["verdict"]["scores"]["misinformation"].as_f64().unwrap();
    let mut scores: Vec<f64> = verdicts.iter().map(score).collect();
    scores.sort_by(f64::total_cmp);
    let threshold = scores[40];
    let text = std::fs::read_to_string(repository(POLICY)).unwrap();
    let changed = text.replace("{review: 0.40, act: 0.95}", &format!("{{review: {threshold}, act: {threshold}}}"));
    assert_ne!(text, changed);
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.md");
    std::fs::write(&policy, changed).unwrap();
    // As the policy says: `unverified` keeps its threshold, and nothing else has any.
    let now = |record: &Record| {
        let unverified = record.json()["data"]["verdict"]["scores"]["unverified"].as_f64().unwrap();
        if score(record) >= threshold {
            "act"
        } else if unverified >= 0.6 {
            "review"
        } else {
            "allow"
        }
    };
    let flips = verdicts.iter().filter(|record| record.json()["data"]["verdict"]["action"] != now(record));
    let expected: BTreeSet<(String, &str)> =
        flips.map(|record| (record.json()["subject"].as_str().unwrap().to_owned(), now(record))).collect();
    assert!((40..=80).contains(&expected.len()), "{}", expected.len());

    let told = Told::of(verify(&pool).argument("--policy").argument(&policy));

    let failing = told.failing();
    let named = failing
        .iter()
        .map(|event| (event["post_id"].as_str().unwrap().to_owned(), event["new"]["action"].as_str().unwrap()));
    assert_eq!((named.collect::<BTreeSet<_>>(), failing.len(), told.exit), (expected.clone(), expected.len(), Some(3)));
    for event in told.failing() {
        assert_eq!(
            (&event["why"], &event["fingerprint_differs_in"]),
            (&json!(["action"]), &json!(["policy"])),
            "{event}"
        );
        assert_ne!(event["old"]["action"], event["new"]["action"]);
    }
    assert_eq!(told.counts()[0], 80 - expected.len() as u64);
    assert_eq!(told.end()["other_fingerprints"], json!([{"differs_in": ["policy"], "verdicts": 80}]));
}

#[test]
fn under_another_precision_the_tolerance_decides_and_what_differs_is_said() {
    let kafka = kafka!();
    let pool = judged(&kafka, 1, 40, &[]);
    let other = || verify(&pool).set("model.precision", "int8");

    let wide = Told::of(other().argument("--tolerance").argument("1"));
    let none = Told::of(other().argument("--tolerance").argument("0"));

    assert_eq!(wide.end()["other_fingerprints"], json!([{"differs_in": ["precision"], "verdicts": 40}]));
    assert!(wide.failing().iter().all(|event| event["why"] != json!(["score"])), "{:?}", wide.failing());
    assert!(none.counts()[1] > 20 && none.exit == Some(3), "{:?}", none.counts());
    assert!(none.failing().iter().all(|event| event["score_difference"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_sample_is_the_same_each_time_and_posts_that_are_gone_cannot_be_verified() {
    let kafka = kafka!();
    let pool = judged(&kafka, 1, 100, &[]);
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.md");
    let text = std::fs::read_to_string(repository(POLICY)).unwrap();
    std::fs::write(&policy, text.replace("{review: 0.40, act: 0.95}", "{review: 0, act: 0}")).unwrap();
    let drawn = |sample: &str| {
        // Under this policy every post is acted on, so that every verdict that is drawn is named.
        let told = Told::of(verify(&pool).argument("--policy").argument(&policy).argument("--sample").argument(sample));
        told.failing().iter().map(|event| event["post_id"].to_string()).collect::<BTreeSet<_>>()
    };
    let (ten, again, thirty) = (drawn("10"), drawn("10"), drawn("30%"));
    assert_eq!((ten.len(), &ten), (10, &again));
    assert!((10..60).contains(&thirty.len()) && ten.is_subset(&thirty), "{}", thirty.len());

    kafka.delete_before(&pool.posts, 0, 30);
    let told = Told::of(verify(&pool));
    assert_eq!((told.counts(), told.exit), ([70, 0, 30], Some(0)));
    let gone = told.events.iter().find(|event| event["event"] == "not_verifiable").unwrap();
    assert_eq!((&gone["kafka"]["offset"], &gone["why"]), (&json!(0), &json!("deleted by retention")));
    let ids = folder.path().join("ids");
    std::fs::write(&ids, "p-50\np-60\nnobody\n").unwrap();
    let named = Told::of(verify(&pool).argument("--ids").argument(&ids));
    assert_eq!((named.counts(), named.exit), ([2, 0, 0], Some(0)));
    let some = Told::of(verify(&pool).argument("--from").argument("0:40").argument("--to").argument("0:60"));
    assert_eq!((some.counts(), some.exit), ([20, 0, 0], Some(0)));

    kafka.delete_before(&pool.posts, 0, 100);
    let nothing = Told::of(verify(&pool));
    assert_eq!((nothing.counts(), nothing.exit), ([0, 0, 100], Some(1)), "nothing is proved");
}

#[test]
fn verdicts_in_a_file_are_verified_with_the_posts_of_a_file_without_kafka() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["posts.jsonl", "verdicts.jsonl"].map(|name| folder.path().join(name));
    let text = |n: usize| json!({"id": format!("p-{n}"), "text": format!("Claim {n}.")}).to_string() + "\n";
    std::fs::write(&input, (0..50).map(text).collect::<String>()).unwrap();
    let config = format!(
        "model: {{path: {}, threads: 1}}\npolicy: {}\nstate_dir: {}\n",
        crate::support::model("tiny-fp32").display(),
        repository(POLICY).display(),
        folder.path().display()
    );
    let setup = || Setup::new(config.clone()).with(&STRICT).verb("replay").argument("--input").argument(&input);
    assert_eq!(
        setup().argument("--id").argument("r1").argument("--output").argument(&output).output(b"").status.code(),
        Some(0)
    );

    let holds = Told::of(setup().argument("--verify").argument(&output));
    assert_eq!((holds.counts(), holds.exit), ([50, 0, 0], Some(0)));

    std::fs::write(&input, (0..50).map(|n| text(if n == 7 { 700 } else { n })).collect::<String>()).unwrap();
    let told = Told::of(setup().argument("--verify").argument(&output));
    assert_eq!((told.counts(), told.exit), ([49, 1, 0], Some(3)));
    assert_eq!((&told.failing()[0]["post_id"], &told.failing()[0]["why"][0]), (&json!("p-7"), &json!("post")));
}

#[test]
fn what_cannot_be_verified_with_is_refused_with_what_to_mend() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 1));
    let refused = |arguments: &[&str], told: &str| {
        let setup = arguments.iter().fold(pool.setup().verb("replay"), |setup, argument| setup.argument(*argument));
        let output = setup.output(b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(told) && output.status.code() == Some(2), "{arguments:?}: {said}");
    };
    refused(&["--verify"], "there are no verdicts of the range; look at the name, --from, --to and --ids");
    refused(&["--verify", "--sample", "0"], "write a number of posts such as 1000, or a share such as 5%");
    refused(&["--verify", "--tolerance", "2"], "0 to 1, such as 0.001");
    refused(&["--verify", "--from", "committed"], "`committed` cannot be told from verdicts");
    refused(&["--verify", "--to-topic", "audit"], "cannot be used with");
    refused(&["--sample", "5"], "--verify");
}
