//! Words met before, with their ids: the tokenizer's own machinery runs once for a word and not once for a post, which
//! is ten times cheaper for ordinary text.
//!
//! Promises the ids that the tokenizer gives to the whole text. That holds only where a text may be cut at blanks, so
//! [`Words::of`] looks at the parts of `tokenizer.json` and is `None` for any that it does not know.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value};

/// Most words kept; when there are more, all are forgotten, so that a flood of junk passes.
const MOST: usize = 32_768;
/// Longest word that is kept, in bytes: bounds the memory at about 10 MB.
const LONGEST: usize = 64;

/// Llama 3's way of cutting a text up.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The words met so far. Shared by many threads.
#[derive(Debug, Default)]
pub(super) struct Words(RwLock<HashMap<Box<str>, Box<[u32]>>>);

impl Words {
    /// `None` if a text's ids are not those of its words one after the other, or if that is not known.
    pub(super) fn of(tokenizer: &Map<String, Value>) -> Option<Self> {
        let part = |name: &str| tokenizer.get(name).unwrap_or(&Value::Null);
        let model = part("model");
        let plain = model["type"] == "BPE" && model["dropout"].is_null();
        // An added token that is no control token is found in the text before it is cut up.
        let added = part("added_tokens").as_array().is_none_or(|all| all.iter().all(|token| token["special"] == true));
        let apart = match (part("normalizer"), part("pre_tokenizer")) {
            (Value::Null, cut) => byte_level(cut),
            (normalizer, Value::Null) => sentence_piece(normalizer) && no_piece_spans_words(&model["vocab"]),
            _ => false,
        };
        (plain && added && apart).then(Self::default)
    }

    /// The ids of `text`; `encode` is asked for those of the words that are new.
    pub(super) fn ids<E>(&self, text: &str, encode: impl Fn(&str) -> Result<Vec<u32>, E>) -> Result<Vec<u32>, E> {
        let mut ids = Vec::with_capacity(text.len() / 2 + 16);
        let mut fresh = Vec::new();
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for word in cut(text) {
            if let Some(found) = known.get(word) {
                ids.extend_from_slice(found);
                continue;
            }
            let found = encode(word)?;
            ids.extend_from_slice(&found);
            if word.len() <= LONGEST {
                fresh.push((word, found));
            }
        }
        drop(known);
        if !fresh.is_empty() {
            self.keep(fresh);
        }
        Ok(ids)
    }

    fn keep(&self, fresh: Vec<(&str, Vec<u32>)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() + fresh.len() > MOST {
            known.clear();
        }
        known.extend(fresh.into_iter().take(MOST).map(|(word, ids)| (word.into(), ids.into())));
    }
}

/// Cuts a text before each blank that stands between two characters that are no blanks. No pattern of [`byte_level`]
/// lets a piece go on over such a blank, looks behind it, or looks ahead past a character that is no blank.
fn cut(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (word, after) = rest.split_at(word_length(rest));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

fn word_length(text: &str) -> usize {
    // A `▁` in the text is SentencePiece's own blank.
    let ends_word = |c: char| !c.is_whitespace() && c != '\u{2581}';
    let between = |&at: &usize| {
        text[..at].chars().next_back().is_some_and(ends_word)
            && text[at + 1..].chars().next().is_some_and(|c| !c.is_whitespace())
    };
    text.match_indices(' ').map(|(at, _)| at).find(between).unwrap_or(text.len())
}

/// Byte-level vocabularies, which cut a text by GPT-2's or Llama 3's pattern, and by digits.
fn byte_level(cut: &Value) -> bool {
    let steps = match cut["pretokenizers"].as_array() {
        Some(steps) if cut["type"] == "Sequence" => steps.as_slice(),
        _ => std::slice::from_ref(cut),
    };
    let Some((last, before)) = steps.split_last() else { return false };
    let llama3 = |step: &Value| {
        step["type"] == "Split"
            && step["pattern"]["Regex"] == LLAMA3
            && step["behavior"] == "Isolated"
            && step["invert"] == false
    };
    last["type"] == "ByteLevel"
        && last["add_prefix_space"] == false
        && (last["use_regex"] == true || before.iter().any(llama3))
        && before.iter().all(|step| step["type"] == "Digits" || llama3(step))
}

/// SentencePiece as exported for Llama 2: blanks become `▁`, and nothing is cut before the merges.
fn sentence_piece(normalizer: &Value) -> bool {
    let steps = normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
    let [prepend, replace] = steps else { return false };
    prepend["type"] == "Prepend"
        && prepend["prepend"] == "\u{2581}"
        && replace["type"] == "Replace"
        && replace["pattern"]["String"] == " "
        && replace["content"] == "\u{2581}"
}

/// Whether no piece has a blank behind another character, so that no merge reaches from one word into the next.
fn no_piece_spans_words(vocabulary: &Value) -> bool {
    let spans = |piece: &str| piece.trim_start_matches('\u{2581}').contains('\u{2581}');
    vocabulary.as_object().is_some_and(|pieces| !pieces.keys().any(|piece| spans(piece)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_single_blanks_between_words_and_nowhere_else() {
        let words = |text: &str| cut(text).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words("a bc  d, e"), ["a", " bc  d,", " e"]);
        assert_eq!(words(" a\n b ▁ c "), [" a\n b", " ▁ c "]);
        assert_eq!(words("слово и 漢字"), ["слово", " и", " 漢字"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn a_flood_of_words_is_forgotten_and_the_ids_stay_right() {
        let words = Words::default();
        for n in 0..3 * MOST as u32 {
            let ids = words.ids(&format!("w {n}"), |word| Ok::<_, ()>(vec![word.trim().parse().unwrap_or(u32::MAX)]));
            assert_eq!(ids, Ok(vec![u32::MAX, n]));
        }
        assert!(words.0.read().unwrap().len() <= MOST);
    }
}
