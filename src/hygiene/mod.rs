//! Text hygiene: a post is cleaned of what a person does not see before the model reads it.
//!
//! Hidden characters go (`invisible`), floods of combining marks go (`marks`), the rest takes its NFKC form, and in words
//! that mix Latin with look-alikes of other scripts the look-alikes become Latin (`lookalikes`). Words that were taken apart
//! or written with digits are put together again (`disguise`). Promises that what comes out would come out the same again,
//! that honest text of any script keeps its letters, and time in proportion to the text. What a policy has masked is
//! masked last (`mask`).

mod disguise;
mod invisible;
mod lookalikes;
mod marks;
mod mask;

pub use invisible::is_invisible;
pub use mask::{Mask, masked};

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What hygiene changed, in characters of the post. Zeros where the model read the text as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TextNormalised {
    /// Characters that have another form under NFKC: full-width and styled letters, ligatures; 1 where only the
    /// composition of accents changed.
    pub nfkc: u32,
    /// Zero-width and other characters that show nothing: removed.
    pub invisible_removed: u32,
    /// Controls of the writing direction: removed.
    pub bidi_removed: u32,
    /// Look-alikes of other scripts inside Latin words: folded to Latin.
    pub confusables_folded: u32,
    /// Combining marks in runs longer than any language writes: dropped.
    pub marks_dropped: u32,
    /// Letters that stood alone in a row and were joined to words.
    #[serde(default)]
    pub letters_joined: u32,
    /// Digits that stood for letters inside words: folded to letters.
    #[serde(default)]
    pub leet_folded: u32,
}

impl TextNormalised {
    /// Whether the text is as it came.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Rounds until a text stands still. A second finds what the first uncovered; more are needed for texts that were made
/// to need them, and such a text may keep its last layer.
const ROUNDS: usize = 4;

/// The text that the model reads, and what was changed in it.
pub fn clean(text: &str) -> (Cow<'_, str>, TextNormalised) {
    let mut changed = TextNormalised::default();
    let mut text = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let before = changed;
        if !is_plain(&text) {
            text = step(text, |text| invisible::removed(text, &mut changed));
            text = step(text, |text| marks::thinned(text, &mut changed));
            text = step(text, |text| normalised(text, &mut changed));
            text = step(text, |text| lookalikes::folded(text, &mut changed));
        }
        text = step(text, |text| disguise::joined(text, &mut changed));
        text = step(text, |text| disguise::unleeted(text, &mut changed));
        if changed == before {
            break;
        }
    }
    (text, changed)
}

/// One step over the text; what it leaves alone stays where it is.
fn step<'a>(text: Cow<'a, str>, change: impl FnOnce(&str) -> Option<String>) -> Cow<'a, str> {
    change(&text).map_or(text, Cow::Owned)
}

/// ASCII without control characters but for blanks: nothing is hidden in it.
fn is_plain(text: &str) -> bool {
    // All bytes are looked at, without an early end: that compiles to a few wide instructions.
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7e | b'\t' | b'\n' | b'\r'))
}

fn normalised(text: &str, changed: &mut TextNormalised) -> Option<String> {
    const NFKC: ComposingNormalizerBorrowed<'_> = ComposingNormalizerBorrowed::new_nfkc();
    let Cow::Owned(normal) = NFKC.normalize(text) else { return None };
    let has_another_form = |c: &char| !c.is_ascii() && !NFKC.is_normalized(c.encode_utf8(&mut [0; 4]));
    let forms = text.chars().filter(has_another_form).fold(0, |count, _| count + 1);
    changed.nfkc += forms.max(1);
    Some(normal)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
