//! Look-alikes of Latin letters ("pаypаl" with Cyrillic "а"), by Unicode's table of confusables (UTS 39).
//!
//! Only a word that holds Latin letters already is touched, and only if that makes all of it Latin: then its other
//! letters were there for their looks. Words of one script stay, whatever they look like, and so do words with a letter
//! that looks like none of Latin's.

use icu_properties::props::Script;
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};
use unicode_security::skeleton;

use super::TextNormalised;
use super::marks::is_mark;

const SCRIPT: CodePointMapDataBorrowed<'_, Script> = CodePointMapData::<Script>::new();

/// `None` where no word mixes Latin with look-alikes.
pub(super) fn folded(text: &str, changed: &mut TextNormalised) -> Option<String> {
    if !text.bytes().any(|byte| byte.is_ascii_alphabetic()) || !text.chars().any(is_letter_of_another_script) {
        return None;
    }
    let mut out = String::new();
    let (mut copied, mut start) = (0, 0);
    // Runs of letters, digits and marks, each with the one character behind it.
    for part in text.split_inclusive(|c: char| !belongs_to_a_word(c)) {
        let word = part.trim_end_matches(|c: char| !belongs_to_a_word(c));
        if let Some((latin, letters)) = may_mix(word).then(|| to_latin(word)).flatten() {
            out.push_str(&text[copied..start]);
            out.push_str(&latin);
            copied = start + word.len();
            changed.confusables_folded += letters;
        }
        start += part.len();
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Letters before Greek are Latin. Texts without others are spared the work.
fn is_letter_of_another_script(c: char) -> bool {
    c >= '\u{370}' && c.is_alphabetic()
}

fn belongs_to_a_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    // Scripts without blanks between words stand beside Latin words all the time.
    (c.is_alphanumeric() || is_mark(c)) && !is_written_without_blanks(c)
}

fn is_written_without_blanks(c: char) -> bool {
    let without = [
        Script::Han,
        Script::Hiragana,
        Script::Katakana,
        Script::Hangul,
        Script::Bopomofo,
        Script::Thai,
        Script::Lao,
        Script::Khmer,
        Script::Myanmar,
        Script::Tibetan,
    ];
    c >= '\u{e00}' && without.contains(&SCRIPT.get(c))
}

fn may_mix(word: &str) -> bool {
    !word.is_ascii() && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The word in Latin letters, and how many were folded for it; `None` if none had to be, or one could not be.
fn to_latin(word: &str) -> Option<(String, u32)> {
    let (mut latin, mut letters) = (String::with_capacity(word.len()), 0);
    for c in word.chars() {
        if c.is_ascii() || matches!(SCRIPT.get(c), Script::Latin | Script::Common | Script::Inherited) {
            latin.push(c);
        } else {
            letters += u32::from(push_latin(c, &mut latin)?);
        }
    }
    (letters > 0).then_some((latin, letters))
}

/// Adds the Latin letter that `c` looks like, with its accents. `None` if it looks like none.
fn push_latin(c: char, latin: &mut String) -> Option<bool> {
    if is_mark(c) {
        latin.push(c);
        return Some(false);
    }
    let mut seen = [0; 4];
    let mut looks = skeleton(c.encode_utf8(&mut seen));
    let letter = match looks.next()? {
        // The table takes `I`, `l`, `1` and `|` for one; of these, a capital is an `I`.
        'l' if c.is_uppercase() => 'I',
        letter if letter.is_ascii_alphabetic() => letter,
        _ => return None,
    };
    latin.push(letter);
    for accent in looks {
        if !is_mark(accent) {
            return None;
        }
        latin.push(accent);
    }
    Some(true)
}
