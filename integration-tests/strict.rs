//! `determinism: strict`: the same post has the same raw scores, to the last bit, under the same fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, answered_by, classify, lines, same_posts};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::Setup;
use crate::{kafka, redis};

const POSTS: usize = 1_000;

/// Posts of 1 to 140 words, no two alike: number, id and line.
fn posts() -> Vec<Value> {
    const WORDS: [&str; 16] = [
        "mayor", "bridge", "the", "vaccine", "closed", "claims", "moon", "water", "nobody", "said", "1969", "cheese",
        "is", "of", "for", "voted",
    ];
    let text = |n: usize| {
        let many = 1 + if n.is_multiple_of(23) { n % 140 } else { n % 31 };
        let words = (0..many).map(|word| WORDS[(n * 7 + word * (n % 5 + 1)) % WORDS.len()]);
        format!("{n} {}", words.collect::<Vec<_>>().join(" "))
    };
    (0..POSTS).map(|n| json!({"id": format!("post-{n}"), "text": text(n)})).collect()
}

/// In the order of a hash, another one for each seed.
fn shuffled(mut posts: Vec<Value>, seed: u64) -> Vec<Value> {
    posts.sort_by_key(|post| Sha256::digest(format!("{seed} {}", post["id"])).to_vec());
    posts
}

/// What may not differ in a single bit, as it was written: the raw scores and the mass outside the labels; and under what
/// it was computed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    scores: String,
    fingerprint: Value,
}

/// By post.
type Verdicts = BTreeMap<String, Seen>;

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("no {from} in {text}")).0
}

fn seen(line: &[u8]) -> (String, Seen) {
    let text = std::str::from_utf8(line).unwrap();
    let verdict: Value = serde_json::from_str(text).unwrap();
    assert_eq!(verdict["data"]["answered_by"], "model", "{text}");
    let (raw, outside) = (between(text, "\"raw_scores\":{", "}"), between(text, "\"outside_labels\":", ","));
    let scores = format!("{raw} {outside}");
    (
        verdict["subject"].as_str().unwrap().to_owned(),
        Seen { scores, fingerprint: verdict["data"]["fingerprint"].clone() },
    )
}

fn strict(precision: &str) -> Setup {
    classify().with(&[("determinism", "strict"), ("model.precision", precision), ("cache.kind", "off")])
}

fn judged(setup: Setup, posts: &[Value]) -> Verdicts {
    let input: Vec<String> = posts.iter().map(Value::to_string).collect();
    let output = setup.output(input.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found = in_lines(&output.stdout);
    assert_eq!(found.len(), posts.len());
    found
}

fn in_lines(output: &[u8]) -> Verdicts {
    output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(seen).collect()
}

fn assert_same(expected: &Verdicts, found: &Verdicts, how: &str) {
    assert_eq!(expected.len(), found.len());
    let other: Vec<_> = expected.iter().filter(|(id, seen)| found[*id] != **seen).collect();
    let first = other.first().map(|(id, seen)| (seen, &found[*id]));
    assert!(other.is_empty(), "{how}: {} posts differ, such as {first:?}", other.len());
}

fn alone_shuffled_restarted_and_by_two(precision: &str) {
    let posts = posts();
    let alone = judged(strict(precision).with(&[("limits.max_batch_posts", "1"), ("model.instances", "1")]), &posts);
    let digests: BTreeSet<_> = alone.values().map(|seen| seen.fingerprint["digest"].to_string()).collect();
    let buckets: BTreeSet<_> = alone.values().map(|seen| seen.fingerprint["bucket"].to_string()).collect();
    assert!(buckets.len() > 5 && digests.len() == buckets.len(), "{digests:?} for {buckets:?}");

    for (how, instances, seed) in
        [("shuffled", "1", 1), ("by two instances", "2", 2), ("again, in another order", "2", 3)]
    {
        let found = judged(strict(precision).set("model.instances", instances), &shuffled(posts.clone(), seed));
        assert_same(&alone, &found, &format!("{precision}, {how}"));
    }
}

#[test]
fn a_thousand_posts_in_fp32_have_the_same_bits_alone_in_any_company_after_a_restart_and_with_two_instances() {
    alone_shuffled_restarted_and_by_two("fp32");
}

#[test]
fn a_thousand_posts_in_int8_have_the_same_bits_alone_in_any_company_after_a_restart_and_with_two_instances() {
    alone_shuffled_restarted_and_by_two("int8");
}

#[test]
fn int8_rechecked_in_fp32_has_the_same_bits_alone_and_in_company() {
    let posts = posts()[..200].to_vec();
    let rechecked = || strict("int8").set("model.recheck_margin", "0.2");
    let alone = judged(rechecked().set("limits.max_batch_posts", "1"), &posts);
    assert_eq!(alone["post-1"].fingerprint["precision"], "int8 rechecked in fp32 within 0.2");
    assert_same(&alone, &judged(rechecked(), &shuffled(posts, 5)), "rechecked");
}

/// Half of them by one instance, the rest after a restart by two; then all of them replayed to a topic, and to a file.
fn live_restarted_and_replayed(kafka: &Kafka, precision: &str) {
    let pool = Pool::new(kafka, 3);
    let posts = posts();
    let settings = [("determinism", "strict"), ("model.precision", precision), ("cache.kind", "off")];
    let published = |records: Vec<Record>| -> Verdicts {
        assert_eq!(records.len(), POSTS);
        records.iter().map(|record| seen(record.value.as_ref().unwrap())).collect()
    };
    for (part, instances) in shuffled(posts.clone(), 4).chunks(POSTS / 2).zip(["1", "2"]) {
        pool.post(part.iter().map(|post| Outgoing::new(post.to_string()).key(post["id"].as_str().unwrap())));
        let worker = pool.setup().with(&settings).set("model.instances", instances).start();
        pool.wait_until_all_is_committed();
        worker.stop();
    }
    let live = published(pool.verdicts_of_all());
    assert_same(&judged(strict(precision).set("limits.max_batch_posts", "1"), &posts), &live, "live");

    let (audit, folder) = (kafka.topic("audit", 2), tempfile::tempdir().unwrap());
    let file = folder.path().join("verdicts.jsonl");
    for (instances, flag, to) in [("1", "--to-topic", audit.as_str()), ("2", "--output", file.to_str().unwrap())] {
        let replay = pool.setup().verb("replay").with(&settings).set("model.instances", instances);
        let replay = replay.argument("--id").argument(format!("by-{instances}")).argument(flag).argument(to);
        let output = replay.output(b"");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_same(&live, &published(kafka.read_all(&audit)), "replayed to a topic");
    assert_same(&live, &in_lines(&std::fs::read(file).unwrap()), "replayed to a file");
}

#[test]
fn a_thousand_posts_in_fp32_have_the_same_bits_live_after_a_restart_replayed_and_under_classify() {
    live_restarted_and_replayed(&kafka!(), "fp32");
}

#[test]
fn a_thousand_posts_in_int8_have_the_same_bits_live_after_a_restart_replayed_and_under_classify() {
    live_restarted_and_replayed(&kafka!(), "int8");
}

/// As the schema tells to compute it.
fn digest(verdict: &Value) -> String {
    let (data, print) = (&verdict["data"], &verdict["data"]["fingerprint"]);
    let all = json!([
        "fingerprint/1",
        data["model"]["digest"],
        data["model"]["tokenizer_digest"],
        data["model"]["prompt_digest"],
        data["policy"]["digest"],
        data["verdict"]["calibration"]["revision"],
        print["determinism"],
        print["bucket"],
        print["hardware"],
        print["provider"],
        print["provider_version"],
        print["onnxruntime"],
        print["precision"],
        print["threads"],
    ]);
    format!("sha256:{}", hex::encode(Sha256::digest(all.to_string())))
}

#[test]
fn a_fingerprint_is_the_digest_of_what_stands_in_the_verdict_and_differs_where_that_does() {
    let text = b"The bridge was closed for good last night.";
    let verdict = |setup: Setup| lines(&setup.output(text).stdout).remove(0);
    let off = |precision| classify().with(&[("model.precision", precision)]);
    let verdicts = [
        verdict(strict("fp32")),
        verdict(strict("int8")),
        verdict(off("fp32")),
        verdict(off("fp32").set("model.threads", "2")),
    ];

    for verdict in &verdicts {
        assert_eq!(verdict["data"]["fingerprint"]["digest"], digest(verdict));
        assert!(verdict["data"]["fingerprint"]["hardware"].as_str().unwrap().starts_with(std::env::consts::ARCH));
    }
    let digests: BTreeSet<_> = verdicts.iter().map(digest).collect();
    assert_eq!(digests.len(), verdicts.len());
    let prints = verdicts.iter().map(|verdict| &verdict["data"]["fingerprint"]);
    let told: Vec<_> =
        prints.map(|print| (&print["determinism"], print["bucket"].is_string(), &print["threads"])).collect();
    assert_eq!(
        told,
        [
            (&json!("strict"), true, &json!(1)),
            (&json!("strict"), true, &json!(1)),
            (&json!("off"), false, &json!(1)),
            (&json!("off"), false, &json!(2))
        ]
    );
}

#[test]
fn a_cached_answer_tells_what_computed_it_and_whoever_judges_strictly_takes_no_other() {
    let (kafka, redis) = (kafka!(), redis!());
    let judged = |name: &str, determinism: &str| -> Vec<Record> {
        let pool = Pool::named(&kafka, name, 1);
        pool.post(same_posts(0..20));
        let worker = pool.cached(&redis.url, &redis.name("cache")).set("determinism", determinism).start();
        let verdicts = pool.verdicts_of_all();
        worker.stop();
        verdicts
    };
    let prints = |verdicts: &[Record]| -> Vec<Value> {
        verdicts.iter().map(|record| record.json()["data"]["fingerprint"].clone()).collect()
    };

    let off = judged("off-", "off");
    let strict = judged("strict-", "strict");
    let again = judged("again-", "strict");

    let all_by = |source: &str| BTreeMap::from([(source.to_owned(), 20)]);
    assert_eq!(answered_by(&off), all_by("model"));
    assert_eq!(answered_by(&strict), all_by("model"));
    assert_eq!(answered_by(&again), all_by("cache"));
    assert_eq!(prints(&again), prints(&strict));
    assert!(prints(&again).iter().all(|print| print["determinism"] == "strict" && print["bucket"].is_string()));
    assert!(prints(&off).iter().all(|print| print["determinism"] == "off" && print["bucket"].is_null()));
}

#[test]
fn what_would_let_chance_into_strict_scores_is_refused_by_its_key() {
    let refused = |key: &str, value: &str, mend: &str| {
        let output = strict("fp32").set(key, value).output(b"A claim.");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(key) && told.contains(mend), "{told}");
    };
    refused("model.threads", "2", "use model.instances for the cores");
    refused("model.precision", "auto", "name one, such as int8");
    refused("model.device", "tensorrt", "choose cuda or cpu");
    refused("determinism", "very", "strict");
}
