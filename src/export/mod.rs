//! Verdicts and notes in the forms that platforms hand on: Community Notes, AT Protocol labels, ActivityStreams flags, EU DSA
//! statements of reasons. One pure function a form.
//!
//! Everything is a draft: moderato submits nothing. What must not be said is withheld, with the reason; what is said is
//! checked against the published rules before it is written.

pub mod activitystreams_flag;
pub mod atproto_label;
pub mod case;
pub mod community_notes;
pub mod dsa_statement;
mod dsa_terms;
pub mod settings;

use clap::ValueEnum;
use jsonschema::Validator;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use self::case::Case;
use self::settings::{Settings, SettingsError};
use crate::policy::Action;
use crate::shape;

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The form of X's Community Notes writers; needs a note.
    CommunityNotes,
    /// A label of the AT Protocol (`com.atproto.label.defs#label`), unsigned.
    AtprotoLabel,
    /// An ActivityStreams `Flag`.
    ActivitystreamsFlag,
    /// A statement of reasons for the EU DSA Transparency Database.
    DsaStatement,
}

/// `export.v1`: one line of `moderato export`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "export.v1")]
pub struct Draft<'a> {
    /// `export.v1`.
    pub schema: &'a str,
    /// Which form.
    pub format: Format,
    /// `draft`, always: a person at the platform decides whether it is submitted.
    #[schemars(extend("const" = "draft"))]
    pub status: &'a str,
    /// The verdict that it was made from.
    pub verdict_id: Option<&'a str>,
    /// The post that it is about.
    pub post_id: &'a str,
    /// What would be submitted: see `schemas/export/`.
    pub record: Value,
}

/// Why nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Withheld {
    /// The post is no misinformation, or the settings do not say that its label is.
    #[error("the label {0} stands for no misinformation")]
    Label(String),
    /// The verdict abstains.
    #[error("the verdict abstains")]
    Abstained,
    /// The model cannot judge the post's language.
    #[error("the model cannot judge the language of the post")]
    UnsupportedLanguage,
    /// The policy proposes nothing.
    #[error("the policy proposes to allow the post")]
    Allowed,
    /// Somebody took a joke seriously; the post is still one.
    #[error("misinterpreted satire is neither labelled nor restricted")]
    Satire,
    /// A note alone does not say all that the verdict says.
    #[error("a verdict is needed: give verdict.v1, and notes by --notes")]
    NeedsVerdict,
    /// The form is filled in with a note, and there is none.
    #[error("a note is needed: give note.v1, or --notes")]
    NeedsNote,
    /// The note says what to check, not what is so.
    #[error("the note is the fixed form, which says only what to check")]
    FixedForm,
    /// The note cites nothing that a reader could look up.
    #[error("the note has no URL; the platform's evidence may bring one")]
    NoUrl,
    /// The note is too long.
    #[error("the note has {0} characters without its URLs; 280 are allowed")]
    TooLong(usize),
    /// The post has no address.
    #[error("the post has no URI: give platform.uri, or uri in the settings")]
    NoUri,
    /// Nobody said what the post is about.
    #[error("no topic is known: give --topic, platform.topic, or topic in the settings")]
    NoTopic,
    /// The settings do not say what this topic is to the DSA.
    #[error("the topic {0} is not in the table: add it to dsa.topics in the settings")]
    UnknownTopic(String),
    /// Nobody said when the post was made.
    #[error("the date of the post is not known: give platform.created_at")]
    NoDate,
    /// The settings lack what the platform must say.
    #[error("{0}")]
    Settings(&'static str),
    /// What came out breaks the published rules.
    #[error("it would break the published rules: {}", .0.join("; "))]
    Broken(Vec<String>),
}

impl Withheld {
    /// A stable code, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            Withheld::Label(_) => "label",
            Withheld::Abstained => "abstained",
            Withheld::UnsupportedLanguage => "unsupported_language",
            Withheld::Allowed => "allowed",
            Withheld::Satire => "misinterpreted_satire",
            Withheld::NeedsVerdict => "needs_verdict",
            Withheld::NeedsNote => "needs_note",
            Withheld::FixedForm => "fixed_form",
            Withheld::NoUrl => "no_url",
            Withheld::TooLong(_) => "too_long",
            Withheld::NoUri => "no_uri",
            Withheld::NoTopic => "no_topic",
            Withheld::UnknownTopic(_) => "unknown_topic",
            Withheld::NoDate => "no_date",
            Withheld::Settings(_) => "settings",
            Withheld::Broken(_) => "broken_rules",
        }
    }
}

/// What a label of the policy means outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// False or materially misleading.
    Misinformation,
    /// Neither confirmed nor refuted.
    Unverified,
}

/// Reasons of X's note-writer API, by its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the API's and say all that is known")]
pub enum Reason {
    FactualError,
    ManipulatedMedia,
    OutdatedInformation,
    MissingImportantContext,
    DisputedClaimAsFact,
    MisinterpretedSatire,
    Other,
}

/// What the verdict means outside, or why nothing may be said: no form is filled in for a post that is no misinformation,
/// on which the verdict abstains, or which is satire that somebody took seriously.
pub fn meaning(case: &Case, settings: &Settings) -> Result<Meaning, Withheld> {
    let meaning = settings.labels.get(&case.label).ok_or_else(|| Withheld::Label(case.label.clone()))?;
    if case.abstained == Some(true) {
        return Err(Withheld::Abstained);
    }
    if case.unsupported_language {
        return Err(Withheld::UnsupportedLanguage);
    }
    if case.action == Some(Action::Allow) {
        return Err(Withheld::Allowed);
    }
    if reasons(case, settings, *meaning).contains(&Reason::MisinterpretedSatire) {
        return Err(Withheld::Satire);
    }
    Ok(*meaning)
}

/// The platform's reasons for this post, or what the settings say of its label.
pub fn reasons<'a>(case: &'a Case, settings: &'a Settings, meaning: Meaning) -> &'a [Reason] {
    if !case.platform.reasons.is_empty() {
        return &case.platform.reasons;
    }
    settings.reasons.get(&meaning).map(Vec::as_slice).unwrap_or_default()
}

/// One form, its schema and the platform's settings.
pub struct Exporter {
    format: Format,
    settings: Settings,
    validator: Validator,
}

impl Exporter {
    /// Refuses settings that could never give a record.
    pub fn new(format: Format, settings: Settings) -> Result<Self, SettingsError> {
        let validator = jsonschema::validator_for(&schema(format));
        let validator = validator.map_err(|error| SettingsError::of("schema", vec![error.to_string()]))?;
        let exporter = Self { format, settings, validator };
        let mut problems: Vec<String> = exporter.specimens().iter().filter_map(|case| exporter.problem(case)).collect();
        problems.dedup();
        if problems.is_empty() { Ok(exporter) } else { Err(SettingsError::of("settings", problems)) }
    }

    /// A made-up case for each topic, in which only the settings can be at fault.
    fn specimens(&self) -> Vec<Case> {
        let topics = self.settings.dsa_topics();
        topics.keys().map(|topic| case::specimen(topic)).collect()
    }

    fn problem(&self, specimen: &Case) -> Option<String> {
        match self.record(specimen) {
            Err(problem @ (Withheld::Settings(_) | Withheld::Broken(_))) => Some(problem.to_string()),
            _ => None,
        }
    }

    /// The draft for one case, or why there is none.
    pub fn export<'a>(&self, case: &'a Case) -> Result<Draft<'a>, Withheld> {
        Ok(Draft {
            schema: "export.v1",
            format: self.format,
            status: "draft",
            verdict_id: case.verdict_id.as_deref(),
            post_id: &case.post_id,
            record: self.record(case)?,
        })
    }

    fn record(&self, case: &Case) -> Result<Value, Withheld> {
        let settings = &self.settings;
        let (record, mut broken) = match self.format {
            Format::CommunityNotes => checked(community_notes::record(case, settings)?, community_notes::broken),
            Format::AtprotoLabel => checked(atproto_label::record(case, settings)?, atproto_label::broken),
            Format::ActivitystreamsFlag => {
                checked(activitystreams_flag::record(case, settings)?, activitystreams_flag::broken)
            }
            Format::DsaStatement => {
                let record = dsa_statement::record(case, settings)?;
                let broken = dsa_statement::broken(&record);
                (Value::Object(record), broken)
            }
        };
        broken.extend(shape::breaches(&self.validator, &record));
        if broken.is_empty() { Ok(record) } else { Err(Withheld::Broken(broken)) }
    }
}

fn checked<T: Serialize>(record: T, broken: fn(&T) -> Vec<String>) -> (Value, Vec<String>) {
    let broken = broken(&record);
    // Strings, numbers and lists: this cannot fail, and a null would break the schema.
    (serde_json::to_value(record).unwrap_or_default(), broken)
}

/// The schema of what would be submitted.
pub fn schema(format: Format) -> Value {
    match format {
        Format::CommunityNotes => schema_for!(community_notes::CommunityNote),
        Format::AtprotoLabel => schema_for!(atproto_label::Label),
        Format::ActivitystreamsFlag => schema_for!(activitystreams_flag::Flag),
        Format::DsaStatement => schema_for!(dsa_statement::Statement),
    }
    .to_value()
}

#[cfg(test)]
mod tests;
