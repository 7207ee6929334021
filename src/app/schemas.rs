//! The schemas of what is published, and the registry that holds them.

use std::sync::Arc;

use schemars::schema_for;
use tracing::info;

use super::AppError;
use crate::config::{Config, EventMode, RegistrySettings, Task};
use crate::event::Format;
use crate::note::{NoteData, NoteV1};
use crate::registry::{Fault, Registry, subject};
use crate::telemetry::metrics::Metrics;
use crate::verdict::{VerdictData, VerdictV1};

/// How what is published stands in its topics, and who knows the schemas of posts.
pub(super) struct Schemas {
    pub(super) output: Format,
    pub(super) shadow: Format,
    pub(super) registry: Option<Arc<Registry>>,
}

/// The JSON Schema of a record's value, as it is printed and registered.
pub fn published(task: Task, mode: EventMode) -> String {
    let schema = match (task, mode) {
        (Task::Classify, EventMode::Structured) => schema_for!(VerdictV1),
        (Task::Classify, EventMode::Binary) => schema_for!(VerdictData),
        (Task::DraftNote, EventMode::Structured) => schema_for!(NoteV1),
        (Task::DraftNote, EventMode::Binary) => schema_for!(NoteData),
    };
    serde_json::to_string_pretty(&schema.to_value()).unwrap_or_default()
}

impl Schemas {
    /// Without a registry.
    pub(super) fn none(config: &Config) -> Self {
        let bare = Format { mode: config.kafka.cloudevents, schema: None };
        Self { output: bare, shadow: bare, registry: None }
    }

    /// Has the registry tell the ids. Blocks.
    pub(super) fn open(config: &Config, metrics: &Metrics) -> Result<Self, AppError> {
        let none = Self::none(config);
        let Some(settings) = &config.kafka.schema_registry else { return Ok(none) };
        let told = |fault| AppError::Registry { mend: mend(config, &fault), fault };
        let registry = Registry::new(settings, metrics.clone()).map_err(told)?;
        let schema = published(config.task, config.kafka.cloudevents);
        let format = |topic: &String| -> Result<Format, AppError> {
            let id = registry.id_of(topic, &schema, settings.auto_register).map_err(told)?;
            info!(subject = subject(topic), schema = id.0, registry = settings.url, "schema is registered");
            Ok(Format { schema: Some(id), ..none.output })
        };
        let output = format(&config.kafka.output)?;
        let shadow = config.kafka.shadow.as_ref().map_or(Ok(none.shadow), format)?;
        Ok(Self { output, shadow, registry: Some(Arc::new(registry)) })
    }
}

/// Whether the registry holds the schema, or would take it; for `moderato check`, which registers nothing. Blocks.
pub fn probe(config: &Config, settings: &RegistrySettings) -> Result<String, AppError> {
    let told = |fault| AppError::Registry { mend: mend(config, &fault), fault };
    let registry = Registry::new(settings, Metrics::silent()).map_err(told)?;
    let (topic, schema) = (&config.kafka.output, published(config.task, config.kafka.cloudevents));
    match registry.id_of(topic, &schema, false) {
        Ok(id) => Ok(format!("`{}` is schema {}", subject(topic), id.0)),
        Err(Fault::Unregistered { .. }) if settings.auto_register => {
            Ok(format!("`{}` will be registered at the start", subject(topic)))
        }
        Err(fault) => Err(told(fault)),
    }
}

fn mend(config: &Config, fault: &Fault) -> String {
    let name = match (config.task, config.kafka.cloudevents) {
        (Task::Classify, EventMode::Structured) => "verdict",
        (Task::Classify, EventMode::Binary) => "verdict-data",
        (Task::DraftNote, EventMode::Structured) => "note",
        (Task::DraftNote, EventMode::Binary) => "note-data",
    };
    match fault {
        Fault::Unreachable { .. } => {
            "start it, or mend kafka.schema_registry.url, kafka.schema_registry.ca_file or kafka.schema_registry.timeout"
                .to_owned()
        }
        Fault::Unregistered { .. } => format!(
            "register what `moderato schema {name}` prints, or set kafka.schema_registry.auto_register: true"
        ),
        Fault::Refused { .. } => format!(
            "mend kafka.schema_registry.url, its username and password_file, or what that user may do; where the schema is \
             refused as incompatible, set the subject's compatibility to NONE or register what `moderato schema {name}` \
             prints by hand"
        ),
        Fault::Settings(_) => "mend kafka.schema_registry.ca_file".to_owned(),
    }
}
