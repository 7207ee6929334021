//! The words, numbers, links and sentences of a text, in the form in which a note is compared with what it may draw on.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};
use regex::Regex;

/// A constant pattern; `None` if it does not compile, which a test rules out.
pub(super) type Pattern = LazyLock<Option<Regex>>;

/// Abbreviations such as `U.S.` or `U. S.`, and words with their inner apostrophes and hyphens.
static WORD: Pattern =
    LazyLock::new(|| Regex::new(r"\b(?:\p{Lu}\. ?){2,}|[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*").ok());
static NUMBER: Pattern = LazyLock::new(|| Regex::new(r"\p{N}+(?:[.,]\p{N}+)*").ok());
/// A decimal with a blank in it, as careless copies have it: `26. 7`.
static TORN_NUMBER: Pattern = LazyLock::new(|| Regex::new(r"\p{N}+[.,] \p{N}+").ok());
static GROUPED: Pattern = LazyLock::new(|| Regex::new(r"^\p{N}{1,3}(?:,\p{N}{3})+(?:\.\p{N}+)?$").ok());
/// With a scheme or `www.`; a name under a common top-level domain; any dotted name with a path behind it.
static LINK: Pattern = LazyLock::new(|| {
    let names = "com|org|net|gov|edu|int|mil|info|io|co|eu|uk|de|fr|nl|ru|cn|ca|au|ch|example|news|tv|ly|gl|app|dev|ai|blog|online|site|xyz|invalid|test";
    let host = r"\b(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+";
    let path = r#"[^\s<>"“”]"#;
    Regex::new(&format!(
        r"(?i)\b(?:[a-z][a-z0-9+.-]*://|www\.){path}+|{host}\p{{L}}{{2,}}/{path}+|{host}(?-i:{names})\b(?:/{path}*)?"
    ))
    .ok()
});

/// Where a pattern occurs in a text.
pub(super) fn found<'a>(pattern: &'static Pattern, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    pattern.as_ref().into_iter().flat_map(|pattern| pattern.find_iter(text)).map(|found| found.range())
}

/// One word of a text.
#[derive(Debug, Clone)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub span: Range<usize>,
    /// The word as it is compared: without case, accents, possessive and dots.
    pub key: String,
    /// It begins a sentence, a quotation, or what follows a colon: its capital may mean nothing.
    pub begins: bool,
    /// Nothing but one blank stands between it and the word before.
    pub joined: bool,
}

impl Word<'_> {
    /// Whether all its letters are capitals, and there are several: `WHO` is not `who`.
    pub fn is_acronym(&self) -> bool {
        let letters = || self.text.chars().filter(|c| c.is_alphabetic());
        letters().count() > 1 && letters().all(char::is_uppercase)
    }

    /// Whether it is written as names are.
    pub fn is_capital(&self) -> bool {
        self.text.chars().any(char::is_uppercase)
    }
}

/// The words of a text.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut end = 0;
    for span in found(&WORD, text) {
        let word = text[span.clone()].trim_end();
        let span = span.start..span.start + word.len();
        let before = &text[..span.start];
        let begins = before
            .trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '“' | '‘' | '«' | '(' | '['))
            .ends_with(['.', '!', '?', ':', ';', '…', '\u{2014}', '\n'])
            || before.trim().is_empty()
            || before.ends_with(['"', '“', '‘', '«', '\'']);
        let joined = end > 0 && &text[end..span.start] == " ";
        end = span.end;
        words.push(Word { text: word, key: key(word), span, begins, joined });
    }
    words
}

/// A word as it is compared.
pub(super) fn key(word: &str) -> String {
    let folded = fold(word);
    let bare = folded.trim_end_matches(['\'', '’']);
    let bare = bare.strip_suffix("'s").or_else(|| bare.strip_suffix("’s")).unwrap_or(bare);
    bare.replace(['.', ' '], "")
}

/// Without case and accents.
pub(super) fn fold(text: &str) -> String {
    const NFKD: DecomposingNormalizerBorrowed<'_> = DecomposingNormalizerBorrowed::new_nfkd();
    const CATEGORY: CodePointMapDataBorrowed<'_, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
    let letters: Cow<'_, str> = if text.is_ascii() { text.into() } else { NFKD.normalize(text) };
    letters
        .chars()
        .filter(|c| !GeneralCategoryGroup::Mark.contains(CATEGORY.get(*c)))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Singular and plural count as one word.
pub(super) fn is_among(key: &str, words: &HashSet<String>) -> bool {
    let shorter = [key.strip_suffix("s"), key.strip_suffix("es")];
    words.contains(key)
        || shorter.into_iter().flatten().any(|key| key.chars().nth(1).is_some() && words.contains(key))
        || words.contains(&format!("{key}s"))
        || words.contains(&format!("{key}es"))
}

/// The numbers of a text: where, and how each is compared.
pub(super) fn numbers(text: &str) -> Vec<(Range<usize>, String)> {
    found(&NUMBER, text).map(|span| (span.clone(), number_key(&text[span]))).collect()
}

/// Every reading of a source's numbers: a torn decimal also whole, a dotted date also in parts.
pub(super) fn number_readings(text: &str) -> HashSet<String> {
    let mut readings: HashSet<String> = numbers(text).into_iter().map(|(_, number)| number).collect();
    readings.extend(found(&TORN_NUMBER, text).map(|span| number_key(&text[span].replace(' ', ""))));
    let parts: Vec<String> = readings
        .iter()
        .filter(|number| number.matches(['.', ',']).count() > 1)
        .flat_map(|number| number.split(['.', ',']).map(str::to_owned))
        .collect();
    readings.extend(parts);
    readings
}

/// Commas between thousands do not count.
fn number_key(number: &str) -> String {
    let grouped = GROUPED.as_ref().is_some_and(|grouped| grouped.is_match(number));
    if grouped { number.replace(',', "") } else { number.to_owned() }
}

/// The links of a text, without the punctuation that follows them.
pub(super) fn links(text: &str) -> Vec<Range<usize>> {
    let trimmed = |span: Range<usize>| {
        let link = text[span.clone()].trim_end_matches(|c: char| ".,;:!?)]}'\"’”»…".contains(c));
        span.start..span.start + link.len()
    };
    found(&LINK, text).map(trimmed).filter(|span| !span.is_empty()).collect()
}

/// A link as it is compared: without scheme, `www.` and closing slash.
pub(super) fn link_key(link: &str) -> String {
    let link = link.to_lowercase();
    let bare = link.split_once("://").map_or(&*link, |(_, rest)| rest);
    bare.strip_prefix("www.").unwrap_or(bare).trim_end_matches('/').to_owned()
}

/// The sentences of a text, each with what ends it; a line ends one too. Nothing is left out.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let (mut start, mut ended) = (0, false);
    for (at, c) in text.char_indices() {
        if c == '\n' || (ended && c.is_whitespace()) {
            sentences.push(start..at + c.len_utf8());
            start = at + c.len_utf8();
            ended = false;
        } else if is_end(c) {
            ended = true;
        } else if !matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']') {
            ended = matches!(c, '。' | '！' | '？');
        }
    }
    sentences.push(start..text.len());
    sentences.retain(|span| !text[span.clone()].trim().is_empty());
    sentences
}

/// Marks that end a sentence, in the scripts that have such.
pub(super) fn is_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？' | '।' | '؟' | '۔')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.key).collect()
    }

    #[test]
    fn every_pattern_compiles() {
        assert!([&WORD, &NUMBER, &TORN_NUMBER, &GROUPED, &LINK].iter().all(|pattern| pattern.is_some()));
    }

    #[test]
    fn words_are_compared_without_case_accents_possessive_and_dots() {
        assert_eq!(
            keys("Müller’s CAFÉ, the U.S. and U. S. at-risk"),
            ["muller", "cafe", "the", "us", "and", "us", "at-risk"]
        );
        let known: HashSet<String> = ["voter", "taxes", "glass"].map(str::to_owned).into();
        assert!(["voters", "voter", "tax", "taxes", "glass", "glasses"].iter().all(|word| is_among(word, &known)));
        assert!(!["vote", "as", "s", "taxi"].iter().any(|word| is_among(word, &known)));
    }

    #[test]
    fn a_word_knows_whether_it_begins_a_sentence() {
        let begins = |text| words(text).into_iter().filter(|word| word.begins).map(|word| word.key).collect::<Vec<_>>();
        assert_eq!(begins("He said: \"We won.\" Then (so it goes) he left"), ["he", "we", "then"]);
    }

    #[test]
    fn numbers_are_compared_by_value_and_not_by_look() {
        let keys = |text: &str| numbers(text).into_iter().map(|(_, key)| key).collect::<Vec<_>>();
        assert_eq!(keys("1,790 of 2,500.5, in 1960s at 3.5% or 10,5."), ["1790", "2500.5", "1960", "3.5", "10,5"]);
        let readings = number_readings("26. 7 percent on 12.11.2020");
        assert!(["26", "7", "26.7", "12", "11", "2020", "12.11.2020"].iter().all(|number| readings.contains(*number)));
    }

    #[test]
    fn links_are_found_with_and_without_a_scheme_and_other_dots_are_none() {
        let found = |text: &str| links(text).into_iter().map(|span| text[span].to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found("See https://a.example/x?y=1, (www.b.com) or canary.example/x7; pm.gov. And c.co/d!"),
            ["https://a.example/x?y=1", "www.b.com", "canary.example/x7", "pm.gov", "c.co/d"]
        );
        assert_eq!(found("The U.S. ended it.The cost was 3.5 i.e. e.g. more...then"), [""; 0]);
        assert_eq!(link_key("HTTPS://www.A.example/x/"), "a.example/x");
    }

    #[test]
    fn sentences_leave_nothing_out() {
        let text = "One. Two (so?) three!\nFour 3.5 \"five.\" Six";
        let parts: Vec<&str> = sentences(text).into_iter().map(|span| &text[span]).collect();
        assert_eq!(parts, ["One. ", "Two (so?) ", "three!\n", "Four 3.5 \"five.\" ", "Six"]);
    }
}
