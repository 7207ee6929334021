//! A record that is read, and what it says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Message as _};

use crate::event::{self, NoEvent};
use crate::kafka::headers;
use crate::kafka::intake::original;
use crate::receipt::{Original, Partition};

/// A record while it is looked at.
pub struct Record<'a>(pub(super) &'a BorrowedMessage<'a>);

impl Record<'_> {
    /// Its partition.
    pub fn partition(&self) -> Partition {
        self.0.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Its timestamp, milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// Its key, if it has one.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Its value, if it is no tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// The headers whose name and value are text; of several of one name the last.
    pub fn headers(&self) -> BTreeMap<String, String> {
        self.0.headers().map(headers::texts).unwrap_or_default()
    }

    /// Whether its value is null.
    pub fn is_tombstone(&self) -> bool {
        self.0.payload().is_none()
    }

    /// The last header of that name, if it is text.
    pub fn header(&self, name: &CStr) -> Option<&str> {
        std::str::from_utf8(headers::last(self.0.headers()?, name)?).ok()
    }

    /// The last header of that name, if it is a whole number.
    pub fn number<N: std::str::FromStr>(&self, name: &CStr) -> Option<N> {
        self.header(name)?.parse().ok()
    }

    /// The verdict or the note as JSON, in whichever mode it was published; `None` for a tombstone.
    pub fn event(&self) -> Option<Result<Cow<'_, [u8]>, NoEvent>> {
        self.value().map(|value| event::json(value, |name| self.named(name)))
    }

    /// The same, and the value as it is where that is no event.
    pub fn event_or_value(&self) -> Option<Cow<'_, [u8]>> {
        self.value().map(|value| event::json(value, |name| self.named(name)).unwrap_or(Cow::Borrowed(value)))
    }

    /// What a link in a chain was made for; the value as it is where that is no event.
    pub fn sealed(&self) -> Option<Cow<'_, [u8]>> {
        self.value().map(|value| event::sealed(value, |name| self.named(name)).unwrap_or(Cow::Borrowed(value)))
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.header(&CString::new(name).ok()?)
    }

    /// An owned copy.
    pub fn original(&self, topic: &Arc<str>) -> Original {
        original(topic, self.0)
    }
}
