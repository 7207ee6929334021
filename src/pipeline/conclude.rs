//! The end of the road: puts finished posts back in order, publishes them, and settles each offset only after what it
//! became is durable.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use opentelemetry::KeyValue;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::cache::Cache;
use crate::error::Fatal;
use crate::event::{Event, Format};
use crate::fault::{self, Point};
use crate::kafka::publisher::Outgoing;
use crate::pipeline::circuit::{Circuit, Tolerance};
use crate::pipeline::judge::Judge;
use crate::pipeline::notes::Notes;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::quotas::Quotas;
use crate::pipeline::replayed::Replayed;
use crate::pipeline::sequencer::Sequencer;
use crate::pipeline::shadow::Tap;
use crate::pipeline::tally::{Tally, add};
use crate::pipeline::{Finished, Judged};
use crate::policy::{Action, Policy};
use crate::receipt::{Envelope, Original, Partition, Receipt};
use crate::rejection::Rejected;
use crate::reply::Reply;
use crate::telemetry::metrics::Metrics;
use crate::verdict::{ActionReason, Judgement, Source};

/// Finished posts taken at once.
const CHUNK: usize = 64;
/// Room for a verdict; a larger one takes more.
const VERDICT_BYTES: usize = 2048;

/// What conclude is built from.
pub struct Parts {
    /// Makes what is published of what was answered.
    pub maker: Maker,
    /// How it stands in its topic.
    pub format: Format,
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
    /// Policies that come into force; each has the prompt and the labels of the one before.
    pub policies: mpsc::Receiver<Policy>,
    /// What has been acted on by itself.
    pub quotas: Quotas,
    /// Where a shadow has its share.
    pub tap: Option<Tap>,
    /// The account of a replay, if this is one.
    pub replayed: Option<Arc<Replayed>>,
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
            Some(policy) = parts.policies.recv() => parts.come_into_force(policy),
            n = finished.recv_many(&mut taken, CHUNK), if open => {
                open = n > 0;
                for item in taken.drain(..) {
                    sequencer.push(item.receipt().place(), item, &mut ready);
                }
                forget_deleted(&parts.cache, &ready).await;
                for item in ready.drain(..) {
                    let item = match item {
                        Finished::PassedOver(envelope) => {
                            parts.pass_over(envelope);
                            continue;
                        }
                        item => item,
                    };
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
    parts.outlet.close()
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

    fn pass_over(&self, Envelope { receipt, .. }: Envelope<()>) {
        if let Some(replayed) = &self.replayed {
            replayed.passed_over();
        }
        self.settle(receipt);
    }

    /// What is concluded from here on is concluded under this policy.
    fn come_into_force(&mut self, policy: Policy) {
        if let Maker::Judge(judge) = &mut self.maker {
            self.quotas = std::mem::take(&mut self.quotas).renewed(&policy, Instant::now());
            self.tally.drift.begin(policy.calibration.as_deref());
            judge.renew(policy);
        }
    }

    /// What a finished post becomes, counted and logged.
    fn conclude(&mut self, item: Finished) -> Result<(Outgoing, Envelope<()>), Fatal> {
        Ok(match item {
            Finished::Judged(judged) => {
                match judged.body.source {
                    Source::Model => {}
                    Source::Cache => add(&self.tally.cached, 1),
                    Source::Twin => add(&self.tally.twins, 1),
                }
                self.tally.metrics.stage("tokenise", judged.body.row.tokenise);
                (self.make(&judged)?, self.processed(judged.take().1, None))
            }
            Finished::Rejected(envelope) => {
                let (rejected, envelope) = envelope.take();
                self.tell_rejected(&rejected, &envelope.original);
                let reason = rejected.reason.code();
                (Outgoing::DeadLetter(rejected), self.processed(envelope, Some(reason)))
            }
            Finished::Tombstone(envelope) | Finished::PassedOver(envelope) => {
                add(&self.tally.tombstones, 1);
                (Outgoing::Tombstone, self.processed(envelope, None))
            }
        })
    }

    fn processed(&self, envelope: Envelope<()>, rejected: Option<&'static str>) -> Envelope<()> {
        self.tally.metrics.processed(&envelope.original.topic, envelope.received.elapsed(), rejected);
        envelope
    }

    fn tell_rejected(&self, rejected: &Rejected, original: &Original) {
        let Original { topic, partition, offset, span, .. } = original;
        let (reason, stage) = (rejected.reason.code(), rejected.stage.code());
        if matches!(self.outlet, Outlet::Shadow(_)) {
            info!(
                error.type = reason, stage, message = rejected.message, %topic, partition, offset = offset.0,
                "the shadow rejects a post that was judged"
            );
        } else {
            warn!(
                error.type = reason, stage, message = rejected.message, %topic, partition, offset = offset.0,
                trace_id = span.trace_id(), "post rejected"
            );
        }
        span.rejected(reason);
        add(&self.tally.dead_letters, 1);
        self.tally.metrics.rejection(reason, stage);
        self.tally.vitals.dead_letter(reason, topic, *partition, offset.0);
    }

    fn make(&mut self, judged: &Envelope<Judged>) -> Result<Outgoing, Fatal> {
        match (&mut self.maker, &*judged.body.answer) {
            (Maker::Judge(judge), Reply::Scores(answer)) => {
                let mut verdict = judge.verdict(judged, answer);
                let called_for = verdict.data.verdict.action;
                hold_to_quota(&mut verdict.data.verdict, &mut self.quotas, &self.tally.metrics);
                self.tally.drift.add(verdict.data.verdict.scores.iter().map(|(label, score)| (&**label, *score)));
                let (label, action) = (&verdict.data.verdict.label, verdict.data.verdict.action);
                let span = &judged.original.span;
                debug!(post_id = %verdict.subject, %label, ?action, trace_id = span.trace_id(), "verdict");
                add(&self.tally.verdicts, 1);
                self.tally.metrics.verdict(label, action.name(), judged.body.source.name());
                span.became([
                    KeyValue::new("moderato.label", label.to_string()),
                    KeyValue::new("moderato.action", action.name()),
                    KeyValue::new("moderato.answered_by", judged.body.source.name()),
                ]);
                if let Some(tap) = &self.tap {
                    tap.offer(&verdict.subject, &judged.original, label, called_for);
                }
                if let Some(replayed) = &self.replayed {
                    replayed.judged(&judged.original, &verdict);
                }
                let event = encode(&verdict, self.format)?;
                Ok(Outgoing::Verdict { event, verdict_id: verdict.id.into_owned(), flagged: action != Action::Allow })
            }
            (Maker::Notes(notes), Reply::Note(draft)) => {
                let note = notes.note(judged, draft)?;
                debug!(post_id = %note.subject, fixed_form = draft.fixed_form, attempts = draft.attempts, "note");
                add(&self.tally.notes, 1);
                add(&self.tally.fixed_forms, usize::from(draft.fixed_form));
                self.tally.metrics.note(draft.fixed_form, judged.body.source.name());
                Ok(Outgoing::Note { event: encode(&note, self.format)?, note_id: note.id.into_owned() })
            }
            _ => Err(Fatal::Internal { part: "conclude", cause: "an answer of another task".to_owned() }),
        }
    }
}

/// Beyond the policy's quota a person looks before anything is done.
fn hold_to_quota(verdict: &mut Judgement<'_>, quotas: &mut Quotas, metrics: &Metrics) {
    if verdict.action == Action::Act && !quotas.allow(&verdict.action_label, Instant::now()) {
        verdict.action = Action::Review;
        verdict.action_reason = ActionReason::Quota;
        metrics.quota_exceeded(&verdict.action_label);
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

fn encode(verdict: &impl Serialize, format: Format) -> Result<Event, Fatal> {
    let mut json = Vec::with_capacity(VERDICT_BYTES);
    let event = serde_json::to_writer(&mut json, verdict).and_then(|()| format.event(json));
    event.map_err(|error| Fatal::Internal { part: "conclude", cause: error.to_string() })
}
