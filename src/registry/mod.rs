//! A schema registry that speaks Confluent's REST interface: verdicts and notes go out behind the id of their JSON schema,
//! and what stands before a post is looked up once.
//!
//! At the start it has to answer. Later it is a helper: while it does not, a post behind an id that is not known yet is
//! judged as one without, for what it holds is checked in any case.

mod client;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tracing::warn;

pub use self::client::Fault;
use self::client::{Client, Kind};
use crate::config::RegistrySettings;
use crate::event::SchemaId;
use crate::rejection::{Reason, Rejected, Stage};
use crate::telemetry::metrics::Metrics;

/// Ids that are kept: whoever sends posts can name as many as there are numbers.
const MOST: u64 = 10_000;
/// How long a schema that is not there stays so: it may be registered, or a replica of the registry behind.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// How long a registry that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection, and what it told. Blocks: not for the runtime's own threads.
pub struct Registry {
    client: Client,
    kinds: Cache<SchemaId, Kind>,
    missing: Cache<SchemaId, ()>,
    silent_until: Mutex<Option<Instant>>,
    metrics: Metrics,
}

impl Registry {
    /// Connects to nothing yet.
    pub fn new(settings: &RegistrySettings, metrics: Metrics) -> Result<Self, Fault> {
        Ok(Self {
            client: Client::new(settings)?,
            kinds: Cache::new(MOST),
            missing: Cache::builder().max_capacity(MOST).time_to_live(MISSING_FOR).build(),
            silent_until: Mutex::default(),
            metrics,
        })
    }

    /// The id of a topic's schema: registered now, or, without `register`, before by somebody else.
    pub fn id_of(&self, topic: &str, schema: &str, register: bool) -> Result<SchemaId, Fault> {
        let subject = subject(topic);
        if register { self.client.register(&subject, schema) } else { self.client.look_up(&subject, schema) }
    }

    /// Lets a post pass whose schema is JSON, or cannot be asked for now.
    pub fn admit(&self, id: SchemaId) -> Result<(), Rejected> {
        let reject = |message| Err(Rejected::new(Reason::UnknownSchema, Stage::Decode, message));
        let SchemaId(number) = id;
        match self.kind(id) {
            Some(Kind::Json) | None => Ok(()),
            Some(Kind::Other(name)) => reject(format!("schema {number} is {name}; posts are JSON")),
            Some(Kind::Missing) => reject(format!("schema {number} is not in the registry")),
        }
    }

    /// `None` where it cannot be told now.
    fn kind(&self, id: SchemaId) -> Option<Kind> {
        if let Some(kind) = self.kinds.get(&id) {
            return Some(kind);
        }
        if self.missing.contains_key(&id) {
            return Some(Kind::Missing);
        }
        if self.is_left_alone() {
            self.metrics.registry("unchecked");
            return None;
        }
        match self.client.kind(id) {
            Ok(Kind::Missing) => {
                self.missing.insert(id, ());
                self.metrics.registry("missing");
                Some(Kind::Missing)
            }
            Ok(kind) => {
                self.kinds.insert(id, kind);
                self.metrics.registry(if kind == Kind::Json { "json" } else { "other" });
                Some(kind)
            }
            Err(error) => {
                *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
                warn!(%error, schema = id.0, "the schema registry does not tell; posts behind ids that are not known yet are judged unchecked");
                self.metrics.registry("unchecked");
                None
            }
        }
    }

    fn is_left_alone(&self) -> bool {
        let until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// Confluent's usual name for the schema of a topic's values.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}
