//! Text to token ids, twice over: once for the template, whose control tokens are meant, and once for posts, in
//! which the same spelling is mere text.
//!
//! Promises that no id of the control set comes out of a post, and that a segment's ids are those it has within
//! the whole prompt, also for SentencePiece vocabularies, which put a blank before every text they are given.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::{
    error::{ModelError, TokenizeError},
    template::ChatFormat,
    words::Words,
};

/// The tokenizer of one model folder.
#[derive(Debug)]
pub(super) struct SegmentTokenizer {
    template: Tokenizer,
    post: Tokenizer,
    /// Where the ids of a post are those of its words.
    words: Option<Words>,
    anchor: Option<Anchor>,
    control: BTreeSet<u32>,
    control_texts: Vec<String>,
}

/// A text put before every segment and taken off again: it stops the blank from being put before the segment.
#[derive(Debug)]
struct Anchor {
    text: &'static str,
    ids: Vec<u32>,
}

impl SegmentTokenizer {
    /// Reads `tokenizer.json`.
    pub(super) fn parse(json: &str, chat: &ChatFormat) -> Result<Self, ModelError> {
        let fault = |what: &dyn std::fmt::Display| {
            ModelError::Tokenizer(format!(
                "tokenizer.json cannot be read: {what}: take the file that belongs to the model"
            ))
        };
        let mut document: Map<String, Value> = serde_json::from_str(json).map_err(|error| fault(&error))?;
        // A file may ask for truncation or padding of its own; lengths are our business.
        document.insert("truncation".to_owned(), Value::Null);
        document.insert("padding".to_owned(), Value::Null);
        let template = read(&document).map_err(|error| fault(&error))?;
        let control_tokens = mark_control_tokens(&mut document, chat);
        let mut post = read(&document).map_err(|error| fault(&error))?;
        post.set_encode_special_tokens(true);
        let named = chat.named_tokens.iter().filter_map(|token| template.token_to_id(token));
        let control = control_tokens.iter().map(|(id, _)| *id).chain(named).collect();
        let in_use = |text: &String| chat.template.contains(text) || chat.named_tokens.contains(text);
        let control_texts = control_tokens.into_iter().map(|(_, text)| text).filter(in_use).collect();
        let anchor = Anchor::find(&post)?;
        Ok(Self { template, post, words: Words::of(&document), anchor, control, control_texts })
    }

    /// The ids of the text that a prompt begins with.
    pub(super) fn prompt_start(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode(&self.template, text)
            .map_err(|error| ModelError::Tokenizer(format!("the prompt cannot be encoded: {error}")))
    }

    /// The ids of template text that stands after a post.
    pub(super) fn prompt_segment(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.segment(&self.template, text)
            .map_err(|error| ModelError::Tokenizer(format!("the prompt cannot be encoded: {error}")))
    }

    /// The ids of a post's text, none of which is a control token.
    pub(super) fn post_segment(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        match &self.words {
            Some(words) => words.ids(text, |word| self.free_of_control(word)),
            None => self.free_of_control(text),
        }
    }

    fn free_of_control(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let ids = self.segment(&self.post, text).map_err(TokenizeError::Tokenizer)?;
        match ids.iter().find(|id| self.control.contains(id)) {
            Some(&id) => Err(TokenizeError::ControlToken { id }),
            None => Ok(ids),
        }
    }

    /// The one token that an answer is, or an explanation.
    pub(super) fn answer(&self, answer: &str) -> Result<u32, String> {
        let encode = |text: &str| self.post_segment(text).map_err(|error| error.to_string());
        let as_is = encode(answer)?;
        if let [only] = as_is[..] {
            return Ok(only);
        }
        // A SentencePiece vocabulary has words with the blank inside the token, and some only without it.
        if self.anchor.is_some()
            && let Some(bare) = answer.strip_prefix(' ')
            && let [only] = encode(bare)?[..]
        {
            return Ok(only);
        }
        Err(format!("the answer {answer:?} is {} tokens in this model's vocabulary; it must be one", as_is.len()))
    }

    /// How often control tokens of this prompt are spelt out in a post. Their spelling stays, as text.
    pub(super) fn spelt_control_tokens(&self, text: &str) -> usize {
        self.control_texts.iter().map(|token| text.matches(token.as_str()).count()).sum()
    }

    /// The control token that template text such as a policy's prompt would produce, if any.
    pub(super) fn control_token_in(&self, text: &str) -> Option<&str> {
        self.control_texts.iter().map(String::as_str).find(|token| text.contains(token))
    }

    /// Whether the id is of a control token.
    pub(super) fn is_control(&self, id: u32) -> bool {
        self.control.contains(&id)
    }

    /// The text that the ids spell, control tokens left out.
    pub(super) fn text(&self, ids: &[u32]) -> Result<String, String> {
        self.post.decode(ids, true).map_err(|error| error.to_string())
    }

    /// Tokens of the vocabulary itself, without those added to it.
    pub(super) fn vocabulary(&self) -> usize {
        self.post.get_vocab_size(false)
    }

    fn segment(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
        let Some(anchor) = &self.anchor else { return encode(tokenizer, text) };
        let ids = encode(tokenizer, &format!("{}{text}", anchor.text))?;
        ids.strip_prefix(anchor.ids.as_slice())
            .map(<[u32]>::to_vec)
            .ok_or_else(|| "a segment cannot be told from the text before it".to_owned())
    }
}

impl Anchor {
    /// `None` for byte-level vocabularies, which add nothing.
    fn find(tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        let fault = |error: String| ModelError::Tokenizer(format!("tokenizer.json: {error}"));
        let first = encode(tokenizer, "\n").map_err(fault)?.first().and_then(|id| tokenizer.id_to_token(*id));
        if first.as_deref() != Some("\u{2581}") {
            return Ok(None);
        }
        // A line break is a byte token of its own in Llama's vocabulary; where it merges, a control character does not.
        for text in ["\n", "\u{1}"] {
            let ids = encode(tokenizer, text).map_err(fault)?;
            let stands_alone = |probe: &str| {
                encode(tokenizer, &format!("{text}{probe}"))
                    .is_ok_and(|found| found.len() > ids.len() && found.starts_with(&ids))
            };
            if ["\n", " ", "x", " x", "\t"].iter().all(|probe| stands_alone(probe)) {
                return Ok(Some(Self { text, ids }));
            }
        }
        Err(fault("its vocabulary merges line breaks with what follows, so posts cannot be encoded apart".to_owned()))
    }
}

fn read(document: &Map<String, Value>) -> Result<Tokenizer, tokenizers::Error> {
    Tokenizer::from_bytes(serde_json::to_vec(document)?)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|error| error.to_string())?;
    Ok(encoding.get_ids().to_vec())
}

/// Marks as special every added token that steers the model, so that the post tokenizer takes its spelling for
/// text. Exporters do not always mark the tokens of the chat template. Returns ids and spellings.
fn mark_control_tokens(document: &mut Map<String, Value>, chat: &ChatFormat) -> Vec<(u32, String)> {
    let mut control = Vec::new();
    for token in document.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(text) = token.get("content").and_then(Value::as_str).map(str::to_owned) else { continue };
        let Some(id) = token.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()) else { continue };
        let special = token.get("special") == Some(&Value::Bool(true));
        if special || text.starts_with("<|") || chat.template.contains(&text) || chat.named_tokens.contains(&text) {
            token["special"] = Value::Bool(true);
            control.push((id, text));
        }
    }
    control
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
pub(super) mod tests;
