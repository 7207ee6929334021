//! Commits of finished offsets: one under way at a time, its outcome read later. A broker answers a commit that meets a
//! rebalance only after the group has joined again, seconds later; the polling loop does not stand still for that.

#![expect(
    unsafe_code,
    reason = "rdkafka never tells how an asynchronous commit ended (its queue does, librdkafka's own)"
)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, warn};

use super::events::Context;
use super::heads;
use super::ledger::Due;
use super::mark::Ends;
use crate::error::Fatal;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::OpenSpan;

/// What is committed.
pub(super) type Offsets = Vec<Due>;

/// Commits for one group and topic.
pub(super) struct Commits {
    // Goes before the consumer whose queue it is.
    queue: Queue,
    consumer: Arc<BaseConsumer<Context>>,
    topic: Arc<str>,
    group: String,
    ends: Arc<Ends>,
    metrics: Metrics,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    offsets: Offsets,
    began: SystemTime,
    start: Instant,
}

impl Commits {
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<Context>>,
        topic: Arc<str>,
        group: String,
        ends: Arc<Ends>,
        metrics: Metrics,
    ) -> Result<Self, Fatal> {
        let queue = Queue::of(consumer)
            .ok_or(Fatal::Internal { part: "consumer", cause: "no queue for commits".to_owned() })?;
        Ok(Self { queue, consumer: consumer.clone(), topic, group, ends, metrics, under_way: None })
    }

    /// Whether the broker has yet to answer.
    pub(super) fn under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Asks for a commit. Nothing to do where there is nothing, or where one is under way; thrown out of the group, this
    /// worker has nothing to say any more: an empty group would believe it.
    pub(super) fn begin(&mut self, offsets: Offsets) {
        if offsets.is_empty() || self.under_way() || self.consumer.assignment_lost() {
            return;
        }
        let (began, start) = (SystemTime::now(), Instant::now());
        let asked = self.list(&offsets).and_then(|list| self.queue.commit(&self.consumer, &list));
        self.under_way = Some(UnderWay { offsets, began, start });
        if let Err(error) = asked {
            self.ended(Err(error));
        }
    }

    /// What the broker has acknowledged, if it answers within that time. What it refused is asked for again at the next
    /// interval: the posts in between may be judged twice, never lost.
    pub(super) fn acknowledged(&mut self, wait: Duration) -> Option<Offsets> {
        self.under_way.as_ref()?;
        let outcome = self.queue.outcome(wait)?;
        self.ended(outcome)
    }

    fn ended(&mut self, outcome: KafkaResult<()>) -> Option<Offsets> {
        let UnderWay { offsets, began, start } = self.under_way.take()?;
        let mut span = OpenSpan::committed(&self.topic, &self.group, began, offsets.len());
        self.metrics.committed(start.elapsed());
        match outcome {
            Ok(()) => {
                debug!(?offsets, "offsets committed");
                Some(offsets)
            }
            Err(error) => {
                span.failed("commit");
                warn!(%error, ?offsets, "cannot commit offsets now");
                None
            }
        }
    }

    fn list(&self, offsets: &Offsets) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for Due { partition, next, head } in offsets {
            heads::add(
                &mut list,
                &self.topic,
                *partition,
                *next,
                (head.as_ref(), self.ends.of(*partition).as_deref()),
            )?;
        }
        Ok(list)
    }
}

/// One of librdkafka's queues: outcomes of commits arrive there and nowhere else.
struct Queue(NonNull<bindings::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    fn of(consumer: &BaseConsumer<Context>) -> Option<Self> {
        // SAFETY: the client lives throughout the call; the queue is destroyed before it, see the order in `Commits`.
        NonNull::new(unsafe { bindings::rd_kafka_queue_new(consumer.client().native_ptr()) }).map(Self)
    }

    fn commit(&self, consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> KafkaResult<()> {
        let (client, queue) = (consumer.client().native_ptr(), self.0.as_ptr());
        // SAFETY: client, queue and list live throughout the call, which copies the list; without a callback the outcome
        // comes to the queue, and the last argument is not looked at.
        let error = unsafe { bindings::rd_kafka_commit_queue(client, list.ptr(), queue, None, std::ptr::null_mut()) };
        result(error)
    }

    fn outcome(&self, wait: Duration) -> Option<KafkaResult<()>> {
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue lives; what it hands out is ours, and is destroyed once, below.
        let event = NonNull::new(unsafe { bindings::rd_kafka_queue_poll(self.0.as_ptr(), wait) })?;
        // SAFETY: the event lives until the next line.
        let error = unsafe { bindings::rd_kafka_event_error(event.as_ptr()) };
        // SAFETY: see above.
        unsafe { bindings::rd_kafka_event_destroy(event.as_ptr()) };
        Some(result(error))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new` and destroyed nowhere else.
        unsafe { bindings::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

fn result(error: RDKafkaRespErr) -> KafkaResult<()> {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::from(error))),
    }
}
