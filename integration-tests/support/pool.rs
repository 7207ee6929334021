//! A worker pool as its operator sees it: three topics, a group, and the config file that names them.

use std::collections::{BTreeMap, BTreeSet};

use tempfile::TempDir;

use super::kafka::Kafka;
use super::records::{Outgoing, Record};
use super::untold::OVERHEARD;
use super::worker::{Setup, Worker};
use super::{PATIENCE, eventually, model, repository};

/// The policy of the tests: its prompt is short, so that the tiny model's time goes to the posts.
pub const POLICY: &str = "model/policies/misinformation-short.md";

/// A worker with these is missed by its group soon after its death.
pub const MORTAL: [(&str, &str); 3] =
    [("kafka.session_timeout", "3s"), ("kafka.drain_timeout", "2s"), ("kafka.options.heartbeat.interval.ms", "500")];

/// One pool. A test that wants another topic replaces the field.
pub struct Pool<'a> {
    pub kafka: &'a Kafka,
    pub posts: String,
    pub verdicts: String,
    pub dead_letters: String,
    pub group: String,
    /// `kafka.delivery`.
    pub delivery: &'static str,
    /// Outlives its workers: what one was running when it ended is known to the next.
    pub state: TempDir,
}

/// A post that a worker can judge, keyed by its id; its text is to be told nowhere.
pub fn post(id: &str, text: &str) -> Outgoing {
    let text = format!("{text} ({OVERHEARD})");
    Outgoing::new(serde_json::json!({ "id": id, "text": text }).to_string()).key(id)
}

/// `count` different posts with the ids `PREFIX-0` and on.
pub fn posts(prefix: &str, count: usize) -> impl Iterator<Item = Outgoing> {
    (0..count).map(move |n| post(&format!("{prefix}-{n}"), &format!("Claim {n} of {prefix}: the bridge was closed.")))
}

/// The same texts whatever the pool, so that a second pool asks what the first one asked. The ids are the numbers.
pub fn same_posts(numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Outgoing> {
    numbers.into_iter().map(|n| post(&n.to_string(), &format!("Claim {n}: it was never tested.")))
}

/// The posts that these verdicts are about, each once.
pub fn judged(verdicts: &[Record]) -> BTreeSet<String> {
    let subject = |record: &Record| record.json()["subject"].as_str().map(str::to_owned);
    verdicts.iter().filter_map(subject).collect()
}

/// Who answered: `model`, `cache` or `twin`, and how often each.
pub fn answered_by(verdicts: &[Record]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for verdict in verdicts {
        *count.entry(verdict.json()["data"]["answered_by"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }
    count
}

/// `moderato classify` with the tiny model.
pub fn classify() -> Setup {
    let (model, policy) = (model("tiny-fp32"), repository(POLICY));
    let config = format!("model: {{path: {}, threads: 1}}\npolicy: {}\n", model.display(), policy.display());
    Setup::new(config).verb("classify")
}

/// Lines of JSON.
pub fn lines(output: &[u8]) -> Vec<serde_json::Value> {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}

/// The label scores, exactly as published.
pub fn scores(verdict: &Record) -> serde_json::Value {
    verdict.json()["data"]["verdict"]["scores"].clone()
}

impl<'a> Pool<'a> {
    /// Topics of so many partitions each, and a group, of this test alone.
    pub fn new(kafka: &'a Kafka, partitions: i32) -> Self {
        Self::named(kafka, "", partitions)
    }

    /// The same for a test with several pools.
    pub fn named(kafka: &'a Kafka, name: &str, partitions: i32) -> Self {
        let topic = |purpose: &str| kafka.topic(&format!("{name}{purpose}"), partitions);
        Self::of(kafka, topic, kafka.name(&format!("{name}group")))
    }

    /// The same with topics that are made in another way.
    pub fn of(kafka: &'a Kafka, topic: impl Fn(&str) -> String, group: String) -> Self {
        Self {
            kafka,
            posts: topic("posts"),
            verdicts: topic("verdicts"),
            dead_letters: topic("dead-letters"),
            group,
            delivery: "at_least_once",
            state: tempfile::Builder::new().prefix("moderato-state-").tempdir().expect("a temporary folder"),
        }
    }

    /// One pool for each way to deliver.
    pub fn of_each_delivery(kafka: &'a Kafka, partitions: i32) -> [Self; 2] {
        ["at_least_once", "exactly_once"]
            .map(|delivery| Self { delivery, ..Self::named(kafka, &format!("{delivery}-"), partitions) })
    }

    /// The config file: the tiny model, this pool's names, and commits that a test need not wait for.
    pub fn config(&self) -> String {
        let Self { kafka, posts, verdicts, dead_letters, group, delivery, state } = self;
        format!(
            "kafka:
  brokers: \"{brokers}\"
  group: {group}
  delivery: {delivery}
  topics: {{posts: {posts}, verdicts: {verdicts}, dead_letters: {dead_letters}}}
  commit_interval: 100ms
model: {{path: {model}, threads: 1}}
policy: {policy}
state_dir: {state}
",
            brokers = kafka.brokers,
            model = model("tiny-fp32").display(),
            policy = repository(POLICY).display(),
            state = state.path().display(),
        )
    }

    /// A worker of this pool, still to be started.
    pub fn setup(&self) -> Setup {
        Setup::new(self.config())
    }

    /// A worker with its answers in Redis, under a prefix, and as long a timeout as is allowed: on a busy machine a test
    /// that is about something else must not meet one.
    pub fn cached(&self, url: &str, prefix: &str) -> Setup {
        self.setup().with(&[
            ("cache.kind", "redis"),
            ("cache.redis.url", url),
            ("cache.redis.prefix", prefix),
            ("cache.redis.timeout", "500ms"),
        ])
    }

    /// A worker whose death the group notices soon.
    pub fn mortal(&self) -> Setup {
        self.setup().with(&MORTAL)
    }

    /// One of several at once, each with a name of its own; what it leaves open is soon given up.
    pub fn member(&self, name: &str) -> Setup {
        self.mortal().with(&[("kafka.worker_id", name), ("kafka.delivery_timeout", "8s")])
    }

    /// A worker of this pool.
    pub fn start(&self) -> Worker {
        self.setup().start()
    }

    pub fn post(&self, posts: impl IntoIterator<Item = Outgoing>) -> Vec<(i32, i64)> {
        self.kafka.produce(&self.posts, posts)
    }

    /// Waits for so many verdicts; more may follow.
    pub fn wait_for_verdicts(&self, count: usize) -> Vec<Record> {
        self.kafka.read(&self.verdicts, count, PATIENCE)
    }

    /// All verdicts, once the group has committed every offset.
    pub fn verdicts_of_all(&self) -> Vec<Record> {
        self.wait_until_all_is_committed();
        self.kafka.read_all(&self.verdicts)
    }

    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.kafka.committed(&self.group, &self.posts)
    }

    pub fn wait_until_all_is_committed(&self) {
        let mut ends = self.kafka.end_offsets(&self.posts);
        // A partition without posts has nothing to commit.
        ends.retain(|_, end| *end > 0);
        let what = format!("the group committed {ends:?}");
        eventually(&what, 2 * PATIENCE, || self.committed(), |committed| *committed == ends);
    }

    /// Records in a topic, of all partitions.
    pub fn count(&self, topic: &str) -> usize {
        let ends = self.kafka.end_offsets(topic);
        usize::try_from(ends.values().sum::<i64>()).unwrap_or_default()
    }
}
