//! What a finished post becomes on the wire: a verdict or a note, a passed tombstone or a dead letter; and, where the policy flags
//! a post and a topic for flagged posts is named, the post itself once more, with its verdict in a header.

use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::{bounded, trace};
use crate::config::{KafkaSettings, Task};
use crate::error::Fatal;
use crate::event::Event;
use crate::evidence::link::HEADER;
use crate::receipt::{Headers, Original};
use crate::rejection::{DeadLetterHeaders, Rejected};
use crate::telemetry::trace::OpenSpan;

/// Names the replay that wrote a record.
const REPLAY_ID: &str = "moderato.replay_id";

/// What a record becomes on its way out.
#[derive(Debug)]
pub enum Outgoing {
    /// An encoded `verdict.v1`.
    Verdict {
        /// In the topic's format.
        event: Event,
        /// Deterministic id, also a header, so that duplicates can be told without decoding.
        verdict_id: String,
        /// Whether the policy proposes anything but `allow`.
        flagged: bool,
    },
    /// An encoded `note.v1`.
    Note {
        /// In the topic's format.
        event: Event,
        /// Deterministic id, also a header.
        note_id: String,
    },
    /// A null value, passed on.
    Tombstone,
    /// The post, unchanged, with the reason in headers.
    DeadLetter(Rejected),
}

impl Outgoing {
    /// Where it goes first; a flagged post goes to its own topic besides.
    pub(super) fn destination(&self) -> Destination {
        match self {
            Outgoing::Verdict { .. } | Outgoing::Note { .. } | Outgoing::Tombstone => Destination::Output,
            Outgoing::DeadLetter(_) => Destination::DeadLetters,
        }
    }
}

/// Which of our topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Output,
    DeadLetters,
    Flagged,
}

/// The topics by name, and what every dead letter says of its pool.
#[derive(Clone)]
pub(super) struct Topics {
    output: Arc<str>,
    task: Task,
    dead_letters: Arc<str>,
    flagged: Option<Arc<str>>,
    group: Arc<str>,
    replay: Option<Arc<str>>,
}

/// One record, ready to be sent; it borrows from what it was made of.
pub(super) struct Wire<'a> {
    pub to: Destination,
    topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: OwnedHeaders,
    /// `send {topic}`: open until the broker's word on it.
    pub span: OpenSpan,
}

impl Topics {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        Self {
            output: settings.output.as_str().into(),
            task: settings.task,
            dead_letters: settings.dead_letters.as_str().into(),
            flagged: settings.flagged.as_deref().map(Into::into),
            group: settings.group.as_str().into(),
            replay: settings.replay.clone(),
        }
    }

    /// The records that a finished post becomes, one or two; each carries the context of its own span, or that which came
    /// with the post. What goes to the output topic carries its `link` in the chain, if there is one.
    pub(super) fn records<'a>(
        &'a self,
        original: &'a Original,
        outgoing: &'a Outgoing,
        link: Option<&str>,
    ) -> Vec<Wire<'a>> {
        let mut records = self.untraced(original, outgoing);
        for record in &mut records {
            if let (Some(link), Destination::Output) = (link, record.to) {
                record.headers = text(std::mem::take(&mut record.headers), HEADER, link);
            }
            record.span = OpenSpan::send(record.topic, &original.span);
            let context = record.span.context().or(original.span.context());
            let headers = self.replayed(std::mem::take(&mut record.headers));
            record.headers = trace::inject(headers, context);
        }
        records
    }

    /// Whoever reads a record of a replay can tell.
    fn replayed(&self, headers: OwnedHeaders) -> OwnedHeaders {
        match &self.replay {
            Some(id) => text(text(headers, "moderato.mode", "replay"), REPLAY_ID, id),
            None => headers,
        }
    }

    /// The topic of a destination.
    pub(super) fn name(&self, to: Destination) -> &Arc<str> {
        match to {
            Destination::Output => &self.output,
            Destination::DeadLetters => &self.dead_letters,
            Destination::Flagged => self.flagged.as_ref().unwrap_or(&self.output),
        }
    }

    fn untraced<'a>(&'a self, original: &'a Original, outgoing: &'a Outgoing) -> Vec<Wire<'a>> {
        let span = OpenSpan::default;
        let key = original.key.as_deref();
        let post = original.value.as_deref();
        match outgoing {
            Outgoing::Verdict { event, verdict_id, flagged } => {
                let mut records = vec![self.event(original, event, ("moderato.verdict_id", verdict_id))];
                if let (true, Some(topic)) = (flagged, &self.flagged) {
                    let (headers, dropped) = bounded::copy(&original.headers);
                    let headers = add_source(headers, original);
                    let headers = match dropped {
                        0 => headers,
                        count => text(headers, "moderato.headers_dropped", &count.to_string()),
                    };
                    let headers = headers.insert(Header { key: "moderato.verdict", value: Some(event.json()) });
                    records.push(Wire { to: Destination::Flagged, topic, key, value: post, headers, span: span() });
                }
                records
            }
            Outgoing::Note { event, note_id } => vec![self.event(original, event, ("moderato.note_id", note_id))],
            Outgoing::Tombstone => {
                let headers = source_headers(original);
                vec![Wire { to: Destination::Output, topic: &self.output, key, value: None, headers, span: span() }]
            }
            Outgoing::DeadLetter(rejected) => {
                let (headers, dropped) = bounded::copy(&original.headers);
                let fields = DeadLetterHeaders::new(original, rejected, &self.group).without(dropped).fields();
                let headers = fields.iter().fold(headers, |headers, (name, value)| text(headers, name, value));
                let (to, topic) = (Destination::DeadLetters, &*self.dead_letters);
                vec![Wire { to, topic, key, value: post, headers, span: span() }]
            }
        }
    }

    /// A verdict or a note, with its id in a header.
    fn event<'a>(&'a self, original: &'a Original, event: &'a Event, (name, id): (&str, &str)) -> Wire<'a> {
        let headers = text(source_headers(original), name, id);
        let headers = event.headers().fold(headers, |headers, (name, value)| text(headers, name, value));
        let (to, topic, key) = (Destination::Output, &*self.output, original.key.as_deref());
        Wire { to, topic, key, value: Some(event.value()), headers, span: OpenSpan::default() }
    }

    /// The record that did not arrive ends the worker: nothing may step over it.
    pub(super) fn undeliverable(&self, to: Destination, error: &KafkaError) -> Fatal {
        let cause = error.to_string();
        match to {
            Destination::Output => match self.task {
                Task::Classify => Fatal::VerdictUndeliverable { topic: self.output.to_string(), cause },
                Task::DraftNote => Fatal::NoteUndeliverable { topic: self.output.to_string(), cause },
            },
            Destination::DeadLetters => Fatal::DeadLetterUndeliverable { topic: self.dead_letters.to_string(), cause },
            Destination::Flagged => Fatal::FlaggedUndeliverable { topic: self.name(to).to_string(), cause },
        }
    }
}

impl<'a> Wire<'a> {
    /// With one more header.
    pub(super) fn marked(mut self, key: &str, value: &str) -> Self {
        self.headers = text(self.headers, key, value);
        self
    }

    /// For the client, with what shall come back with its delivery report.
    pub(super) fn with<D: rdkafka::util::IntoOpaque>(self, opaque: D) -> BaseRecord<'a, [u8], [u8], D> {
        let mut record = BaseRecord::with_opaque_to(self.topic, opaque).headers(self.headers);
        record.payload = self.value;
        record.key = self.key;
        record
    }
}

/// Where the record came from, on everything that goes to the output topic: a tombstone has no value to say it in.
fn source_headers(original: &Original) -> OwnedHeaders {
    add_source(OwnedHeaders::new(), original)
}

fn add_source(headers: OwnedHeaders, original: &Original) -> OwnedHeaders {
    let headers = text(headers, "moderato.source.topic", &original.topic);
    let headers = text(headers, "moderato.source.partition", &original.partition.to_string());
    text(headers, "moderato.source.offset", &original.offset.0.to_string())
}

fn text(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value.as_bytes()) })
}

/// A native copy, so that null values and names that are not UTF-8 survive.
pub(super) fn copy(headers: &Headers) -> OwnedHeaders {
    let native = headers.0.as_ref().and_then(|any| any.downcast_ref::<OwnedHeaders>());
    native.map_or_else(OwnedHeaders::new, |headers| headers.as_borrowed().detach())
}
