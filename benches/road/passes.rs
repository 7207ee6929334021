//! What every table is measured with: posts put on a topic, a worker over them, and the bare loop beside it.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::process::{Clocks, Pass};
use crate::support::records::Outgoing;
use crate::support::worker::{Setup, Worker};
use crate::{Bench, KNOWN, PARTITIONS, PATIENCE, SLICE, scattered, support};

impl Bench {
    pub(super) fn judge(&self, group: &str, posts: &str, verdicts: &str) -> Setup {
        let default_model = support::model("misinformation").display().to_string();
        let policy = support::repository("model/policies/misinformation.yaml").display().to_string();
        let settings = [("model.path", default_model), ("model.precision", "int8".to_owned()), ("policy", policy)];
        let worker = self.worker(group, posts, verdicts, group).set("cache.kind", "off");
        settings.into_iter().fold(worker, |worker, (key, value)| worker.set(key, value))
    }

    /// From the first to the last verdict.
    pub(super) fn road(&self, posts: &str, count: usize, group: &str, prefix: &str) -> Pass {
        self.road_with(posts, count, group, prefix, |worker| worker)
    }

    pub(super) fn road_with(
        &self,
        posts: &str,
        count: usize,
        group: &str,
        prefix: &str,
        set: impl Fn(Setup) -> Setup,
    ) -> Pass {
        let verdicts = self.kafka.topic(group, PARTITIONS);
        let worker = set(self.worker(group, posts, &verdicts, prefix).set("limits.max_in_flight", 4096)).start();
        self.wait_for(&verdicts, 1);
        let done = self.verdicts(&verdicts);
        let clocks = Clocks::read(worker.pid());
        self.wait_for(&verdicts, count);
        finish(&clocks, worker, count - done)
    }

    /// Consume, produce a value of the same size as a verdict, await the reports, commit: no decoding, no judging.
    pub(super) fn bare_loop(&self, posts: &str, name: &str, bytes: usize) -> Pass {
        let (count, _) = KNOWN;
        let to = self.kafka.topic(name, PARTITIONS);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", &to)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()
            .expect("a consumer");
        let producer: ThreadedProducer<DefaultProducerContext> = self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("compression.codec", "zstd")
            .set("compression.level", "1")
            .create()
            .expect("a producer");
        consumer.subscribe(&[posts]).expect("a subscription");
        let mut value = vec![b'x'; bytes];
        let mut seen: HashSet<(i32, i64)> = HashSet::with_capacity(count);
        let mut clocks = None;
        while seen.len() < count {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.expect("a record");
            clocks.get_or_insert_with(|| Clocks::read(std::process::id()));
            seen.insert((message.partition(), message.offset()));
            // Verdicts differ from each other in part; a value of one byte would compress to nothing.
            let stamp = format!("{:x}", scattered(seen.len())).repeat(8);
            value[..stamp.len().min(bytes)].copy_from_slice(&stamp.as_bytes()[..stamp.len().min(bytes)]);
            let mut record = BaseRecord::to(&to).payload(&value).key(message.key().unwrap_or_default());
            while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
                record = back;
                std::thread::yield_now();
            }
        }
        producer.flush(PATIENCE).expect("every record acknowledged");
        consumer.commit_consumer_state(CommitMode::Sync).expect("a commit");
        clocks.expect("records came").pass(count)
    }

    pub(super) fn worker(&self, group: &str, posts: &str, verdicts: &str, prefix: &str) -> Setup {
        let dead_letters = self.kafka.topic(&format!("dead-{group}"), 1);
        let topics = format!("{{posts: '{posts}', verdicts: '{verdicts}', dead_letters: '{dead_letters}'}}");
        Setup::new(format!(
            "kafka: {{brokers: '{}', group: '{}', topics: {topics}}}\n\
             model: {{path: '{}'}}\n\
             policy: '{}'\n\
             cache: {{kind: redis, redis: {{url: '{}', prefix: '{}'}}}}\n",
            self.kafka.brokers,
            self.kafka.name(group),
            support::model("tiny-fp32").display(),
            support::repository("model/policies/misinformation-short.md").display(),
            self.redis.url,
            self.redis.name(prefix),
        ))
    }

    /// Posts with the text that `text` numbers.
    pub(super) fn produce(&self, topic: &str, count: usize, text: impl Fn(usize) -> usize) {
        for from in (0..count).step_by(SLICE) {
            self.kafka.produce(topic, (from..count.min(from + SLICE)).map(|n| post(n, text(n))));
        }
    }

    pub(super) fn verdicts(&self, topic: &str) -> usize {
        usize::try_from(self.kafka.end_offsets(topic).values().sum::<i64>()).expect("offsets are not negative")
    }

    pub(super) fn wait_for(&self, topic: &str, count: usize) {
        support::eventually("every post has a verdict", PATIENCE, || self.verdicts(topic), |there| *there >= count);
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka.brokers);
        config
    }
}

fn post(n: usize, text: usize) -> Outgoing {
    let body = format!(
        "{{\"id\":\"post-{n}\",\"text\":\"Number {text}: somebody says that the bridge at Orlen was closed for good last night.\"}}"
    );
    Outgoing::new(body).key(format!("author-{}", n % 1000)).partition((n % PARTITIONS as usize) as i32)
}

pub(super) fn finish(clocks: &Clocks, worker: Worker, records: usize) -> Pass {
    let pass = clocks.pass(records);
    stop(worker);
    pass
}

pub(super) fn stop(mut worker: Worker) {
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
}
