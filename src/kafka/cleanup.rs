//! How a topic is cleaned up: in a compacted one, a record may have gone although it was judged.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tracing::info;

use crate::config::KafkaSettings;

/// Longest wait for the broker's answer.
const REQUEST: Duration = Duration::from_secs(30);

/// Whether the topic is compacted. A broker that may not tell (DescribeConfigs is not granted) counts as no.
pub fn is_compacted(settings: &KafkaSettings, topic: &str) -> bool {
    let policy = policy(settings, topic).unwrap_or_else(|cause| {
        info!(topic, cause, "cannot ask for cleanup.policy; the topic is taken for one that is not compacted");
        String::new()
    });
    policy.split(',').any(|one| one.trim() == "compact")
}

fn policy(settings: &KafkaSettings, topic: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let admin: AdminClient<DefaultClientContext> = settings.client().create().map_err(|error| error.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let found = runtime.block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
    let found = found.map_err(|error| error.to_string())?;
    let resource = found.into_iter().next().ok_or("no answer")?.map_err(|error| error.to_string())?;
    let entry = resource.entries.into_iter().find(|entry| entry.name == "cleanup.policy");
    Ok(entry.and_then(|entry| entry.value).unwrap_or_default())
}
