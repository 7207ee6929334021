//! A transactional producer (KIP-98): librdkafka's calls, with its three questions asked of every error.
//!
//! A call that may be made again is, with the same arguments, until the deadline: only so is a commit whose answer was late
//! not guessed at. Every record's delivery report is awaited before the commit, which then has nothing left to wait for.
//!
//! librdkafka sends a request again when its connection breaks or its time is over, and a broker may still hold the first:
//! an end of one transaction that comes late would end the next. KIP-890 has brokers tell them apart by an epoch for each
//! transaction, for clients that speak it; librdkafka does not yet (issue 5423). So a producer whose connections had
//! trouble begins no further transaction: another takes its place, and with it an epoch that fences what is late. So does
//! one of which a call never comes back.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use thiserror::Error;
use tracing::{debug, info};

use super::reports::{Record, Reports, Sent, is_echo};

/// Longest single call to the coordinator; one that takes longer is called again, which resumes it.
const CALL: Duration = Duration::from_secs(2);
/// A call that is not back by then never comes back: librdkafka waits for ever for offsets whose request it lost.
const HUNG: Duration = Duration::from_secs(10);
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
    config: ClientConfig,
    producer: Arc<BaseProducer<Reports<T>>>,
}

impl<T: Copy + Send + Sync + 'static> Transactions<T> {
    /// Connects, fences whoever used the same `transactional.id` before, and has the broker end what that one left open.
    pub(super) fn connect(mut config: ClientConfig) -> Result<Self, Broken<T>> {
        // What it says of its connections is read, see `Reports`.
        config.set("log.connection.close", "true").set_log_level(RDKafkaLogLevel::Info);
        let producer = producer(&config, Instant::now() + CONNECTING)?;
        Ok(Self { config, producer })
    }

    /// Between two transactions: another producer where a request of this one may still be on its way. Whoever took the
    /// `transactional.id` meanwhile is fenced in turn.
    pub(super) fn renew(&mut self, deadline: Instant) -> Result<(), Broken<T>> {
        if self.is_troubled() {
            self.producer = producer(&self.config, deadline)?;
            info!("a transactional producer whose connections had trouble is replaced");
        }
        Ok(())
    }

    /// Between two transactions, for those who must not fence another: an error instead of another producer.
    pub(super) fn is_untroubled(&self) -> Result<(), Broken<T>> {
        if self.is_troubled() {
            return Err(Broken::Lost("a connection to the brokers had trouble".to_owned()));
        }
        Ok(())
    }

    fn is_troubled(&self) -> bool {
        self.producer.poll(SERVE);
        self.producer.context().had_trouble()
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
            if self.producer.context().is_stuck() {
                return Err(Broken::Abort(
                    "a partition lost its leader, and the producer would not find the next".to_owned(),
                ));
            }
            // librdkafka reports every record by its own deadline, `delivery.timeout.ms`, unless it forgets.
            if Instant::now() >= deadline + CALL {
                let unheard = sent - reported;
                return Err(Broken::Lost(format!(
                    "no word on {unheard} of {sent} records within kafka.delivery_timeout"
                )));
            }
            self.producer.poll(SERVE);
        }
    }

    pub(super) fn send_offsets(
        &self,
        offsets: TopicPartitionList,
        member: ConsumerGroupMetadata,
        deadline: Instant,
    ) -> Result<(), Broken<T>> {
        let asked = Arc::new((offsets, member));
        self.insist("send_offsets_to_transaction", deadline, |producer| {
            let (asked, kept) = (asked.clone(), producer.clone());
            let back = within(HUNG, move || kept.send_offsets_to_transaction(&asked.0, &asked.1, CALL));
            back.unwrap_or_else(|| {
                producer.context().hangs();
                Ok(())
            })
        })?;
        if self.producer.context().is_hung() {
            return Err(Broken::Abort("the client lost the offsets on their way".to_owned()));
        }
        Ok(())
    }

    pub(super) fn commit(&self, deadline: Instant) -> Result<(), Broken<T>> {
        self.insist("commit_transaction", deadline, |producer| producer.commit_transaction(CALL))
    }

    /// Past the deadline too, for a moment: an open transaction keeps readers of committed records waiting.
    pub(super) fn abort(&self, deadline: Instant) -> Result<(), Broken<T>> {
        if self.producer.context().is_hung() {
            // It takes no other call; the broker aborts when its successor comes.
            return Ok(());
        }
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
        run: impl Fn(&Arc<BaseProducer<Reports<T>>>) -> KafkaResult<()>,
    ) -> Result<(), Broken<T>> {
        insist(&self.producer, call, deadline, run)
    }

    fn unsent(&self, name: T, error: KafkaError) -> Broken<T> {
        match error.rdkafka_error_code() {
            Some(code) if fencing(code) => Broken::Fenced,
            Some(RDKafkaErrorCode::Fatal) => fenced_or_lost(&self.producer, error.to_string()),
            _ if is_echo(&error) => Broken::Abort(error.to_string()),
            _ => Broken::Refused(name, error),
        }
    }
}

fn producer<T: Copy + Send + Sync + 'static>(
    config: &ClientConfig,
    deadline: Instant,
) -> Result<Arc<BaseProducer<Reports<T>>>, Broken<T>> {
    let producer = config.create_with_context(Reports::default());
    let producer: BaseProducer<Reports<T>> = producer.map_err(|error| Broken::Options(error.to_string()))?;
    match producer.client().fetch_cluster_id(deadline.saturating_duration_since(Instant::now())) {
        Some(id) if id.starts_with(MOCK) => return Err(Broken::Mock),
        Some(_) => {}
        None => return Err(Broken::Unreachable),
    }
    let producer = Arc::new(producer);
    insist(&producer, "init_transactions", deadline, |producer| producer.init_transactions(CALL))?;
    Ok(producer)
}

/// What a call on another thread hands back, if it does so in time; else it is left to itself.
fn within<R: Send + 'static>(patience: Duration, call: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    let (back, come) = crossbeam_channel::bounded(1);
    thread::spawn(move || back.send(call()));
    come.recv_timeout(patience).ok()
}

fn insist<T: Copy + Send + Sync + 'static>(
    producer: &Arc<BaseProducer<Reports<T>>>,
    call: &'static str,
    deadline: Instant,
    run: impl Fn(&Arc<BaseProducer<Reports<T>>>) -> KafkaResult<()>,
) -> Result<(), Broken<T>> {
    loop {
        let error = match run(producer) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) => error,
            // Flushing takes its time like a call; everything that could be waited for has been.
            Err(KafkaError::Flush(_)) if Instant::now() < deadline => continue,
            Err(other) => return Err(fenced_or_lost(producer, format!("{call}: {other}"))),
        };
        let said = format!("{call}: {} ({})", error.string(), error.name());
        if fencing(error.code()) {
            return Err(Broken::Fenced);
        } else if error.is_fatal() {
            return Err(fenced_or_lost(producer, said));
        } else if error.txn_requires_abort() {
            return Err(Broken::Abort(said));
        } else if !error.is_retriable() {
            return Err(fenced_or_lost(producer, said));
        } else if Instant::now() >= deadline {
            return Err(Broken::Lost(format!("{said}, for longer than kafka.delivery_timeout")));
        }
        debug!(said, "calling again");
        producer.poll(SERVE);
    }
}

fn fenced_or_lost<T: Copy + Send + Sync + 'static>(producer: &BaseProducer<Reports<T>>, said: String) -> Broken<T> {
    match producer.client().fatal_error() {
        Some((code, _)) if fencing(code) => Broken::Fenced,
        Some((_, reason)) => Broken::Lost(format!("{said}: {reason}")),
        None => Broken::Lost(said),
    }
}

fn fencing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_comes_back_is_not_waited_for() {
        let (never, comes) = crossbeam_channel::bounded::<()>(0);
        assert_eq!(within(PATIENCE, || 1), Some(1));
        assert_eq!(within(Duration::ZERO, move || comes.recv()), None);
        drop(never);
    }

    const PATIENCE: Duration = Duration::from_secs(60);
}
