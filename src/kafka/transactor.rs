//! `delivery: exactly_once`: finished posts become visible together with the offsets that they finish, in one transaction
//! (KIP-98, KIP-447).
//!
//! Gathers what is finished for at most `commit_interval`, then: begin, send, await the reports, send the offsets, commit.
//! The model ran before; nothing waits inside a transaction but the broker. A transaction that must be aborted is tried
//! again with the same records, less those of partitions that have gone meanwhile: the answers are still here, so nothing
//! is read or judged anew. Where the outcome cannot be known in time the worker ends; its successor's first call
//! (`init_transactions`) makes the broker settle it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::membership::{Membership, Owned};
use super::publisher::Report;
use super::record::{Destination, Outgoing, Topics};
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::receipt::{Original, Partition, Receipt};

/// Longest single call to the coordinator; one that takes longer is called again, which resumes it.
const CALL: Duration = Duration::from_secs(2);
/// How long `poll` serves delivery reports at a time.
const SERVE: Duration = Duration::from_millis(1);
/// Between two attempts, so that a group that is being rebalanced gets on with it.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest wait for the broker at start.
const CONNECTING: Duration = Duration::from_secs(30);
/// What librdkafka's mock cluster calls itself.
const MOCK: &str = "mockCluster";

/// A finished post on its way into a transaction.
pub(super) struct Pending {
    pub original: Arc<Original>,
    pub outgoing: Outgoing,
    pub receipt: Receipt,
}

/// The thread that owns the transactional producer.
pub(super) struct Transactor {
    producer: BaseProducer<Reports>,
    topics: Topics,
    membership: Arc<Membership>,
    input: Arc<str>,
    finished: Receiver<Pending>,
    reports: mpsc::UnboundedSender<Report>,
    interval: Duration,
    /// Most records in one transaction: beyond it, waiting longer would keep permits from new posts.
    most: usize,
    patience: Duration,
    id: String,
}

/// Why a call did not succeed.
enum Trouble {
    /// No transaction is open: it can be tried once the consumer has heard that its partitions are gone.
    ThrownOut,
    /// The transaction must be aborted; then it can be tried again.
    Abort(String),
    /// The worker must end.
    Fatal(Fatal),
}

impl Transactor {
    /// Connects, and fences whoever used the same `transactional.id` before: an older self that hangs, for one.
    pub(super) fn connect(
        settings: &KafkaSettings,
        most: usize,
        membership: Arc<Membership>,
        finished: Receiver<Pending>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Self, Fatal> {
        let id = settings.transactional_id();
        let producer: BaseProducer<Reports> = settings
            .transactional_producer()
            .create_with_context(Reports::default())
            .map_err(|error| Fatal::Kafka { cause: error.to_string() })?;
        refuse_mock(&producer, settings)?;
        let transactor = Self {
            producer,
            topics: Topics::of(settings),
            membership,
            input: settings.posts.as_str().into(),
            finished,
            reports,
            interval: settings.commit_interval,
            most: most.max(1),
            patience: settings.delivery_timeout,
            id,
        };
        let deadline = Instant::now() + CONNECTING.max(settings.delivery_timeout);
        let init = |producer: &BaseProducer<Reports>| producer.init_transactions(CALL);
        transactor.insist("init_transactions", deadline, init).map_err(|trouble| transactor.ended_by(trouble))?;
        info!(transactional_id = transactor.id, "exactly once: transactions are ready");
        Ok(transactor)
    }

    /// Starts the thread; it ends when the road has closed or its reports find nobody.
    pub(super) fn spawn(mut self) -> Result<(), Fatal> {
        let spawned = thread::Builder::new().name("transactor".to_owned()).spawn(move || {
            if let Err(fatal) = self.run() {
                let _ = self.reports.send(Err(fatal));
            }
        });
        spawned.map(drop).map_err(|error| Fatal::Internal { part: "transactor", cause: error.to_string() })
    }

    fn run(&mut self) -> Result<(), Fatal> {
        while let Ok(first) = self.finished.recv() {
            let pending = self.gather(first);
            self.deliver(&pending)?;
            for Pending { receipt, .. } in pending {
                let _ = self.reports.send(Ok(receipt));
            }
        }
        Ok(())
    }

    fn gather(&self, first: Pending) -> Vec<Pending> {
        let deadline = Instant::now() + self.interval;
        let mut pending = vec![first];
        while pending.len() < self.most {
            match self.finished.recv_deadline(deadline) {
                Ok(next) => pending.push(next),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        pending
    }

    /// Tries until all of it is committed or belongs to another worker.
    fn deliver(&self, pending: &[Pending]) -> Result<(), Fatal> {
        let deadline = Instant::now() + self.patience;
        loop {
            let cause = match self.attempt(pending, deadline) {
                Ok(()) => return Ok(()),
                Err(Trouble::Fatal(fatal)) => return Err(fatal),
                Err(Trouble::ThrownOut) => "this worker was thrown out of its group".to_owned(),
                Err(Trouble::Abort(cause)) => {
                    self.abort(deadline)?;
                    cause
                }
            };
            warn!(cause, records = pending.len(), "no transaction; trying again with what is still ours");
            if Instant::now() >= deadline {
                return Err(self.lost(&format!("no transaction went through within kafka.delivery_timeout: {cause}")));
            }
            thread::sleep(AGAIN);
        }
    }

    /// One transaction, under the lock that keeps the partitions from going meanwhile.
    fn attempt(&self, pending: &[Pending], deadline: Instant) -> Result<(), Trouble> {
        let owned = self.membership.lock();
        let ours: Vec<&Pending> = pending.iter().filter(|pending| owned.has(&pending.receipt)).collect();
        if ours.is_empty() {
            // All gone: whoever owns the partitions now judges them, and an empty transaction says nothing.
            return Ok(());
        }
        let member = self.membership.metadata().ok_or(Trouble::ThrownOut)?;
        self.insist("begin_transaction", deadline, |producer| producer.begin_transaction())?;
        self.send(&ours, deadline)?;
        self.commit(&ours, &member, &owned, deadline)?;
        debug!(records = ours.len(), "transaction committed");
        Ok(())
    }

    /// Sends every record and waits for the broker's word on each, so that committing has nothing left to wait for.
    fn send(&self, ours: &[&Pending], deadline: Instant) -> Result<(), Trouble> {
        let attempt = self.producer.context().begin();
        let mut sent = 0;
        for Pending { original, outgoing, .. } in ours {
            for wire in self.topics.records(original, outgoing) {
                let to = wire.to;
                let record = wire.with(Box::new(Sent { attempt, to }));
                self.enqueue(record, deadline).map_err(|error| self.unsent(to, &error))?;
                sent += 1;
            }
        }
        loop {
            let (reported, failed) = self.producer.context().seen();
            if let Some((to, error)) = failed {
                return Err(self.unsent(to, &error));
            }
            if reported >= sent {
                return Ok(());
            }
            // librdkafka reports every record by its own deadline, `delivery.timeout.ms`.
            self.producer.poll(SERVE);
        }
    }

    fn enqueue(&self, mut record: Record<'_>, deadline: Instant) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    self.producer.poll(SERVE);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// The lock is handed in as proof that it is held.
    fn commit(
        &self,
        ours: &[&Pending],
        member: &ConsumerGroupMetadata,
        _owned: &Owned,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let offsets = self.offsets(ours).map_err(|error| Trouble::Fatal(self.lost(&error.to_string())))?;
        self.insist("send_offsets_to_transaction", deadline, |producer| {
            producer.send_offsets_to_transaction(&offsets, member, CALL)
        })?;
        self.insist("commit_transaction", deadline, |producer| producer.commit_transaction(CALL))
    }

    /// One past the last of each partition: records come in the order of their partition, without gaps.
    fn offsets(&self, ours: &[&Pending]) -> KafkaResult<TopicPartitionList> {
        let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
        for Pending { receipt, .. } in ours {
            next.insert(receipt.partition(), receipt.offset().next().0);
        }
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (partition, next) in next {
            list.add_partition_offset(&self.input, partition, rdkafka::Offset::Offset(next))?;
        }
        Ok(list)
    }

    fn abort(&self, deadline: Instant) -> Result<(), Fatal> {
        // Beyond the deadline too: an open transaction keeps readers of committed records waiting.
        let deadline = deadline.max(Instant::now() + CALL);
        let abort = |producer: &BaseProducer<Reports>| producer.abort_transaction(CALL);
        self.insist("abort_transaction", deadline, abort).map_err(|trouble| self.ended_by(trouble))
    }

    fn ended_by(&self, trouble: Trouble) -> Fatal {
        match trouble {
            Trouble::Fatal(fatal) => fatal,
            Trouble::Abort(cause) => self.lost(&cause),
            Trouble::ThrownOut => self.lost("this worker was thrown out of its group"),
        }
    }

    /// Asks librdkafka's three questions of an error, in its order. A call that may be made again is, with the same
    /// arguments: only so is a commit whose answer was late not guessed at.
    fn insist(
        &self,
        call: &'static str,
        deadline: Instant,
        run: impl Fn(&BaseProducer<Reports>) -> KafkaResult<()>,
    ) -> Result<(), Trouble> {
        loop {
            let error = match run(&self.producer) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) => error,
                // Flushing takes its time like a call; everything that could be waited for has been.
                Err(KafkaError::Flush(_)) if Instant::now() < deadline => continue,
                Err(other) => return Err(Trouble::Fatal(self.lost(&format!("{call}: {other}")))),
            };
            let said = format!("{call}: {} ({})", error.string(), error.name());
            if error.is_fatal() {
                return Err(Trouble::Fatal(self.fatal(&error, &said)));
            } else if error.txn_requires_abort() {
                return Err(Trouble::Abort(said));
            } else if !error.is_retriable() {
                return Err(Trouble::Fatal(self.lost(&said)));
            } else if Instant::now() >= deadline {
                let cause = format!("{said}, for longer than kafka.delivery_timeout");
                return Err(Trouble::Fatal(self.lost(&cause)));
            }
            debug!(said, "calling again");
            self.producer.poll(SERVE);
        }
    }

    /// A record that the broker does not take is the same trouble as in the other mode; one that was dropped because the
    /// transaction is broken is not at fault itself.
    fn unsent(&self, to: Destination, error: &KafkaError) -> Trouble {
        use RDKafkaErrorCode::{Fatal as FatalCode, Fenced, InvalidProducerEpoch, PurgeInflight, PurgeQueue, State};
        match error.rdkafka_error_code() {
            Some(Fenced | InvalidProducerEpoch | FatalCode) => Trouble::Fatal(self.fenced_or(&error.to_string())),
            Some(PurgeInflight | PurgeQueue | State) => Trouble::Abort(error.to_string()),
            _ => {
                let _ = self.producer.abort_transaction(CALL);
                Trouble::Fatal(self.topics.undeliverable(to, error))
            }
        }
    }

    fn fatal(&self, error: &RDKafkaError, said: &str) -> Fatal {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch};
        match error.code() {
            Fenced | InvalidProducerEpoch => Fatal::Fenced { transactional_id: self.id.clone() },
            _ => self.fenced_or(said),
        }
    }

    fn fenced_or(&self, said: &str) -> Fatal {
        match self.producer.client().fatal_error() {
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch, _)) => {
                Fatal::Fenced { transactional_id: self.id.clone() }
            }
            Some((_, reason)) => self.lost(&format!("{said}: {reason}")),
            None => self.lost(said),
        }
    }

    fn lost(&self, cause: &str) -> Fatal {
        Fatal::Kafka { cause: format!("transactional.id {}: {cause}", self.id) }
    }
}

/// What comes back with the report of a record.
pub(super) struct Sent {
    /// Reports of an aborted transaction may come during the next.
    attempt: u64,
    to: Destination,
}

type Record<'a> = rdkafka::producer::BaseRecord<'a, [u8], [u8], Box<Sent>>;

/// The mock cluster takes transactions and keeps nothing of them: with it the promise would be empty.
fn refuse_mock(producer: &BaseProducer<Reports>, settings: &KafkaSettings) -> Result<(), Fatal> {
    match producer.client().fetch_cluster_id(CONNECTING) {
        Some(id) if id.starts_with(MOCK) => Err(Fatal::Kafka {
            cause: format!(
                "{} is librdkafka's mock cluster, which accepts transactions and stores none; set kafka.delivery: \
                 at_least_once, or kafka.brokers to an Apache Kafka",
                settings.brokers
            ),
        }),
        Some(_) => Ok(()),
        None => Err(Fatal::Kafka { cause: format!("no answer from {}; `moderato check` says why", settings.brokers) }),
    }
}

/// Delivery reports of the transaction under way.
#[derive(Default)]
pub(super) struct Reports(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    attempt: u64,
    reported: usize,
    failed: Option<(Destination, KafkaError)>,
}

impl Reports {
    /// The number of a new attempt, whose reports are counted from here on.
    fn begin(&self) -> u64 {
        let mut seen = self.seen_mut();
        *seen = Seen { attempt: seen.attempt + 1, ..Seen::default() };
        seen.attempt
    }

    fn seen(&self) -> (usize, Option<(Destination, KafkaError)>) {
        let seen = self.seen_mut();
        (seen.reported, seen.failed.clone())
    }

    fn seen_mut(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let mut seen = self.seen_mut();
        if seen.attempt != sent.attempt {
            return;
        }
        seen.reported += 1;
        if let Err((error, _)) = result {
            // The first one is the cause; those after it follow from it.
            seen.failed.get_or_insert((sent.to, error.clone()));
        }
    }
}
