//! A statement of reasons (DSA, Article 17) in the form of the Commission's Transparency Database.
//!
//! moderato says what a machine can know: that the post was found automatically, when, and what its topic is to the DSA.
//! Restriction, ground and explanation are the platform's, from its settings. No free text holds anything of the post.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::case::Case;
use super::dsa_terms as terms;
use super::settings::Settings;
use super::{Meaning, Withheld, meaning};
use crate::language;
use crate::policy::Action;

/// A statement, field by field as the Transparency Database takes it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "DSA statement of reasons", extend("anyOf" = [
    {"required": ["decision_visibility"]}, {"required": ["decision_monetary"]},
    {"required": ["decision_provision"]}, {"required": ["decision_account"]}
]))]
pub struct Statement {
    /// What was done to the post's visibility.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1), extend("items" = {"type": "string", "enum": terms::VISIBILITY}))]
    pub decision_visibility: Option<Vec<String>>,
    /// For `DECISION_VISIBILITY_OTHER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 500))]
    pub decision_visibility_other: Option<String>,
    /// What was done to payments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = terms::MONETARY))]
    pub decision_monetary: Option<String>,
    /// For `DECISION_MONETARY_OTHER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 500))]
    pub decision_monetary_other: Option<String>,
    /// What was done to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = terms::PROVISION))]
    pub decision_provision: Option<String>,
    /// What was done to the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = terms::ACCOUNT))]
    pub decision_account: Option<String>,
    /// Until when the visibility is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^\\d{4}-\\d{2}-\\d{2}$"))]
    pub end_date_visibility_restriction: Option<String>,
    /// `DECISION_GROUND_INCOMPATIBLE_CONTENT`, or `DECISION_GROUND_ILLEGAL_CONTENT` where the law says so.
    #[schemars(extend("enum" = ["DECISION_GROUND_ILLEGAL_CONTENT", "DECISION_GROUND_INCOMPATIBLE_CONTENT"]))]
    pub decision_ground: String,
    /// Where the ground can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^https?://[^\\s]+$"), length(max = 500))]
    pub decision_ground_reference_url: Option<String>,
    /// The law.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 500))]
    pub illegal_content_legal_ground: Option<String>,
    /// Why it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 2000))]
    pub illegal_content_explanation: Option<String>,
    /// The clause of the terms and conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 500))]
    pub incompatible_content_ground: Option<String>,
    /// Why it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 2000))]
    pub incompatible_content_explanation: Option<String>,
    /// Whether it is held illegal too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["Yes", "No"]))]
    pub incompatible_content_illegal: Option<String>,
    /// What the post is made of.
    #[schemars(length(min = 1), extend("items" = {"type": "string", "enum": terms::CONTENT_TYPES}))]
    pub content_type: Vec<String>,
    /// For `CONTENT_TYPE_OTHER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 500))]
    pub content_type_other: Option<String>,
    /// What kind of matter it is.
    #[schemars(extend("enum" = terms::CATEGORIES))]
    pub category: String,
    /// What else it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", extend("items" = {"type": "string", "enum": terms::CATEGORIES}))]
    pub category_addition: Option<Vec<String>>,
    /// The same in more detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", extend("items" = {"type": "string", "enum": terms::KEYWORDS}))]
    pub category_specification: Option<Vec<String>>,
    /// For `KEYWORD_OTHER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 500))]
    pub category_specification_other: Option<String>,
    /// Where the restriction holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", extend("items" = {"type": "string", "enum": terms::COUNTRIES}))]
    pub territorial_scope: Option<Vec<String>>,
    /// The post's language, two letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[A-Z]{2}$"))]
    pub content_language: Option<String>,
    /// When the post was made.
    #[schemars(regex(pattern = "^\\d{4}-\\d{2}-\\d{2}$"))]
    pub content_date: String,
    /// From when the restriction holds.
    #[schemars(regex(pattern = "^\\d{4}-\\d{2}-\\d{2}$"))]
    pub application_date: String,
    /// How the content was found and what was decided.
    #[schemars(length(min = 1, max = 5000))]
    pub decision_facts: String,
    /// Who pointed to the content.
    #[schemars(extend("enum" = terms::SOURCES))]
    pub source_type: String,
    /// Their name, where they are not the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 500))]
    pub source_identity: Option<String>,
    /// `Yes`: the worker found it.
    #[schemars(extend("const" = "Yes"))]
    pub automated_detection: String,
    /// `AUTOMATED_DECISION_PARTIALLY` where a person decides on the proposal.
    #[schemars(extend("enum" = ["AUTOMATED_DECISION_FULLY", "AUTOMATED_DECISION_PARTIALLY"]))]
    pub automated_decision: String,
    /// The platform's own id of the statement.
    #[schemars(regex(pattern = "^[a-zA-Z0-9_-]+$"), length(max = 500))]
    pub puid: String,
}

/// The fields of the statement for this case, or why there is none.
pub fn record(case: &Case, settings: &Settings) -> Result<Map<String, Value>, Withheld> {
    let meaning = meaning(case, settings)?;
    let (Some(id), Some(action), Some(_)) = (&case.verdict_id, case.action, case.abstained) else {
        return Err(Withheld::NeedsVerdict);
    };
    let topic = case.topic(settings).ok_or(Withheld::NoTopic)?;
    let terms = settings.dsa_topics().remove(topic).ok_or_else(|| Withheld::UnknownTopic(topic.to_owned()))?;
    let made = case.made.ok_or(Withheld::NoDate)?;
    let alone = settings.dsa.acts_alone && action == Action::Act;
    let mut statement = Map::new();
    let mut say = |key: &str, value: Value| statement.insert(key.to_owned(), value);
    say("content_type", json!(["CONTENT_TYPE_TEXT"]));
    say("source_type", json!("SOURCE_VOLUNTARY"));
    say("decision_facts", json!(facts(case, meaning, alone)));
    // The platform's words stand before these, and a topic's before those for all.
    statement.extend(settings.dsa.statement.clone());
    statement.extend(terms.statement);
    let mut say = |key: &str, value: Value| statement.insert(key.to_owned(), value);
    say("category", json!(terms.category));
    if !terms.category_addition.is_empty() {
        say("category_addition", json!(terms.category_addition));
    }
    if !terms.category_specification.is_empty() {
        say("category_specification", json!(terms.category_specification));
    }
    if let Some(language) = case.lang.as_deref().and_then(language::primary).filter(|tag| tag.len() == 2) {
        say("content_language", json!(language.to_ascii_uppercase()));
    }
    say("content_date", json!(date(made)));
    say("application_date", json!(date(case.time)));
    say("automated_detection", json!("Yes"));
    let decided = if alone { "AUTOMATED_DECISION_FULLY" } else { "AUTOMATED_DECISION_PARTIALLY" };
    say("automated_decision", json!(decided));
    say("puid", json!(format!("moderato-{id}")));
    Ok(statement)
}

/// How the post was found and what was decided, for every post of its kind in the same words.
fn facts(case: &Case, meaning: Meaning, alone: bool) -> String {
    let reported = if case.platform.reported { " and by user reports" } else { "" };
    let what = match meaning {
        Meaning::Misinformation => "states as fact a claim that is false or materially misleading",
        Meaning::Unverified => "states as fact a claim that the available evidence neither confirms nor refutes",
    };
    let decided = if alone {
        format!("the provider's policy decided without a person that the post {what}")
    } else {
        format!("a moderator, on the classifier's proposal, decided that the post {what}")
    };
    format!(
        "The content was found by an automated classifier run on the provider's own initiative{reported}; {decided}."
    )
}

fn date(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// The published rules that the schema cannot say.
pub fn broken(statement: &Map<String, Value>) -> Vec<String> {
    let text = |key: &str| statement.get(key).and_then(Value::as_str);
    let lists = |key: &str, word: &str| {
        statement.get(key).and_then(Value::as_array).is_some_and(|list| list.iter().any(|one| one == word))
    };
    let mut broken = Vec::new();
    let mut need = |needed: bool, key: &str, why: &str| {
        if needed && text(key).is_none_or(str::is_empty) {
            broken.push(format!("{key}: is required {why}; put it into dsa.statement"));
        }
        if !needed && text(key).is_some() {
            broken.push(format!("{key}: is allowed only {why}"));
        }
    };
    let ground = text("decision_ground").unwrap_or_default();
    for (its, keys) in [
        ("DECISION_GROUND_ILLEGAL_CONTENT", ["illegal_content_legal_ground", "illegal_content_explanation"]),
        ("DECISION_GROUND_INCOMPATIBLE_CONTENT", ["incompatible_content_ground", "incompatible_content_explanation"]),
    ] {
        keys.iter().for_each(|key| need(ground == its, key, &format!("with {its}")));
    }
    let visibility = lists("decision_visibility", "DECISION_VISIBILITY_OTHER");
    need(visibility, "decision_visibility_other", "with DECISION_VISIBILITY_OTHER");
    let monetary = text("decision_monetary") == Some("DECISION_MONETARY_OTHER");
    need(monetary, "decision_monetary_other", "with DECISION_MONETARY_OTHER");
    need(lists("content_type", "CONTENT_TYPE_OTHER"), "content_type_other", "with CONTENT_TYPE_OTHER");
    if text("source_type") == Some("SOURCE_VOLUNTARY") && text("source_identity").is_some() {
        broken.push("source_identity: is for others' notices, not for SOURCE_VOLUNTARY".to_owned());
    }
    for (key, first) in [("content_date", "2000-01-01"), ("application_date", "2020-01-01")] {
        // Dates of this form compare as they are ordered.
        let date = text(key).filter(|date| date.parse::<jiff::civil::Date>().is_ok());
        if date.is_none_or(|date| date < first || date > "2038-01-01") {
            broken.push(format!("{key}: must be a date from {first} to 2038-01-01"));
        }
    }
    for (key, value) in statement {
        if value.as_str().is_some_and(is_personal) {
            broken.push(format!("{key}: holds what may be a handle, an address or an account; say it without"));
        }
    }
    broken
}

/// Nobody's handle, mail address or account belongs into a public database.
fn is_personal(text: &str) -> bool {
    text.contains('@') || text.contains("did:plc:") || text.contains("at://")
}
