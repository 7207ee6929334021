//! A label of the AT Protocol, `com.atproto.label.defs#label`, before it is signed.

use jiff::ToSpan;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::settings::Settings;
use super::{Meaning, Reason, Withheld, meaning, reasons};

/// Bytes of a label's value.
const LONGEST_VALUE: usize = 128;

/// A label on a post.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "com.atproto.label.defs#label")]
pub struct Label {
    /// Version of the label object.
    #[schemars(extend("const" = 1))]
    pub ver: u8,
    /// DID of the labeler.
    #[schemars(regex(pattern = "^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$"), length(max = 2048))]
    pub src: String,
    /// The post.
    #[schemars(regex(pattern = "^(at://|did:|https://)[^\\s]+$"), length(max = 8192))]
    pub uri: String,
    /// The version of the post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-zA-Z0-9+=]{8,256}$"))]
    pub cid: Option<String>,
    /// `misinformation`, `rumor` or `misleading`.
    #[schemars(regex(pattern = "^[a-z-]+$"), length(min = 1, max = 128))]
    pub val: String,
    /// The label is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub neg: bool,
    /// When it was made.
    #[schemars(regex(pattern = "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{3}Z$"))]
    pub cts: String,
    /// When it lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{3}Z$"))]
    pub exp: Option<String>,
}

/// The label for this case, or why there is none.
pub fn record(case: &Case, settings: &Settings) -> Result<Label, Withheld> {
    let meaning = meaning(case, settings)?;
    if case.abstained.is_none() {
        return Err(Withheld::NeedsVerdict);
    }
    let src = settings.atproto.labeler.clone();
    let src = src.ok_or(Withheld::Settings("atproto.labeler is missing: the DID that labels, such as did:plc:..."))?;
    let context = reasons(case, settings, meaning).contains(&Reason::MissingImportantContext);
    // The words of Ozone's own profile.
    let val = match meaning {
        Meaning::Misinformation if context => "misleading",
        Meaning::Misinformation => "misinformation",
        Meaning::Unverified => "rumor",
    };
    let made = case.time.to_zoned(TimeZone::UTC);
    let lapses = settings.atproto.expires_days.and_then(|days| made.checked_add(i64::from(days).days()).ok());
    let time = |zoned: &jiff::Zoned| zoned.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    Ok(Label {
        ver: 1,
        src,
        uri: case.uri(settings).ok_or(Withheld::NoUri)?,
        cid: case.platform.cid.clone(),
        val: val.to_owned(),
        neg: case.platform.reversed,
        cts: time(&made),
        exp: lapses.as_ref().map(time),
    })
}

/// The published rules that the schema cannot say.
pub fn broken(label: &Label) -> Vec<String> {
    let mut broken = Vec::new();
    if label.val.len() > LONGEST_VALUE {
        broken.push(format!("val: has {} bytes; {LONGEST_VALUE} are allowed", label.val.len()));
    }
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    if time(&label.cts).is_none() {
        broken.push("cts: is no time".to_owned());
    }
    if let Some(exp) = &label.exp
        && time(exp) <= time(&label.cts)
    {
        broken.push("exp: does not lie after cts".to_owned());
    }
    if label.cid.is_some() && !label.uri.starts_with("at://") {
        broken.push("cid: belongs to a record, so uri must be an AT-URI".to_owned());
    }
    broken
}
