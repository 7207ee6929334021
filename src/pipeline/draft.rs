//! The threads that write notes. Rows join and leave between steps; a finished text goes through the checks, a refused one
//! is written once more with what was wrong with it named, and then the fixed form stands in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::config::InputLimit;
use crate::error::Fatal;
use crate::fault;
use crate::model::{Drafted, Drafter, ModelError, Prompt};
use crate::note::{Check, Checker, Draft, MAX_DRAFTS, Written};
use crate::pipeline::TokenizedPost;
use crate::pipeline::ask::{NoteRow, Rules, tokens};
use crate::pipeline::batcher::Waiting;
use crate::pipeline::desk::Ask;
use crate::pipeline::infer::{Answered, refused};
use crate::pipeline::tally::{Tally, add};
use crate::receipt::Envelope;
use crate::rejection::Rejected;
use crate::reply::Reply;
use crate::suspects::{Journal, Suspects};
use crate::telemetry::trace::OpenSpan;
use crate::verdict::Execution;

/// What a writing thread is built from.
pub struct Parts {
    /// This thread is its only owner.
    pub drafter: Drafter,
    /// The model's name, for spans.
    pub model: String,
    /// What notes are made by.
    pub rules: Arc<Rules>,
    /// Tokenises what is written once more.
    pub prompt: Arc<Prompt>,
    /// How long a message may be.
    pub limit: InputLimit,
    /// What goes into each note.
    pub execution: Arc<Execution>,
    /// Where it is noted what runs.
    pub journal: Option<Journal>,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// Counters.
    pub tally: Arc<Tally>,
}

/// A post whose note is being written.
struct Row {
    post: Envelope<TokenizedPost>,
    /// When it first joined.
    joined: Instant,
    /// What was wrong with the drafts so far.
    refused: Vec<Vec<Check>>,
    /// Tokens of them.
    tokens: usize,
    /// Runs that failed while it took part.
    failures: usize,
}

/// The thread's state: rows by the tag that the drafter knows them by.
struct Writing {
    parts: Parts,
    answers: mpsc::Sender<Answered>,
    rows: BTreeMap<u64, Row>,
    tags: u64,
    /// Of the runs that write on the rows as they are.
    span: OpenSpan,
    /// Rows of a run that failed: each is written alone.
    alone: VecDeque<Row>,
}

/// Nobody takes what was written.
struct Closed;

/// Why a thread ends early.
enum End {
    Fatal(Fatal),
    Closed,
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        End::Closed
    }
}

/// Starts the thread; it asks for rows whenever it has room, and ends when nobody answers and its rows are finished.
pub fn spawn(
    parts: Parts,
    asks: mpsc::Sender<Ask>,
    answers: mpsc::Sender<Answered>,
) -> Result<JoinHandle<Result<(), Fatal>>, Fatal> {
    let (rows, span, alone) = (BTreeMap::new(), OpenSpan::default(), VecDeque::new());
    let mut writing = Writing { parts, answers, rows, tags: 0, span, alone };
    let work = move || match writing.run(&asks) {
        Ok(()) | Err(End::Closed) => Ok(()),
        Err(End::Fatal(fatal)) => Err(fatal),
    };
    let spawned = thread::Builder::new().name("model".to_owned()).spawn(work);
    spawned.map_err(|error| Fatal::Internal { part: "model", cause: error.to_string() })
}

impl Writing {
    fn run(&mut self, asks: &mpsc::Sender<Ask>) -> Result<(), End> {
        let mut open = true;
        while open || !self.rows.is_empty() || !self.alone.is_empty() {
            if self.rows.is_empty()
                && let Some(row) = self.alone.pop_front()
            {
                self.join(row)?;
            } else if open && self.alone.is_empty() && self.parts.drafter.room() > 0 {
                match self.ask(asks) {
                    Some(new) => new.into_iter().try_for_each(|row| self.join(row))?,
                    None => open = false,
                }
            }
            if !self.rows.is_empty() {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Rows for the room there is; `None` once there will be no more.
    fn ask(&self, asks: &mpsc::Sender<Ask>) -> Option<Vec<Row>> {
        let (rows, new) = oneshot::channel();
        let ask = Ask { room: self.parts.drafter.room(), writing: self.rows.len(), rows };
        let new = asks.blocking_send(ask).ok().and_then(|()| new.blocking_recv().ok())?;
        let row = |Waiting { mut post, since }: Waiting| {
            let joined = Instant::now();
            post.body.queue = Some(joined.saturating_duration_since(since));
            Row { post, joined, refused: Vec::new(), tokens: 0, failures: 0 }
        };
        Some(new.into_iter().map(row).collect())
    }

    /// A row that does not join twice is given up.
    fn join(&mut self, row: Row) -> Result<(), End> {
        let ids = match self.message(&row) {
            Ok(ids) => ids,
            Err(rejected) => return self.unasked(row, rejected),
        };
        self.tags += 1;
        let tag = self.tags;
        self.rows.insert(tag, row);
        self.note_what_runs();
        let most = self.parts.rules.policy.max_new_tokens;
        let joined = self.place_fault().and_then(|()| self.parts.drafter.join(tag, &ids, most));
        let Err(error) = joined else { return Ok(()) };
        let row = self.rows.remove(&tag);
        self.lost(&error)?;
        self.note_what_runs();
        row.map_or(Ok(()), |row| self.again(row, &error))
    }

    /// A post whose message cannot be made is rejected; one that was written about once has the fixed form.
    fn unasked(&mut self, mut row: Row, rejected: Rejected) -> Result<(), End> {
        let refused = std::mem::take(&mut row.refused);
        let Some(note) = row.post.body.note.as_ref().filter(|_| !refused.is_empty()) else {
            return self.send(row, Err(rejected));
        };
        let checker = Checker::new(&note.ground, &self.parts.rules.words);
        let draft =
            Draft { written: Some(self.written(row.tokens)), ..Draft::given_up(&checker, &note.ground, refused) };
        self.send(row, Ok(draft))
    }

    /// The ids of the message, with what was wrong with the last draft.
    fn message(&self, row: &Row) -> Result<Vec<u32>, Rejected> {
        let failed = row.refused.last().and_then(|checks| checks.first());
        let (Some(check), Some(note)) = (failed, &row.post.body.note) else {
            return Ok(row.post.body.tokens.ids.clone());
        };
        tokens(&self.parts.prompt, &self.parts.limit, &note.ground, Some(*check)).map(|tokens| tokens.ids)
    }

    fn step(&mut self) -> Result<(), End> {
        let started = Instant::now();
        let stepped = self.place_fault().and_then(|()| self.parts.drafter.step());
        self.parts.tally.step(self.rows.len(), started.elapsed());
        let drafted = match stepped {
            Ok(drafted) => drafted,
            Err(error) => return self.failed(&error),
        };
        let any = !drafted.is_empty();
        for text in drafted {
            self.finish(text)?;
        }
        if any {
            self.note_what_runs();
        }
        Ok(())
    }

    /// The drafter has none of its rows any more: each is written alone, so that the one at fault is found.
    fn failed(&mut self, error: &ModelError) -> Result<(), End> {
        self.lost(error)?;
        warn!(%error, rows = self.rows.len(), "a run failed; writing its notes one by one");
        let rows = std::mem::take(&mut self.rows);
        self.note_what_runs();
        rows.into_values().try_for_each(|row| self.again(row, error))
    }

    /// A row that fails alone, or twice, is at fault.
    fn again(&mut self, mut row: Row, error: &ModelError) -> Result<(), End> {
        row.failures += 1;
        if row.failures >= 2 {
            return self.send(row, Err(refused(error)));
        }
        self.alone.push_back(row);
        Ok(())
    }

    /// The note of a run that lost the device stays: it may have been a row's doing.
    fn lost(&self, error: &ModelError) -> Result<(), End> {
        if error.device_lost() {
            return Err(End::Fatal(Fatal::ModelLost { rows: self.rows.len().max(1), cause: error.to_string() }));
        }
        Ok(())
    }

    /// Checks a text; what is refused is written once more.
    fn finish(&mut self, text: Drafted) -> Result<(), End> {
        let Some(mut row) = self.rows.remove(&text.tag) else { return Ok(()) };
        let Some(note) = row.post.body.note.take() else { return Ok(()) };
        row.tokens += text.tokens;
        add(&self.parts.tally.drafts, 1);
        add(&self.parts.tally.draft_tokens, text.tokens);
        let outcome = self.examine(&note, &text, &mut row.refused);
        row.post.body.note = Some(note);
        match outcome {
            Some(draft) => {
                let draft = Draft { written: Some(self.written(row.tokens)), ..draft };
                self.send(row, Ok(draft))
            }
            None => self.join(row),
        }
    }

    /// The note, or `None` if the model is to try again.
    fn examine(&self, note: &NoteRow, text: &Drafted, refused: &mut Vec<Vec<Check>>) -> Option<Draft> {
        let checker = Checker::new(&note.ground, &self.parts.rules.words);
        match Draft::accept(&checker, &text.text, refused, note.ground.lang.as_deref()) {
            Ok(draft) => Some(draft),
            Err(failed) => {
                debug!(checks = ?failed, ended = ?text.ended, "a draft was refused");
                add(&self.parts.tally.refused, 1);
                refused.push(failed);
                let over = refused.len() >= MAX_DRAFTS;
                over.then(|| Draft::given_up(&checker, &note.ground, std::mem::take(refused)))
            }
        }
    }

    fn written(&self, tokens: usize) -> Written {
        Written { execution: self.parts.execution.clone(), computed_at: Timestamp::now().to_string(), tokens }
    }

    fn send(&mut self, row: Row, outcome: Result<Draft, Rejected>) -> Result<(), End> {
        let mut post = row.post;
        post.body.classify = Some(row.joined.elapsed());
        self.parts.suspects.acquit(std::iter::once(&post.body.key));
        let reply = outcome.map(|draft| Arc::new(Reply::Note(Box::new(draft))));
        self.answers.blocking_send((post, reply)).map_err(|_| Closed)?;
        Ok(())
    }

    fn note_what_runs(&mut self) {
        // The one before ends first.
        self.span = OpenSpan::default();
        if !self.rows.is_empty() {
            let posts = self.rows.values().map(|row| &row.post.original.span);
            self.span = OpenSpan::drafting(&self.parts.model, posts);
        }
        let Some(journal) = &mut self.parts.journal else { return };
        journal.leave();
        if !self.rows.is_empty() {
            journal.enter(self.rows.values().map(|row| &row.post.body.key));
        }
    }

    fn place_fault(&self) -> Result<(), ModelError> {
        fault::run(self.rows.values().map(|row| &*row.post.body.post.text)).map_err(ModelError::run)
    }
}
