//! What a replay reads from files: posts, and the ids of those that are meant.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};

use crate::app::Records;
use crate::config::KafkaSettings;
use crate::error::Fatal;
use crate::files::{self, FileError, Row};
use crate::kafka::range::ReadError;
use crate::receipt::{Headers, Offset, Original};
use crate::replay;
use crate::replay::verify::Place;
use crate::telemetry::trace::PostSpan;

/// Records that are read ahead.
const AHEAD: usize = 64;

/// The ids in a file, one a line.
pub(super) fn ids(path: &Path) -> Result<HashSet<String>, String> {
    let told = |why: &dyn std::fmt::Display| format!("--ids: {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    let ids: HashSet<String> = text.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.is_empty() { Err(told(&"holds no id; write one a line")) } else { Ok(ids) }
}

/// The records of a file or a folder, without those that are skipped by their coordinates. One that says where it stood
/// keeps them; any other has the input's name and its number in it.
pub(in crate::cli) fn records(
    path: &Path,
    skip: impl Fn(&Original) -> bool + Send + 'static,
) -> Result<Records, String> {
    if path != Path::new("-") {
        files::listed(path).map_err(|error| error.to_string())?;
    }
    let path = path.to_owned();
    ahead(move |to| read(&path, skip, to))
}

/// The records of the topic of posts that stand at these places.
pub(super) fn at(kafka: &KafkaSettings, places: HashSet<Place>) -> Result<Records, String> {
    let kafka = kafka.clone();
    ahead(move |to| {
        if let Err(Ended::Failed(cause)) =
            replay::at(&kafka, &places, |original| to.send(Ok(original)).map_err(|_| Ended::Enough))
        {
            let _ = to.send(Err(Fatal::Input { cause }));
        }
    })
}

/// What another thread reads, a little ahead.
fn ahead(read: impl FnOnce(&Sender<Result<Original, Fatal>>) + Send + 'static) -> Result<Records, String> {
    let (to, records) = bounded(AHEAD);
    let spawned = thread::Builder::new().name("input".to_owned()).spawn(move || read(&to));
    spawned.map_err(|error| error.to_string())?;
    Ok(Box::new(records.into_iter()))
}

/// Why the reading ended early.
enum Ended {
    Failed(String),
    /// Nobody wants more.
    Enough,
}

impl From<FileError> for Ended {
    fn from(error: FileError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn read(path: &Path, skip: impl Fn(&Original) -> bool, to: &Sender<Result<Original, Fatal>>) {
    let name: Arc<str> = path.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into());
    let mut number = 0;
    let outcome = files::records(path, |_, row| {
        let original = original(row, &name, number);
        number += 1;
        if skip(&original) {
            return Ok(());
        }
        to.send(Ok(original)).map_err(|_| Ended::Enough)
    });
    if let Err(Ended::Failed(cause)) = outcome {
        // Nobody wants it where nobody is left.
        let _ = to.send(Err(Fatal::Input { cause }));
    }
}

fn original(row: Row, name: &Arc<str>, number: i64) -> Original {
    let Row { key, topic, partition, offset, timestamp_ms, value, .. } = row;
    let (topic, partition, offset) = match (topic, partition, offset) {
        (Some(topic), Some(partition), Some(offset)) => (topic.into(), partition, offset),
        _ => (name.clone(), 0, number),
    };
    let (offset, headers, span) = (Offset(offset), Headers::default(), PostSpan::default());
    Original { topic, partition, offset, timestamp_ms, key, value, headers, span }
}
