//! The consumer thread: the only owner of the Kafka consumer and of the ledger.
//!
//! It takes a permit before it polls, enters every record in the ledger, commits finished prefixes, and drains when
//! partitions are revoked or the worker stops. Rebalance events are queued by the client's callback and answered here,
//! right after the poll that brought them: so the ledger needs no lock, and draining blocks nothing that feeds it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Delivery, KafkaSettings};
use crate::error::Fatal;
use crate::fault::{self, Point};
use crate::kafka::bounds::{Bounded, Bounds};
use crate::kafka::checkpoints::Checkpoints;
use crate::kafka::commits::Commits;
use crate::kafka::events::{Context, Rebalance, unless_fatal};
use crate::kafka::heads;
use crate::kafka::intake;
use crate::kafka::lag::Lag;
use crate::kafka::ledger::{Due, Ledger};
use crate::kafka::mark::{self, Mark};
use crate::kafka::membership::Membership;
use crate::kafka::permits::Permits;
use crate::receipt::{Envelope, NextOffset, Offset, Partition, RawMessage, Receipt};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::OpenSpan;
use crate::telemetry::vitals::Vitals;

/// Longest wait for a record; also how late a stop or a settled receipt can be noticed while nothing arrives.
const POLL: Duration = Duration::from_millis(20);
/// How long to wait for a permit before pausing: what was fetched ahead is thrown away by a pause, and fetching it again
/// takes up to a second, which a road that answers from the cache would spend over and over.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a last commit is tried again, and how often.
const LAST_COMMIT: Duration = Duration::from_secs(5);
const COMMIT_AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for the group's word on where a bounded reading begins and ends.
const MARKS: Duration = Duration::from_secs(20);
/// The lag is read off the client's statistics.
const STATISTICS: &str = "statistics.interval.ms";
/// How often probes and metrics are told how the worker is.
const LOOK: Duration = Duration::from_millis(500);
/// How long events are served at a time where no record can come.
const SERVE: Duration = Duration::from_millis(1);
/// Records and errors taken in one turn before settling, committing and the watchdog get theirs.
const EVENTS_A_TURN: usize = 512;

/// A consumer that has asked to join its group; nothing is polled yet.
pub struct Consumer {
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer<Context>>,
    membership: Arc<Membership>,
}

/// What the consumer thread is built from.
pub struct Parts {
    /// Permits: how many posts may be in flight.
    pub max_in_flight: usize,
    /// Longest time a partition may stand still with posts in flight.
    pub stall_timeout: Duration,
    /// Longest time that draining at shutdown may take.
    pub grace: Duration,
    /// To prepare; has room for every permit, so sending never waits.
    pub intake: mpsc::Sender<Envelope<RawMessage>>,
    /// From conclude: finished receipts.
    pub settled: Receiver<Receipt>,
    /// Cancelled when the worker is to stop.
    pub stop: CancellationToken,
    /// Where the reading ends, if it does.
    pub bounds: Option<Bounds>,
    /// How the worker is.
    pub vitals: Arc<Vitals>,
    /// Instruments.
    pub metrics: Metrics,
}

impl Consumer {
    /// Makes the client and subscribes; connecting goes on by itself.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, Fatal> {
        let mut config = settings.consumer();
        // Readiness and lag rest on it: never, or seldom, will not do.
        let asked = settings.options.get(STATISTICS).and_then(|every| every.parse::<u64>().ok());
        if asked.is_none_or(|every| !(1..=10_000).contains(&every)) {
            config.set(STATISTICS, "2000");
        }
        if settings.replay.is_some() {
            // A range that retention overtakes goes on with what is left, and says so.
            config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        }
        let consumer: BaseConsumer<Context> = config.create_with_context(Context::default()).map_err(lost)?;
        consumer.subscribe(&[&settings.posts]).map_err(lost)?;
        let consumer = Arc::new(consumer);
        let membership = Arc::new(Membership::new(&consumer));
        Ok(Self { settings: settings.clone(), consumer, membership })
    }

    /// For the transactor.
    pub(super) fn membership(&self) -> Arc<Membership> {
        self.membership.clone()
    }

    /// Starts the thread. It ends with `Ok` when told to stop and drained.
    pub fn spawn(self, mut parts: Parts) -> Result<JoinHandle<Result<(), Fatal>>, Fatal> {
        let Self { settings, consumer, membership } = self;
        let topic: Arc<str> = Arc::from(settings.posts.as_str());
        let commits = Commits::new(
            &consumer,
            topic.clone(),
            settings.group.clone(),
            membership.ends.clone(),
            parts.metrics.clone(),
        )?;
        let bounded = parts.bounds.take().map(Bounded::new);
        let mut thread = ConsumerThread {
            checkpoints: Checkpoints::connect(&settings)?,
            consumer,
            membership,
            commits,
            bounded,
            topic,
            ledger: Ledger::default(),
            lag: Lag::default(),
            permits: Permits::new(parts.max_in_flight),
            paused: false,
            next_commit: Instant::now() + settings.commit_interval,
            next_look: Instant::now(),
            settings,
            parts,
        };
        thread::Builder::new()
            .name("consumer".to_owned())
            .spawn(move || {
                thread.consumer.context().attended.store(true, Ordering::Release);
                let outcome = thread.run();
                thread.leave(outcome.is_ok());
                outcome
            })
            .map_err(|error| Fatal::Internal { part: "consumer", cause: error.to_string() })
    }
}

fn lost(error: KafkaError) -> Fatal {
    Fatal::Kafka { cause: error.to_string() }
}

struct ConsumerThread {
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer<Context>>,
    membership: Arc<Membership>,
    commits: Commits,
    checkpoints: Option<Checkpoints>,
    /// Where the reading ends, if it does.
    bounded: Option<Bounded>,
    topic: Arc<str>,
    ledger: Ledger,
    lag: Lag,
    /// Taken by records delivered whose receipt has not come back, those of older epochs included.
    permits: Permits,
    paused: bool,
    next_commit: Instant,
    /// When it is next told how far the partitions are behind.
    next_look: Instant,
    parts: Parts,
}

impl ConsumerThread {
    fn run(&mut self) -> Result<(), Fatal> {
        while !self.parts.stop.is_cancelled() && !self.bounded.as_ref().is_some_and(Bounded::is_over) {
            self.pause_or_resume();
            self.poll()?;
            self.answer_rebalances()?;
            self.acknowledge(Duration::ZERO);
            if Instant::now() >= self.next_commit {
                self.commit(&self.ledger.partitions());
                self.next_commit = Instant::now() + self.settings.commit_interval;
            }
            self.watch_for_stall()?;
            self.tell();
        }
        Ok(())
    }

    /// What probes and metrics read, twice a second: that the loop moved, and how far behind it is.
    fn tell(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let partitions = self.ledger.partitions();
        let paused = if self.paused { partitions.len() } else { 0 };
        self.parts.vitals.polled(self.permits.taken(), paused);
        if let Some(seen) = self.consumer.context().statistics() {
            self.parts.vitals.connected(seen.brokers_up);
            self.lag.ends(seen.ends);
        }
        for partition in partitions {
            if let Some(next) = self.ledger.next(partition) {
                self.lag.finished(partition, next.0);
            }
        }
        self.parts.vitals.set_behind(self.lag.behind());
    }

    /// Out of permits: wait a moment, then pause, but keep polling, so that the group membership lives. Resume at half.
    fn pause_or_resume(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.paused && self.permits.left() == 0 {
            match self.parts.settled.recv_deadline(deadline) {
                Ok(receipt) => self.settle(receipt),
                Err(_) => break,
            }
        }
        self.settle_ready();
        let held = self.bounded.as_ref().is_some_and(Bounded::is_held);
        if !self.paused && (held || self.permits.left() == 0) {
            self.switch(true, &self.open_partitions());
            self.paused = true;
        } else if self.paused && !held && self.permits.half_are_left() {
            self.switch(false, &self.open_partitions());
            self.paused = false;
        }
    }

    /// The assigned partitions whose records are still to come.
    fn open_partitions(&self) -> Vec<Partition> {
        let mut partitions = self.ledger.partitions();
        partitions.retain(|partition| self.bounded.as_ref().is_none_or(|bounded| bounded.is_open(*partition)));
        partitions
    }

    fn switch(&self, pause: bool, partitions: &[Partition]) {
        let list = self.list(partitions);
        let outcome = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = outcome {
            warn!(%error, pause, ?partitions, "cannot pause or resume partitions");
        }
    }

    fn poll(&mut self) -> Result<(), Fatal> {
        let mut wait = POLL;
        if self.paused {
            // Nothing will come from Kafka; wait for receipts instead and only serve events.
            if let Ok(receipt) = self.parts.settled.recv_timeout(POLL) {
                self.settle(receipt);
            }
            wait = SERVE;
        }
        let room = self.bounded.as_mut().map_or(usize::MAX, |bounded| bounded.room(Instant::now()));
        if room == 0 {
            if let Ok(receipt) = self.parts.settled.recv_timeout(POLL) {
                self.settle(receipt);
            }
            return Ok(());
        }
        let (began, mut records, mut ended) = (SystemTime::now(), 0, Vec::new());
        // A client without brokers has errors to tell by the dozen, and a rebalance behind them: they count as no record.
        for _ in 0..EVENTS_A_TURN {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) if !takes(&mut self.bounded, &message) => ended.push(message.partition()),
                Some(Ok(message)) => {
                    records += 1;
                    if self.settings.evidence.chain {
                        let resumed = heads::resume(&self.consumer, &mut self.ledger, &self.topic, message.partition());
                        resumed.map_err(lost)?;
                    }
                    intake::deliver(
                        &mut self.ledger,
                        &mut self.permits,
                        &self.topic,
                        &self.settings.group,
                        &self.parts,
                        &message,
                    )?;
                    let timestamp = message.timestamp().to_millis();
                    self.lag.delivered(message.partition(), Offset(message.offset()), timestamp);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => ended.push(partition),
                Some(Err(error)) => unless_fatal(&error, &self.settings)?,
            }
            wait = Duration::ZERO;
            if records > 0 && (records >= room || self.permits.left() == 0) {
                break;
            }
        }
        ended.into_iter().for_each(|partition| self.end(partition));
        if records > 0 {
            if let Some(bounded) = &mut self.bounded {
                bounded.took(records);
            }
            self.parts.metrics.consumed(&self.topic, records);
            drop(OpenSpan::polled(&self.topic, &self.settings.group, began, records));
        }
        Ok(())
    }

    /// All of the range that a partition has was delivered.
    fn end(&mut self, partition: Partition) {
        if let Some(end) = self.bounded.as_mut().and_then(|bounded| bounded.ends(partition)) {
            self.ledger.close(partition, NextOffset(end));
            self.switch(true, &[partition]);
        }
    }

    fn settle_ready(&mut self) {
        while let Ok(receipt) = self.parts.settled.try_recv() {
            self.settle(receipt);
        }
    }

    fn settle(&mut self, receipt: Receipt) {
        self.permits.give_back(&receipt);
        let _ = self.ledger.settle(receipt, Instant::now());
    }

    fn answer_rebalances(&mut self) -> Result<(), Fatal> {
        for event in self.consumer.context().take() {
            match event {
                Rebalance::Assign(partitions) => self.assign(&partitions).map_err(lost)?,
                Rebalance::Revoke(partitions) => self.revoke(&partitions).map_err(lost)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: &[Partition]) -> KafkaResult<()> {
        let epoch = self.ledger.assign(partitions.iter().copied(), Instant::now());
        self.lag.assign(partitions);
        self.parts.vitals.joined();
        self.parts.metrics.rebalance();
        self.membership.assign(partitions, epoch);
        let list = self.beginnings(partitions)?;
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list)?,
            _ => self.consumer.assign(&list)?,
        }
        self.end_empty(partitions);
        if self.paused {
            self.switch(true, partitions);
        }
        info!(?partitions, epoch = epoch.0, "partitions assigned");
        Ok(())
    }

    /// Where to read from: what the group has committed, of which a bounded reading has to know more than the client.
    fn beginnings(&mut self, partitions: &[Partition]) -> KafkaResult<TopicPartitionList> {
        let Some(bounded) = &mut self.bounded else { return Ok(self.list(partitions)) };
        let marks = mark::read(&*self.consumer, &self.topic, partitions.iter().copied(), MARKS)?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let mark = marks.get(partition);
            let begin = bounded.assign(*partition, mark);
            let begin = begin.map_or(rdkafka::Offset::End, rdkafka::Offset::Offset);
            list.add_partition_offset(&self.topic, *partition, begin)?;
            if let Some(Mark { next, end: Some(end), range }) = mark {
                self.membership.ends.set(*partition, *end, range.as_deref());
                self.ledger.committed(&[Due { partition: *partition, next: NextOffset(*next), head: None }]);
            }
        }
        Ok(list)
    }

    /// Nothing is to come from partitions that are done, nor from those that do not belong to the range.
    fn end_empty(&mut self, partitions: &[Partition]) {
        let Some(bounded) = &self.bounded else { return };
        let strange: Vec<_> = partitions.iter().copied().filter(|partition| !bounded.is_open(*partition)).collect();
        let empty = bounded.empty();
        self.switch(true, &strange);
        empty.into_iter().for_each(|partition| self.end(partition));
    }

    fn revoke(&mut self, partitions: &[Partition]) -> KafkaResult<()> {
        fault::reach(Point::Revoke);
        let lost = self.consumer.assignment_lost();
        if !lost {
            self.drain(partitions, Instant::now() + self.settings.drain_timeout);
        }
        let left = self.ledger.in_flight(partitions);
        self.forget(partitions);
        if self.paused || self.bounded.is_some() {
            // Pausing is local and survives a revoke (librdkafka 1849): nothing is left paused behind.
            self.switch(false, partitions);
        }
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&self.list(partitions))?,
            _ => self.consumer.unassign()?,
        }
        info!(?partitions, lost, left_unfinished = left, "partitions revoked");
        Ok(())
    }

    /// From here on nothing of these partitions is committed: waits for a transaction that is under way.
    fn forget(&mut self, partitions: &[Partition]) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.close(partitions);
        }
        self.ledger.forget(partitions);
        self.lag.forget(partitions);
        if let Some(bounded) = &mut self.bounded {
            bounded.forget(partitions);
        }
        self.membership.forget(partitions);
    }

    /// Waits until nothing of these partitions is in flight, or for the deadline, then commits what is finished.
    /// What is not finished by then is judged again by whoever gets the partition.
    fn drain(&mut self, partitions: &[Partition], deadline: Instant) {
        while self.ledger.in_flight(partitions) > 0 {
            match self.parts.settled.recv_deadline(deadline) {
                Ok(receipt) => self.settle(receipt),
                Err(_) => break,
            }
        }
        self.commit_for_good(partitions);
    }

    /// Commits and waits for the broker's word. A commit that meets another member's rebalance may be refused; the client
    /// joins again by itself, and then it is taken. Given up early, these posts would be judged twice.
    fn commit_for_good(&mut self, partitions: &[Partition]) {
        let deadline = Instant::now() + LAST_COMMIT;
        loop {
            self.commit(partitions);
            if !self.commits.under_way() {
                return;
            }
            let taken = self.acknowledge(deadline.saturating_duration_since(Instant::now()));
            if Instant::now() >= deadline {
                return;
            }
            if !taken {
                thread::sleep(COMMIT_AGAIN);
            }
        }
    }

    /// Asks for a commit of what is finished; [`Self::acknowledge`] hears of it.
    fn commit(&mut self, partitions: &[Partition]) {
        let offsets = self.ledger.to_commit(partitions);
        match self.settings.delivery {
            Delivery::AtLeastOnce => self.commits.begin(offsets),
            // They were committed in the transaction that made their verdicts visible; but no verdict tells the end of
            // a range.
            Delivery::ExactlyOnce => {
                let is_end =
                    |due: &Due| self.bounded.as_ref().is_some_and(|bounded| bounded.is_end(due.partition, due.next.0));
                let (ends, rest): (Vec<_>, Vec<_>) = offsets.into_iter().partition(is_end);
                self.committed(&rest);
                self.commits.begin(ends);
            }
        }
    }

    /// Whether the broker took the commit that was under way.
    fn acknowledge(&mut self, wait: Duration) -> bool {
        let taken = self.commits.acknowledged(wait);
        taken.inspect(|offsets| self.committed(offsets)).is_some()
    }

    fn committed(&mut self, offsets: &[Due]) {
        self.ledger.committed(offsets);
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.committed(offsets);
        }
    }

    fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    fn watch_for_stall(&self) -> Result<(), Fatal> {
        match self.ledger.stalled(Instant::now(), self.parts.stall_timeout) {
            None => Ok(()),
            Some(stall) => Err(Fatal::Stalled {
                partition: stall.partition,
                in_flight: stall.in_flight,
                seconds: stall.since.as_secs(),
            }),
        }
    }

    /// Drains everything, or only commits what is finished when the road is broken; dropping the consumer afterwards
    /// leaves the group.
    fn leave(&mut self, road_is_whole: bool) {
        self.parts.vitals.stops();
        let partitions = self.ledger.partitions();
        let patience = if road_is_whole { self.parts.grace } else { Duration::ZERO };
        self.settle_ready();
        self.drain(&partitions, Instant::now() + patience);
        info!(?partitions, left_unfinished = self.ledger.in_flight(&partitions), "consumer drained");
        self.forget(&partitions);
        self.consumer.context().attended.store(false, Ordering::Release);
    }
}

/// Whether a record is to be judged: in a bounded reading, only one of the range.
fn takes(bounded: &mut Option<Bounded>, message: &BorrowedMessage<'_>) -> bool {
    bounded.as_mut().is_none_or(|bounded| bounded.takes(message.partition(), message.offset()))
}
