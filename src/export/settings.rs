//! What only the platform can say: who it is, on which grounds it acts, what its topics are to others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dsa_terms::{TopicTerms, topics};
use super::{Meaning, Reason};
use crate::shape;

/// The settings file, YAML. Everything may be left out that the form at hand does not need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "export settings")]
pub struct Settings {
    /// What posts are about whose line says nothing of it.
    pub topic: Option<String>,
    /// The address of a post, with `{id}` for its id; for lines without `platform.uri`.
    pub uri: Option<String>,
    /// What the policy's labels mean; a label that is not named here is never exported.
    pub labels: BTreeMap<String, Meaning>,
    /// Why posts mislead whose line says nothing of it, by the meaning of their label.
    pub reasons: BTreeMap<Meaning, Vec<Reason>>,
    /// For the Community Notes form.
    pub community_notes: CommunityNotesSettings,
    /// For AT Protocol labels.
    pub atproto: AtprotoSettings,
    /// For ActivityStreams flags.
    pub activitystreams: ActivitystreamsSettings,
    /// For statements of reasons.
    pub dsa: DsaSettings,
}

/// For the Community Notes form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommunityNotesSettings {
    /// Hosts, with those below them, whose word most people would take. `trustworthy_sources` is true only where every
    /// URL is at one of them.
    pub trustworthy: Vec<String>,
}

/// For AT Protocol labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AtprotoSettings {
    /// DID of the labeler.
    pub labeler: Option<String>,
    /// Days after which a label lapses; without it none does.
    #[schemars(range(min = 1, max = 3650))]
    pub expires_days: Option<u16>,
}

/// For ActivityStreams flags.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActivitystreamsSettings {
    /// URI of the service that flags.
    pub actor: Option<String>,
    /// URI of a flag, with `{id}` for the verdict's id.
    pub flag: Option<String>,
}

/// For statements of reasons.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DsaSettings {
    /// Fields that are the same in every statement, by the names of the Transparency Database: the restriction, the ground,
    /// its explanation, the territorial scope.
    pub statement: Map<String, Value>,
    /// By topic: category and keywords, and fields that differ for it. These stand before moderato's own table.
    pub topics: BTreeMap<String, TopicTerms>,
    /// The platform acts on `act` without a person.
    pub acts_alone: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topic: None,
            uri: None,
            labels: BTreeMap::from([
                ("misinformation".to_owned(), Meaning::Misinformation),
                ("unverified".to_owned(), Meaning::Unverified),
            ]),
            reasons: BTreeMap::from([
                (Meaning::Misinformation, vec![Reason::FactualError]),
                (Meaning::Unverified, vec![Reason::DisputedClaimAsFact]),
            ]),
            community_notes: CommunityNotesSettings::default(),
            atproto: AtprotoSettings::default(),
            activitystreams: ActivitystreamsSettings::default(),
            dsa: DsaSettings::default(),
        }
    }
}

/// Everything that is wrong with a settings file.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingsError {
    file: String,
    problems: Vec<String>,
}

impl SettingsError {
    pub(super) fn of(file: &str, problems: Vec<String>) -> Self {
        Self { file: file.to_owned(), problems }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "export {}:", self.file)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads a settings file.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let fault = |problems| SettingsError { file: path.display().to_string(), problems };
        let text = std::fs::read_to_string(path).map_err(|error| fault(vec![format!("cannot be read: {error}")]))?;
        Self::parse(&text).map_err(|error| fault(error.problems))
    }

    /// Checks the text of a settings file.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let fault = |problems| SettingsError::of("(text)", problems);
        let options = serde_saphyr::options! { strict_booleans: true };
        let document: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| fault(vec![format!("is not valid YAML: {error}")]))?;
        let breaches = shape::breaches_of(&schema_for!(Settings).to_value(), &document);
        if !breaches.is_empty() {
            return Err(fault(breaches));
        }
        serde_json::from_value(document).map_err(|error| fault(vec![error.to_string()]))
    }

    /// What each topic is to the DSA: the platform's table over moderato's.
    pub fn dsa_topics(&self) -> BTreeMap<String, TopicTerms> {
        let mut all = topics();
        all.extend(self.dsa.topics.clone());
        all
    }
}
