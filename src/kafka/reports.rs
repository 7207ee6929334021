//! What a transactional producer reports: the delivery of each record, and the trouble it had.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext};

/// A record that was dropped because the transaction is broken is not at fault itself.
pub(super) fn is_echo(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue, State};
    matches!(error.rdkafka_error_code(), Some(PurgeInflight | PurgeQueue | State))
}

/// What comes back with the report of a record.
pub(super) struct Sent<T> {
    /// Reports of an aborted transaction may come during the next.
    pub(super) attempt: u64,
    pub(super) name: T,
}

/// A record of a transaction.
pub(super) type Record<'a, T> = BaseRecord<'a, [u8], [u8], Box<Sent<T>>>;

/// Delivery reports of the transaction under way, and what the producer said of itself.
pub(super) struct Reports<T> {
    seen: Mutex<Seen<T>>,
    /// A connection broke that was up, or the time of a request was over.
    troubled: AtomicBool,
    /// A leader was gone that another takes over from: this producer might send nothing to the partition any more
    /// (librdkafka issue 5430).
    stuck: AtomicBool,
    /// A call did not come back.
    hung: AtomicBool,
}

struct Seen<T> {
    attempt: u64,
    reported: usize,
    failed: Option<(T, KafkaError)>,
}

impl<T> Default for Reports<T> {
    fn default() -> Self {
        let seen = Mutex::new(Seen { attempt: 0, reported: 0, failed: None });
        Self { seen, troubled: AtomicBool::default(), stuck: AtomicBool::default(), hung: AtomicBool::default() }
    }
}

impl<T: Copy> Reports<T> {
    /// The number of a new attempt, whose reports are counted from here on.
    pub(super) fn begin(&self) -> u64 {
        let mut seen = self.lock();
        *seen = Seen { attempt: seen.attempt + 1, reported: 0, failed: None };
        seen.attempt
    }

    pub(super) fn seen(&self) -> (usize, Option<(T, KafkaError)>) {
        let seen = self.lock();
        (seen.reported, seen.failed.clone())
    }

    /// Whether a request may still be on its way, or a call: no further transaction is safe with this producer.
    pub(super) fn had_trouble(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) || self.is_hung()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    pub(super) fn hangs(&self) {
        self.hung.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Seen<T>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy + Send + Sync + 'static> ClientContext for Reports<T> {
    /// librdkafka tells of every connection that broke and of every request whose time was over; what came before under
    /// the same words in half a minute it leaves out, and by then the producer is marked. A connection that was not up had
    /// no request to lose.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let stuck = facility == "METADATAUPDATE";
        let late = facility == "REQTMOUT" || (facility == "FAIL" && message.contains("in state UP"));
        self.stuck.fetch_or(stuck, Ordering::Relaxed);
        self.troubled.fetch_or(stuck || late, Ordering::Relaxed);
        DefaultClientContext.log(level, facility, message);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_marked_by_what_may_leave_a_request_on_its_way() {
        let after = |facility, message| {
            let reports = Reports::<()>::default();
            reports.log(RDKafkaLogLevel::Info, facility, message);
            (reports.had_trouble(), reports.is_stuck())
        };
        assert_eq!(
            after("FAIL", "Connect to ipv6#[::1]:9092 failed: refused (after 0ms in state CONNECT)"),
            (false, false)
        );
        assert_eq!(after("FAIL", "Disconnected: connection reset by peer (after 12ms in state UP)"), (true, false));
        assert_eq!(after("REQTMOUT", "Timed out EndTxnRequest in flight (after 2002ms, timeout #0)"), (true, false));
        assert_eq!(after("METADATAUPDATE", "Partition verdicts[0]: new leader-1 not found in cache"), (true, true));
        assert_eq!(after("GETPID", "Broker: Coordinator load in progress: retrying"), (false, false));
    }
}
