//! Bytes to token ids, and everything that spares the model a run: twins in flight and the cache.
//!
//! Works on chunks of what has arrived, several at once; decoding and tokenising go to the blocking pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Question};
use crate::config::InputLimit;
use crate::error::Fatal;
use crate::event::unframed;
use crate::language;
use crate::model::{Prompt, TokenizeError};
use crate::pipeline::ask::{Asked, Asker, Rules};
use crate::pipeline::replayed::Replayed;
use crate::pipeline::twins::Twins;
use crate::pipeline::{Finished, Judged, TokenizedPost, elsewhere};
use crate::post;
use crate::receipt::{Envelope, Original, RawMessage};
use crate::registry::Registry;
use crate::rejection::{Reason, Rejected, Stage};
use crate::reply::{Kind, Reply};
use crate::suspects::{Standing, Suspects};
use crate::verdict::{Keyring, Source};

/// Most posts in one chunk: one lookup in the cache each.
const CHUNK: usize = 64;
/// Chunks worked on at once.
const CHUNKS_AT_ONCE: usize = 4;

const ABANDONED: Fatal = Fatal::Abandoned { part: "prepare" };

/// What prepare is built from.
pub struct Parts {
    /// The prompt, which tokenises posts.
    pub prompt: Arc<Prompt>,
    /// How long a post may be.
    pub limit: InputLimit,
    /// Largest value that is decoded, in bytes.
    pub max_post_bytes: usize,
    /// Who knows the schemas of posts, if anyone does.
    pub registry: Option<Arc<Registry>>,
    /// Makes the keys of questions to the model under the prompt in force.
    pub keyring: Keyring,
    /// Where answers are kept.
    pub cache: Arc<Cache>,
    /// Questions in flight.
    pub twins: Arc<Twins>,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// What answers are like.
    pub kind: Kind,
    /// What notes are made by, where notes are asked for.
    pub rules: Option<Arc<Rules>>,
    /// Whether the policy asks for the language of a text.
    pub detect_language: bool,
    /// Which posts are meant, in a replay.
    pub replayed: Option<Arc<Replayed>>,
}

/// Where posts go from here.
#[derive(Clone)]
pub struct Onward {
    /// To the batcher: questions that are this worker's to answer.
    pub misses: mpsc::Sender<Envelope<TokenizedPost>>,
    /// To conclude: all for which nothing is left to compute.
    pub finished: mpsc::Sender<Finished>,
}

/// Runs until `intake` closes and everything taken from it has gone on.
pub async fn run(parts: Parts, mut intake: mpsc::Receiver<Envelope<RawMessage>>, onward: Onward) -> Result<(), Fatal> {
    let parts = Arc::new(parts);
    let (mut chunks, mut waits) = (FuturesUnordered::new(), FuturesUnordered::new());
    let last_call = CancellationToken::new();
    let mut open = true;
    while open || !chunks.is_empty() || !waits.is_empty() {
        let mut arrived = Vec::with_capacity(CHUNK);
        tokio::select! {
            // Waiting for another worker takes no chunk's place: what can be answered here goes on meanwhile.
            Some(outcome) = chunks.next(), if !chunks.is_empty() => {
                waits.push(elsewhere::wait(parts.clone(), outcome?, onward.clone(), last_call.clone()));
            }
            Some(outcome) = waits.next(), if !waits.is_empty() => outcome?,
            taken = intake.recv_many(&mut arrived, CHUNK), if open && chunks.len() < CHUNKS_AT_ONCE => match taken {
                0 => {
                    open = false;
                    last_call.cancel();
                }
                _ => chunks.push(chunk(parts.clone(), arrived, onward.clone())),
            },
        }
    }
    Ok(())
}

/// Hands back the posts whose questions another worker is answering.
async fn chunk(
    parts: Arc<Parts>,
    arrived: Vec<Envelope<RawMessage>>,
    onward: Onward,
) -> Result<Vec<Envelope<TokenizedPost>>, Fatal> {
    let worker = parts.clone();
    let tokenised = tokio::task::spawn_blocking(move || {
        arrived.into_iter().map(|record| tokenise(&worker, record)).collect::<Vec<_>>()
    });
    let tokenised = tokenised.await.map_err(|error| Fatal::Internal { part: "prepare", cause: error.to_string() })?;
    let mut leaders = Vec::with_capacity(tokenised.len());
    for step in tokenised {
        match step {
            Step::Tokenised(post) => leaders.extend(parts.twins.enter(post)),
            Step::Finished(done) => onward.finished.send(done).await.map_err(|_| ABANDONED)?,
        }
    }
    let keys: Vec<_> = leaders.iter().map(|post| post.body.key).collect();
    let questions = parts.cache.ask(&keys, parts.kind).await;
    sort(&parts, leaders, questions, &onward).await
}

/// Looks at the language of the texts that the model will read; an answer that is there has it.
async fn detect(
    mut posts: Vec<Envelope<TokenizedPost>>,
    questions: &[Question],
) -> Result<Vec<Envelope<TokenizedPost>>, Fatal> {
    let open: Vec<bool> = questions.iter().map(|question| *question == Question::Open).collect();
    let work = move || {
        for (post, _) in posts.iter_mut().zip(open).filter(|(_, open)| *open) {
            post.body.language = Some(language::detect(&post.body.post.text));
        }
        posts
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fatal::Internal { part: "prepare", cause: error.to_string() })
}

/// Sends each post on by what is known of its question; hands back those whose question another worker is answering.
pub(super) async fn sort(
    parts: &Parts,
    posts: Vec<Envelope<TokenizedPost>>,
    questions: Vec<Question>,
    onward: &Onward,
) -> Result<Vec<Envelope<TokenizedPost>>, Fatal> {
    let posts = if parts.detect_language { detect(posts, &questions).await? } else { posts };
    let mut elsewhere = Vec::new();
    for (post, question) in posts.into_iter().zip(questions) {
        let question = match question {
            Question::Answered(kept) if !stands(parts, &post.body, &kept) => Question::Open,
            question => question,
        };
        match (question, parts.suspects.standing(&post.body.key)) {
            (Question::Answered(answer), _) => {
                share(&parts.twins, post, Ok(answer), Source::Cache, &onward.finished).await?;
            }
            (Question::Open, Standing::Poison { attempts }) => {
                parts.cache.give_up(&post.body.key).await;
                share(&parts.twins, post, Err(poison(attempts)), Source::Model, &onward.finished).await?;
            }
            (Question::Open, _) => onward.misses.send(post).await.map_err(|_| ABANDONED)?,
            (Question::Elsewhere, _) => elsewhere.push(post),
        }
    }
    Ok(elsewhere)
}

/// A verdict is made of scores anew each time; a note is published as it was kept, so it is held to the rules once more.
fn stands(parts: &Parts, row: &TokenizedPost, kept: &Reply) -> bool {
    match (&parts.rules, &row.note, kept) {
        (Some(rules), Some(note), Reply::Note(kept)) => rules.allow(note, kept),
        _ => true,
    }
}

fn poison(attempts: u32) -> Rejected {
    let message = format!("the worker ended {attempts} times while it ran this post (limits.max_attempts)");
    Rejected::new(Reason::Poison, Stage::Infer, message)
}

/// Hands an answer, or the reason there is none, to the post that led and to every twin that waited for it.
pub async fn share(
    twins: &Twins,
    leader: Envelope<TokenizedPost>,
    answer: Result<Arc<Reply>, Rejected>,
    source: Source,
    finished: &mpsc::Sender<Finished>,
) -> Result<(), Fatal> {
    let followers = twins.finish(&leader.body.key);
    let twin_source = if source == Source::Cache { Source::Cache } else { Source::Twin };
    let all = std::iter::once((leader, source)).chain(followers.into_iter().map(|twin| (twin, twin_source)));
    for (post, source) in all {
        let (row, envelope) = post.take();
        let done = match &answer {
            Ok(answer) => Finished::Judged(envelope.with(Judged { row, answer: answer.clone(), source })),
            Err(rejected) => Finished::Rejected(envelope.with(rejected.clone())),
        };
        finished.send(done).await.map_err(|_| ABANDONED)?;
    }
    Ok(())
}

/// How far a record goes without the model.
enum Step {
    Tokenised(Envelope<TokenizedPost>),
    Finished(Finished),
}

fn tokenise(parts: &Parts, record: Envelope<RawMessage>) -> Step {
    let original = record.original.clone();
    if let Some(replayed) = &parts.replayed
        && replayed.passes_over(original.value.as_deref(), parts.max_post_bytes)
    {
        return Step::Finished(Finished::PassedOver(record.with(())));
    }
    let Some(bytes) = original.value.as_deref() else {
        return Step::Finished(Finished::Tombstone(record.with(())));
    };
    // A panic in a parser is that post's fault, not its neighbours'.
    let outcome = catch_unwind(AssertUnwindSafe(|| prepare_post(parts, &original, bytes)));
    let outcome = outcome.unwrap_or_else(|_| {
        let message = "the tokenizer gave up on this text".to_owned();
        Err(Rejected::new(Reason::ControlToken, Stage::Tokenise, message))
    });
    match outcome {
        Ok(Asked::Row(row)) => Step::Tokenised(record.with(row)),
        Ok(Asked::Finished(row, draft)) => {
            let answer = Arc::new(Reply::Note(draft));
            Step::Finished(Finished::Judged(record.with(Judged { row, answer, source: Source::Model })))
        }
        Err(rejected) => Step::Finished(Finished::Rejected(record.with(rejected))),
    }
}

fn prepare_post(parts: &Parts, original: &Original, bytes: &[u8]) -> Result<Asked, Rejected> {
    if let (Some(registry), (Some(schema), _)) = (&parts.registry, unframed(bytes)) {
        registry.admit(schema)?;
    }
    if let Some(rules) = &parts.rules {
        let Parts { prompt, limit, keyring, max_post_bytes, .. } = parts;
        return rules.ask(original, bytes, *max_post_bytes, &Asker { prompt, limit: *limit, keyring });
    }
    let start = Instant::now();
    let post = post::decode(bytes, parts.max_post_bytes)?;
    let tokens = parts.prompt.tokenize_with(&post.text, &post.evidence, &parts.limit).map_err(|error| unfit(&error))?;
    let key = parts.keyring.key(&tokens.ids);
    let (tokenise, note, language) = (start.elapsed(), None, None);
    Ok(Asked::Row(TokenizedPost { post, tokens, key, note, language, tokenise, queue: None, classify: None }))
}

/// A post that has no tokens for the model.
pub(super) fn unfit(error: &TokenizeError) -> Rejected {
    let reason = match error {
        TokenizeError::TooLong { .. } => Reason::TooManyTokens,
        TokenizeError::Empty => Reason::EmptyText,
        _ => Reason::ControlToken,
    };
    Rejected::new(reason, Stage::Tokenise, error.to_string())
}
