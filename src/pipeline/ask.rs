//! A flagged post to the question that is put to the model about it: what the note may draw on, and the message. Where
//! there is nothing to ask, the note is finished here.

use std::time::Instant;

use crate::config::{InputLimit, OnOverlong};
use crate::kafka::verdict_header;
use crate::model::{Prompt, TokenizeError, Tokenized};
use crate::note::{Check, Checker, Draft, Ground, NotePolicy, PromptWords, Unasked, VerdictRef, message};
use crate::pipeline::TokenizedPost;
use crate::pipeline::prepare::unfit;
use crate::post::{self, Post};
use crate::receipt::Original;
use crate::rejection::{Reason, Rejected, Stage};
use crate::verdict::Keyring;

/// Bytes of a text that count, for each token that the model may read: as many as its prompt looks at.
const BYTES_A_TOKEN: usize = 16;
const BYTES_BESIDES: usize = 4096;

/// What every note of a worker is made by.
#[derive(Debug)]
pub struct Rules {
    /// What the model is told, and in which languages it writes.
    pub policy: NotePolicy,
    /// The prompt's words, which no note repeats.
    pub words: PromptWords,
}

/// What a row is besides its token ids, where a note is asked for.
#[derive(Debug)]
pub struct NoteRow {
    /// What the note may draw on.
    pub ground: Ground,
    /// The verdict that it goes with.
    pub verdict: VerdictRef,
}

/// How far a flagged post goes without the model.
pub enum Asked {
    /// The model is to be asked.
    Row(TokenizedPost),
    /// The fixed form, because there is nothing to ask.
    Finished(TokenizedPost, Box<Draft>),
}

impl Rules {
    /// Rules that go with a policy.
    pub fn new(policy: NotePolicy) -> Self {
        Self { words: policy.words(), policy }
    }

    /// Decodes a flagged post and asks what there is to ask.
    pub fn ask(
        &self,
        original: &Original,
        bytes: &[u8],
        max_bytes: usize,
        asker: &Asker<'_>,
    ) -> Result<Asked, Rejected> {
        let start = Instant::now();
        let post = post::decode(bytes, max_bytes)?;
        let verdict = verdict_of(original, &post)?;
        let most = asker.limit.max_input_tokens.saturating_mul(BYTES_A_TOKEN).saturating_add(BYTES_BESIDES);
        let ground = Ground::new(&post, &verdict.label, most);
        if ground.post.is_empty() {
            return Err(unfit(&TokenizeError::Empty));
        }
        let unasked = (!self.policy.speaks(ground.lang.as_deref())).then_some(Unasked::UnsupportedLanguage);
        if ground.evidence.is_empty() || unasked.is_some() {
            let draft = Draft::unwritten(&Checker::new(&ground, &self.words), &ground, unasked);
            return Ok(Asked::Finished(asker.row(post, ground, verdict, nothing(), start), Box::new(draft)));
        }
        let tokens = tokens(asker.prompt, &asker.limit, &ground, None)?;
        Ok(Asked::Row(asker.row(post, ground, verdict, tokens, start)))
    }

    /// Whether a note that was kept is one that these rules would give: whoever can write to a cache cannot have anything
    /// published that a check refuses.
    pub fn allow(&self, row: &NoteRow, kept: &Draft) -> bool {
        let checker = Checker::new(&row.ground, &self.words);
        kept.stands(&checker, &row.ground)
    }
}

/// Puts questions in the model's words.
pub struct Asker<'a> {
    /// Tokenises messages.
    pub prompt: &'a Prompt,
    /// How long they may be.
    pub limit: InputLimit,
    /// Makes keys for model, policy and checks in force.
    pub keyring: &'a Keyring,
}

impl Asker<'_> {
    fn row(&self, post: Post, ground: Ground, verdict: VerdictRef, tokens: Tokenized, start: Instant) -> TokenizedPost {
        let key = self.keyring.key_beside(&tokens.ids, &ground.digest());
        let note = Some(Box::new(NoteRow { ground, verdict }));
        TokenizedPost {
            post,
            tokens,
            key,
            note,
            language: None,
            tokenise: start.elapsed(),
            queue: None,
            classify: None,
        }
    }
}

/// The message's ids; `refused` is what was wrong with the draft before.
pub fn tokens(
    prompt: &Prompt,
    limit: &InputLimit,
    ground: &Ground,
    refused: Option<Check>,
) -> Result<Tokenized, Rejected> {
    let most = limit.max_input_tokens;
    let whole = InputLimit { on_overlong: OnOverlong::TruncateTail, ..*limit };
    let mut last = None;
    let count = |text: &str| -> Result<usize, TokenizeError> {
        let tokens = last.insert(prompt.tokenize(text, &whole)?);
        Ok(tokens.tokens_total)
    };
    let fitted = message(ground, refused, most, count).map_err(|error| unfit(&error))?;
    let total = last.as_ref().map_or(0, |tokens| tokens.tokens_total);
    let too_long = |total| unfit(&TokenizeError::TooLong { total, limit: most });
    let (Some(message), Some(mut tokens)) = (fitted, last) else { return Err(too_long(total)) };
    if message.truncated && limit.on_overlong == OnOverlong::Reject {
        return Err(too_long(most + 1));
    }
    tokens.truncated |= message.truncated;
    Ok(tokens)
}

/// No message, for a row that no model reads.
fn nothing() -> Tokenized {
    Tokenized {
        ids: Vec::new(),
        tokens_seen: 0,
        tokens_total: 0,
        truncated: false,
        neutralised: 0,
        normalised: None,
        evidence: None,
    }
}

/// The verdict that rides in the post's header.
fn verdict_of(original: &Original, post: &Post) -> Result<VerdictRef, Rejected> {
    let told = |message: &str| Rejected::new(Reason::NoVerdict, Stage::Decode, message.to_owned());
    let header = verdict_header(&original.headers);
    let bytes = header
        .ok_or_else(|| told("the header moderato.verdict is missing; read posts from a topic of flagged posts"))?;
    let read = VerdictRef::read(bytes).map_err(|fault| told(fault.words()))?;
    let (verdict, subject) = read;
    if subject.is_some_and(|subject| subject != *post.id.0) {
        return Err(told("the header moderato.verdict is about another post"));
    }
    Ok(verdict)
}
