//! A polled record on its way into the road.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::mpsc;

use super::consumer::Parts;
use super::ledger::Ledger;
use super::permits::Permits;
use super::trace;
use crate::error::Fatal;
use crate::receipt::{Envelope, Headers, Offset, Original, RawMessage};
use crate::telemetry::trace::{Place, PostSpan};

/// Takes a permit and enters the record in the ledger before anything else can go wrong with it.
pub(super) fn deliver(
    ledger: &mut Ledger,
    permits: &mut Permits,
    topic: &Arc<str>,
    group: &str,
    parts: &Parts,
    message: &BorrowedMessage<'_>,
) -> Result<(), Fatal> {
    let received = Instant::now();
    let Some(receipt) = ledger.deliver(message.partition(), Offset(message.offset()), received) else {
        return Ok(());
    };
    permits.take(&receipt, message.payload_len() + message.key_len());
    let original = Arc::new(Original { span: span(topic, group, message), ..original(topic, message) });
    let envelope = Envelope { body: RawMessage, receipt, original, received };
    parts.intake.try_send(envelope).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            Fatal::Internal { part: "prepare", cause: "a record arrived without a permit".to_owned() }
        }
        mpsc::error::TrySendError::Closed(_) => Fatal::Abandoned { part: "consumer" },
    })
}

/// An owned copy of a record.
pub(super) fn original(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Original {
    let headers = message.headers().map(|headers| Arc::new(headers.detach()) as _);
    Original {
        topic: topic.clone(),
        partition: message.partition(),
        offset: Offset(message.offset()),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: Headers(headers),
        span: PostSpan::default(),
    }
}

fn span(topic: &str, group: &str, message: &BorrowedMessage<'_>) -> PostSpan {
    let producer = message.headers().map_or_else(trace::none, trace::extract);
    let (partition, offset, tombstone) = (message.partition(), message.offset(), message.payload().is_none());
    PostSpan::begin(&Place { topic, partition, offset, group, tombstone }, producer)
}
