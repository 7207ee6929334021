//! An ActivityStreams 2.0 `Flag`: a report to whoever moderates the post.

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::settings::Settings;
use super::{Meaning, Withheld, meaning};

/// A flag on a post.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "ActivityStreams Flag")]
pub struct Flag {
    /// `https://www.w3.org/ns/activitystreams`.
    #[serde(rename = "@context")]
    #[schemars(extend("const" = "https://www.w3.org/ns/activitystreams"))]
    pub context: String,
    /// The flag's own URI.
    #[schemars(regex(pattern = "^[a-z][a-z0-9+.-]*:[^\\s]+$"))]
    pub id: String,
    /// `Flag`.
    #[serde(rename = "type")]
    #[schemars(extend("const" = "Flag"))]
    pub kind: String,
    /// Who flags.
    #[schemars(regex(pattern = "^https://[^\\s]+$"))]
    pub actor: String,
    /// The post.
    #[schemars(length(min = 1), inner(regex(pattern = "^[a-z][a-z0-9+.-]*:[^\\s]+$")))]
    pub object: Vec<String>,
    /// Why, for a moderator.
    #[schemars(length(min = 1))]
    pub content: String,
    /// When, RFC 3339.
    #[schemars(regex(pattern = "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}Z$"))]
    pub published: String,
}

/// The flag for this case, or why there is none.
pub fn record(case: &Case, settings: &Settings) -> Result<Flag, Withheld> {
    let meaning = meaning(case, settings)?;
    let actor = settings.activitystreams.actor.clone();
    let actor = actor.ok_or(Withheld::Settings("activitystreams.actor is missing: the https URI of who flags"))?;
    let id = case.verdict_id.as_deref().ok_or(Withheld::NeedsVerdict)?;
    let template = settings.activitystreams.flag.as_deref().unwrap_or("urn:moderato:flag:{id}");
    Ok(Flag {
        context: "https://www.w3.org/ns/activitystreams".to_owned(),
        id: template.replace("{id}", id),
        kind: "Flag".to_owned(),
        actor,
        object: vec![case.uri(settings).ok_or(Withheld::NoUri)?],
        content: content(case, settings, meaning),
        published: case.time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

fn content(case: &Case, settings: &Settings, meaning: Meaning) -> String {
    let what = match meaning {
        Meaning::Misinformation => "possible misinformation",
        Meaning::Unverified => "a claim that is neither confirmed nor refuted",
    };
    let topic = case.topic(settings).map(|topic| format!(" ({topic})")).unwrap_or_default();
    let score = case.score.map(|score| format!(", score {score:.2}")).unwrap_or_default();
    let note = case.note.as_ref().map(|note| format!(" Draft note: {}", note.summary)).unwrap_or_default();
    format!("Automated pre-screen: {what}{topic}{score}. For a moderator to confirm or reject.{note}")
}

/// The published rules that the schema cannot say.
pub fn broken(flag: &Flag) -> Vec<String> {
    let time = flag.published.parse::<jiff::Timestamp>();
    time.err().map(|_| "published: is no time".to_owned()).into_iter().collect()
}
