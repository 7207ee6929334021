//! The form of X's Community Notes writers (its note-writer API): at most 280 characters without URLs, at least one URL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::settings::Settings;
use super::{Reason, Withheld, meaning, reasons};

/// Characters of a note, its URLs not counted.
pub const MOST: usize = 280;

/// A proposed note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Community Notes form")]
pub struct CommunityNote {
    /// `misinformed_or_potentially_misleading`: other notes are not proposed.
    #[schemars(extend("const" = "misinformed_or_potentially_misleading"))]
    pub classification: String,
    /// Why.
    #[schemars(length(min = 1))]
    pub misleading_tags: Vec<Reason>,
    /// Whether the URLs are sources that most people would take the word of.
    pub trustworthy_sources: bool,
    /// The note, its URLs at the end.
    #[schemars(length(min = 1))]
    pub text: String,
}

/// The form for this case, or why there is none.
pub fn record(case: &Case, settings: &Settings) -> Result<CommunityNote, Withheld> {
    let meaning = meaning(case, settings)?;
    let note = case.note.as_ref().ok_or(Withheld::NeedsNote)?;
    if note.fixed_form {
        return Err(Withheld::FixedForm);
    }
    let mut text = note.summary.clone();
    for id in &note.citations {
        text = text.replace(&format!(" [{id}]"), "").replace(&format!("[{id}]"), "");
    }
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for source in case.platform.evidence.iter().filter(|source| note.citations.contains(&source.id)) {
        if !urls(&text).any(|url| url == source.url) {
            text = format!("{text} {}", source.url);
        }
    }
    if urls(&text).next().is_none() {
        return Err(Withheld::NoUrl);
    }
    let length = length(&text);
    if length > MOST {
        return Err(Withheld::TooLong(length));
    }
    let trustworthy_sources = urls(&text).all(|url| is_at(url, &settings.community_notes.trustworthy));
    Ok(CommunityNote {
        classification: "misinformed_or_potentially_misleading".to_owned(),
        misleading_tags: reasons(case, settings, meaning).to_vec(),
        trustworthy_sources,
        text,
    })
}

/// The published rules that the schema cannot say.
pub fn broken(note: &CommunityNote) -> Vec<String> {
    let mut broken = Vec::new();
    if length(&note.text) > MOST {
        broken.push(format!("text: has {} characters without its URLs; {MOST} are allowed", length(&note.text)));
    }
    if urls(&note.text).next().is_none() {
        broken.push("text: has no URL".to_owned());
    }
    broken
}

/// Characters that are no part of a URL.
fn length(text: &str) -> usize {
    text.chars().count() - urls(text).map(|url| url.chars().count()).sum::<usize>()
}

fn urls(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches(['(', '"']));
    words.filter(|word| host(word).is_some()).map(|word| word.trim_end_matches(['.', ',', ')', ';', '"']))
}

fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#', ':']).next()?;
    host.contains('.').then_some(host)
}

fn is_at(url: &str, hosts: &[String]) -> bool {
    let below = |host: &str, known: &str| host.strip_suffix(known).is_some_and(|up| up.is_empty() || up.ends_with('.'));
    host(url).is_some_and(|host| hosts.iter().any(|known| below(host, known)))
}
