//! Asks the broker what the worker will need: that it answers, that the topics exist and fit each other.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::Metadata;

use crate::config::KafkaSettings;

/// What was found, or everything that is wrong and how to mend it. Waits at most for `budget`.
pub fn probe(settings: &KafkaSettings, budget: Duration) -> Result<String, String> {
    let consumer: BaseConsumer = settings.consumer().create().map_err(|error| format!("kafka.options: {error}"))?;
    let producer: Result<rdkafka::producer::BaseProducer, _> = settings.producer().create();
    drop(producer.map_err(|error| format!("kafka.options: {error}"))?);
    let metadata = consumer.fetch_metadata(None, budget).map_err(|error| {
        format!(
            "no answer from {}: {error}; check kafka.brokers, that the port is open, and security.protocol and sasl.* in kafka.options",
            settings.brokers
        )
    })?;
    let topics = [
        ("kafka.topics.posts", &settings.posts),
        ("kafka.topics.verdicts", &settings.verdicts),
        ("kafka.topics.dead_letters", &settings.dead_letters),
    ];
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
    let count = |topic: &str| partitions(&metadata, topic);
    Ok(format!(
        "{} broker(s); {} has {} partition(s), {} has {}, {} has {}",
        metadata.brokers().len(),
        settings.posts,
        count(&settings.posts),
        settings.verdicts,
        count(&settings.verdicts),
        settings.dead_letters,
        count(&settings.dead_letters)
    ))
}

fn partitions(metadata: &Metadata, topic: &str) -> usize {
    metadata.topics().iter().find(|known| known.name() == topic).map_or(0, |known| known.partitions().len())
}
