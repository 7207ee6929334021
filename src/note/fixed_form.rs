//! The fixed form of a note: what to check, never what is true. It stands where there is no evidence, and where a model's
//! drafts were refused.
//!
//! It quotes the post as far as the checks allow: sentences by which the post speaks to the machine are left out, links and
//! handles give way to a word, and whatever else a note may not hold gives way to dots. A post of which nothing is left is
//! not quoted. So it passes every check, whatever the post holds.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use super::checks::{Checker, Form};
use super::ground::flat;
use super::lexicon;
use super::results::NoteChecks;
use super::words::{self, words};

const OPENING: &str = "Claim to check: ";
const WHOLE: &str = "what the post says as a whole.";
const UNSUPPLIED: &str = "No evidence was supplied; suggested check: ";
const FIGURE: &str = "look up the figure at its source.";
const STATEMENT: &str = "find the original statement about ";
const SOURCE: &str = "find a primary source for it.";
const SUPPLIED: &str = "Evidence was supplied ";
const OTHERS: &str = " and others";
const LINK: &str = "(link)";
const ACCOUNT: &str = "(account)";
const DECIDE: &str = "; see it before deciding.";

/// Most characters of the quotation, of a name in it, and of the evidence's ids: together they fit a note.
const MAX_QUOTE: usize = 140;
const MAX_NAME: usize = 30;
const MAX_IDS: usize = 60;
/// So much of the post is looked at: enough to fill the quotation where much of it may not stand.
const LOOKED_AT: usize = 1200;
/// Masking may join what stood apart, so it is done until nothing more is found.
const ROUNDS: usize = 5;
/// Fewer letters say nothing.
const MIN_LETTERS: usize = 3;

/// The fixed form for one post, and what the checks say of it.
pub fn fixed_form(checker: &Checker<'_>, post: &str, evidence_ids: &[&str]) -> (String, NoteChecks) {
    let quoted = quotation(checker, post).map(|quote| format!("{OPENING}“{quote}” {}", ending(&quote, evidence_ids)));
    let whole = || format!("{OPENING}{WHOLE} {}", ending("", evidence_ids));
    let summary = quoted.unwrap_or_else(whole);
    let checks = checker.run(&summary, Form::Fixed);
    if checks.failed().is_empty() {
        return (summary, checks);
    }
    let summary = whole();
    let checks = checker.run(&summary, Form::Fixed);
    (summary, checks)
}

/// Whether these words in a row are of the fixed form itself.
pub(super) fn has(run: &str) -> bool {
    static FRAME: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let texts = [
            format!("{OPENING}{WHOLE} {UNSUPPLIED}{FIGURE}"),
            format!("{UNSUPPLIED}{STATEMENT}"),
            format!("{OPENING}{WHOLE} {UNSUPPLIED}{SOURCE}"),
            format!("{OPENING}{WHOLE} {SUPPLIED}{DECIDE}"),
            format!("{SUPPLIED}{OTHERS}{DECIDE}"),
        ];
        let keys = |text: &String| words(text).into_iter().map(|word| word.key).collect::<Vec<_>>();
        let all = texts.iter().map(keys);
        all.flat_map(|keys| keys.windows(6).map(|run| run.join(" ")).collect::<Vec<_>>()).collect()
    });
    FRAME.contains(run)
}

/// What of a fixed form is the post's.
pub(super) fn quoted(summary: &str) -> Option<&str> {
    let (_, rest) = summary.split_once('“')?;
    rest.rsplit_once('”').map(|(quote, _)| quote)
}

fn ending(quote: &str, evidence_ids: &[&str]) -> String {
    if !evidence_ids.is_empty() {
        return format!("{SUPPLIED}{}{DECIDE}", cited(evidence_ids));
    }
    match (has_figure(quote), name_in(quote)) {
        (true, _) => format!("{UNSUPPLIED}{FIGURE}"),
        (false, Some(name)) => format!("{UNSUPPLIED}{STATEMENT}{name}."),
        (false, None) => format!("{UNSUPPLIED}{SOURCE}"),
    }
}

/// As many ids as there is room for, and at least one.
fn cited(ids: &[&str]) -> String {
    let mut text = String::new();
    for id in ids {
        if !text.is_empty() && text.len() + id.len() + 4 > MAX_IDS {
            return text + OTHERS;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&format!("[{id}]"));
    }
    text
}

/// The beginning of what the post tells its readers, as far as a note may hold it.
fn quotation(checker: &Checker<'_>, post: &str) -> Option<String> {
    let telling =
        words::sentences(post).into_iter().map(|span| &post[span]).filter(|one| !lexicon::is_instruction(one));
    let text = flat(&telling.collect::<Vec<_>>().join(" "));
    let text = plain(&text[..text.floor_char_boundary(LOOKED_AT)]);
    let text = cut(&masked(checker, text), MAX_QUOTE);
    let letters = text.replace(LINK, "").replace(ACCOUNT, "").chars().filter(|c| c.is_alphabetic()).count();
    (letters >= MIN_LETTERS).then_some(text)
}

/// Without the marks that mean something in a note; links and handles as a word.
fn plain(text: &str) -> String {
    let text = replaced(text, words::links(text), LINK);
    let text = replaced(&text, lexicon::handles(&text), ACCOUNT);
    let text = replaced(&text, lexicon::hashes(&text), "");
    let mark = |c: char| match c {
        '"' | '“' | '”' | '„' | '«' | '»' | '`' => Some('\''),
        '[' | '{' | '<' => Some('('),
        ']' | '}' | '>' => Some(')'),
        c if lexicon::is_emoji(c) => None,
        c => Some(c),
    };
    flat(&text.chars().filter_map(mark).collect::<String>())
}

fn masked(checker: &Checker<'_>, mut text: String) -> String {
    for _ in 0..ROUNDS {
        let spans: Vec<Range<usize>> = checker.faults(&text).into_iter().map(|fault| fault.span).collect();
        if spans.is_empty() {
            break;
        }
        text = flat(&replaced(&text, spans, " … ")).replace("… …", "…");
    }
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ':' | '-')).to_owned()
}

/// The text with each of the spans, where they overlap as one, replaced.
fn replaced(text: &str, mut spans: Vec<Range<usize>>, by: &str) -> String {
    spans.sort_by_key(|span| span.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for span in spans {
        if span.start >= copied {
            out.push_str(&text[copied..span.start]);
            out.push_str(by);
        }
        copied = copied.max(span.end);
    }
    out.push_str(&text[copied..]);
    out
}

/// At most so many characters, between words where there are blanks.
fn cut(text: &str, most: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(most) else { return text.to_owned() };
    let head = &text[..end];
    // Room for the dots.
    let head = head.rsplit_once(' ').map_or(&head[..head.floor_char_boundary(head.len() - 4)], |(head, _)| head);
    format!("{}…", head.trim_end_matches(|c: char| c.is_whitespace() || ",;:…".contains(c)))
}

/// A number that stands by itself and is no year.
fn has_figure(quote: &str) -> bool {
    let is_year = |number: &str| number.len() == 4 && (number.starts_with("19") || number.starts_with("20"));
    let in_a_word = |span: &Range<usize>| {
        words(quote).iter().any(|word| {
            word.span.start <= span.start && span.end <= word.span.end && word.text.chars().any(char::is_alphabetic)
        })
    };
    words::numbers(quote).iter().any(|(span, number)| !is_year(number) && !in_a_word(span))
}

/// The first name that does not begin a sentence, where capitals mean something.
fn name_in(quote: &str) -> Option<&str> {
    let words = words(quote);
    let is_name = |word: &&words::Word<'_>| word.is_capital() && !lexicon::is_common(&word.key);
    if words.iter().filter(is_name).count() * 2 > words.len() {
        return None;
    }
    let first = words.iter().position(|word| is_name(&word) && !word.begins)?;
    // A first name may begin the sentence.
    let first = match first.checked_sub(1) {
        Some(before) if words[first].joined && is_name(&&words[before]) => before,
        _ => first,
    };
    let more = words[first + 1..].iter().take_while(|word| word.joined && is_name(word)).count();
    let name = &quote[words[first].span.start..words[first + more].span.end];
    (2..=MAX_NAME).contains(&name.chars().count()).then_some(name)
}

#[cfg(test)]
#[path = "fixed_form_tests.rs"]
mod tests;
