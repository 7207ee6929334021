//! One Apache Kafka broker for all tests of a run, or the one that `MODERATO_TEST_BROKERS` names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, TopicPartitionList};
use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::{PATIENCE, eventually, free_port, provided, repository, run_id, summary};

pub(super) struct Broker {
    pub address: String,
    pub version: String,
    /// Statics are never dropped: the watcher ends the process and removes its folder.
    _own: Option<(Guarded, TempDir)>,
}

/// One test's view of a broker. Names it gives are unique to the test and the run.
#[derive(Clone)]
pub struct Kafka {
    pub brokers: String,
    pub test: &'static str,
}

/// The broker for `test`, started at first use; `None` where the test is to be skipped. Called by `kafka!()`.
pub fn used(test: &'static str) -> Option<Kafka> {
    let kafka = unrecorded(test)?;
    summary::used("kafka", version().as_deref().unwrap_or("?"), test);
    Some(kafka)
}

/// The same without a line in the summary: for tests that prove the harness, not the program.
pub fn unrecorded(test: &'static str) -> Option<Kafka> {
    match shared() {
        Ok(broker) => Some(Kafka { brokers: broker.address.clone(), test }),
        Err(why) => {
            summary::missing(why, test);
            None
        }
    }
}

/// The broker's own word for its version.
pub fn version() -> Option<String> {
    shared().as_ref().ok().map(|broker| broker.version.clone())
}

fn shared() -> &'static Result<Broker, String> {
    static BROKER: OnceLock<Result<Broker, String>> = OnceLock::new();
    BROKER.get_or_init(|| {
        let broker = match std::env::var("MODERATO_TEST_BROKERS") {
            Ok(address) if !address.is_empty() => existing(address),
            _ => start(),
        };
        if let Ok(Broker { address, version, .. }) = &broker {
            summary::announce(&format!("broker: Apache Kafka {version} ({address})"));
        }
        broker
    })
}

/// Kafka's protocol does not tell a broker's version.
fn existing(address: String) -> Result<Broker, String> {
    answers(at(&address), PATIENCE)
        .map_err(|error| format!("MODERATO_TEST_BROKERS={address} does not answer: {error}"))?;
    Ok(Broker { address, version: "of an untold version".to_owned(), _own: None })
}

fn start() -> Result<Broker, String> {
    launch(folder(), &[])
}

/// A folder for one broker's data and log.
pub(super) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("moderato-kafka-").tempdir().expect("a temporary folder")
}

/// Starts a broker in `folder`; `more` are the optional arguments of `integration-tests/kafka/broker`.
pub(super) fn launch(folder: TempDir, more: &[OsString]) -> Result<Broker, String> {
    requirements_met()?;
    let ports = Ports { broker: free_port(), controller: free_port() };
    let (process, version) = launch_in(folder.path(), &ports, &[], more)?;
    Ok(Broker { address: format!("127.0.0.1:{}", ports.broker), version, _own: Some((process, folder)) })
}

/// Where a broker listens.
pub(super) struct Ports {
    pub broker: u16,
    pub controller: u16,
}

/// Starts a broker on these ports in a folder, new or used before, and waits until it answers; `prefix` stands before
/// the command, if anything does. Hands back its version too.
pub(super) fn launch_in(
    folder: &Path,
    ports: &Ports,
    prefix: &[OsString],
    more: &[OsString],
) -> Result<(Guarded, String), String> {
    let log = folder.join("broker.log");
    let script = repository("integration-tests/kafka/broker").into_os_string();
    let line: Vec<OsString> = prefix.iter().cloned().chain([script]).collect();
    let mut command = watched(Path::new(&line[0]), folder, &log);
    command.args(&line[1..]).arg(jars()).arg(folder);
    command.arg(ports.broker.to_string()).arg(ports.controller.to_string()).args(more);
    let mut process = Guarded::start(command);

    let address = format!("127.0.0.1:{}", ports.broker);
    eventually(
        "the broker answers a metadata and an offset request",
        2 * PATIENCE,
        || (process.ended(), answers(at(&address), Duration::from_secs(1)).err()),
        |(ended, fault)| ended.is_some() || fault.is_none(),
    );
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    if process.ended().is_some() {
        let tail: Vec<_> = text.lines().rev().take(20).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        return Err(format!("Apache Kafka did not start; the end of its log:\n{}", tail.join("\n")));
    }
    let version = text.split("Kafka version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok((process, version.unwrap_or("of an untold version").to_owned()))
}

fn jars() -> PathBuf {
    provided("MODERATO_TEST_KAFKA_LIBS", ".cache/kafka/libs")
}

/// Java and Kafka's jars, or how to get them.
pub(super) fn requirements_met() -> Result<(), String> {
    let jars = jars();
    if !Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success()) {
        return Err("Java is missing, and Apache Kafka runs on it: install openjdk-17-jre-headless".to_owned());
    }
    let found = jars.read_dir().is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("kafka_2.13-")))
    });
    if found {
        Ok(())
    } else {
        Err(format!("Apache Kafka's jars are missing in {}: `make kafka` fetches them with Maven", jars.display()))
    }
}

/// Readiness, by the broker's own word: it is part of a cluster, and its group coordinator has loaded. The second
/// matters to whoever asks first: until then an offset request ends in `NotCoordinator` instead of waiting.
pub(super) fn answers(mut client: ClientConfig, within: Duration) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = client.set("group.id", "moderato-readiness").set("log_level", "0").create()?;
    consumer.fetch_metadata(None, within)?;
    let mut any = TopicPartitionList::new();
    any.add_partition("moderato-readiness", 0);
    consumer.committed_offsets(any, within).map(drop)
}

/// A client of the broker at `address`.
pub(super) fn at(address: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", address);
    client
}

impl Kafka {
    /// A name of this test and run alone, for a topic, a consumer group or a cache prefix.
    pub fn name(&self, purpose: &str) -> String {
        format!("{}-{purpose}-{}", self.test, run_id())
    }

    /// Runs `integration-tests/clients/produce.py`, a client of another language, to its end; hands back how many
    /// posts the broker took. The arguments are those after the topic, such as `["--count", "20000"]`.
    pub fn produce_from_outside(&self, topic: &str, arguments: &[&str]) -> usize {
        let said = outside("produce.py", &[&[self.brokers.as_str(), topic], arguments].concat());
        let count = said.trim().strip_prefix("produced ").and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("produce.py: {said}"))
    }

    /// Denies everybody writing to a topic, or allows it again: `deny`, `allow`. The broker needs an authorizer.
    pub fn acl(&self, verb: &str, topic: &str) {
        outside("acl.py", &[verb, &self.brokers, topic]);
    }

    /// Runs `integration-tests/clients/raw_headers.py`, which reads and writes what rdkafka cannot say.
    pub fn raw_headers(&self, verb: &str, topic: &str, arguments: &[&str]) -> String {
        outside("raw_headers.py", &[&[verb, self.brokers.as_str(), topic], arguments].concat())
    }
}

/// What a Python client prints; its failure is the test's.
pub fn outside(script: &str, arguments: &[&str]) -> String {
    let python = provided("MODERATO_TEST_PYTHON", ".venv/bin/python");
    let path = repository("integration-tests/clients").join(script);
    let output = Command::new(&python)
        .arg(path)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}; `make .venv/.tests`", python.display()));
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
