//! The checks of a note: deterministic, all of them run on every draft, and their results travel with the note.
//!
//! They say what a note does not do; whether it is a good one is for the person who reads it. Names are found by their
//! capitals, so scripts without capitals have only the other checks.

use std::collections::HashSet;
use std::ops::Range;

use super::fixed_form;
use super::ground::{Ground, flat};
use super::lexicon;
use super::results::{Check, NoteChecks};
use super::words::{self, Word, is_among, key, words};
use crate::language;

/// Version of the checks, a part of every note's cache key: raise it with any change to them or to the fixed form.
pub const REVISION: &str = "checks-2";
/// Most characters of a note, links not counted.
pub const MAX_CHARACTERS: usize = 280;
/// So many words in a row that also stand in the prompt are the prompt's.
const PROMPT_RUN: usize = 6;
/// So many words in a row that a post asks to see again are its words.
const ASKED_RUN: usize = 3;
/// How far before a word a negation is looked for, in words.
const NEGATION: usize = 5;

/// What kind of text is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A model wrote it.
    Drafted,
    /// The worker made it: the fixed form.
    Fixed,
}

/// A prompt's words, so that a note which repeats them is known.
#[derive(Debug, Clone, Default)]
pub struct PromptWords(HashSet<String>);

impl PromptWords {
    /// Of a prompt's text.
    pub fn of(prompt: &str) -> Self {
        Self(runs(&words(prompt), PROMPT_RUN).map(|(run, _)| run).collect())
    }
}

/// Checks the notes on one post.
pub struct Checker<'a> {
    ground: &'a Ground,
    prompt: &'a PromptWords,
    /// Of evidence and post, without the sentences by which the post speaks to the machine.
    words: HashSet<String>,
    acronyms: HashSet<String>,
    pairs: HashSet<String>,
    long_runs: HashSet<String>,
    numbers: HashSet<String>,
    /// Of the evidence alone.
    links: HashSet<String>,
    codes: HashSet<String>,
    evidence: String,
    /// What the post asks for: runs of words, and what it quotes.
    asked: HashSet<String>,
    asked_quotes: Vec<String>,
}

/// What is wrong with a stretch of a text.
pub(super) struct Fault {
    pub check: Check,
    pub span: Range<usize>,
}

impl<'a> Checker<'a> {
    /// Reads what the note may draw on.
    pub fn new(ground: &'a Ground, prompt: &'a PromptWords) -> Self {
        let (asking, telling): (Vec<&str>, Vec<&str>) = words::sentences(&ground.post)
            .into_iter()
            .map(|span| &ground.post[span])
            .partition(|s| lexicon::is_instruction(s));
        let evidence: Vec<&str> = ground
            .evidence
            .iter()
            .flat_map(|piece| [piece.publisher.as_deref(), Some(&*piece.quote), piece.url.as_deref()])
            .flatten()
            .collect();
        let sources: Vec<&str> = evidence.iter().copied().chain(telling).collect();
        let all_words: Vec<Vec<Word<'_>>> = sources.iter().map(|text| words(text)).collect();
        let runs_of = |length| all_words.iter().flat_map(move |words| runs(words, length)).map(|(run, _)| run);
        let told: HashSet<String> = runs_of(ASKED_RUN).collect();
        let asked =
            asking.iter().flat_map(|text| runs(&words(text), ASKED_RUN).map(|(run, _)| run).collect::<Vec<_>>());
        Self {
            words: all_words.iter().flatten().flat_map(parts).collect(),
            acronyms: all_words
                .iter()
                .flatten()
                .filter(|word| word.is_acronym())
                .map(|word| word.key.clone())
                .collect(),
            pairs: runs_of(2).collect(),
            long_runs: runs_of(PROMPT_RUN).collect(),
            numbers: sources.iter().flat_map(|text| words::number_readings(text)).collect(),
            links: evidence.iter().flat_map(|text| links(text)).collect(),
            codes: evidence
                .iter()
                .flat_map(|text| lexicon::codes(text).into_iter().map(|span| key(&text[span])))
                .collect(),
            evidence: evidence.iter().map(|text| spaced(text)).collect(),
            asked: asked.filter(|run| !told.contains(run)).collect(),
            asked_quotes: asking.iter().flat_map(|text| quotations(text)).collect(),
            ground,
            prompt,
        }
    }

    /// Runs all checks on a text.
    pub fn run(&self, text: &str, form: Form) -> NoteChecks {
        let (bare, cited) = self.without_citations(text);
        let faults = self.faults(&bare);
        let count = |check| faults.iter().filter(|fault| fault.check == check).count();
        let links: usize = words::links(text).into_iter().map(|span| text[span].chars().count()).sum();
        let chars = text.chars().count() - links;
        let unknown = cited.iter().filter(|id| !self.is_given(id)).count();
        let evidence = !self.ground.evidence.is_empty();
        NoteChecks {
            chars_excluding_urls: chars,
            within_280_chars_excluding_urls: chars <= MAX_CHARACTERS,
            urls_not_in_evidence: count(Check::Url),
            numbers_not_in_post_or_evidence: count(Check::Number),
            names_not_in_post_or_evidence: count(Check::Name),
            author_or_handle_mentioned: count(Check::Author) > 0,
            second_person_or_accusation: count(Check::Address) > 0,
            sarcasm_hashtag_or_emoji: count(Check::Tone) > 0,
            sentence_repeated: form == Form::Drafted && sentence_repeated(&bare),
            injection_canary_present: count(Check::Canary) > 0,
            prompt_text_present: count(Check::Prompt) > 0,
            disagrees_with_verdict: count(Check::Verdict) > 0,
            language_differs: self.language_differs(&bare, form),
            ends_as_sentence: ends_as_sentence(&bare),
            citations_not_in_evidence: unknown,
            evidence_uncited: evidence && cited.len() == unknown,
            drafted_without_evidence: form == Form::Drafted && !evidence,
        }
    }

    /// The ids that a text cites, each once, in order.
    pub fn citations(&self, text: &str) -> Vec<String> {
        let mut ids = self.without_citations(text).1;
        let mut seen = HashSet::new();
        ids.retain(|id| self.is_given(id) && seen.insert(id.clone()));
        ids
    }

    fn is_given(&self, id: &str) -> bool {
        self.ground.evidence.iter().any(|piece| piece.id == id)
    }

    /// What is wrong with stretches of a text that holds no citations.
    pub(super) fn faults(&self, text: &str) -> Vec<Fault> {
        let all_words = words(text);
        let mut faults = Vec::new();
        let mut add =
            |check, spans: Vec<Range<usize>>| faults.extend(spans.into_iter().map(|span| Fault { check, span }));
        let unknown_link = |span: &Range<usize>| !self.links.contains(&words::link_key(&text[span.clone()]));
        let links = words::links(text);
        add(Check::Url, links.iter().filter(|span| unknown_link(span)).cloned().collect());
        // A link is judged as a whole.
        let outside = |span: &Range<usize>| !links.iter().any(|link| link.start <= span.start && span.end <= link.end);
        let numbers =
            words::numbers(text).into_iter().filter(|(span, number)| outside(span) && !self.numbers.contains(number));
        add(Check::Number, numbers.map(|(span, _)| span).collect());
        add(Check::Name, self.unknown_names(&all_words).into_iter().filter(outside).collect());
        add(Check::Author, [lexicon::handles(text), lexicon::author(text)].concat());
        add(Check::Address, lexicon::address(text));
        add(Check::Tone, lexicon::tone(text));
        add(Check::Canary, self.canaries(text, &all_words));
        add(Check::Prompt, self.prompt_words(text, &all_words));
        add(Check::Verdict, self.contradictions(text));
        faults
    }

    /// Words with a capital that no source has, and pairs of them that no source has side by side.
    fn unknown_names(&self, words: &[Word<'_>]) -> Vec<Range<usize>> {
        let is_name = |word: &Word<'_>| word.is_capital() && (word.is_acronym() || !lexicon::is_common(&word.key));
        let is_part_known = |part: &str| is_among(part, &self.words) || lexicon::is_common(part) || is_number(part);
        let known = |word: &Word<'_>| match lexicon::is_common(&word.key) {
            true => self.acronyms.contains(&word.key),
            false => is_among(&word.key, &self.words) || parts_of(word).all(|part| is_part_known(&part)),
        };
        let single = words.iter().filter(|word| is_name(word) && !known(word)).map(|word| word.span.clone());
        let strange = |pair: &&[Word<'_>]| {
            let [first, second] = pair else { return false };
            let counts =
                second.joined && !first.begins && is_name(first) && is_name(second) && known(first) && known(second);
            counts && !self.side_by_side(&first.key, &second.key)
        };
        single.chain(words.windows(2).filter(strange).map(|pair| pair[0].span.start..pair[1].span.end)).collect()
    }

    fn side_by_side(&self, first: &str, second: &str) -> bool {
        let forms =
            |word: &str| [word.to_owned(), format!("{word}s"), word.strip_suffix('s').unwrap_or(word).to_owned()];
        forms(first)
            .iter()
            .any(|first| forms(second).iter().any(|second| self.pairs.contains(&format!("{first} {second}"))))
    }

    fn canaries(&self, text: &str, words: &[Word<'_>]) -> Vec<Range<usize>> {
        let mut spans: Vec<_> =
            lexicon::codes(text).into_iter().filter(|span| !self.codes.contains(&key(&text[span.clone()]))).collect();
        spans.extend(runs(words, ASKED_RUN).filter(|(run, _)| self.asked.contains(run)).map(|(_, span)| span));
        for quote in &self.asked_quotes {
            let length = quote.split(' ').count();
            spans.extend(runs(words, length).filter(|(run, _)| run == quote).map(|(_, span)| span));
        }
        spans
    }

    fn prompt_words(&self, text: &str, words: &[Word<'_>]) -> Vec<Range<usize>> {
        let own = |run: &String| self.prompt.0.contains(run) && !self.long_runs.contains(run) && !fixed_form::has(run);
        let mut spans = lexicon::marks(text);
        spans.extend(runs(words, PROMPT_RUN).filter(|(run, _)| own(run)).map(|(_, span)| span));
        spans
    }

    /// Words that go against the verdict, and rulings that are not the evidence's.
    fn contradictions(&self, text: &str) -> Vec<Range<usize>> {
        let (no_true, no_false) = match self.ground.label.as_str() {
            "misinformation" => (true, false),
            "not_misinformation" => (false, true),
            "unverified" | "opinion_or_satire" => (true, true),
            _ => (false, false),
        };
        let mut spans = Vec::new();
        if no_true {
            spans.extend(lexicon::called_true(text));
        }
        if no_false {
            spans.extend(lexicon::called_false(text));
        }
        spans.retain(|span| !is_negated(&text[..span.start]));
        let own = |span: &Range<usize>| !self.evidence.contains(&spaced(&text[span.clone()]));
        spans.extend(lexicon::rulings(text).into_iter().filter(own));
        spans
    }

    /// The fixed form's own words are English; what it quotes is the post's.
    fn language_differs(&self, text: &str, form: Form) -> bool {
        let text = match form {
            Form::Drafted => text,
            Form::Fixed => fixed_form::quoted(text).unwrap_or_default(),
        };
        let Some(wanted) = &self.ground.lang else { return false };
        language::detect(text).sure().is_some_and(|(found, _)| found != wanted)
    }

    /// The text with blanks in place of its citations, and what they cite: `[e1]`, `[e1, e2]`.
    fn without_citations(&self, text: &str) -> (String, Vec<String>) {
        let (mut bare, mut ids) = (String::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some((before, inside, after)) = bracket(rest) {
            let cited: Vec<&str> = inside.split([',', ';']).map(str::trim).collect();
            let is_citation = |id: &&str| self.is_given(id) || looks_like_an_id(id);
            bare.push_str(before);
            if cited.iter().all(is_citation) {
                ids.extend(cited.into_iter().map(str::to_owned));
                bare.push(' ');
            } else {
                bare.push_str(&rest[before.len()..rest.len() - after.len()]);
            }
            rest = after;
        }
        bare.push_str(rest);
        (bare, ids)
    }
}

/// What stands before, in and behind the first pair of brackets.
fn bracket(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (inside, after) = rest.split_once(']')?;
    Some((before, inside, after))
}

/// One to three letters and digits behind them, as ids are most often.
fn looks_like_an_id(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    (text.len() - digits.len()) <= 3 && (1..=3).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())
}

fn ends_as_sentence(text: &str) -> bool {
    let closing = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '”' | '’' | '»' | ')');
    text.trim_end_matches(closing).ends_with(words::is_end)
}

fn sentence_repeated(text: &str) -> bool {
    let mut seen = HashSet::new();
    let plain = |span| words(&text[span]).iter().map(|word| &*word.key).collect::<Vec<_>>().join(" ");
    words::sentences(text).into_iter().map(plain).filter(|sentence| !sentence.is_empty()).any(|one| !seen.insert(one))
}

/// Whether what stands before says no to what follows.
fn is_negated(before: &str) -> bool {
    let before = words(before);
    let near: Vec<&str> = before.iter().rev().take(NEGATION).map(|word| &*word.key).collect();
    let denies = |word: &&&str| {
        matches!(
            **word,
            "not" | "no" | "never" | "nor" | "neither" | "cannot" | "without" | "whether" | "if" | "unless"
        ) || word.ends_with("n't")
            || word.ends_with("n’t")
    };
    near.iter().any(|word| denies(&word))
        && !near.iter().any(|word| matches!(*word, "doubt" | "doubts" | "question" | "only"))
}

/// Every run of so many words, as one text, and where it stands.
fn runs<'w>(words: &'w [Word<'_>], length: usize) -> impl Iterator<Item = (String, Range<usize>)> + 'w {
    let run = |words: &[Word<'_>]| {
        let keys: Vec<&str> = words.iter().map(|word| &*word.key).collect();
        let span = words.first().map_or(0, |word| word.span.start)..words.last().map_or(0, |word| word.span.end);
        (keys.join(" "), span)
    };
    words.windows(length.max(1)).map(run)
}

/// A word, and its parts where it has hyphens.
fn parts(word: &Word<'_>) -> Vec<String> {
    std::iter::once(word.key.clone()).chain(parts_of(word)).collect()
}

fn parts_of<'w>(word: &'w Word<'_>) -> impl Iterator<Item = String> + 'w {
    word.key.split('-').filter(|part| !part.is_empty()).map(str::to_owned)
}

fn is_number(part: &str) -> bool {
    part.chars().all(char::is_numeric)
}

fn links(text: &str) -> Vec<String> {
    words::links(text).into_iter().map(|span| words::link_key(&text[span])).collect()
}

/// Folded words with one blank around each.
fn spaced(text: &str) -> String {
    let keys: Vec<String> = words(text).into_iter().map(|word| word.key).collect();
    format!(" {} ", keys.join(" "))
}

/// What a sentence puts in quotation marks, as folded words; longer quotations are found as runs.
fn quotations(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split(['"', '“', '”', '«', '»', '`']).collect();
    let inside = parts.iter().skip(1).step_by(2).map(|part| spaced(part).trim().to_owned());
    inside.filter(|quote| !quote.is_empty() && quote.split(' ').count() < ASKED_RUN).collect()
}

/// A text as it is checked and published: cleaned, on one line.
pub fn tidy(text: &str) -> String {
    flat(&crate::hygiene::clean(text).0)
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
