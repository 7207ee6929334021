//! What is exported: a verdict, its note if there is one, and what the platform adds.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Reason;
use super::settings::Settings;
use crate::policy::Action;
use crate::verdict::{ActionReason, VerdictV1};

/// One line of input, whichever kind it was.
#[derive(Debug, Clone)]
pub struct Case {
    /// The verdict's id.
    pub verdict_id: Option<String>,
    /// The post's id.
    pub post_id: String,
    /// The verdict's label.
    pub label: String,
    /// The score of that label.
    pub score: Option<f64>,
    /// What the policy proposes.
    pub action: Option<Action>,
    /// Whether the verdict abstains; a note alone may not say.
    pub abstained: Option<bool>,
    /// The model cannot judge the post's language.
    pub unsupported_language: bool,
    /// When the verdict or the note was given.
    pub time: Timestamp,
    /// When the post was made; where the platform does not say, when it came to moderato's topic.
    pub made: Option<Timestamp>,
    /// The post's language, a BCP 47 tag.
    pub lang: Option<String>,
    /// The note.
    pub note: Option<NoteText>,
    /// What the platform adds.
    pub platform: Platform,
}

/// What a line may carry in `platform`, beside the verdict or note: all that moderato cannot know.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Platform {
    /// What the post is about, such as `health`.
    pub topic: Option<String>,
    /// The post's address: an AT-URI, or any URI.
    pub uri: Option<String>,
    /// CID of the version of the post that was judged.
    pub cid: Option<String>,
    /// When the post was made, RFC 3339.
    pub created_at: Option<String>,
    /// Why the post misleads.
    pub reasons: Vec<Reason>,
    /// The evidence that came with the post: where to look it up.
    pub evidence: Vec<Source>,
    /// Users reported the post too.
    pub reported: bool,
    /// The label is taken back.
    pub reversed: bool,
}

/// Where a piece of evidence can be looked up.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// As notes cite it.
    pub id: String,
    /// Its address.
    pub url: String,
}

/// The part of a note that is handed on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NoteText {
    /// The text.
    pub summary: String,
    /// Ids of the evidence that it cites.
    #[serde(default)]
    pub citations: Vec<String>,
    /// Whether it only says what to check.
    #[serde(default)]
    pub fixed_form: bool,
}

/// The part of note.v1 that is read here.
#[derive(Deserialize)]
struct NoteLine {
    subject: String,
    time: String,
    data: NoteData,
}

#[derive(Deserialize)]
struct NoteData {
    note: NoteText,
    verdict: NoteVerdict,
    input: NoteInput,
}

#[derive(Deserialize)]
struct NoteVerdict {
    verdict_id: Option<String>,
    label: String,
    score: Option<f64>,
    action: Option<Action>,
    abstained: Option<bool>,
}

#[derive(Deserialize)]
struct NoteInput {
    lang: Option<String>,
}

impl Case {
    /// Reads one line. What is wrong with it is told without any of its text.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut value: Value = serde_json::from_str(line).map_err(|error| {
            format!("is not JSON (column {}); give verdict.v1 or note.v1, one a line", error.column())
        })?;
        let platform = value.as_object_mut().and_then(|line| line.remove("platform")).unwrap_or(Value::Null);
        let platform = match platform {
            Value::Null => Platform::default(),
            platform => serde_json::from_value(platform).map_err(|_| {
                "`platform` has a field that is not known or not right: see schemas/export/platform.v1.json".to_owned()
            })?,
        };
        let made = match &platform.created_at {
            Some(time) => Some(time.parse().map_err(|_| "`platform.created_at` is not RFC 3339".to_owned())?),
            None => None,
        };
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let shape = |kind: &str| format!("has not the shape of {kind}: see schemas/{kind}.json");
        let case = match kind {
            "dev.moderato.verdict.v1" => of_verdict(value).ok_or_else(|| shape("verdict.v1"))?,
            "dev.moderato.note.v1" => of_note(value).ok_or_else(|| shape("note.v1"))?,
            _ => return Err("is neither verdict.v1 nor note.v1".to_owned()),
        };
        Ok(Self { made: made.or(case.made), platform, ..case })
    }

    /// Takes the note of another line that is about the same verdict.
    pub fn with_note(mut self, note: Option<NoteText>) -> Self {
        self.note = note.or(self.note);
        self
    }

    /// Where the post stands: as the platform says, else by its settings, else its id where that is an address.
    pub fn uri(&self, settings: &Settings) -> Option<String> {
        let template = || settings.uri.as_ref().map(|uri| uri.replace("{id}", &self.post_id));
        let own = || (self.post_id.contains("://") || self.post_id.starts_with("did:")).then(|| self.post_id.clone());
        self.platform.uri.clone().or_else(template).or_else(own)
    }

    /// What the post is about: as the platform says of it, else as its settings say of all posts. It is never guessed.
    pub fn topic<'a>(&'a self, settings: &'a Settings) -> Option<&'a str> {
        self.platform.topic.as_deref().or(settings.topic.as_deref())
    }
}

fn of_verdict(value: Value) -> Option<Case> {
    let verdict: VerdictV1 = serde_json::from_value(value).ok()?;
    let (judged, input) = (verdict.data.verdict, verdict.data.input);
    Some(Case {
        verdict_id: Some(verdict.id.into_owned()),
        post_id: verdict.subject.into_owned(),
        label: judged.label.into_owned(),
        score: Some(judged.score),
        action: Some(judged.action),
        abstained: Some(judged.abstained),
        unsupported_language: judged.action_reason == ActionReason::UnsupportedLanguage,
        time: verdict.time.parse().ok()?,
        made: input.kafka.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        lang: input.lang_detected.or(input.lang).map(|lang| lang.into_owned()),
        note: None,
        platform: Platform::default(),
    })
}

fn of_note(value: Value) -> Option<Case> {
    let NoteLine { subject, time, data } = serde_json::from_value(value).ok()?;
    let time = time.parse().ok()?;
    let verdict = data.verdict;
    Some(Case {
        verdict_id: verdict.verdict_id,
        post_id: subject,
        label: verdict.label,
        score: verdict.score,
        action: verdict.action,
        abstained: verdict.abstained,
        unsupported_language: false,
        time,
        made: None,
        lang: data.input.lang,
        note: Some(data.note),
        platform: Platform::default(),
    })
}

/// A case with which nothing is wrong.
pub(super) fn specimen(topic: &str) -> Case {
    Case {
        verdict_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
        post_id: "specimen".to_owned(),
        label: "misinformation".to_owned(),
        score: Some(0.97),
        action: Some(Action::Act),
        abstained: Some(false),
        unsupported_language: false,
        // 2026-11-22T08:00:00Z
        time: Timestamp::from_second(1_795_334_400).unwrap_or_default(),
        made: Timestamp::from_second(1_795_334_000).ok(),
        lang: Some("en".to_owned()),
        note: Some(NoteText {
            summary: "The post says X. Y states Z.".to_owned(),
            citations: vec!["e1".to_owned()],
            fixed_form: false,
        }),
        platform: Platform {
            topic: Some(topic.to_owned()),
            uri: Some("at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lb2xk5ymck2f".to_owned()),
            evidence: vec![Source { id: "e1".to_owned(), url: "https://example.org/e1".to_owned() }],
            ..Platform::default()
        },
    }
}
