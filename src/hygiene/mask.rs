//! Masks: links and handles give way to one word each, where the policy asks for it.
//!
//! A model that is trained so cannot take a shortener's letters or a well-known account for evidence, sees fewer tokens, and
//! is shown less of who wrote what.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// What a policy has masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// `http://…`, `https://…`, `www.…` and the shorteners' `t.co/…`: the word `URL`.
    Urls,
    /// `@name`: `@user`.
    Handles,
}

static URL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)(?:https?://|www\.)\S+|\b(?:t\.co|bit\.ly|pic\.twitter\.com)/\S+").ok());
static HANDLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\B@\w+").ok());

impl Mask {
    /// Its name in a policy file.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "urls" => Some(Self::Urls),
            "handles" => Some(Self::Handles),
            _ => None,
        }
    }

    fn apply<'a>(self, text: &'a str) -> Cow<'a, str> {
        let (pattern, word) = match self {
            Self::Urls => (&*URL, "URL"),
            Self::Handles => (&*HANDLE, "@user"),
        };
        // The patterns are constants, and a test compiles them.
        pattern.as_ref().map_or(Cow::Borrowed(text), |pattern| pattern.replace_all(text, word))
    }
}

/// The text with all of `masks` put on.
pub fn masked<'a>(text: Cow<'a, str>, masks: &[Mask]) -> Cow<'a, str> {
    masks.iter().fold(text, |text, mask| match mask.apply(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(masked) => Cow::Owned(masked),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_handles_become_a_word_and_the_rest_stays() {
        let both = [Mask::Urls, Mask::Handles];
        let text = "RT @Dr_Who: see https://t.co/AbC?x=1 or www.a.example/b, mail a@b.example (@you) T.CO/xyz";
        let seen = masked(text.into(), &both);
        assert_eq!(seen, "RT @user: see URL or URL mail a@b.example (@user) URL");
        assert_eq!(masked(seen.clone(), &both), seen);
        assert_eq!(masked(text.into(), &[]), text);
        assert!(matches!(masked("nothing here".into(), &both), Cow::Borrowed(_)));
    }
}
