//! Asks the broker what the worker will need: that it answers, that the topics exist and fit each other.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::config::KafkaSettings;

/// Longest single request; a broker that is reached answers in far less.
const TURN: Duration = Duration::from_secs(2);
/// How long to listen for a reason after it.
const LISTEN: Duration = Duration::from_millis(50);
/// Where the settings stand that a broker may refuse.
const MEND: &str = "check kafka.brokers, that the port is open, kafka.password_file, kafka.tls_key_password_file, and security.protocol, sasl.* and ssl.* (such as ssl.ca.location) in kafka.options";

/// What was found, or everything that is wrong and how to mend it. Waits at most for `budget`.
pub fn probe(settings: &KafkaSettings, budget: Duration) -> Result<String, String> {
    let consumer: BaseConsumer<Listener> = settings
        .consumer()
        .create_with_context(Listener::default())
        .map_err(|error| format!("kafka.options: {error}"))?;
    let producer: Result<rdkafka::producer::BaseProducer, _> = settings.producer().create();
    drop(producer.map_err(|error| format!("kafka.options: {error}"))?);
    let metadata = ask(&consumer, budget).map_err(|why| format!("no answer from {}: {why}", settings.brokers))?;
    let mut topics = vec![
        ("kafka.topics.posts", &settings.posts),
        (settings.output_key(), &settings.output),
        ("kafka.topics.dead_letters", &settings.dead_letters),
    ];
    topics.extend(settings.flagged.as_ref().map(|topic| ("kafka.topics.flagged", topic)));
    topics.extend(settings.shadow.as_ref().map(|topic| ("kafka.topics.shadow", topic)));
    topics.extend(settings.evidence.signing.as_ref().map(|signing| ("kafka.topics.checkpoints", &signing.topic)));
    let missing: Vec<String> = topics
        .iter()
        .filter(|(_, topic)| partitions(&metadata, topic) == 0)
        .map(|(key, topic)| {
            format!("{key}: topic `{topic}` does not exist or may not be described; create it or grant Describe")
        })
        .collect();
    if !missing.is_empty() {
        return Err(missing.join("; "));
    }
    let counts: Vec<String> =
        topics.iter().map(|(_, topic)| format!("{topic} has {} partition(s)", partitions(&metadata, topic))).collect();
    Ok(format!("{} broker(s); {}", metadata.brokers().len(), counts.join(", ")))
}

/// Asks in short turns and listens in between: a request that fails only tells that its time was over, while the
/// reason, such as a refused password, comes as an event. A reason that no patience mends ends the asking.
pub(super) fn ask(consumer: &BaseConsumer<Listener>, budget: Duration) -> Result<Metadata, String> {
    let deadline = Instant::now() + budget;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match consumer.fetch_metadata(None, left.min(TURN)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        while consumer.poll(LISTEN).is_some() {}
        let heard = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hopeless = heard.as_ref().is_some_and(|(hopeless, _)| *hopeless);
        if hopeless || left <= TURN {
            let why = heard.map_or_else(|| error.to_string(), |(_, reason)| reason);
            return Err(format!("{why}; {MEND}"));
        }
    }
}

/// The last thing the client said about its connections, and whether only the operator can mend it.
#[derive(Default)]
pub(super) struct Listener(Mutex<Option<(bool, String)>>);

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, SSL};
        // It follows every other one and says less.
        if error.rdkafka_error_code() != Some(AllBrokersDown) {
            let hopeless = matches!(error.rdkafka_error_code(), Some(Authentication | SSL));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((hopeless, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Listener {}

fn partitions(metadata: &Metadata, topic: &str) -> usize {
    metadata.topics().iter().find(|known| known.name() == topic).map_or(0, |known| known.partitions().len())
}
