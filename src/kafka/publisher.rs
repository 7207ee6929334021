//! The producer: verdicts, passed tombstones, dead letters and flagged posts, in either delivery mode. Each hands its
//! receipt back once what it became is durable: reports come in groups, as the broker's answers do, so that no record
//! costs a wake-up of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;

use super::chains::Chains;
use super::consumer::Consumer;
pub use super::record::Outgoing;
use super::record::{Destination, Topics};
use super::transactor::{Pending, Transactor};
use crate::config::{Delivery, KafkaSettings};
use crate::error::Fatal;
use crate::receipt::{Original, Receipt};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::OpenSpan;

/// How long to wait before asking a full local queue again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
/// Delivery reports taken at once.
const REPORTS_AT_ONCE: usize = 512;

/// How one record ended: its receipt once it is durable, or once its partition has gone to another worker.
pub type Report = Result<Receipt, Fatal>;

/// Sends records, and tells how each ended.
pub struct Publisher {
    way: Way,
    chains: Option<Chains>,
    reports: mpsc::UnboundedReceiver<Report>,
}

enum Way {
    /// Each record by itself, as soon as it is there.
    AtLeastOnce(Producer),
    /// To the thread that gathers transactions.
    ExactlyOnce(Sender<Pending>),
}

struct Producer {
    producer: ThreadedProducer<Reporter>,
    topics: Topics,
    delivery_timeout: Duration,
}

/// Called by the client's own thread with every delivery report.
struct Reporter {
    to: mpsc::UnboundedSender<Report>,
    topics: Topics,
    metrics: Metrics,
}

/// What travels with a record until its report comes.
struct Owed {
    /// Shared by the records of one post: the last report has it.
    receipt: Arc<Receipt>,
    to: Destination,
    since: Instant,
    span: OpenSpan,
}

impl Publisher {
    /// Builds the producer of the delivery mode that was asked for; for `exactly_once`, blocks until the broker has
    /// fenced an older worker of the same name. `most`: records in one transaction.
    pub fn connect(
        settings: &KafkaSettings,
        most: usize,
        consumer: &Consumer,
        metrics: &Metrics,
    ) -> Result<Self, Fatal> {
        let (to, reports) = mpsc::unbounded_channel();
        let way = match settings.delivery {
            Delivery::AtLeastOnce => Way::AtLeastOnce(Producer::connect(settings, to, metrics)?),
            Delivery::ExactlyOnce => {
                let (sender, finished) = crossbeam_channel::unbounded();
                let transactor = Transactor::connect(settings, most, consumer.membership(), finished, to, metrics)?;
                transactor.spawn()?;
                Way::ExactlyOnce(sender)
            }
        };
        Ok(Self { way, chains: settings.evidence.chain.then(Chains::default), reports })
    }

    /// Publishes at least once what comes from no topic: there are no offsets that a transaction, or a chain, could hold to.
    pub fn of_records(settings: &KafkaSettings, metrics: &Metrics) -> Result<Self, Fatal> {
        let (to, reports) = mpsc::unbounded_channel();
        Ok(Self { way: Way::AtLeastOnce(Producer::connect(settings, to, metrics)?), chains: None, reports })
    }

    /// Takes the finished post over, in the order of calls; the receipt comes back by [`Publisher::reports`].
    pub async fn publish(
        &mut self,
        original: Arc<Original>,
        outgoing: Outgoing,
        receipt: Receipt,
    ) -> Result<(), Fatal> {
        let (link, receipt) = match &mut self.chains {
            Some(chains) => chains.link(&original, &outgoing, receipt)?,
            None => (None, receipt),
        };
        match &self.way {
            Way::AtLeastOnce(producer) => producer.publish(&original, &outgoing, link.as_deref(), receipt).await,
            // Never waits: the permits bound it. If the thread is gone, its last report says why.
            Way::ExactlyOnce(sender) => {
                let _ = sender.send(Pending { original, outgoing, link, receipt });
                Ok(())
            }
        }
    }

    /// Waits for delivery reports, and adds those that have come: how many.
    pub async fn reports(&mut self, reports: &mut Vec<Report>) -> usize {
        self.reports.recv_many(reports, REPORTS_AT_ONCE).await
    }
}

impl Producer {
    fn connect(settings: &KafkaSettings, to: mpsc::UnboundedSender<Report>, metrics: &Metrics) -> Result<Self, Fatal> {
        let topics = Topics::of(settings);
        let reporter = Reporter { to, topics: topics.clone(), metrics: metrics.clone() };
        let producer = settings.producer().create_with_context(reporter);
        Ok(Self {
            producer: producer.map_err(|error: KafkaError| Fatal::Kafka { cause: error.to_string() })?,
            topics,
            delivery_timeout: settings.delivery_timeout,
        })
    }

    async fn publish(
        &self,
        original: &Original,
        outgoing: &Outgoing,
        link: Option<&str>,
        receipt: Receipt,
    ) -> Result<(), Fatal> {
        let records = self.topics.records(original, outgoing, link);
        // As many shares as records and none kept here: else the last report might not be the last to hold one.
        let shares = std::iter::repeat_n(Arc::new(receipt), records.len());
        for (mut wire, receipt) in records.into_iter().zip(shares) {
            let (to, span) = (wire.to, std::mem::take(&mut wire.span));
            let record = wire.with(Box::new(Owed { receipt, to, since: Instant::now(), span }));
            self.enqueue(record).await.map_err(|error| self.topics.undeliverable(to, &error))?;
        }
        Ok(())
    }

    /// A full local queue is waited for; it empties as the broker acknowledges.
    async fn enqueue(&self, mut record: BaseRecord<'_, [u8], [u8], Box<Owed>>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + self.delivery_timeout;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl ClientContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = Box<Owed>;

    fn delivery(&self, result: &DeliveryResult<'_>, owed: Box<Owed>) {
        let Owed { receipt, to, since, mut span } = *owed;
        self.metrics.sent(self.topics.name(to), since.elapsed(), result.is_err());
        if result.is_err() {
            span.failed("undeliverable");
        }
        drop(span);
        let report = match result {
            Ok(_) => match Arc::into_inner(receipt) {
                Some(receipt) => Ok(receipt),
                // The post's other record is still on its way.
                None => return,
            },
            Err((error, _)) => Err(self.topics.undeliverable(to, error)),
        };
        // Nobody listens once the road has been given up.
        let _ = self.to.send(report);
    }
}
