//! The end of the road: puts finished posts back in order, publishes them, and settles each offset only after what it
//! became is durable.

use std::sync::Arc;

use crossbeam_channel::Sender;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::cache::Cache;
use crate::error::Fatal;
use crate::fault::{self, Point};
use crate::kafka::publisher::Outgoing;
use crate::pipeline::circuit::{Circuit, Tolerance};
use crate::pipeline::judge::Judge;
use crate::pipeline::notes::Notes;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::sequencer::Sequencer;
use crate::pipeline::tally::{Tally, add};
use crate::pipeline::{Finished, Judged};
use crate::policy::Action;
use crate::receipt::{Envelope, Original, Partition, Receipt};
use crate::reply::Reply;
use crate::verdict::Source;

/// Finished posts taken at once.
const CHUNK: usize = 64;
/// Room for a verdict; a larger one takes more.
const VERDICT_BYTES: usize = 2048;

/// What conclude is built from.
pub struct Parts {
    /// Makes what is published of what was answered.
    pub maker: Maker,
    /// Where they go.
    pub outlet: Outlet,
    /// Where the answers to deleted posts are removed.
    pub cache: Arc<Cache>,
    /// To the source: settled receipts.
    pub settled: Sender<Receipt>,
    /// Rejections that a partition may have before the worker ends.
    pub tolerance: Tolerance,
    /// Counters.
    pub tally: Arc<Tally>,
}

/// Makes what is published: one kind for all posts of a worker.
pub enum Maker {
    /// Verdicts.
    Judge(Box<Judge>),
    /// Notes.
    Notes(Box<Notes>),
}

/// Runs until `finished` closes and everything published has been acknowledged.
pub async fn run(mut parts: Parts, mut finished: mpsc::Receiver<Finished>) -> Result<(), Fatal> {
    let mut sequencer = Sequencer::default();
    let mut circuit = Circuit::new(parts.tolerance);
    let (mut taken, mut ready, mut reports) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK), Vec::new());
    // Published and not yet acknowledged.
    let mut owed = 0;
    let mut open = true;
    while open || owed > 0 {
        tokio::select! {
            n = parts.outlet.reports(&mut reports), if owed > 0 => {
                if n == 0 {
                    return Err(Fatal::Internal { part: "publisher", cause: "its thread is gone".to_owned() });
                }
                owed -= n;
                for report in reports.drain(..) {
                    let durable = report?;
                    fault::reach(Point::AfterProduce);
                    parts.settle(durable);
                }
            }
            n = finished.recv_many(&mut taken, CHUNK), if open => {
                open = n > 0;
                for item in taken.drain(..) {
                    sequencer.push(item.receipt().place(), item, &mut ready);
                }
                forget_deleted(&parts.cache, &ready).await;
                for item in ready.drain(..) {
                    let (outgoing, Envelope { receipt, original, .. }) = parts.conclude(item)?;
                    fault::reach(Point::BeforeProduce);
                    let tripped = guard(&mut circuit, &outgoing, original.partition);
                    match parts.outlet.publish(original, outgoing, receipt).await? {
                        Some(durable) => parts.settle(durable),
                        None => owed += 1,
                    }
                    tripped?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the answers that were made for posts whose tombstones are about to leave. Here and not earlier, because by
/// now the answers to all that came before a tombstone in its partition have been kept.
async fn forget_deleted(cache: &Cache, ready: &[Finished]) {
    let deleted = ready.iter().filter_map(|item| match item {
        Finished::Tombstone(envelope) => Some(&*envelope.original),
        _ => None,
    });
    let deleted: Vec<&Original> = deleted.collect();
    if !deleted.is_empty() {
        cache.forget(&deleted).await;
    }
}

impl Parts {
    fn settle(&self, receipt: Receipt) {
        // Nobody listens once the source has given up waiting; the offset is then judged again.
        let _ = self.settled.send(receipt);
    }

    /// What a finished post becomes, counted and logged.
    fn conclude(&self, item: Finished) -> Result<(Outgoing, Envelope<()>), Fatal> {
        Ok(match item {
            Finished::Judged(judged) => {
                match judged.body.source {
                    Source::Model => {}
                    Source::Cache => add(&self.tally.cached, 1),
                    Source::Twin => add(&self.tally.twins, 1),
                }
                (self.make(&judged)?, judged.take().1)
            }
            Finished::Rejected(envelope) => {
                let (rejected, envelope) = envelope.take();
                let Original { topic, partition, offset, .. } = &*envelope.original;
                warn!(
                    error.type = rejected.reason.code(), stage = rejected.stage.code(), message = rejected.message,
                    %topic, partition, offset = offset.0, "post rejected"
                );
                add(&self.tally.dead_letters, 1);
                (Outgoing::DeadLetter(rejected), envelope)
            }
            Finished::Tombstone(envelope) => {
                add(&self.tally.tombstones, 1);
                (Outgoing::Tombstone, envelope)
            }
        })
    }
}

impl Parts {
    fn make(&self, judged: &Envelope<Judged>) -> Result<Outgoing, Fatal> {
        match (&self.maker, &*judged.body.answer) {
            (Maker::Judge(judge), Reply::Scores(answer)) => {
                let verdict = judge.verdict(judged, answer);
                let (label, action) = (&verdict.data.verdict.label, verdict.data.verdict.action);
                debug!(post_id = %verdict.subject, %label, ?action, "verdict");
                add(&self.tally.verdicts, 1);
                let value = encode(&verdict)?;
                Ok(Outgoing::Verdict { value, verdict_id: verdict.id.into_owned(), flagged: action != Action::Allow })
            }
            (Maker::Notes(notes), Reply::Note(draft)) => {
                let note = notes.note(judged, draft)?;
                debug!(post_id = %note.subject, fixed_form = draft.fixed_form, attempts = draft.attempts, "note");
                add(&self.tally.notes, 1);
                add(&self.tally.fixed_forms, usize::from(draft.fixed_form));
                Ok(Outgoing::Note { value: encode(&note)?, note_id: note.id.into_owned() })
            }
            _ => Err(Fatal::Internal { part: "conclude", cause: "an answer of another task".to_owned() }),
        }
    }
}

/// So many rejections mean that something upstream broke, not the posts.
fn guard(circuit: &mut Circuit, outgoing: &Outgoing, partition: Partition) -> Result<(), Fatal> {
    match outgoing {
        Outgoing::Verdict { .. } | Outgoing::Note { .. } => circuit.judged(partition),
        Outgoing::Tombstone => {}
        Outgoing::DeadLetter(rejected) => {
            if let Some(count) = circuit.rejected(partition) {
                return Err(Fatal::TooManyRejections { partition, count, reason: rejected.reason.code() });
            }
        }
    }
    Ok(())
}

fn encode(verdict: &impl Serialize) -> Result<Vec<u8>, Fatal> {
    let mut value = Vec::with_capacity(VERDICT_BYTES);
    let written = serde_json::to_writer(&mut value, verdict);
    written.map_err(|error| Fatal::Internal { part: "conclude", cause: error.to_string() })?;
    Ok(value)
}
