//! What the operator meets: configuration, `check`, `schema`, exit codes, and the demo.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::pool::{Pool, post};
use crate::support::records::Outgoing;
use crate::support::worker::{Setup, moderato};
use crate::support::{free_port, kafka::Kafka, model, repository};
use crate::{kafka, redis, test_name};

/// Everything that was printed, and the exit code.
fn said(output: &Output) -> (String, Option<i32>) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// Model and policy of the tests and no broker.
fn bare() -> Setup {
    let model = model("tiny-fp32");
    let policy = repository(crate::support::pool::POLICY);
    Setup::new(format!("model: {{path: {}, threads: 1}}\npolicy: {}\n", model.display(), policy.display()))
}

/// A broker that nobody runs, and topics that need not exist.
fn elsewhere() -> Setup {
    bare().set("kafka.brokers", format!("127.0.0.1:{}", free_port()))
}

#[test]
fn check_tells_every_problem_at_once() {
    let config = "
kafka: {brokerz: localhost, drain_timeout: 60s, commit_interval: soon, options: {acks: 1}}
limits: {max_in_flight: none}
model: {path: /no/such/folder, device: gpu, recheck_margin: 2}
cache: {kind: redis, redis: {timeout: 5s, url: 'redis://user:hunter2@host'}}
";
    let (text, exit) = said(&Setup::new(config).verb("check").output(b""));

    contains_all(
        &text,
        &[
            "kafka.brokerz: unknown key",
            "limits.max_in_flight: an integer was expected",
            "model.recheck_margin: 2 is no distance of two scores",
            "model.device: one of cpu, openvino, cuda, tensorrt, tensorrt_rtx was expected",
            "kafka.drain_timeout: must be shorter than kafka.session_timeout",
            "kafka.commit_interval: `soon` is not a duration, such as 500ms",
            "kafka.options.acks: cannot be set",
            "model.path: `/no/such/folder` is not a folder",
            "policy: is required",
            "cache.redis.timeout: `5s` is too long",
        ],
    );
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(exit, Some(2));
}

#[test]
fn run_refuses_a_wrong_config_with_exit_2_before_it_connects() {
    let mut worker = elsewhere().set("kafka.drain_timeout", "60s").set("limits.max_input_tokens", 0).start();

    assert_eq!(worker.wait(), 2);

    contains_all(&worker.log(), &["3 problem(s)", "kafka.drain_timeout: ", "limits.max_input_tokens: "]);
}

#[test]
fn check_on_a_good_config_with_broker_and_redis_says_ok() {
    let (kafka, redis) = (kafka!(), redis!());
    let pool = Pool::new(&kafka, 3);
    let setup = pool.setup().set("cache.kind", "redis").set("cache.redis.url", &redis.url);

    let (text, exit) = said(&setup.verb("check").output(b""));

    contains_all(&text, &["ok    configuration", "ok    kafka", "ok    cache", "ok    model"]);
    contains_all(&text, &["moderato-tiny", "fp32", "cpu", "misinformation-short"]);
    assert_eq!(exit, Some(0), "{text}");
}

#[test]
fn check_names_each_missing_topic() {
    let kafka = kafka!();
    let nowhere = |purpose| kafka.name(purpose);
    let pool = Pool { verdicts: nowhere("v"), dead_letters: nowhere("d"), ..Pool::new(&kafka, 1) };

    let (text, exit) = said(&pool.setup().verb("check").output(b""));

    contains_all(&text, &["FAIL  kafka", "kafka.topics.verdicts", &pool.verdicts, "kafka.topics.dead_letters"]);
    contains_all(&text, &[&pool.dead_letters, "create it", "ok    model"]);
    assert!(!text.contains("kafka.topics.posts: "), "{text}");
    assert_eq!(exit, Some(1));
}

#[test]
fn check_tells_a_dead_broker_and_a_dead_redis_and_how_to_mend_it() {
    let setup = elsewhere().set("cache.kind", "redis");
    let setup = setup.set("cache.redis.url", format!("redis://127.0.0.1:{}", free_port()));

    let (text, exit) = said(&setup.verb("check").output(b""));

    contains_all(&text, &["FAIL  kafka: no answer from 127.0.0.1:", "check kafka.brokers"]);
    contains_all(&text, &["FAIL  cache: ", "mend cache.redis.url", "ok    model"]);
    assert_eq!(exit, Some(1));
}

#[test]
fn a_secret_is_printed_by_no_verb() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "from-the-file-4711\n").unwrap();
    let setup = || {
        let setup = elsewhere().environment("MODERATO__KAFKA__PASSWORD", "from-the-environment-4711");
        let setup = setup.environment("MODERATO__CACHE__REDIS__HMAC_KEY", "from-the-environment-4711");
        let setup = setup.set("kafka.tls_key_password_file", file.path().display());
        setup.set("kafka.options.security.protocol", "SASL_PLAINTEXT").set("kafka.options.sasl.mechanism", "PLAIN")
    };

    let (checked, _) = said(&setup().set("kafka.options.sasl.username", "moderato").verb("check").output(b""));
    let (refused, exit) = said(&setup().set("limits.max_in_flight", 0).output(b""));

    contains_all(&checked, &["[redacted]", "FAIL  kafka"]);
    assert!(!checked.contains("4711") && !refused.contains("4711"), "{checked}{refused}");
    assert_eq!(exit, Some(2), "{refused}");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let config = "kafka: {password: hunter2}\ncache: {redis: {hmac_key: hunter2}}";
    let (text, exit) = said(&Setup::new(config).verb("check").output(b""));

    contains_all(&text, &["kafka.password: ", "kafka.password_file", "MODERATO__KAFKA__PASSWORD"]);
    contains_all(&text, &["cache.redis.hmac_key: ", "cache.redis.hmac_key_file", "MODERATO__CACHE__REDIS__HMAC_KEY"]);
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(exit, Some(2));
}

#[test]
fn flags_lie_over_the_environment_and_that_over_the_file() {
    let config = "limits: {max_in_flight: 1, max_post_bytes: 1, max_batch_posts: 1}\nkafka: {group: file}";
    let setup = Setup::new(config)
        .environment("MODERATO__LIMITS__MAX_POST_BYTES", "2")
        .environment("MODERATO__LIMITS__MAX_BATCH_POSTS", "2")
        .environment("MODERATO__KAFKA__OPTIONS__SECURITY_PROTOCOL", "SSL")
        .set("limits.max_batch_posts", 3);

    let (text, _) = said(&setup.verb("check").output(b""));

    let merged = text.split_once("configuration, merged:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let merged: Value = serde_json::from_str(merged).unwrap();
    let limits = ["max_in_flight", "max_post_bytes", "max_batch_posts"].map(|key| merged["limits"][key].clone());
    assert_eq!(limits, [json!(1), json!(2), json!(3)]);
    assert_eq!(merged["kafka"]["options"], json!({"security.protocol": "SSL"}));
    assert_eq!(merged["kafka"]["group"], "file");
}

#[test]
fn schema_prints_what_the_schema_files_hold() {
    let files = [
        "post.v1.json",
        "verdict.v1.json",
        "note.v1.json",
        "dead_letter.v1.json",
        "config.v1.json",
        "reconcile.v1.json",
        "dead_letters.v1.json",
        "asyncapi.yaml",
    ];
    for file in files {
        let name = file.split('.').next().unwrap();

        let output = moderato(&["schema", name], b"");

        let (printed, held) = (output.stdout, fs::read(repository("schemas").join(file)).unwrap());
        assert_eq!(printed.trim_ascii_end(), held.trim_ascii_end(), "{file}");
        assert_eq!(output.status.code(), Some(0));
    }
    assert_eq!(moderato(&["schema", "nonsense"], b"").status.code(), Some(2));
}

#[test]
fn an_absent_gpu_is_refused_and_no_verdict_comes_from_the_cpu() {
    for device in ["cuda", "tensorrt"] {
        // No machine has a GPU of this number, whatever else it has.
        let setup = bare().set("model.device", device).set("model.device_id", 97);

        let output = setup.verb("classify").output(b"A claim.\n");

        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()), "{errors}");
        contains_all(&errors.to_lowercase(), &[device]);
    }
}

#[test]
fn an_altered_model_file_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(model("tiny-fp32")).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let setup = || bare().argument("--model").argument(folder.path());
    assert_eq!(setup().verb("classify").output(b"A claim.\n").status.code(), Some(0));
    let weights = folder.path().join("weights.bin");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();

    let output = setup().verb("classify").output(b"A claim.\n");

    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()), "{errors}");
    contains_all(&errors, &["weights.bin", "altered"]);
}

#[test]
fn demo_judges_every_sample_post() {
    let (text, exit) = said(&bare().verb("demo").output(b""));

    let samples = fs::read_to_string(repository("src/samples.jsonl")).unwrap().lines().count();
    contains_all(&text, &[&format!("{samples} posts in "), "labels: ", "answered by the model ", "padding: "]);
    let rows = text.lines().filter(|line| line.contains("demo-")).count();
    assert_eq!((rows, exit), (samples, Some(0)), "{text}");
}

#[test]
fn demo_drafts_two_notes_about_flagged_samples_with_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let strict = folder.path().join("strict.md");
    let policy = fs::read_to_string(repository(crate::support::pool::POLICY)).unwrap();
    // The tiny model knows nothing: under this policy nearly every post is worth a look.
    fs::write(&strict, policy.replace("review: 0.40", "review: 0.01")).unwrap();
    let demo = bare().argument("--policy").argument(&strict);
    let demo = demo.argument("--notes-model").argument(model("tiny-draft"));

    let (text, exit) =
        said(&demo.argument("--notes-policy").argument(repository("model/policies/note.md")).verb("demo").output(b""));

    let drafts = text.lines().filter(|line| line.contains("  draft for a moderator (")).count();
    assert_eq!((drafts, exit), (2, Some(0)), "{text}");
    contains_all(&text, &["evidence [e1], ", "of them as the samples' author meant"]);
}

#[test]
fn demo_listens_for_a_producer_outside() {
    let mut demo = bare().argument("--listen").verb("demo").start();
    let line = demo.wait_for_log("Kafka protocol at ");
    let brokers = line.split("Kafka protocol at ").nth(1).unwrap().split_whitespace().next().unwrap();
    let outside = Kafka { brokers: brokers.trim_end_matches(',').to_owned(), test: test_name!() };
    demo.wait_for_log("listening: ");

    outside.produce("posts", [post("from-outside", "A claim from outside."), Outgoing::new("no post").key("k")]);

    let line = demo.wait_for_log("from-outside");
    assert!(line.contains("model"), "{line}");
    demo.wait_for_log("dead letter: not_json");
    demo.sigterm();
    assert_eq!(demo.wait(), 0);
}
