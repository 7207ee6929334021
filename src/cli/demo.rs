//! `moderato demo`: the whole road in one process. Kafka is librdkafka's mock cluster, which speaks the protocol on a
//! loopback port; the cache is in process; the posts are samples written for it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::demo_notes::NotesArguments;
use super::demo_table::{self, Row};
use super::{Common, VerbSettings, report, runtime};
use crate::admin::Facts;
use crate::app;
use crate::config::Needs;
use crate::error::Exit;
use crate::pipeline::tally::Tally;
use crate::samples;
use crate::verdict::VerdictV1;

const PARTITIONS: i32 = 3;
const POSTS: &str = "posts";
const VERDICTS: &str = "verdicts";
const DEAD_LETTERS: &str = "posts.dead-letters";
/// Longest silence before the demo says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    #[command(flatten)]
    common: Common,
    /// Keep running after the samples, so that a producer outside can join in; Ctrl-C ends it.
    #[arg(long)]
    listen: bool,
    #[command(flatten)]
    notes: NotesArguments,
}

pub(super) fn run(arguments: &DemoArguments) -> Result<Exit, Exit> {
    let cluster = MockCluster::new(1).map_err(failed)?;
    for topic in [POSTS, VERDICTS, DEAD_LETTERS] {
        cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
    }
    let brokers = cluster.bootstrap_servers();
    let fixed = [
        ("kafka.brokers", brokers.as_str()),
        ("kafka.group", "demo"),
        ("kafka.topics.posts", POSTS),
        ("kafka.topics.verdicts", VERDICTS),
        ("kafka.topics.dead_letters", DEAD_LETTERS),
    ];
    let config = arguments.common.start(&VerbSettings { defaults: &DEFAULTS, fixed: &fixed }, Needs::Kafka)?;
    eprintln!("loading the model from {}", config.model.path.display());
    let judges = app::load(&config).map_err(|error| report(&error))?;
    say!("Kafka protocol at {brokers} (in this process), topics {POSTS}, {VERDICTS}, {DEAD_LETTERS}");

    let runtime = runtime()?;
    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    let worker = {
        let (stop, tally) = (stop.clone(), tally.clone());
        runtime.spawn(async move {
            let outcome = app::run(&config, judges, None, tally, Facts::default(), stop.clone()).await;
            stop.cancel(); // A worker that ended early ends the demo's waiting too.
            outcome
        })
    };
    let signals = stop.clone();
    runtime.block_on(async move { app::stop_on_signals(&signals) }).map_err(failed)?;
    let watched = watch(&brokers, arguments, &stop, &tally);
    stop.cancel();
    let ended = runtime.block_on(worker).map_err(failed)?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended.map_err(|error| report(&error))?;
    watched
}

fn failed(error: impl std::fmt::Display) -> Exit {
    eprintln!("the demo cannot go on: {error}");
    Exit::Failed
}

/// Group timings that suit a cluster which forgets, and a terminal that is for verdicts.
const DEFAULTS: [(&str, &str); 3] =
    [("kafka.session_timeout", "6s"), ("kafka.drain_timeout", "5s"), ("log.filter", "warn,ort=error,librdkafka=off")];

/// Feeds the samples, reads what comes out, and prints it.
fn watch(brokers: &str, arguments: &DemoArguments, stop: &CancellationToken, tally: &Tally) -> Result<Exit, Exit> {
    let samples: Vec<&str> = samples::POSTS.lines().filter(|line| !line.trim().is_empty()).collect();
    feed(brokers, &samples).map_err(failed)?;
    let reader = reader(brokers).map_err(failed)?;
    let (rows, took) = collect(&reader, samples.len(), stop)?;
    say!("{}", demo_table::table(&rows));
    say!("{}", demo_table::totals(&rows, tally, took));
    if rows.len() < samples.len() {
        eprintln!("{} of {} posts have no verdict and no dead letter", samples.len() - rows.len(), samples.len());
        return Ok(Exit::Failed);
    }
    arguments.notes.show(&arguments.common, &rows)?;
    if arguments.listen {
        say!("\nlistening: produce {{\"id\": \"1\", \"text\": \"...\"}} to topic {POSTS} at {brokers}; Ctrl-C ends");
        while !stop.is_cancelled() {
            if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
                say!("{}", demo_table::line(&row(&message)));
            }
        }
    }
    Ok(Exit::Ok)
}

/// The only fields the feeder itself needs; the worker decodes the line for itself.
#[derive(Deserialize)]
struct Sample {
    key: String,
}

fn feed(brokers: &str, samples: &[&str]) -> Result<(), String> {
    let producer: BaseProducer =
        client(brokers).set("partitioner", "murmur2_random").create().map_err(|error| error.to_string())?;
    for line in samples {
        let sample: Sample = serde_json::from_str(line).map_err(|error| format!("a sample post is broken: {error}"))?;
        let record = BaseRecord::to(POSTS).key(&sample.key).payload(*line);
        producer.send(record).map_err(|(error, _)| error.to_string())?;
    }
    producer.flush(Duration::from_secs(10)).map_err(|error| error.to_string())
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn reader(brokers: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer =
        client(brokers).set("group.id", "demo-reader").set("enable.auto.commit", "false").create()?;
    let mut list = TopicPartitionList::new();
    for topic in [VERDICTS, DEAD_LETTERS] {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Reads until every sample is accounted for, the worker stops, or nothing has come for long. The clock starts at the
/// first verdict: joining the group takes the mock cluster three seconds.
fn collect(reader: &BaseConsumer, expected: usize, stop: &CancellationToken) -> Result<(Vec<Row>, Duration), Exit> {
    let bar = progress(expected as u64);
    let (mut rows, mut last) = (Vec::with_capacity(expected), Instant::now());
    let mut first: Option<Instant> = None;
    while rows.len() < expected && !stop.is_cancelled() && last.elapsed() < PATIENCE {
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(error)) => eprintln!("reading verdicts: {error}"),
            Some(Ok(message)) => {
                let row = row(&message);
                first.get_or_insert(Instant::now().checked_sub(Duration::from_secs_f64(row.ms / 1e3)).unwrap_or(last));
                rows.push(row);
                last = Instant::now();
                bar.inc(1);
                if !std::io::stderr().is_terminal() && rows.len() % 100 == 0 {
                    eprintln!("{} of {expected} posts judged", rows.len());
                }
            }
        }
    }
    bar.finish_and_clear();
    rows.sort_by(|a, b| a.post.cmp(&b.post));
    Ok((rows, first.map_or(Duration::ZERO, |first| last.saturating_duration_since(first))))
}

fn progress(expected: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} posts, {per_sec}, {eta} left");
    ProgressBar::new(expected).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn row(message: &BorrowedMessage<'_>) -> Row {
    let value = message.payload().unwrap_or_default();
    if message.topic() == DEAD_LETTERS {
        let headers = message.headers();
        let header = |name: &str| {
            let found = headers.and_then(|headers| headers.iter().find(|header| header.key == name))?;
            found.value.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        return Row::dead_letter(value, header("moderato.error.reason").unwrap_or_default());
    }
    match serde_json::from_slice::<VerdictV1>(value) {
        Ok(verdict) => Row::verdict(verdict, samples::POSTS),
        Err(_) => Row::dead_letter(value, "tombstone".to_owned()),
    }
}
