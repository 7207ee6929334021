//! The chain over what a pool publishes, and `moderato audit verify`, which finds where it does not hold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kafka;
use crate::support::kafka::Kafka;
use crate::support::pool::{Pool, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually};

/// Records of the great test.
const MANY: usize = 100_000;
const CHAINS: i32 = 4;
/// Records produced at once: each has to be taken in time.
const SLICE: usize = 10_000;

/// A key, its public half, and the topic of checkpoints.
struct Signing {
    folder: TempDir,
    topic: String,
}

impl Signing {
    fn new(pool: &Pool<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "5eed".repeat(16)).unwrap();
        let topic = pool.kafka.topic(&format!("{}-checkpoints", pool.delivery), 1);
        let signing = Self { folder, topic };
        let printed = signing.with(pool.setup().verb("audit public-key")).output(b"");
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        std::fs::write(signing.public_key(), printed.stdout).unwrap();
        signing
    }

    fn public_key(&self) -> PathBuf {
        self.folder.path().join("public.pem")
    }

    /// A worker that links and signs.
    fn with(&self, setup: Setup) -> Setup {
        let key = self.folder.path().join("key").display().to_string();
        setup.with(&[
            ("evidence.chain", "true"),
            ("evidence.signing_key_file", &key),
            ("evidence.checkpoint_interval", "1s"),
            ("kafka.topics.checkpoints", &self.topic),
        ])
    }

    /// What an auditor sees who has the public key alone.
    fn verify(&self, pool: &Pool<'_>, arguments: &[&str]) -> (Value, Option<i32>) {
        let setup = pool.setup().verb("audit verify").argument("--json").argument("--public-key");
        let setup = setup.argument(self.public_key()).set("kafka.topics.checkpoints", &self.topic);
        arguments.iter().fold(setup, |setup, one| setup.argument(one)).report("audit.v1.json")
    }
}

fn chains(report: &Value) -> &Vec<Value> {
    report["chains"].as_array().unwrap()
}

fn total(report: &Value, key: &str) -> u64 {
    chains(report).iter().map(|chain| chain[key].as_u64().unwrap()).sum()
}

/// Judges all that is there, and ends.
fn judge(pool: &Pool<'_>, setup: Setup) {
    let worker = setup.start();
    pool.wait_until_all_is_committed();
    worker.stop();
}

#[test]
fn what_a_pool_publishes_is_one_chain_for_each_partition_and_signed_to_its_end() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 3) {
        let signing = Signing::new(&pool);
        pool.post(posts("p", 60));
        pool.post((0..5).map(|n| Outgoing::tombstone().key(format!("p-{n}"))));
        pool.post((0..7).map(|n| Outgoing::new(format!("no post {n}")).key(format!("{n}"))));
        judge(&pool, signing.with(pool.setup()));

        let (report, exit) = signing.verify(&pool, &[]);

        assert_eq!((exit, &report["whole"], &report["signed"]), (Some(0), &json!(true), &json!(true)), "{report}");
        assert_eq!((&report["records"], &report["linked"], total(&report, "links")), (&json!(65), &json!(65), 65));
        assert_eq!(total(&report, "repeats"), 0);
        for chain in chains(&report) {
            assert_eq!(chain["signed_to"], chain["last_seq"], "{chain}");
        }
        let unsigned = pool.setup().verb("audit verify").output(b"");
        let text = String::from_utf8(unsigned.stdout).unwrap();
        assert!(text.contains("no key was given") && text.ends_with("whole: every link holds\n"), "{text}");
    }
}

#[test]
fn workers_that_are_killed_begin_again_and_share_leave_one_chain_for_each_partition() {
    let kafka = kafka!();
    for pool in Pool::of_each_delivery(&kafka, 4) {
        let signing = Signing::new(&pool);
        let worker = |name| signing.with(pool.member(name)).set("limits.max_in_flight", 128).start();
        let judged = |count| eventually("verdicts", PATIENCE, || pool.count(&pool.verdicts), |seen| *seen >= count);
        pool.post(posts("before", 2000));
        let mut victim = worker("victim");
        judged(200);
        let steady = worker("steady");
        eventually("both take part", PATIENCE, || kafka.members(&pool.group), |members| *members == 2);
        judged(600);
        // Whoever dies before its first commit of a partition leaves no head there: the next begins a chain anew.
        eventually("each chain's head is committed", PATIENCE, || pool.committed().len(), |seen| *seen == 4);
        victim.kill9();
        let again = worker("victim");
        pool.post(posts("after", 1000));
        eventually("it takes part again", PATIENCE, || kafka.members(&pool.group), |members| *members == 2);
        pool.wait_until_all_is_committed();
        steady.stop();
        again.stop();

        let (report, exit) = signing.verify(&pool, &[]);

        assert_eq!((exit, &report["whole"]), (Some(0), &json!(true)), "{} {report}", pool.delivery);
        assert_eq!((chains(&report).len(), total(&report, "links")), (4, 3000), "{report}");
        assert!(chains(&report).iter().all(|chain| chain["anew"] == json!(false)), "{report}");
        let once = pool.delivery == "exactly_once";
        assert!(!once || total(&report, "repeats") == 0, "{report}");
        for chain in chains(&report) {
            assert_eq!(chain["signed_to"], chain["last_seq"], "{chain}");
        }
    }
}

#[test]
fn what_is_published_again_after_a_crash_is_told_as_repeated_and_not_as_tampering() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let signing = Signing::new(&pool);
    pool.post(posts("p", 100));
    judge(&pool, signing.with(pool.mortal()));
    pool.post(posts("q", 300));
    // No commit before the crash: all that it published is published again.
    let doomed = signing.with(pool.mortal()).set("kafka.commit_interval", "10m").set("limits.max_in_flight", 64);
    let mut victim = doomed.fault("after_produce", "150*off->return(kill)").start();
    assert_eq!(victim.wait(), 137, "{}", victim.log());
    let again = (pool.count(&pool.verdicts) - 100) as u64;
    assert!(again >= 150, "{again} published");
    judge(&pool, signing.with(pool.mortal()));

    let (report, exit) = signing.verify(&pool, &[]);

    assert_eq!((exit, &report["whole"], chains(&report).len()), (Some(0), &json!(true), 1), "{report}");
    assert_eq!((total(&report, "links"), total(&report, "repeats")), (400, again), "{report}");
    let chain = &chains(&report)[0];
    assert_eq!((&chain["repeats_that_differ"], &chain["signed_to"]), (&json!(0), &json!(399)), "{chain}");
    let once = pool.setup().verb("audit verify").argument("--json").set("kafka.delivery", "exactly_once");
    let (report, exit) = once.report("audit.v1.json");
    assert_eq!((exit, &report["first"][0]["kind"]), (Some(3), &json!("inserted")), "a pool that delivers exactly once");
}

/// A copy of the verdict topic while it is tampered with.
struct Copy {
    partitions: BTreeMap<i32, Vec<Record>>,
}

impl Copy {
    fn of(records: Vec<Record>) -> Self {
        let mut partitions = BTreeMap::<i32, Vec<Record>>::new();
        for record in records {
            partitions.entry(record.partition).or_default().push(record);
        }
        partitions.values_mut().for_each(|all| all.sort_by_key(|record| record.offset));
        Self { partitions }
    }

    /// Where the record of a post stands now.
    fn find(&self, source: (i32, i64)) -> (i32, usize) {
        let (partition, offset) = (source.0.to_string(), source.1.to_string());
        let is_it = |record: &Record| {
            record.header("moderato.source.partition") == Some(&partition)
                && record.header("moderato.source.offset") == Some(&offset)
        };
        let found = self.partitions.iter().find_map(|(number, all)| Some((*number, all.iter().position(is_it)?)));
        found.unwrap_or_else(|| panic!("no record of {source:?}"))
    }

    fn all(&mut self, partition: i32) -> &mut Vec<Record> {
        self.partitions.get_mut(&partition).unwrap()
    }

    fn at(&mut self, source: (i32, i64)) -> &mut Record {
        let (partition, index) = self.find(source);
        &mut self.all(partition)[index]
    }

    /// The next record of the same partition and chain.
    fn next_beside(&self, source: (i32, i64)) -> i64 {
        let partition = self.find(source).0;
        (source.1 + 1..).find(|offset| self.find((source.0, *offset)).0 == partition).unwrap()
    }

    fn publish(&self, kafka: &Kafka, topic: &str) {
        let outgoing: Vec<Outgoing> = self
            .partitions
            .values()
            .flatten()
            .map(|record| Outgoing {
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
                partition: Some(record.partition),
                timestamp: record.timestamp,
            })
            .collect();
        for slice in outgoing.chunks(SLICE) {
            kafka.produce(topic, slice.to_vec());
        }
    }
}

#[test]
fn an_edited_a_dropped_an_inserted_and_a_swapped_verdict_are_each_found_at_their_offset_among_100_000() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, CHAINS);
    let signing = Signing::new(&pool);
    let each = MANY / usize::try_from(CHAINS).unwrap();
    for partition in 0..CHAINS {
        let text = |n: usize| format!("Claim {}: the bridge was closed.", n % 50);
        for from in (0..each).step_by(SLICE) {
            let all = from..each.min(from + SLICE);
            pool.post(all.map(|n| post(&format!("{partition}-{n}"), &text(n)).partition(partition)));
        }
    }
    let worker = signing.with(pool.setup()).set("limits.max_in_flight", 4096).start();
    let look = || pool.committed().values().sum::<i64>();
    eventually("all is committed", 10 * PATIENCE, look, |sum| *sum == MANY as i64);
    worker.stop();
    let (report, exit) = signing.verify(&pool, &[]);
    assert_eq!((exit, total(&report, "links"), total(&report, "repeats")), (Some(0), MANY as u64, 0), "{report}");

    let mut copy = Copy::of(kafka.read(&pool.verdicts, MANY, 2 * PATIENCE));
    // One kind of tampering for each chain, far from its ends.
    let middle = i64::try_from(each / 2).unwrap();
    let (edited, dropped, inserted, swapped) = ((0, middle), (1, middle + 111), (2, middle - 222), (3, middle + 333));
    let other = (3, copy.next_beside(swapped));
    let edit = |record: &mut Record| {
        let value = String::from_utf8(record.value.clone().unwrap()).unwrap();
        let changed = value.replacen("\"action\":\"", "\"action\":\"x", 1);
        assert_ne!(changed, value, "the action is in the verdict");
        record.value = Some(changed.into_bytes());
    };
    edit(copy.at(edited));
    let (partition, index) = copy.find(inserted);
    let mut forged = copy.all(partition)[index].clone();
    edit(&mut forged);
    copy.all(partition).insert(index + 1, forged);
    let (partition, index) = copy.find(swapped);
    let (_, beside) = copy.find(other);
    copy.all(partition).swap(index, beside);
    let (partition, index) = copy.find(dropped);
    copy.all(partition).remove(index);
    let tampered = kafka.topic("tampered", CHAINS);
    copy.publish(&kafka, &tampered);

    let (report, exit) = signing.verify(&pool, &["--topic", &tampered]);

    assert_eq!((exit, &report["whole"], &report["faults"]), (Some(3), &json!(false), &json!(4)), "{report}");
    let place = |(partition, index): (i32, usize)| json!({"partition": partition, "offset": index});
    let inserted_at = copy.find(inserted);
    let wanted = [
        ("altered", place(copy.find(edited)), Some(edited.1)),
        ("removed", place(copy.find((1, dropped.1 + 1))), Some(dropped.1)),
        ("inserted", place((inserted_at.0, inserted_at.1 + 1)), Some(inserted.1)),
        ("reordered", place(copy.find(other)), None),
    ];
    let mut found = chains(&report).clone();
    found.sort_by_key(|chain| chain["partition"].as_i64());
    for (chain, (kind, at, source)) in found.iter().zip(wanted) {
        let fault = &chain["fault"];
        assert_eq!((&fault["kind"], &fault["at"]), (&json!(kind), &at), "{fault}");
        if let Some(source) = source {
            assert_eq!(fault["source"], json!({"from": source, "to": source}), "{fault}");
        }
    }
    let text = signing.folder.path().join("public.pem");
    let setup = pool.setup().verb("audit verify").argument("--public-key").argument(text);
    let setup = setup.set("kafka.topics.checkpoints", &signing.topic).argument("--topic").argument(&tampered);
    let text = String::from_utf8(setup.output(b"").stdout).unwrap();
    for part in ["altered at", "removed at", "inserted at", "reordered at", "NOT whole"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_end_that_was_cut_off_and_a_forged_checkpoint_are_found_by_the_signature() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let signing = Signing::new(&pool);
    pool.post(posts("p", 50));
    judge(&pool, signing.with(pool.setup()));
    let mut copy = Copy::of(kafka.read_all(&pool.verdicts));
    copy.all(0).truncate(40);
    let cut = kafka.topic("cut", 1);
    copy.publish(&kafka, &cut);

    let (report, exit) = signing.verify(&pool, &["--topic", &cut]);

    let fault = &chains(&report)[0]["fault"];
    assert_eq!(
        (exit, &fault["kind"], &fault["seq"], &fault["records"]),
        (Some(3), &json!("removed"), &json!(40), &json!(10))
    );
    assert_eq!(fault["at"], json!({"partition": 0, "offset": 39}), "behind the last one that is left");
    let blind = pool.setup().verb("audit verify").argument("--json").argument("--topic").argument(&cut);
    assert_eq!(blind.report("audit.v1.json").1, Some(0), "nothing but a signature tells");

    let mut forged = kafka.read_all(&signing.topic).pop().unwrap().json();
    forged["seq"] = json!(39);
    kafka.produce(&signing.topic, [Outgoing::new(forged.to_string()).key("k")]);
    let (report, exit) = signing.verify(&pool, &[]);
    let fault = &report["first"][0];
    assert_eq!((exit, &fault["kind"]), (Some(3), &json!("forged_checkpoint")), "{report}");
    assert!(fault["what"].as_str().unwrap().contains("its signature does not hold"), "{fault}");
}

#[test]
fn what_retention_deleted_is_told_and_is_no_tampering() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let signing = Signing::new(&pool);
    pool.post(posts("p", 100));
    judge(&pool, signing.with(pool.setup()));
    kafka.delete_before(&pool.verdicts, 0, 20);

    let (report, exit) = signing.verify(&pool, &[]);

    assert_eq!((exit, &report["whole"], total(&report, "cut")), (Some(0), &json!(true), 20), "{report}");
}

#[test]
fn in_binary_mode_a_link_holds_for_the_attributes_in_the_headers_too() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let signing = Signing::new(&pool);
    pool.post(posts("p", 20));
    judge(&pool, signing.with(pool.setup()).set("kafka.cloudevents", "binary"));
    let (report, exit) = signing.verify(&pool, &[]);
    assert_eq!((exit, &report["whole"], total(&report, "links")), (Some(0), &json!(true), 20), "{report}");

    let mut copy = Copy::of(kafka.read_all(&pool.verdicts));
    let subject = |(name, _): &&mut (String, Option<Vec<u8>>)| name == "ce_subject";
    copy.all(0)[7].headers.iter_mut().find(subject).unwrap().1 = Some(b"p-8".to_vec());
    let tampered = kafka.topic("tampered", 1);
    copy.publish(&kafka, &tampered);
    let (report, exit) = signing.verify(&pool, &["--topic", &tampered]);

    let fault = &chains(&report)[0]["fault"];
    assert_eq!((exit, &fault["kind"], &fault["at"]["offset"]), (Some(3), &json!("altered"), &json!(7)), "{fault}");
}
