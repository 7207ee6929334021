//! Characters that show nothing: zero-width ones, direction controls, tags, selectors, and control characters.
//!
//! They are Unicode's Default_Ignorable_Code_Point and Bidi_Control, and the control characters that are no blanks. Some
//! stay, because without them the text reads otherwise:
//!
//! - a joiner (U+200C, U+200D) where RFC 5892 lets it stand in a name: after a virama, and the non-joiner also between
//!   letters that would join; so Persian and the scripts of India keep theirs;
//! - U+200D between two pictures, which it makes one emoji;
//! - U+FE0E and U+FE0F behind a picture, or between a digit and its keycap.
//!
//! Other selectors (of Han variants, of Mongolian letters) and the tags of regional flags go: they hardly change what a
//! text says, and they can carry a hidden text.

use icu_properties::props::{
    BidiControl, CanonicalCombiningClass, DefaultIgnorableCodePoint, ExtendedPictographic, GeneralCategory, JoiningType,
};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed, CodePointSetData, CodePointSetDataBorrowed};

use super::TextNormalised;
use super::marks::CATEGORY;

const IGNORABLE: CodePointSetDataBorrowed<'_> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
const BIDI: CodePointSetDataBorrowed<'_> = CodePointSetData::new::<BidiControl>();
const PICTURE: CodePointSetDataBorrowed<'_> = CodePointSetData::new::<ExtendedPictographic>();
const JOINING: CodePointMapDataBorrowed<'_, JoiningType> = CodePointMapData::<JoiningType>::new();
const CLASS: CodePointMapDataBorrowed<'_, CanonicalCombiningClass> = CodePointMapData::<CanonicalCombiningClass>::new();

const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';
const KEYCAP: char = '\u{20e3}';

/// How far a joiner looks for the letters it stands between.
const NEIGHBOURS: usize = 8;

/// `None` where nothing had to go.
pub(super) fn removed(text: &str, changed: &mut TextNormalised) -> Option<String> {
    let first = text.char_indices().find(|(_, c)| is_invisible(*c))?.0;
    let mut kept = String::with_capacity(text.len());
    kept.push_str(&text[..first]);
    let before = (changed.invisible_removed, changed.bidi_removed);
    for (at, c) in text[first..].char_indices() {
        if !is_invisible(c) || stays(c, &kept, &text[first + at + c.len_utf8()..]) {
            kept.push(c);
        } else if BIDI.contains(c) {
            changed.bidi_removed += 1;
        } else {
            changed.invisible_removed += 1;
        }
    }
    (before != (changed.invisible_removed, changed.bidi_removed)).then_some(kept)
}

/// Whether a character shows nothing, wherever it stands.
pub fn is_invisible(c: char) -> bool {
    match c {
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' => false,
        ' '..='~' => false,
        // The category is found at once; the sets are searched.
        _ => match CATEGORY.get(c) {
            GeneralCategory::Control => true,
            GeneralCategory::Format | GeneralCategory::NonspacingMark | GeneralCategory::Unassigned => {
                IGNORABLE.contains(c) || BIDI.contains(c)
            }
            // Hangul's fillers are letters that are blank.
            GeneralCategory::OtherLetter => matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'),
            _ => false,
        },
    }
}

/// Whether `c` means something between what was kept before it and what follows.
fn stays(c: char, before: &str, after: &str) -> bool {
    let last = before.chars().next_back();
    match c {
        NON_JOINER => last.is_some_and(is_virama) || (joins_on(before) && joins_back(after)),
        JOINER => last.is_some_and(is_virama) || (ends_in_a_picture(before) && after.starts_with(is_picture)),
        '\u{fe0e}' | '\u{fe0f}' => match last {
            Some('0'..='9' | '#' | '*') => after.starts_with(KEYCAP),
            last => last.is_some_and(is_picture),
        },
        _ => false,
    }
}

fn is_virama(c: char) -> bool {
    CLASS.get(c) == CanonicalCombiningClass::Virama
}

fn is_picture(c: char) -> bool {
    !c.is_ascii() && PICTURE.contains(c)
}

/// A picture with its skin tone, selector or keycap behind it.
fn ends_in_a_picture(text: &str) -> bool {
    let belongs_to_it = |c: &char| matches!(c, '\u{fe0e}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    text.chars().rev().take(3).find(|c| !belongs_to_it(c)).is_some_and(is_picture)
        || text.chars().next_back().is_some_and(is_picture)
}

/// RFC 5892, A.1: the last letter, past its marks, joins the one after it.
fn joins_on(text: &str) -> bool {
    let letter = text.chars().rev().take(NEIGHBOURS).map(|c| JOINING.get(c)).find(|kind| !is_transparent(*kind));
    matches!(letter, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
}

/// RFC 5892, A.1: the next letter, past marks, joins the one before it.
fn joins_back(text: &str) -> bool {
    let letter = text.chars().take(NEIGHBOURS).map(|c| JOINING.get(c)).find(|kind| !is_transparent(*kind));
    matches!(letter, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

fn is_transparent(kind: JoiningType) -> bool {
    kind == JoiningType::Transparent
}
