//! Words in disguise: letters s p a c e d apart, and digits that stand for letters ("v4cc1ne").
//!
//! Both are guesses, so both want a sign that somebody did it on purpose: four letters in a row that stand alone, or digits
//! inside words. Numbers, units, ordinals ("1st", "50k"), names such as `covid19`, `H1N1` or `mp3`, links and handles
//! keep their digits.

use super::TextNormalised;

/// So many lone characters in a row are a word taken apart.
const RUN: usize = 4;
/// So many of them are letters.
const LETTERS: usize = 3;
/// A single word of which digits are part is folded from this length on.
const LONG: usize = 5;
/// Longer ones are no words: keys, digests, encoded bytes.
const LONGEST: usize = 24;
/// So many words with digits inside them, and one in `SHARE`, make a text written so throughout.
const MANY: usize = 3;
const SHARE: usize = 5;

/// Letters that stand alone with one blank between them become words again. `None` where no word was taken apart.
pub(super) fn joined(text: &str, changed: &mut TextNormalised) -> Option<String> {
    let runs = lone_runs(text);
    if !runs.iter().any(|run| run.lone >= RUN && run.letters >= LETTERS) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for run in runs.iter().filter(|run| run.lone >= 2 && run.letters > 0) {
        out.push_str(&text[copied..run.start]);
        out.extend(text[run.start..run.end].chars().filter(|c| *c != ' '));
        copied = run.end;
        changed.letters_joined += u32::try_from(run.lone).unwrap_or(u32::MAX);
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Characters with one blank between them, from the first to the last.
struct Run {
    start: usize,
    end: usize,
    lone: usize,
    letters: usize,
}

fn lone_runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    for part in text.split(' ') {
        let mut chars = part.chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            let letters = usize::from(c.is_ascii_alphabetic());
            match runs.last_mut() {
                Some(run) if run.end + 1 == at => {
                    run.end = at + part.len();
                    run.lone += 1;
                    run.letters += letters;
                }
                _ => runs.push(Run { start: at, end: at + part.len(), lone: 1, letters }),
            }
        }
        at += part.len() + 1;
    }
    runs
}

/// Digits that stand for letters become letters. `None` where none does.
pub(super) fn unleeted(text: &str, changed: &mut TextNormalised) -> Option<String> {
    if !text.chars().any(|c| letter(c) != c) {
        return None;
    }
    let throughout = is_written_so(text);
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    for token in text.split_inclusive(char::is_whitespace) {
        let is_address = token.contains("://") || token.starts_with('@') || token.starts_with("www.");
        let mut start = at;
        for part in token.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let folds = if throughout { mixes(word) || word == "4" } else { !is_address && is_disguised(word) };
            if folds {
                out.push_str(&text[copied..start]);
                out.extend(word.chars().map(letter));
                copied = start + word.len();
                changed.leet_folded +=
                    u32::try_from(word.bytes().filter(u8::is_ascii_digit).count()).unwrap_or(u32::MAX);
            }
            start += part.len();
        }
        at += token.len();
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

fn is_written_so(text: &str) -> bool {
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let inside = words().filter(|word| mixes(word) && has_digit_inside(word)).count();
    inside >= MANY && inside * SHARE >= words().count()
}

/// One word in an ordinary text: digits between letters, more letters than digits, and letters of one case.
fn is_disguised(word: &str) -> bool {
    let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
    let rest = word.get(1..).unwrap_or_default();
    let one_case = !rest.bytes().any(|c| c.is_ascii_uppercase()) || !word.bytes().any(|c| c.is_ascii_lowercase());
    (LONG..=LONGEST).contains(&word.len())
        && letters >= LETTERS
        && letters * 2 > word.len()
        && one_case
        && mixes(word)
        && has_digit_inside(word)
}

/// Letters and such digits as stand for letters, and no others.
fn mixes(word: &str) -> bool {
    word.len() <= LONGEST
        && word.bytes().any(|c| c.is_ascii_alphabetic())
        && word.bytes().any(|c| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_alphabetic() || letter(c) != c)
}

fn has_digit_inside(word: &str) -> bool {
    word.as_bytes()
        .windows(3)
        .any(|three| three[0].is_ascii_alphabetic() && three[1].is_ascii_digit() && three[2].is_ascii_alphabetic())
}

fn letter(c: char) -> char {
    match c {
        '0' => 'o',
        '1' => 'i',
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        '7' => 't',
        c => c,
    }
}
