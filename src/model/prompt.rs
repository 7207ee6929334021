//! The prompt of one policy in one model's words, and the way from a post's text to the ids that the model sees.
//!
//! Owns the prefix (shared by all posts), the tail and the label tokens. Promises that every text passes hygiene on its
//! way to the model, and bounded work for any text: what is past a byte cap is never tokenised. Blanks around a post are
//! not part of it, as in Meta's own format.

use sha2::{Digest, Sha256};

use super::{
    error::{ModelError, TokenizeError},
    manifest::Folder,
    neutralise::neutralise,
    template::ChatFormat,
    tokenizer::SegmentTokenizer,
};
use crate::config::{InputLimit, OnOverlong};
use crate::hygiene::{self, Mask, TextNormalised};
use crate::policy::Policy;
use crate::post::{Evidence, EvidenceSeen};

/// Bytes of a post that are looked at: far more than a token takes in any language, so that only texts which are
/// too long anyway, or made of huge runs, are cut here.
const BYTES_A_TOKEN: usize = 16;
const BYTES_BESIDES: usize = 4096;

/// Stands where the middle of a post was cut out, so that two halves of a tag cannot meet.
const GAP: &str = " ... ";

/// Stands between a post and what is known about it.
const EVIDENCE: &str = "\n\nEvidence:";

/// A post as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// The post's ids and the prompt's tail: exactly what follows the shared prefix.
    pub ids: Vec<u32>,
    /// Tokens of the post among them.
    pub tokens_seen: usize,
    /// Tokens of the whole post; a lower bound where the byte cap cut it first.
    pub tokens_total: usize,
    /// Something of the post was left out.
    pub truncated: bool,
    /// Prompt tags and control tokens that the post spelt out, all made harmless.
    pub neutralised: u32,
    /// What hygiene changed before the text was tokenised, if anything.
    pub normalised: Option<Box<TextNormalised>>,
    /// How much of the evidence the model sees, if there is any.
    pub evidence: Option<EvidenceSeen>,
}

/// Everything that stands around a post. Shared by many threads.
#[derive(Debug)]
pub struct Prompt {
    tokenizer: SegmentTokenizer,
    prefix: Vec<u32>,
    tail: Vec<u32>,
    labels: Vec<u32>,
    gap: Vec<u32>,
    /// What ends an answer: the chat template's end of a turn, or the end of all text.
    end: Option<u32>,
    tokenizer_digest: String,
    digest: String,
    mask: Vec<Mask>,
}

impl Prompt {
    /// Builds the prompt from the folder's tokenizer and chat template.
    pub(super) fn build(folder: &Folder, policy: &Policy) -> Result<Self, ModelError> {
        let (json, chat) = read(folder)?;
        Self::from_parts(&json, &chat, policy)
    }

    /// A prompt whose answer is text: it has no labels.
    pub(super) fn for_drafting(folder: &Folder, prompt: &str) -> Result<Self, ModelError> {
        let (json, chat) = read(folder)?;
        Self::without_labels(&json, &chat, prompt, "the prompt for notes")
    }

    pub(super) fn from_parts(tokenizer_json: &str, chat: &ChatFormat, policy: &Policy) -> Result<Self, ModelError> {
        let named = format!("the prompt of policy {}", policy.id);
        let mut prompt = Self::without_labels(tokenizer_json, chat, &policy.prompt, &named)?;
        prompt.labels = label_ids(&prompt.tokenizer, policy)?;
        prompt.digest = digest(&[&prompt.prefix, &prompt.tail, &prompt.labels]);
        prompt.mask = policy.mask.clone();
        Ok(prompt)
    }

    fn without_labels(tokenizer_json: &str, chat: &ChatFormat, text: &str, named: &str) -> Result<Self, ModelError> {
        let tokenizer = SegmentTokenizer::parse(tokenizer_json, chat)?;
        if let Some(token) = tokenizer.control_token_in(text) {
            return Err(ModelError::Prompt(format!("{named} contains the control token {token}: take it out")));
        }
        let (before, after) = chat.around_post(text)?;
        let prefix = tokenizer.prompt_start(&before)?;
        let tail = tokenizer.prompt_segment(&after)?;
        if prefix.is_empty() || tail.is_empty() {
            return Err(ModelError::Prompt(
                "the chat template puts nothing before or after the user's message: check chat_template".to_owned(),
            ));
        }
        let gap = tokenizer.post_segment(GAP).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        let digest = digest(&[&prefix, &tail, &[]]);
        let texts = format!("{}\n{}", hex::encode(Sha256::digest(tokenizer_json)), chat.template);
        let tokenizer_digest = format!("sha256:{}", hex::encode(Sha256::digest(texts)));
        let end_of_text = chat.eos.as_deref().and_then(|eos| tokenizer.prompt_segment(eos).ok()?.first().copied());
        let end = tail.first().copied().filter(|id| tokenizer.is_control(*id)).or(end_of_text);
        let (labels, mask) = (Vec::new(), Vec::new());
        Ok(Self { tokenizer, prefix, tail, labels, gap, end, tokenizer_digest, digest, mask })
    }

    /// For measuring only: the prefix cut, or lengthened by its own ids, to so many tokens.
    pub(super) fn resized(mut self, tokens: Option<usize>) -> Self {
        if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
            self.prefix = self.prefix.iter().copied().cycle().take(tokens).collect();
            self.digest = digest(&[&self.prefix, &self.tail, &self.labels]);
        }
        self
    }

    /// The post's ids within `limit`. Safe to call from many threads; takes bounded time and memory for any text.
    pub fn tokenize(&self, text: &str, limit: &InputLimit) -> Result<Tokenized, TokenizeError> {
        let (clean, normalised) = hygiene::clean(text);
        let clean = hygiene::masked(clean, &self.mask);
        let text = clean.trim();
        if text.is_empty() {
            return Err(TokenizeError::Empty);
        }
        let cap = limit.max_input_tokens.saturating_mul(BYTES_A_TOKEN).saturating_add(BYTES_BESIDES);
        let cut = if text.len() > cap { self.cut_bytes(text, cap, limit)? } else { self.cut_tokens(text, limit)? };
        let Cut { mut ids, seen, total, neutralised } = cut;
        let neutralised = u32::try_from(neutralised).unwrap_or(u32::MAX);
        let normalised = (!normalised.is_nothing()).then(|| Box::new(normalised));
        let truncated = text.len() > cap || seen < total;
        ids.extend(&self.tail);
        Ok(Tokenized {
            ids,
            tokens_seen: seen,
            tokens_total: total,
            truncated,
            neutralised,
            normalised,
            evidence: None,
        })
    }

    /// The ids of a post with what is known about it. The post comes first; evidence takes what room it leaves within
    /// `limit`, and its end is cut.
    pub fn tokenize_with(
        &self,
        text: &str,
        evidence: &[Evidence],
        limit: &InputLimit,
    ) -> Result<Tokenized, TokenizeError> {
        let mut row = self.tokenize(text, limit)?;
        if evidence.is_empty() {
            return Ok(row);
        }
        let (mut ids, neutralised) = self.encode(&self.evidence_text(evidence, limit))?;
        let total = ids.len();
        ids.truncate(limit.max_input_tokens.saturating_sub(row.tokens_seen));
        let at = row.ids.len() - self.tail.len();
        row.evidence =
            Some(EvidenceSeen { pieces: evidence.len(), tokens_seen: ids.len(), truncated: ids.len() < total });
        row.ids.splice(at..at, ids);
        row.neutralised = row.neutralised.saturating_add(u32::try_from(neutralised).unwrap_or(u32::MAX));
        Ok(row)
    }

    /// One line a piece, cleaned and masked as posts are; no more of it than could be seen.
    fn evidence_text(&self, evidence: &[Evidence], limit: &InputLimit) -> String {
        let cap = limit.max_input_tokens.saturating_mul(BYTES_A_TOKEN).saturating_add(BYTES_BESIDES);
        let mut lines = String::from(EVIDENCE);
        for piece in evidence {
            let said = match &piece.publisher {
                Some(publisher) => format!("{}: {}", publisher.trim(), piece.quote.trim()),
                None => piece.quote.trim().to_owned(),
            };
            let said = hygiene::masked(hygiene::clean(head_of(&said, cap)).0, &self.mask).replace(['\n', '\r'], " ");
            lines.push_str(&format!("\n[{}] {said}", piece.id));
        }
        head_of(&lines, cap).to_owned()
    }

    /// The ids shared by all posts.
    pub fn prefix_ids(&self) -> &[u32] {
        &self.prefix
    }

    /// The ids after every post.
    pub fn tail_ids(&self) -> &[u32] {
        &self.tail
    }

    /// One id a label, in the policy's order.
    pub fn label_ids(&self) -> &[u32] {
        &self.labels
    }

    /// Whether the id ends what a model writes: the end of the text or of its turn, and any other control token, of
    /// which an answer has none.
    pub(super) fn ends(&self, id: u32) -> bool {
        self.tokenizer.is_control(id)
    }

    /// The text of ids that a model wrote.
    pub(super) fn text(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.text(ids).map_err(|error| ModelError::run(format!("the answer has no text: {error}")))
    }

    /// The ids of an answer as the model should write it, its end included: what a model for notes is trained on.
    pub fn answer_ids(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let mut ids = self.tokenizer.post_segment(text.trim())?;
        ids.extend(self.end);
        Ok(ids)
    }

    /// How many tokens the tokenizer's model has; tokens added to it later are not counted.
    pub(super) fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary()
    }

    /// Identifies the ids of prefix, tail and labels.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Identifies `tokenizer.json` and the chat template.
    pub fn tokenizer_digest(&self) -> &str {
        &self.tokenizer_digest
    }

    /// A text of ordinary length: all of it is tokenised, so the total is exact.
    fn cut_tokens(&self, text: &str, limit: &InputLimit) -> Result<Cut, TokenizeError> {
        let most = limit.max_input_tokens;
        let (ids, neutralised) = self.encode(text)?;
        let total = ids.len();
        if total <= most {
            return Ok(Cut { ids, seen: total, total, neutralised });
        }
        let cut = match limit.on_overlong {
            OnOverlong::Reject => return Err(TokenizeError::TooLong { total, limit: most }),
            OnOverlong::TruncateTail => Cut::beginning(ids, most, total),
            OnOverlong::TruncateMiddle => self.join(&ids, &ids, most, total),
        };
        Ok(Cut { neutralised, ..cut })
    }

    /// A text past the byte cap: only its ends are tokenised, so the total is a lower bound. It counts as over
    /// the limit, even if its tokens should be so long that they would fit.
    fn cut_bytes(&self, text: &str, cap: usize, limit: &InputLimit) -> Result<Cut, TokenizeError> {
        let most = limit.max_input_tokens;
        if limit.on_overlong != OnOverlong::TruncateMiddle {
            let (ids, neutralised) = self.encode(head_of(text, cap))?;
            let total = ids.len().max(most + 1);
            if limit.on_overlong == OnOverlong::Reject {
                return Err(TokenizeError::TooLong { total, limit: most });
            }
            return Ok(Cut { neutralised, ..Cut::beginning(ids, most, total) });
        }
        let (head, in_head) = self.encode(head_of(text, cap - cap / 4))?;
        let (tail, in_tail) = self.encode(tail_of(text, cap / 4))?;
        let total = (head.len() + tail.len()).max(most + 1);
        Ok(Cut { neutralised: in_head + in_tail, ..self.join(&head, &tail, most, total) })
    }

    /// The beginning of `head`, the gap and the end of `tail`, `most` ids at most. A limit too small for a gap
    /// keeps the beginning.
    fn join(&self, head: &[u32], tail: &[u32], most: usize, total: usize) -> Cut {
        if most < 4 * self.gap.len() {
            return Cut::beginning(head.to_vec(), most, total);
        }
        let room = most - self.gap.len();
        let from_tail = (room / 4).min(tail.len());
        let from_head = (room - from_tail).min(head.len());
        let ids = [&head[..from_head], &self.gap, &tail[tail.len() - from_tail..]].concat();
        Cut { ids, seen: from_head + from_tail, total, neutralised: 0 }
    }

    fn encode(&self, text: &str) -> Result<(Vec<u32>, usize), TokenizeError> {
        let (safe, tags) = neutralise(text);
        let spelt = self.tokenizer.spelt_control_tokens(&safe);
        Ok((self.tokenizer.post_segment(&safe)?, tags + spelt))
    }
}

/// What is left of a post.
struct Cut {
    ids: Vec<u32>,
    seen: usize,
    total: usize,
    neutralised: usize,
}

impl Cut {
    fn beginning(mut ids: Vec<u32>, most: usize, total: usize) -> Self {
        ids.truncate(most);
        Self { seen: ids.len(), ids, total, neutralised: 0 }
    }
}

fn head_of(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn tail_of(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

fn read(folder: &Folder) -> Result<(String, ChatFormat), ModelError> {
    let json = folder.require("tokenizer.json")?;
    let config = folder.require("tokenizer_config.json")?;
    let chat = ChatFormat::parse(&config, folder.read("chat_template.jinja")?)?;
    Ok((json, chat))
}

/// One token a label, all different.
fn label_ids(tokenizer: &SegmentTokenizer, policy: &Policy) -> Result<Vec<u32>, ModelError> {
    let (mut ids, mut problems) = (Vec::new(), Vec::new());
    for label in &policy.labels {
        match tokenizer.answer(&label.answer) {
            Ok(id) if ids.contains(&id) => problems.push(format!(
                "the answer {:?} of label {} is the same token as another answer; answers must differ",
                label.answer, label.id
            )),
            Ok(id) => ids.push(id),
            Err(problem) => problems.push(format!("label {}: {problem}", label.id)),
        }
    }
    if problems.is_empty() {
        return Ok(ids);
    }
    Err(ModelError::Prompt(format!("policy {}: {}", policy.id, problems.join("; "))))
}

fn digest(parts: &[&[u32]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        part.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
