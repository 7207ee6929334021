//! The posts that are judged here: of a topic those that were there when it began, read outside of any group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::mend;
use crate::app::Records;
use crate::cli::places::Source;
use crate::cli::replay::input;
use crate::cli::told;
use crate::config::KafkaSettings;
use crate::diff::Range;
use crate::error::{Exit, Fatal};
use crate::kafka::place;
use crate::kafka::range::{ReadError, Reader, Span, Topic};
use crate::pipeline::judge::source_ref;
use crate::receipt::Original;
use crate::reconcile::Place;

/// Records that are read ahead.
const AHEAD: usize = 64;

/// All of a place that lie in the range.
pub(super) fn records(source: &Source, kafka: &KafkaSettings, range: &Range) -> Result<Records, Exit> {
    match source {
        Source::Topic(topic) => of_topic(topic, kafka, range),
        Source::Files(path) => {
            let records = input::records(path, |_| false).map_err(|why| mend(&format!("--judge: {why}")))?;
            let range = range.clone();
            Ok(Box::new(records.filter(move |record| record.as_ref().map_or(true, |it| range.holds(&source_ref(it))))))
        }
    }
}

fn of_topic(topic: &str, kafka: &KafkaSettings, range: &Range) -> Result<Records, Exit> {
    let reader = Reader::connect(kafka).map_err(|error| told(&error))?;
    let spans = spans(&reader, topic, range).map_err(|error| told(&error))?;
    let (to, records) = bounded(AHEAD);
    let topic: Arc<str> = topic.into();
    let spawned = thread::Builder::new().name("posts".to_owned()).spawn(move || read(&reader, &topic, &spans, &to));
    spawned.map_err(|error| {
        eprintln!("the reading cannot begin: {error}");
        Exit::Failed
    })?;
    Ok(Box::new(records.into_iter()))
}

/// The part of each partition, fixed before the first record is read.
fn spans(reader: &Reader, topic: &str, range: &Range) -> Result<Vec<Span>, ReadError> {
    let extents = reader.extents(Topic { key: "the name behind `topic:`", name: topic })?;
    let whole = place::Range { reader, topic, extents: &extents, group: "", committed: &BTreeMap::new() };
    let from = range.from.as_ref().unwrap_or(&Place::Beginning);
    whole.spans(from, range.to.as_ref().unwrap_or(&Place::End), |extent| extent.stable)
}

/// Why the reading ended early.
enum Ended {
    Lost(ReadError),
    /// Nobody wants more.
    Enough,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Lost(error)
    }
}

fn read(reader: &Reader, topic: &Arc<str>, spans: &[Span], to: &Sender<Result<Original, Fatal>>) {
    let read = reader.read(topic, spans, |record| to.send(Ok(record.original(topic))).map_err(|_| Ended::Enough));
    if let Err(Ended::Lost(error)) = read {
        // Nobody wants it where nobody is left.
        let _ = to.send(Err(Fatal::Input { cause: error.to_string() }));
    }
}
