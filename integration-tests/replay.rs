//! A range judged again: exactly the range, to nothing live, and after a crash exactly the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kafka;
use crate::reconcile::peak_memory;
use crate::support::kafka::Kafka;
use crate::support::pool::{POLICY, Pool, judged, lines, post, posts, scores};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::{Setup, Worker};
use crate::support::{PATIENCE, eventually, model, repository};

/// Little in flight and many commits, so that a process can be ended in the middle.
const SLOW: [(&str, &str); 3] =
    [("limits.max_in_flight", "16"), ("limits.max_batch_posts", "1"), ("kafka.commit_interval", "20ms")];

/// A pool, and a topic for what is judged again.
struct Stage<'a> {
    pool: Pool<'a>,
    audit: String,
    folder: TempDir,
}

impl<'a> Stage<'a> {
    fn new(kafka: &'a Kafka, partitions: i32) -> Self {
        Self::of(kafka, Pool::new(kafka, partitions))
    }

    fn of(kafka: &'a Kafka, pool: Pool<'a>) -> Self {
        let audit = kafka.topic(&format!("{}-audit", pool.delivery), 2);
        Self { pool, audit, folder: tempfile::tempdir().unwrap() }
    }

    fn setup(&self, id: &str) -> Setup {
        self.pool.mortal().verb("replay").argument("--id").argument(id)
    }

    /// To the audit topic.
    fn to_topic(&self, id: &str) -> Setup {
        self.setup(id).argument("--to-topic").argument(&self.audit)
    }

    /// To a file.
    fn to_file(&self, id: &str) -> Setup {
        self.setup(id).argument("--output").argument(self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("verdicts.jsonl")
    }

    fn audited(&self) -> Vec<Record> {
        self.pool.kafka.read_all(&self.audit)
    }

    fn committed(&self, id: &str) -> BTreeMap<i32, i64> {
        self.pool.kafka.committed(&format!("{}.replay.{id}", self.pool.group), &self.pool.posts)
    }
}

fn place(setup: Setup, from: &str, to: &str) -> Setup {
    setup.argument("--from").argument(from).argument("--to").argument(to)
}

/// Runs it to its end; the last event, and the exit code.
fn run(setup: Setup) -> (Value, Option<i32>) {
    let output = setup.argument("--progress").argument("json").output(b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let event = lines(&output.stdout).pop().unwrap_or_else(|| panic!("no summary: {said}"));
    (event, output.status.code())
}

/// What it says on standard error, and the exit code.
fn refusal(setup: Setup) -> (String, Option<i32>) {
    let output = setup.output(b"");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

fn source(record: &Record) -> (i32, i64) {
    let number = |name| record.header(name).and_then(|text| text.parse::<i64>().ok());
    let (partition, offset) = (number("moderato.source.partition"), number("moderato.source.offset"));
    (i32::try_from(partition.unwrap()).unwrap(), offset.unwrap())
}

fn sources(records: &[Record]) -> BTreeSet<(i32, i64)> {
    records.iter().map(source).collect()
}

fn sorted(kafka: &Kafka, topic: &str) -> Vec<Record> {
    let mut records = kafka.read_all(topic);
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn in_file(path: &Path) -> Vec<Value> {
    lines(&std::fs::read(path).unwrap_or_default())
}

/// Partition and offset of every line.
fn places(lines: &[Value]) -> Vec<(i64, i64)> {
    let at = |line: &Value| {
        let at =
            line.pointer("/data/input/kafka").or(line.pointer("/error/kafka")).or(line.pointer("/tombstone/kafka"));
        at.map(|at| (at["partition"].as_i64().unwrap(), at["offset"].as_i64().unwrap()))
    };
    lines.iter().map(|line| at(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn whole(partitions: i64, offsets: i64) -> Vec<(i64, i64)> {
    (0..partitions).flat_map(|partition| (0..offsets).map(move |offset| (partition, offset))).collect()
}

/// So many posts in each partition.
fn spread(pool: &Pool<'_>, each: usize) {
    let partitions = pool.kafka.end_offsets(&pool.posts).len();
    let number = |n: usize| i32::try_from(n % partitions).unwrap();
    pool.post(posts("p", each * partitions).enumerate().map(|(n, post)| post.partition(number(n))));
}

#[test]
fn exactly_the_range_is_judged_and_every_record_says_that_it_is_a_replay() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 2);
    spread(&stage.pool, 50);
    stage.pool.post([Outgoing::new("no json").key("k").partition(0), Outgoing::tombstone().key("p-0").partition(1)]);
    let live = stage.pool.start();
    stage.pool.wait_until_all_is_committed();
    live.stop();
    let before = [&stage.pool.verdicts, &stage.pool.dead_letters].map(|topic| sorted(&kafka, topic));

    let (summary, exit) = run(place(stage.to_topic("r1"), "0:10,1:20", "0:51,1:40"));

    let audited = stage.audited();
    let expected = (10..51).map(|n| (0, n)).chain((20..40).map(|n| (1, n)));
    let letters: Vec<_> = audited.iter().filter(|record| record.header("moderato.error.reason").is_some()).collect();
    let verdicts: Vec<Record> =
        audited.iter().filter(|record| record.header("moderato.verdict_id").is_some()).cloned().collect();
    assert_eq!((letters.len(), letters[0].value.as_deref()), (1, Some(b"no json".as_slice())));
    assert_eq!(sources(&verdicts), expected.filter(|place| *place != (0, 50)).collect());
    assert_eq!((audited.len(), exit), (61, Some(0)));
    for record in &audited {
        assert_eq!((record.header("moderato.mode"), record.header("moderato.replay_id")), (Some("replay"), Some("r1")));
    }
    let live: BTreeMap<_, _> = before[0].iter().filter(|it| it.value.is_some()).map(|it| (source(it), it)).collect();
    for verdict in &verdicts {
        let live = live[&source(verdict)];
        assert_eq!(verdict.json()["data"]["replay"], json!({"id": "r1"}));
        assert_eq!(live.json()["data"].get("replay"), None);
        assert_eq!((scores(verdict), &verdict.json()["id"]), (scores(live), &live.json()["id"]));
    }
    assert_eq!(
        (&summary["verdicts"], &summary["dead_letters"], &summary["finished"]),
        (&json!(60), &json!(1), &json!(true))
    );
    let counted: u64 = summary["verdicts_by_label"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|by| by.as_object().unwrap().values())
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(counted, 60, "{summary}");
    assert_eq!([&stage.pool.verdicts, &stage.pool.dead_letters].map(|topic| sorted(&kafka, topic)), before);
}

#[test]
fn a_replay_killed_in_the_middle_goes_on_with_exactly_the_rest_and_nothing_is_twice_in_its_file() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 3);
    spread(&stage.pool, 200);
    let mut victim = stage.to_file("r1").with(&SLOW).fault("after_produce", "150*off->return(kill)").start();
    assert_eq!(victim.wait(), 137, "{}", victim.log());
    let (written, committed) = (in_file(&stage.file()).len(), stage.committed("r1").values().sum::<i64>());
    assert!((150..600).contains(&written) && committed < 600, "{written} lines, {committed} committed");
    // What comes later is not of the range, and a torn line is not one.
    spread(&stage.pool, 10);
    let mut torn = std::fs::read(stage.file()).unwrap();
    let whole_lines = torn.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    torn.truncate(whole_lines);
    torn.extend_from_within(..100);
    std::fs::write(stage.file(), torn).unwrap();

    let (summary, exit) = run(stage.to_file("r1"));

    let mut places = places(&in_file(&stage.file()));
    places.sort_unstable();
    assert_eq!((places, exit), (whole(3, 200), Some(0)));
    assert_eq!((&summary["resumed"], summary["verdicts"].as_u64()), (&json!(true), Some(600 - written as u64)));
    let (again, exit) = run(stage.to_file("r1"));
    assert_eq!((again["verdicts"].as_u64(), exit, in_file(&stage.file()).len()), (Some(0), Some(0), 600));
}

#[test]
fn a_replay_to_a_topic_killed_in_the_middle_leaves_no_post_out_in_either_delivery() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 3) {
        let stage = Stage::of(&kafka, pool);
        spread(&stage.pool, 100);
        let setup = || stage.to_topic("r1").with(&[("kafka.worker_id", "one"), ("kafka.delivery_timeout", "8s")]);
        let mut victim = setup().with(&SLOW).fault("before_produce", "100*off->return(kill)").start();
        assert_eq!(victim.wait(), 137, "{}", victim.log());
        spread(&stage.pool, 5);

        let (_, exit) = run(setup());

        let audited = stage.audited();
        let ids: BTreeSet<_> = audited.iter().map(|verdict| verdict.header("moderato.verdict_id").unwrap()).collect();
        let range: BTreeSet<_> = (0..3).flat_map(|p| (0..100).map(move |o| (p, o))).collect();
        assert_eq!((sources(&audited), ids.len(), exit), (range, 300, Some(0)));
        if stage.pool.delivery == "exactly_once" {
            assert_eq!(audited.len(), 300);
        }
    }
}

#[test]
fn processes_share_a_replay_and_the_one_that_lives_takes_over_what_the_other_left() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 4);
    spread(&stage.pool, 300);
    let share = |name: &str| stage.to_topic("r1").with(&SLOW).set("kafka.worker_id", name);
    let mut first: Worker = share("first").argument("--rate").argument("100").start();
    first.wait_for_log("partitions assigned");
    let mut second = share("second").argument("--rate").argument("100").start();
    second.wait_for_log("partitions assigned");
    let group = format!("{}.replay.r1", stage.pool.group);
    eventually("both share it", PATIENCE, || kafka.members(&group), |members| *members == 2);
    eventually("both judge", PATIENCE, || stage.audited().len(), |count| *count > 20);
    first.kill9();

    assert_eq!(second.wait_within(2 * PATIENCE), 0, "{}", second.log());
    let audited = stage.audited();
    let range: BTreeSet<_> = (0..4).flat_map(|p| (0..300).map(move |o| (p, o))).collect();
    assert_eq!(sources(&audited), range);
    assert!(audited.len() < 1200 + 200, "{} records: far more than was in flight came twice", audited.len());
}

#[test]
fn live_topics_are_refused_before_anything_is_judged() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 1);
    stage.pool.post(posts("p", 3));
    let Pool { posts: input, verdicts, dead_letters, .. } = &stage.pool;
    for (key, topic) in [("posts", input), ("verdicts", verdicts), ("dead_letters", dead_letters)] {
        let (said, exit) = refusal(stage.setup("r1").argument("--to-topic").argument(topic));
        assert!(said.contains(&format!("`{topic}` is also kafka.topics.{key}, a live topic")), "{said}");
        assert_eq!(exit, Some(2));
    }
    let other = Pool::named(&kafka, "other-", 1);
    kafka.produce(&other.verdicts, [Outgoing::new("{}").key("k")]);
    let (said, exit) = refusal(stage.setup("r1").argument("--to-topic").argument(&other.verdicts));
    assert!(said.contains("holds records that no replay wrote (partition 0, offset 0)") && exit == Some(2), "{said}");
    let (said, exit) = refusal(stage.setup("r1").argument("--to-topic").argument("nowhere"));
    assert!(
        said.contains("`nowhere` does not exist") && said.contains("kafka.topics.audit") && exit == Some(1),
        "{said}"
    );
    let (said, exit) = refusal(stage.setup("r1"));
    assert!(said.contains("set kafka.topics.audit, or say --to-topic or --output") && exit == Some(2), "{said}");
    assert_eq!(stage.committed("r1"), BTreeMap::new());
}

#[test]
fn only_the_posts_that_are_named_are_judged_and_the_others_are_passed_over() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 2) {
        let stage = Stage::of(&kafka, pool);
        stage.pool.post(posts("p", 80));
        stage.pool.post([Outgoing::new("no json"), Outgoing::tombstone().key("p-3")]);
        let ids = stage.folder.path().join("ids");
        std::fs::write(&ids, "p-3\n p-77 \n\nunknown\n").unwrap();

        let (summary, exit) = run(stage.to_topic("r1").argument("--ids").argument(&ids));

        let audited = stage.audited();
        assert_eq!(judged(&audited), ["p-3", "p-77"].map(str::to_owned).into());
        assert_eq!((audited.len(), &summary["passed_over"], exit), (2, &json!(80), Some(0)));
        assert_eq!(stage.committed("r1"), kafka.end_offsets(&stage.pool.posts));
    }
}

#[test]
fn posts_from_a_file_are_judged_without_kafka_and_a_killed_run_goes_on_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("posts.jsonl"), folder.path().join("out.jsonl"));
    let mut text: String =
        (0..400).map(|n| json!({"id": format!("p-{n}"), "text": format!("Claim {n}.")}).to_string() + "\n").collect();
    text += "no json\n";
    std::fs::write(&input, text).unwrap();
    let setup = |id: &str| {
        let config = format!(
            "model: {{path: {}, threads: 1}}\npolicy: {}\nstate_dir: {}\n",
            model("tiny-fp32").display(),
            repository(POLICY).display(),
            folder.path().display()
        );
        let setup = Setup::new(config).verb("replay").argument("--id").argument(id);
        setup.argument("--input").argument(&input).argument("--output").argument(&output)
    };
    let slow = [("limits.max_in_flight", "16"), ("limits.max_batch_posts", "1")];
    let mut victim = setup("r1").with(&slow).fault("after_produce", "100*off->return(kill)").start();
    assert_eq!(victim.wait(), 137, "{}", victim.log());
    let written = in_file(&output).len();
    assert!((100..400).contains(&written), "{written}");

    let (summary, exit) = run(setup("r1"));

    let lines = in_file(&output);
    assert_eq!((places(&lines), exit), (whole(1, 401), Some(0)));
    assert_eq!(summary["verdicts"].as_u64(), Some(400 - written as u64));
    assert_eq!((&lines[7]["subject"], &lines[7]["data"]["replay"]["id"]), (&json!("p-7"), &json!("r1")));
    assert_eq!(lines[400]["error"]["reason"], "not_json");
    let (said, exit) = refusal(setup("r2"));
    assert!(said.contains("of replay `r1`; name another file, or go on with --id r1") && exit == Some(2), "{said}");
}

#[test]
fn gaps_of_retention_and_of_transactions_are_told_and_do_not_hold_the_end() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 1);
    stage.pool.post(posts("p", 10));
    kafka.produce_in_transaction(&stage.pool.posts, posts("kept", 3), true); // 10 to 12, and a marker at 13
    kafka.produce_in_transaction(&stage.pool.posts, posts("aborted", 4), false); // 14 to 17, and a marker at 18
    kafka.delete_before(&stage.pool.posts, 0, 5);

    let (summary, exit) = run(stage.to_topic("r1").argument("--from").argument("0:2"));

    assert_eq!((sources(&stage.audited()), exit), ((5..13).map(|offset| (0, offset)).collect(), Some(0)));
    assert_eq!(summary["deleted_by_retention"], json!([{"partition": 0, "from": 2, "to": 5}]));
    assert_eq!(summary["offsets_without_record"], json!(3 + 6));
    assert_eq!(stage.committed("r1"), [(0, 19)].into());
}

#[test]
fn an_answer_of_the_cache_is_used_only_where_that_is_asked_for() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 1);
    // One in flight at a time, so that no twin answers.
    stage.pool.post((0..30).map(|n| post(&format!("p-{n}"), "The same claim.")));
    let one = [("limits.max_in_flight", "1"), ("limits.max_batch_posts", "1"), ("cache.kind", "in_process")];

    let (off, _) = run(stage.to_topic("off").with(&one));
    let (own, _) = run(stage.to_topic("own").with(&one).argument("--cache").argument("own"));

    assert_eq!((&off["cached"], &own["cached"]), (&json!(0), &json!(29)));
}

#[test]
fn what_differs_from_the_live_verdicts_is_counted_and_is_exit_code_3() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 1);
    spread(&stage.pool, 20);
    let live = stage.pool.start();
    stage.pool.wait_until_all_is_committed();
    live.stop();
    stage.pool.post(posts("later", 2));
    let compared = |setup: Setup| {
        let (summary, exit) = run(setup.argument("--compare"));
        (summary["compared"].clone(), exit)
    };
    let same = json!({"same": 20, "not_found": 2, "action_differs": 0, "label_differs": 0, "score_differs": 0});
    assert_eq!(compared(stage.to_topic("same")), (same, Some(0)));

    let policy = stage.folder.path().join("strict.md");
    let text = std::fs::read_to_string(repository(POLICY)).unwrap();
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("thresholds:")).collect::<Vec<_>>().join("\n");
    std::fs::write(&policy, kept.replace("\n    answer:", "\n    thresholds: {review: 0, act: 0}\n    answer:"))
        .unwrap();
    let strict = stage.to_topic("strict").argument("--policy").argument(&policy);
    let different = json!({"same": 0, "not_found": 2, "action_differs": 20, "label_differs": 0, "score_differs": 0});
    assert_eq!(compared(strict), (different, Some(3)));
}

#[test]
fn a_replay_waits_while_the_live_pool_is_behind_and_goes_on_when_it_is_not() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 1);
    stage.pool.post(posts("p", 30));
    kafka.commit(&stage.pool.group, &stage.pool.posts, &[(0, 5)]);
    let setup = stage.to_topic("r1").argument("--yield-to-lag").argument("10");
    let mut replay = setup.argument("--progress").argument("json").start();
    replay.wait_for_log(r#""waits_for_live":true"#);
    assert_eq!((stage.audited().len(), stage.committed("r1")), (0, [(0, 0)].into()));

    kafka.commit(&stage.pool.group, &stage.pool.posts, &[(0, 25)]);

    assert_eq!((replay.wait(), stage.audited().len()), (0, 30));
}

#[test]
fn a_range_is_gone_on_with_by_its_name_and_another_range_under_that_name_is_refused() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 2) {
        let stage = Stage::of(&kafka, pool);
        spread(&stage.pool, 30);
        let setup = |from: Option<&str>, to: Option<&str>| {
            let named = stage.to_topic("r1").set("kafka.worker_id", "one");
            let from = from.into_iter().fold(named, |setup, from| setup.argument("--from").argument(from));
            to.into_iter().fold(from, |setup, to| setup.argument("--to").argument(to))
        };
        let mut victim =
            setup(Some("1h"), Some("0:25,1:20")).with(&SLOW).fault("before_produce", "10*off->return(kill)").start();
        assert_eq!(victim.wait(), 137, "{}", victim.log());
        let before = stage.committed("r1");

        for (from, to) in
            [(Some("0:3"), None), (None, Some("end")), (Some("2h"), Some("0:25,1:20")), (None, Some("0:25,1:21"))]
        {
            let (said, exit) = refusal(setup(from, to));
            let told = "has its range already: --from 1h --to 0:25,1:20, which ends at 0:25,1:20; leave --from and --to out to go on with it, or take another --id";
            assert!(said.contains(told) && said.contains(".replay.r1") && exit == Some(2), "{said}");
        }
        assert_eq!(stage.committed("r1"), before);

        for (from, to) in [(None, Some("1:20,0:25")), (Some("1h"), Some("0:25,1:20")), (None, None)] {
            let (summary, exit) = run(setup(from, to));
            assert_eq!((&summary["finished"], &summary["resumed"], exit), (&json!(true), &json!(true), Some(0)));
        }
        assert_eq!(stage.committed("r1"), [(0, 25), (1, 20)].into());
        let range = (0..25).map(|n| (0, n)).chain((0..20).map(|n| (1, n))).collect();
        assert_eq!(sources(&stage.audited()), range);
    }
}

#[test]
fn the_summary_says_how_much_of_what_was_left_this_process_did() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 2);
    spread(&stage.pool, 200);
    kafka.commit(&stage.pool.group, &stage.pool.posts, &[(0, 0), (1, 0)]);
    let share = |name: &str| {
        let setup = stage.to_topic("r1").with(&SLOW).set("kafka.worker_id", name);
        setup.argument("--yield-to-lag").argument("10").argument("--progress").argument("json").start()
    };
    let (mut first, mut second) = (share("first"), share("second"));
    // While the live group is behind, nothing is judged: they begin when each has its partition.
    let has_one = |worker: &Worker| {
        let log = worker.log();
        let last = log.lines().rev().find(|line| line.contains("partitions assigned")).map(str::to_owned);
        last.is_some_and(|line| ["\"[0]\"", "\"[1]\""].iter().any(|one| line.contains(one)))
    };
    let both = || kafka.members(&format!("{}.replay.r1", stage.pool.group));
    eventually("both are members", PATIENCE, both, |members| *members == 2);
    eventually(
        "one of them is given a partition by the other",
        PATIENCE,
        || has_one(&first) || has_one(&second),
        |it| *it,
    );
    kafka.commit(&stage.pool.group, &stage.pool.posts, &[(0, 200), (1, 200)]);

    assert_eq!([first.wait_within(2 * PATIENCE), second.wait_within(2 * PATIENCE)], [0, 0]);

    let done = [&first, &second].map(|worker| {
        let log = worker.log();
        let line = log.lines().find(|line| line.contains(r#""event":"ended""#)).unwrap();
        let summary: Value = serde_json::from_str(line).unwrap();
        let (verdicts, left) = (summary["verdicts"].as_u64().unwrap(), summary["left_at_start"].as_u64().unwrap());
        assert!(0 < verdicts && verdicts < 400 && verdicts < left, "{summary}");
        verdicts
    });
    assert_eq!(done.iter().sum::<u64>(), stage.audited().len() as u64);
    assert_eq!(sources(&stage.audited()).len(), 400);
}

#[test]
fn posts_of_cloud_events_in_binary_mode_are_judged_again_as_they_were() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 2);
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", "e"),
        ("ce_source", "s"),
        ("ce_type", "t"),
        ("content-type", "application/json"),
    ];
    let binary =
        |post: Outgoing| attributes.iter().fold(post, |post, (name, value)| post.header(name, Some(value.as_bytes())));
    stage.pool.post(posts("p", 40).map(binary));
    let settings = [("kafka.cloudevents", "binary")];
    let live = stage.pool.setup().with(&settings).start();
    stage.pool.wait_until_all_is_committed();
    live.stop();
    let ids = stage.folder.path().join("ids");
    std::fs::write(&ids, "p-3\np-7\n").unwrap();

    let (all, exit) = run(stage.to_topic("all").with(&settings).argument("--compare"));
    assert_eq!((&all["compared"]["same"], &all["dead_letters"], exit), (&json!(40), &json!(0), Some(0)));
    let (some, exit) = run(stage.to_topic("some").with(&settings).argument("--ids").argument(&ids));
    assert_eq!((&some["verdicts"], &some["passed_over"], exit), (&json!(2), &json!(38), Some(0)));

    let audited = stage.audited();
    assert_eq!(audited.len(), 42);
    for record in &audited {
        assert_eq!(record.header("ce_type"), Some("dev.moderato.verdict.v1"));
        assert_eq!(record.header("moderato.mode"), Some("replay"));
        assert_eq!(record.header("ce_subject"), record.json()["input"]["post_id"].as_str());
    }
}

/// KiB of memory that the process has now; 0 once it is gone.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// How far a log says that the replay has come.
fn done(log: &str) -> u64 {
    let line = log.lines().rev().find(|line| line.contains(r#""event":"progress""#));
    let event: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
    event.and_then(|event| event["done"].as_u64()).unwrap_or_default()
}

/// A backlog whose every text is there ten times, those ten close to each other, judged in one sitting: without a cache and
/// with one. Hands back the memory, in KiB, after the first fifth and at the end, for each.
fn nine_of_ten_are_twins(kafka: &Kafka, count: usize) -> [(u64, u64); 2] {
    const CHUNK: usize = 50_000;
    let stage = Stage::new(kafka, 4);
    for first in (0..count).step_by(CHUNK) {
        let numbers = first..count.min(first + CHUNK);
        stage.pool.post(numbers.map(|n| {
            let text = format!("Claim {}: it was never tested.", n / 10);
            post(&format!("p-{n}"), &text).partition(i32::try_from(n % 4).unwrap())
        }));
    }
    let cores = std::thread::available_parallelism().unwrap();
    ["off", "own"].map(|cache| {
        let started = std::time::Instant::now();
        let setup = stage.to_topic(cache).argument("--cache").argument(cache);
        let mut replay = setup.argument("--progress").argument("json").start();
        let (mut peak, mut early, mut late) = (0, 0, 0);
        let look = || {
            let (log, now) = (replay.log(), memory(replay.pid()));
            peak = peak.max(peak_memory(replay.pid()));
            late = if now > 0 { now } else { late };
            if early == 0 && done(&log) >= count as u64 / 5 {
                early = now;
            }
            log.lines().find(|line| line.contains(r#""event":"ended""#)).map(str::to_owned)
        };
        let summary = eventually("all of it is judged", 120 * PATIENCE, look, Option::is_some).unwrap();
        let took = started.elapsed();
        eprintln!(
            "cache {cache}, {cores} cores: {count} posts in {took:.1?}, {:.0} posts/s, {} MB after a fifth, {} MB at the end, {} MB at most: {summary}",
            count as f64 / took.as_secs_f64(),
            early >> 10,
            late >> 10,
            peak >> 10
        );
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!((summary["verdicts"].as_u64(), replay.wait()), (Some(count as u64), 0));
        assert_eq!(summary["left_at_start"].as_u64(), Some(count as u64));
        (early, late)
    })
}

#[test]
fn a_backlog_nine_of_ten_of_which_are_twins_is_judged_in_one_sitting() {
    let kafka = kafka!();
    nine_of_ten_are_twins(&kafka, 4_000);
}

/// A measurement, not a promise of the suite: `make replay-million`.
#[test]
#[ignore = "a million posts take minutes; `make replay-million`"]
fn a_million_posts_nine_of_ten_of_them_twins_are_judged_in_one_sitting_and_memory_stays_flat() {
    let kafka = kafka!();
    let [off, own] = nine_of_ten_are_twins(&kafka, 1_000_000);
    // The kept answers are the only thing that may grow: at most `cache.max_entries` of them.
    for ((early, late), answers) in [(off, 0), (own, 96 << 10)] {
        assert!(early > 0 && late <= early + (32 << 10) + answers, "{early} KiB, then {late} KiB");
    }
}
