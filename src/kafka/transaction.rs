//! A transactional producer (KIP-98): librdkafka's calls, with its three questions asked of every error.
//!
//! A call that may be made again is, with the same arguments, until the deadline: only so is a commit whose answer was late
//! not guessed at. Every record's delivery report is awaited before the commit, which then has nothing left to wait for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use thiserror::Error;
use tracing::debug;

/// Longest single call to the coordinator; one that takes longer is called again, which resumes it.
const CALL: Duration = Duration::from_secs(2);
/// How long `poll` serves delivery reports at a time.
const SERVE: Duration = Duration::from_millis(1);
/// Longest wait for the broker at start, and for an earlier transaction to end.
const CONNECTING: Duration = Duration::from_secs(60);
/// How long the cause may be awaited once a record was dropped for it.
const CAUSE: Duration = Duration::from_secs(1);
/// What librdkafka's mock cluster calls itself.
const MOCK: &str = "mockCluster";

/// Why a transaction, or a call of one, came to nothing. `T` names a record.
#[derive(Debug, Error)]
pub(super) enum Broken<T> {
    #[error("the options are refused: {0}")]
    Options(String),
    #[error("no answer from the brokers; `moderato check` says why")]
    Unreachable,
    /// It takes transactions and keeps nothing of them: with it the promise would be empty.
    #[error("this is librdkafka's mock cluster, which accepts transactions and stores none")]
    Mock,
    /// Another producer took the `transactional.id`; the broker has aborted what was open.
    #[error("another producer took the transactional.id")]
    Fenced,
    /// It must be aborted, and can then be tried again.
    #[error("{0}")]
    Abort(String),
    /// The broker does not take this record.
    #[error("{1}")]
    Refused(T, KafkaError),
    /// The outcome cannot be known in time, or the client cannot go on.
    #[error("{0}")]
    Lost(String),
}

/// The producer. One transaction at a time.
pub(super) struct Transactions<T: Copy + Send + Sync + 'static> {
    producer: BaseProducer<Reports<T>>,
}

impl<T: Copy + Send + Sync + 'static> Transactions<T> {
    /// Connects, fences whoever used the same `transactional.id` before, and has the broker end what that one left open.
    pub(super) fn connect(config: &ClientConfig) -> Result<Self, Broken<T>> {
        let producer = config.create_with_context(Reports::default());
        let producer: BaseProducer<Reports<T>> = producer.map_err(|error| Broken::Options(error.to_string()))?;
        match producer.client().fetch_cluster_id(CONNECTING) {
            Some(id) if id.starts_with(MOCK) => return Err(Broken::Mock),
            Some(_) => {}
            None => return Err(Broken::Unreachable),
        }
        let connected = Self { producer };
        let deadline = Instant::now() + CONNECTING;
        connected.insist("init_transactions", deadline, |producer| producer.init_transactions(CALL))?;
        Ok(connected)
    }

    pub(super) fn begin(&self, deadline: Instant) -> Result<(), Broken<T>> {
        self.insist("begin_transaction", deadline, |producer| producer.begin_transaction())
    }

    /// Sends every record and waits for the broker's word on each; `name` tells a record that was not taken.
    pub(super) fn send<'a, R>(
        &self,
        records: impl Iterator<Item = R>,
        name: impl Fn(&R) -> T,
        record: impl Fn(R, Box<Sent<T>>) -> Record<'a, T>,
        deadline: Instant,
    ) -> Result<(), Broken<T>> {
        let attempt = self.producer.context().begin();
        let mut sent = 0;
        for one in records {
            let name = name(&one);
            let enqueued = self.enqueue(record(one, Box::new(Sent { attempt, name })), deadline);
            enqueued.map_err(|error| self.unsent(name, error))?;
            sent += 1;
        }
        let mut cause_by = None;
        loop {
            let (reported, failed) = self.producer.context().seen();
            if let Some((name, error)) = failed {
                let cause_by = *cause_by.get_or_insert_with(|| Instant::now() + CAUSE);
                if !is_echo(&error) || reported >= sent || Instant::now() >= cause_by {
                    return Err(self.unsent(name, error));
                }
            }
            if reported >= sent {
                return Ok(());
            }
            // librdkafka reports every record by its own deadline, `delivery.timeout.ms`.
            self.producer.poll(SERVE);
        }
    }

    pub(super) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
        deadline: Instant,
    ) -> Result<(), Broken<T>> {
        let send = |producer: &BaseProducer<_>| producer.send_offsets_to_transaction(offsets, member, CALL);
        self.insist("send_offsets_to_transaction", deadline, send)
    }

    pub(super) fn commit(&self, deadline: Instant) -> Result<(), Broken<T>> {
        self.insist("commit_transaction", deadline, |producer| producer.commit_transaction(CALL))
    }

    /// Past the deadline too, for a moment: an open transaction keeps readers of committed records waiting.
    pub(super) fn abort(&self, deadline: Instant) -> Result<(), Broken<T>> {
        let deadline = deadline.max(Instant::now() + CALL);
        self.insist("abort_transaction", deadline, |producer| producer.abort_transaction(CALL))
    }

    fn enqueue(&self, mut record: Record<'_, T>, deadline: Instant) -> KafkaResult<()> {
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

    fn insist(
        &self,
        call: &'static str,
        deadline: Instant,
        run: impl Fn(&BaseProducer<Reports<T>>) -> KafkaResult<()>,
    ) -> Result<(), Broken<T>> {
        loop {
            let error = match run(&self.producer) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) => error,
                // Flushing takes its time like a call; everything that could be waited for has been.
                Err(KafkaError::Flush(_)) if Instant::now() < deadline => continue,
                Err(other) => return Err(self.fenced_or_lost(format!("{call}: {other}"))),
            };
            let said = format!("{call}: {} ({})", error.string(), error.name());
            if fencing(error.code()) {
                return Err(Broken::Fenced);
            } else if error.is_fatal() {
                return Err(self.fenced_or_lost(said));
            } else if error.txn_requires_abort() {
                return Err(Broken::Abort(said));
            } else if !error.is_retriable() {
                return Err(self.fenced_or_lost(said));
            } else if Instant::now() >= deadline {
                return Err(Broken::Lost(format!("{said}, for longer than kafka.delivery_timeout")));
            }
            debug!(said, "calling again");
            self.producer.poll(SERVE);
        }
    }

    fn unsent(&self, name: T, error: KafkaError) -> Broken<T> {
        match error.rdkafka_error_code() {
            Some(code) if fencing(code) => Broken::Fenced,
            Some(RDKafkaErrorCode::Fatal) => self.fenced_or_lost(error.to_string()),
            _ if is_echo(&error) => Broken::Abort(error.to_string()),
            _ => Broken::Refused(name, error),
        }
    }

    fn fenced_or_lost(&self, said: String) -> Broken<T> {
        match self.producer.client().fatal_error() {
            Some((code, _)) if fencing(code) => Broken::Fenced,
            Some((_, reason)) => Broken::Lost(format!("{said}: {reason}")),
            None => Broken::Lost(said),
        }
    }
}

/// A record that was dropped because the transaction is broken is not at fault itself.
fn is_echo(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue, State};
    matches!(error.rdkafka_error_code(), Some(PurgeInflight | PurgeQueue | State))
}

fn fencing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

/// What comes back with the report of a record.
pub(super) struct Sent<T> {
    /// Reports of an aborted transaction may come during the next.
    attempt: u64,
    name: T,
}

/// A record of a transaction.
pub(super) type Record<'a, T> = BaseRecord<'a, [u8], [u8], Box<Sent<T>>>;

/// Delivery reports of the transaction under way.
struct Reports<T>(Mutex<Seen<T>>);

struct Seen<T> {
    attempt: u64,
    reported: usize,
    failed: Option<(T, KafkaError)>,
}

impl<T> Default for Reports<T> {
    fn default() -> Self {
        Self(Mutex::new(Seen { attempt: 0, reported: 0, failed: None }))
    }
}

impl<T: Copy> Reports<T> {
    /// The number of a new attempt, whose reports are counted from here on.
    fn begin(&self) -> u64 {
        let mut seen = self.lock();
        *seen = Seen { attempt: seen.attempt + 1, reported: 0, failed: None };
        seen.attempt
    }

    fn seen(&self) -> (usize, Option<(T, KafkaError)>) {
        let seen = self.lock();
        (seen.reported, seen.failed.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Seen<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy + Send + Sync + 'static> ClientContext for Reports<T> {}

impl<T: Copy + Send + Sync + 'static> ProducerContext for Reports<T> {
    type DeliveryOpaque = Box<Sent<T>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent<T>>) {
        let mut seen = self.lock();
        if seen.attempt != sent.attempt {
            return;
        }
        seen.reported += 1;
        if let Err((error, _)) = result {
            // The first that is no echo is the cause; those after it follow from it.
            if seen.failed.as_ref().is_none_or(|(_, first)| is_echo(first)) {
                seen.failed = Some((sent.name, error.clone()));
            }
        }
    }
}
