//! What the configuration says of Kafka.

mod check;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::raw::Secret;
use super::registry::RawSchemaRegistry;

/// Kafka: where posts come from and verdicts go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawKafka {
    /// Bootstrap servers, `host:port`, separated by commas. Required.
    pub brokers: String,
    /// Consumer group of the worker pool.
    pub group: String,
    /// Topics.
    pub topics: RawTopics,
    /// `at_least_once`: after a crash a post may be judged twice, with the same verdict id. `exactly_once`: verdicts and
    /// offsets are written in transactions, and whoever reads with `isolation.level=read_committed` sees each once.
    pub delivery: Delivery,
    /// Tells this worker from the others of its group, the same after a restart: with `exactly_once`, part of its
    /// `transactional.id`. The host's name if it is not set, which in Kubernetes is the pod's.
    pub worker_id: Option<String>,
    /// How a verdict, or a note, is a CloudEvents event. `structured`: the value is the whole event. `binary`: the value is
    /// its `data`, and the attributes are headers (`ce_id`, `ce_subject`, ...).
    pub cloudevents: EventMode,
    /// Schema registry.
    pub schema_registry: RawSchemaRegistry,
    /// How long a revoked partition's posts may take to finish; shorter than `session_timeout`.
    pub drain_timeout: String,
    /// How long the group waits for a silent member.
    pub session_timeout: String,
    /// How often finished offsets are committed; with `exactly_once`, how often a transaction is. `auto`: 1s, and 100ms.
    pub commit_interval: String,
    /// How long a verdict or dead letter may take to be acknowledged before the worker stops.
    pub delivery_timeout: String,
    /// SASL password. Only from `MODERATO__KAFKA__PASSWORD`; in a file, use `password_file`.
    pub password: Option<Secret>,
    /// File that holds the SASL password.
    pub password_file: Option<String>,
    /// Password of the TLS client key. Only from `MODERATO__KAFKA__TLS_KEY_PASSWORD`; in a file, use the next one.
    pub tls_key_password: Option<Secret>,
    /// File that holds the password of the TLS client key.
    pub tls_key_password_file: Option<String>,
    /// Further librdkafka options, passed through: `security.protocol`, `sasl.mechanism`, `sasl.username`,
    /// `ssl.ca.location`, `fetch.min.bytes`, ... Those that the promises rest on are refused.
    #[serde(serialize_with = "without_secrets")]
    pub options: BTreeMap<String, Scalar>,
}

/// Topics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTopics {
    /// `post.v1` records are read from here; for `draft_note`, flagged ones.
    pub posts: String,
    /// `verdict.v1` records go here, for `classify`.
    pub verdicts: String,
    /// `note.v1` records go here, for `draft_note`.
    pub notes: String,
    /// Posts that cannot be judged go here, unchanged, with `moderato.error.*` headers.
    pub dead_letters: String,
    /// Posts whose verdict proposes anything but `allow` go here besides, unchanged, with the verdict in a header, if set.
    pub flagged: Option<String>,
    /// Verdicts of the shadow go here.
    pub shadow: Option<String>,
    /// Signed statements of how far the chains of `evidence` have come go here.
    pub checkpoints: Option<String>,
    /// What `moderato replay` judges again goes here, verdicts and dead letters alike: never a topic that anything live reads.
    pub audit: Option<String>,
}

/// What is promised of a verdict when something breaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// None is missing.
    #[default]
    AtLeastOnce,
    /// None is missing and none is there twice.
    ExactlyOnce,
}

/// Content modes of CloudEvents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventMode {
    /// All in the value.
    #[default]
    Structured,
    /// `data` in the value, the rest in headers.
    Binary,
}

/// A value of a librdkafka option.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Anything else.
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Integer(value) => value.fmt(f),
            Scalar::Text(value) => value.fmt(f),
        }
    }
}

/// librdkafka has options that are secrets under many names; none is printed.
fn without_secrets<S: Serializer>(options: &BTreeMap<String, Scalar>, serializer: S) -> Result<S::Ok, S::Error> {
    let telling = |key: &str| {
        ["pass", "secret", "token", "pem", "jaas", "oauthbearer.config", "credential"]
            .iter()
            .any(|word| key.contains(word))
    };
    serializer.collect_map(
        options
            .iter()
            .map(|(key, value)| (key, if telling(key) { "[redacted]".to_owned() } else { value.to_string() })),
    )
}

impl Default for RawKafka {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            group: "moderato".to_owned(),
            topics: RawTopics::default(),
            delivery: Delivery::default(),
            worker_id: None,
            cloudevents: EventMode::default(),
            schema_registry: RawSchemaRegistry::default(),
            drain_timeout: "20s".to_owned(),
            session_timeout: "45s".to_owned(),
            commit_interval: "auto".to_owned(),
            delivery_timeout: "60s".to_owned(),
            password: None,
            password_file: None,
            tls_key_password: None,
            tls_key_password_file: None,
            options: BTreeMap::new(),
        }
    }
}

impl Default for RawTopics {
    fn default() -> Self {
        Self {
            posts: "posts".to_owned(),
            verdicts: "verdicts".to_owned(),
            notes: "notes".to_owned(),
            dead_letters: "posts.dead-letters".to_owned(),
            flagged: None,
            shadow: None,
            checkpoints: None,
            audit: None,
        }
    }
}
