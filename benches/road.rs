//! What the road costs: `moderato run` with every answer cached, against Apache Kafka, beside a bare loop that consumes
//! the same posts and produces values of a verdict's size with rdkafka, interleaved in one run.
//!
//! `make bench` runs it. Wall time on a shared machine is noise, so CPU seconds and the hypervisor's steal stand beside
//! it, and the ratio is the figure to quote. The broker and Redis run on the same cores; their share is not counted.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]

#[path = "../integration-tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use support::kafka::{Kafka, used};
use support::records::Outgoing;
use support::worker::Setup;

const POSTS: usize = 200_000;
/// Distinct texts: each is judged once before anything is measured.
const TEXTS: usize = 5_000;
const PARTITIONS: i32 = 6;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(600);

/// One measured pass over all posts.
struct Pass {
    seconds: f64,
    cpu_seconds: f64,
    steal_seconds: f64,
}

fn main() {
    let kafka = used("bench_road").expect("a broker");
    let redis = support::redis::used("bench_road").expect("a redis");
    let posts = kafka.topic("posts", PARTITIONS);
    kafka.produce(&posts, (0..POSTS).map(post));
    let setup = |group: &str, verdicts: &str| {
        let dead_letters = kafka.topic(&format!("dead-{group}"), 1);
        Setup::new(format!(
            "kafka: {{brokers: '{}', group: '{}', topics: {{posts: '{posts}', verdicts: '{verdicts}', dead_letters: '{dead_letters}'}}}}\n\
             model: {{path: '{}'}}\n\
             policy: '{}'\n\
             limits: {{max_in_flight: 4096}}\n\
             cache: {{kind: redis, redis: {{url: '{}', prefix: bench}}}}\n",
            kafka.brokers,
            kafka.name(group),
            support::model("tiny-fp32").display(),
            support::repository("model/policies/misinformation-short.md").display(),
            redis.url,
        ))
    };

    // Fill the cache, and learn how large a verdict is.
    let filled = kafka.topic("filled", PARTITIONS);
    let mut warm = setup("fill", &filled).start();
    wait_for(&kafka, &filled, POSTS);
    warm.sigterm();
    assert_eq!(warm.wait(), 0);
    let sample = kafka.read(&filled, 1000, PATIENCE);
    let verdict_bytes =
        sample.iter().filter_map(|record| record.value.as_ref().map(Vec::len)).sum::<usize>() / sample.len();

    let (mut bare, mut road) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(bare_loop(&kafka, &posts, &kafka.topic(&format!("bare-{round}"), PARTITIONS), verdict_bytes));
        let verdicts = kafka.topic(&format!("verdicts-{round}"), PARTITIONS);
        let worker = setup(&format!("round-{round}"), &verdicts);
        road.push(cached_road(&kafka, worker, &verdicts));
    }
    report(&bare, &road, verdict_bytes);
}

fn post(n: usize) -> Outgoing {
    let text = n % TEXTS;
    let body = format!(
        "{{\"id\":\"post-{n}\",\"text\":\"Number {text}: somebody says that the bridge at Orlen was closed for good last night.\"}}"
    );
    Outgoing::new(body).key(format!("author-{}", n % 1000)).partition((n % PARTITIONS as usize) as i32)
}

fn wait_for(kafka: &Kafka, topic: &str, count: usize) {
    let total = || kafka.end_offsets(topic).values().sum::<i64>();
    support::eventually("every post has a verdict", PATIENCE, total, |total| *total >= count as i64);
}

/// From the first to the last verdict; the process's own CPU seconds over the same span.
fn cached_road(kafka: &Kafka, setup: Setup, verdicts: &str) -> Pass {
    let mut worker = setup.start();
    wait_for(kafka, verdicts, 1);
    let (start, cpu, steal) = (Instant::now(), cpu_seconds(worker.pid()), steal_seconds());
    wait_for(kafka, verdicts, POSTS);
    let pass = Pass {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(worker.pid()) - cpu,
        steal_seconds: steal_seconds() - steal,
    };
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    pass
}

/// Consume, produce a value of the same size as a verdict, await the reports, commit: no decoding, no judging.
fn bare_loop(kafka: &Kafka, posts: &str, to: &str, bytes: usize) -> Pass {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", kafka.name(&format!("bare-{to}")))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .expect("a consumer");
    let producer: ThreadedProducer<DefaultProducerContext> = client(kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.codec", "zstd")
        .create()
        .expect("a producer");
    consumer.subscribe(&[posts]).expect("a subscription");
    let mut value = vec![b'x'; bytes];
    let mut seen: HashSet<(i32, i64)> = HashSet::with_capacity(POSTS);
    let mut began = None;
    while seen.len() < POSTS {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a record");
        began.get_or_insert_with(|| (Instant::now(), cpu_seconds(std::process::id()), steal_seconds()));
        seen.insert((message.partition(), message.offset()));
        // Verdicts differ from each other in part; a value of one byte would compress to nothing.
        let stamp = format!("{:x}", seen.len().wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(8);
        value[..stamp.len().min(bytes)].copy_from_slice(&stamp.as_bytes()[..stamp.len().min(bytes)]);
        let mut record = BaseRecord::to(to).payload(&value).key(message.key().unwrap_or_default());
        while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
            record = back;
            std::thread::yield_now();
        }
    }
    producer.flush(PATIENCE).expect("every record acknowledged");
    consumer.commit_consumer_state(CommitMode::Sync).expect("a commit");
    let (start, cpu, steal) = began.expect("records came");
    Pass {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(std::process::id()) - cpu,
        steal_seconds: steal_seconds() - steal,
    }
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config
}

/// User and system time of a process, from /proc (fields 14 and 15 of stat; a tick is 10 ms on Linux).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = stat.rsplit(") ").next().expect("a name in parentheses");
    let fields: Vec<f64> = after_name.split(' ').filter_map(|field| field.parse().ok()).collect();
    // State, the third field, is no number, so the fourth is the first here.
    (fields[10] + fields[11]) / 100.0
}

/// Time that the hypervisor gave to others, all cores together.
fn steal_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let ticks =
        stat.lines().next().and_then(|line| line.split_whitespace().nth(8)).and_then(|field| field.parse::<f64>().ok());
    ticks.unwrap_or_default() / 100.0
}

fn report(bare: &[Pass], road: &[Pass], bytes: usize) {
    println!(
        "\n{POSTS} posts of {TEXTS} texts, {PARTITIONS} partitions, verdicts of {bytes} bytes, {ROUNDS} rounds interleaved; medians\n"
    );
    println!("| | records/s (wall) | records per CPU-second of the process | steal, s |");
    println!("|---|---|---|---|");
    for (name, passes) in [("bare consume-produce loop", bare), ("`moderato run`, every answer cached", road)] {
        println!(
            "| {name} | {:.0} | {:.0} | {:.1} |",
            POSTS as f64 / median(passes, |pass| pass.seconds),
            POSTS as f64 / median(passes, |pass| pass.cpu_seconds),
            median(passes, |pass| pass.steal_seconds)
        );
    }
    println!(
        "| ratio | {:.2} | {:.2} | |",
        median(bare, |pass| pass.seconds) / median(road, |pass| pass.seconds),
        median(bare, |pass| pass.cpu_seconds) / median(road, |pass| pass.cpu_seconds)
    );
}

fn median(passes: &[Pass], figure: impl Fn(&Pass) -> f64) -> f64 {
    let mut figures: Vec<f64> = passes.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
