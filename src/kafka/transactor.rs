//! `delivery: exactly_once`: finished posts become visible together with the offsets that they finish, in one transaction
//! (KIP-447).
//!
//! Gathers what is finished for at most `commit_interval`, then: begin, send, await the reports, send the offsets, commit.
//! The model ran before; nothing waits inside a transaction but the broker. A transaction that must be aborted is tried
//! again with the same records, less those of partitions that have gone meanwhile: the answers are still here, so nothing
//! is read or judged anew. Where the outcome cannot be known in time the worker ends; its successor's first call
//! (`init_transactions`) makes the broker settle it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::heads;
use super::membership::Membership;
use super::publisher::Report;
use super::record::{Destination, Outgoing, Topics};
use super::transaction::{Broken, Transactions};
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::fault::{self, Point};
use crate::receipt::{Original, Partition, Receipt};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::OpenSpan;

/// Between two attempts, so that a group that is being rebalanced gets on with it.
const AGAIN: Duration = Duration::from_millis(50);

/// A finished post on its way into a transaction.
pub(super) struct Pending {
    pub original: Arc<Original>,
    pub outgoing: Outgoing,
    /// Its header in the chain.
    pub link: Option<String>,
    pub receipt: Receipt,
}

/// The thread that owns the transactional producer.
pub(super) struct Transactor {
    transactions: Transactions<Destination>,
    topics: Topics,
    membership: Arc<Membership>,
    settings: KafkaSettings,
    finished: Receiver<Pending>,
    reports: mpsc::UnboundedSender<Report>,
    metrics: Metrics,
    /// Most records in one transaction: beyond it, waiting longer would keep permits from new posts.
    most: usize,
}

/// Why an attempt came to nothing.
enum Trouble {
    /// The group has thrown this worker out, and the consumer has not heard of it yet; no transaction was begun.
    ThrownOut,
    /// In the transaction.
    Broken(Broken<Destination>),
}

impl From<Broken<Destination>> for Trouble {
    fn from(broken: Broken<Destination>) -> Self {
        Self::Broken(broken)
    }
}

impl Transactor {
    /// Connects, and fences whoever used the same `transactional.id` before: an older self that hangs, for one.
    pub(super) fn connect(
        settings: &KafkaSettings,
        most: usize,
        membership: Arc<Membership>,
        finished: Receiver<Pending>,
        reports: mpsc::UnboundedSender<Report>,
        metrics: &Metrics,
    ) -> Result<Self, Fatal> {
        let topics = Topics::of(settings);
        let transactions = Transactions::connect(settings.transactional_producer());
        let transactions = transactions.map_err(|broken| fatal(broken, settings, &topics))?;
        info!(transactional_id = settings.transactional_id(), "exactly once: transactions are ready");
        let (settings, metrics, most) = (settings.clone(), metrics.clone(), most.max(1));
        Ok(Self { transactions, topics, membership, settings, finished, reports, metrics, most })
    }

    /// Starts the thread; it ends when the road has closed, or with a fatal report.
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
        let deadline = Instant::now() + self.settings.commit_interval;
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
    fn deliver(&mut self, pending: &[Pending]) -> Result<(), Fatal> {
        let deadline = Instant::now() + self.settings.delivery_timeout;
        let (settings, topics) = (self.settings.clone(), self.topics.clone());
        let ended_by = |broken| fatal(broken, &settings, &topics);
        loop {
            self.transactions.renew(deadline).map_err(ended_by)?;
            let cause = match self.attempt(pending, deadline) {
                Ok(()) => return Ok(()),
                Err(Trouble::ThrownOut) => "this worker was thrown out of its group".to_owned(),
                Err(Trouble::Broken(Broken::Abort(cause))) => {
                    self.transactions.abort(deadline).map_err(ended_by)?;
                    cause
                }
                Err(Trouble::Broken(broken @ Broken::Refused(..))) => {
                    // The refusal is what is told; an abort that fails too is the broker's to settle.
                    let _ = self.transactions.abort(Instant::now());
                    return Err(ended_by(broken));
                }
                Err(Trouble::Broken(broken)) => return Err(ended_by(broken)),
            };
            warn!(cause, records = pending.len(), "no transaction; trying again with what is still ours");
            if Instant::now() >= deadline {
                let cause = format!("no transaction went through within kafka.delivery_timeout: {cause}");
                return Err(ended_by(Broken::Lost(cause)));
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
        let (began, start) = (SystemTime::now(), Instant::now());
        self.transactions.begin(deadline)?;
        let records = ours
            .iter()
            .flat_map(|pending| self.topics.records(&pending.original, &pending.outgoing, pending.link.as_deref()));
        self.transactions.send(records, |wire| wire.to, |wire, sent| wire.with(sent), deadline)?;
        fault::reach(Point::InsideTransaction);
        let offsets = self.offsets(&ours).map_err(|error| Broken::Lost(error.to_string()))?;
        self.transactions.send_offsets(offsets, member, deadline)?;
        let sending = start.elapsed();
        self.transactions.commit(deadline)?;
        self.tell(&ours, began, start, sending);
        debug!(records = ours.len(), "transaction committed");
        Ok(())
    }

    fn tell(&self, ours: &[&Pending], began: SystemTime, start: Instant, sending: Duration) {
        self.metrics.committed(start.elapsed());
        for pending in ours {
            self.metrics.sent(self.topics.name(pending.outgoing.destination()), sending, false);
        }
        drop(OpenSpan::committed(&self.settings.posts, &self.settings.group, began, ours.len()));
    }

    /// One past the last of each partition: records come in the order of their partition, without gaps.
    fn offsets(&self, ours: &[&Pending]) -> KafkaResult<TopicPartitionList> {
        let mut last: BTreeMap<Partition, &Receipt> = BTreeMap::new();
        for Pending { receipt, .. } in ours {
            last.insert(receipt.partition(), receipt);
        }
        let mut list = TopicPartitionList::with_capacity(last.len());
        for (partition, receipt) in last {
            let (next, head) = (receipt.offset().next(), receipt.head());
            let end = self.membership.ends.of(partition);
            heads::add(&mut list, &self.settings.posts, partition, next, (head.as_ref(), end.as_deref()))?;
        }
        Ok(list)
    }
}

fn fatal(broken: Broken<Destination>, settings: &KafkaSettings, topics: &Topics) -> Fatal {
    let id = settings.transactional_id();
    match broken {
        Broken::Fenced => Fatal::Fenced { transactional_id: id },
        Broken::Refused(to, error) => topics.undeliverable(to, &error),
        Broken::Mock => Fatal::Kafka {
            cause: format!(
                "{}: {broken}; set kafka.delivery: at_least_once, or kafka.brokers to an Apache Kafka",
                settings.brokers
            ),
        },
        Broken::Unreachable | Broken::Options(_) => Fatal::Kafka { cause: format!("{}: {broken}", settings.brokers) },
        Broken::Abort(_) | Broken::Lost(_) => Fatal::Kafka { cause: format!("transactional.id {id}: {broken}") },
    }
}
