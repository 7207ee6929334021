//! Verdicts and notes as CloudEvents on Kafka: one JSON value (structured mode), or `data` as the value and the attributes
//! as headers (binary mode; Kafka protocol binding 1.0.2); and the five bytes before a value whose schema is in a schema
//! registry. Both are written and read here and nowhere else.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::EventMode;

/// What begins a value that a schema's id stands before; no JSON begins so.
const MAGIC: u8 = 0;
/// What stands before the data of a whole event. In JSON it cannot stand within an attribute: a quote in a text has a
/// backslash before it.
const DATA: &[u8] = b",\"data\":";
/// The attributes as headers, in the order of [`Attributes::values`].
const HEADERS: [&str; 8] =
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "content-type", "ce_dataschema"];

/// The id that a schema registry gave a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchemaId(pub u32);

/// How events stand in their topic.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format {
    /// Where the attributes are.
    pub mode: EventMode,
    /// What stands before the value, if anything does.
    pub schema: Option<SchemaId>,
}

/// A verdict or a note, encoded.
#[derive(Debug)]
pub struct Event {
    json: Vec<u8>,
    /// What is published, where that is not `json`.
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
}

/// Why a record is no event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoEvent {
    /// A header that binary mode asks for is missing or no text.
    #[error("an event in binary mode without the header {0}")]
    Header(&'static str),
    /// The value is no JSON.
    #[error("an event in binary mode whose value is not JSON")]
    Value,
}

/// What stands before `data` in `VerdictV1` and `NoteV1`, in their order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes<'a> {
    specversion: Cow<'a, str>,
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    subject: Cow<'a, str>,
    time: Cow<'a, str>,
    datacontenttype: Cow<'a, str>,
    dataschema: Cow<'a, str>,
}

impl<'a> Attributes<'a> {
    fn values(self) -> [Cow<'a, str>; 8] {
        let Self { specversion, id, source, kind, subject, time, datacontenttype, dataschema } = self;
        [specversion, id, source, kind, subject, time, datacontenttype, dataschema]
    }
}

impl Format {
    /// An encoded `verdict.v1` or `note.v1` in this format.
    pub fn event(self, json: Vec<u8>) -> Result<Event, serde_json::Error> {
        let (headers, data) = match self.mode {
            EventMode::Structured => (vec![("content-type", "application/cloudevents+json".into())], None),
            EventMode::Binary => {
                let (head, data) = split(&json).unwrap_or((&json, b""));
                let head = [head, b"}"].concat();
                let attributes: Attributes<'_> = serde_json::from_slice(&head)?;
                (HEADERS.into_iter().zip(attributes.values()).collect(), Some(data))
            }
        };
        let value = match (self.schema, data) {
            (None, data) => data.map(<[u8]>::to_vec),
            (Some(SchemaId(id)), data) => Some([&[MAGIC][..], &id.to_be_bytes(), data.unwrap_or(&json)].concat()),
        };
        Ok(Event { json, value, headers })
    }
}

/// What stands before and behind [`DATA`], without the last brace.
fn split(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = json.windows(DATA.len()).position(|part| part == DATA)?;
    Some((&json[..at], json[at + DATA.len()..].strip_suffix(b"}")?))
}

impl Event {
    /// The whole event as JSON, whatever the format.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The record's value.
    pub fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or(&self.json)
    }

    /// What a link in a chain is made for: see [`sealed`].
    pub fn sealed(&self) -> Result<Cow<'_, [u8]>, NoEvent> {
        sealed(self.value(), |name| self.headers().find(|(other, _)| *other == name).map(|(_, value)| value))
    }

    /// The record's headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, &**value))
    }
}

/// The whole event as JSON out of a record of either mode; byte for byte what was encoded, where we wrote it.
pub fn json<'v, 'h>(value: &'v [u8], header: impl Fn(&str) -> Option<&'h str>) -> Result<Cow<'v, [u8]>, NoEvent> {
    let (_, value) = unframed(value);
    if header(HEADERS[0]).is_none() {
        return Ok(Cow::Borrowed(value));
    }
    let mut found = [""; 8];
    for (place, name) in found.iter_mut().zip(HEADERS) {
        *place = header(name).ok_or(NoEvent::Header(name))?;
    }
    let [specversion, id, source, kind, subject, time, datacontenttype, dataschema] = found.map(Cow::Borrowed);
    serde_json::from_slice::<IgnoredAny>(value).map_err(|_| NoEvent::Value)?;
    let attributes = Attributes { specversion, id, source, kind, subject, time, datacontenttype, dataschema };
    let mut whole = serde_json::to_vec(&attributes).map_err(|_| NoEvent::Value)?;
    whole.pop();
    Ok(Cow::Owned([&whole, DATA, value, b"}"].concat()))
}

/// All that a record says, for a seal on it: the value as it stands; in binary mode with the whole event in the place of its data.
pub fn sealed<'v, 'h>(value: &'v [u8], header: impl Fn(&str) -> Option<&'h str>) -> Result<Cow<'v, [u8]>, NoEvent> {
    let (_, bare) = unframed(value);
    Ok(match json(value, header)? {
        Cow::Borrowed(_) => Cow::Borrowed(value),
        Cow::Owned(json) => Cow::Owned([&value[..value.len() - bare.len()], &json].concat()),
    })
}

/// The schema's id that stands before a value, if one does, and the value itself.
pub fn unframed(value: &[u8]) -> (Option<SchemaId>, &[u8]) {
    match value {
        [MAGIC, a, b, c, d, rest @ ..] => (Some(SchemaId(u32::from_be_bytes([*a, *b, *c, *d]))), rest),
        _ => (None, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"specversion":"1.0","id":"v,\"data\":1","source":"urn:moderato:pool","type":"dev.moderato.verdict.v1","subject":"p\n1 ü,","time":"2026-11-22T00:00:00Z","datacontenttype":"application/json","dataschema":"urn:moderato:schema:verdict.v1","data":{"verdict":{"score":0.10000000000000001},"x":[1, 2]}}"#;

    fn read(event: &Event) -> Result<Vec<u8>, NoEvent> {
        let header = |name: &str| event.headers().find(|(other, _)| *other == name).map(|(_, value)| value);
        json(event.value(), header).map(Cow::into_owned)
    }

    #[test]
    fn an_event_is_read_as_it_was_encoded_in_either_mode_with_and_without_a_schema() {
        for mode in [EventMode::Structured, EventMode::Binary] {
            for schema in [None, Some(SchemaId(0x0102_0304))] {
                let event = Format { mode, schema }.event(JSON.into()).unwrap();
                assert_eq!(String::from_utf8(read(&event).unwrap()).unwrap(), JSON);
                assert_eq!(event.json(), JSON.as_bytes());
                let frame = &event.value()[..if schema.is_some() { 5 } else { 0 }];
                assert_eq!(event.sealed().unwrap(), [frame, JSON.as_bytes()].concat());
                assert_eq!(unframed(event.value()).0, schema);
                assert_eq!(event.value().starts_with(&[0, 1, 2, 3, 4]), schema.is_some());
            }
        }
    }

    #[test]
    fn binary_mode_has_data_alone_in_the_value_and_each_attribute_in_a_header() {
        let event = Format { mode: EventMode::Binary, schema: None }.event(JSON.into()).unwrap();
        assert_eq!(event.value(), br#"{"verdict":{"score":0.10000000000000001},"x":[1, 2]}"#);
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "v,\"data\":1"),
            ("ce_source", "urn:moderato:pool"),
            ("ce_type", "dev.moderato.verdict.v1"),
            ("ce_subject", "p\n1 ü,"),
            ("ce_time", "2026-11-22T00:00:00Z"),
            ("content-type", "application/json"),
            ("ce_dataschema", "urn:moderato:schema:verdict.v1"),
        ];
        assert_eq!(event.headers().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn structured_mode_is_the_json_and_says_so() {
        let event = Format::default().event(JSON.into()).unwrap();
        assert_eq!(event.value(), JSON.as_bytes());
        assert_eq!(event.headers().collect::<Vec<_>>(), [("content-type", "application/cloudevents+json")]);
    }

    #[test]
    fn a_record_in_binary_mode_that_lacks_something_is_no_event() {
        let only = |name: &str| (name == "ce_specversion").then_some("1.0");
        assert_eq!(json(b"{}", only), Err(NoEvent::Header("ce_id")));
        assert_eq!(json(b"{\"data\"", |_| Some("x")), Err(NoEvent::Value));
    }
}
