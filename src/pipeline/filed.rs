//! Verdicts to a file, one JSON line each: appended in order, and durable before a receipt goes back. What a file holds
//! already, when a replay goes on with it, is read first; nothing in it is written twice.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::Fatal;
use crate::kafka::publisher::{Outgoing, Report};
use crate::receipt::{Original, Partition, Receipt};

/// How long a line may wait for the disk, together with those after it.
const SYNC: Duration = Duration::from_millis(50);

/// A file that is being written.
pub struct Filed {
    path: PathBuf,
    replay: String,
    file: BufWriter<File>,
    written: Written,
    /// Written and not yet durable.
    held: Vec<Receipt>,
    sync_at: Instant,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Of a topic, whose partitions come in their order: the last offset of each.
    Offsets(BTreeMap<Partition, i64>),
    /// Of records that come in any order: a digest of the coordinates of each.
    Rows(HashSet<u64>),
}

impl Written {
    /// From where a topic's partitions are still to be judged.
    pub fn floors(&self) -> BTreeMap<Partition, i64> {
        match self {
            Self::Offsets(last) => last.iter().map(|(partition, last)| (*partition, last + 1)).collect(),
            Self::Rows(_) => BTreeMap::new(),
        }
    }

    /// Whether the record at these coordinates stands in it.
    pub fn has(&self, topic: &str, partition: Partition, offset: i64) -> bool {
        match self {
            Self::Offsets(last) => last.get(&partition).is_some_and(|last| offset <= *last),
            Self::Rows(rows) => rows.contains(&digest(topic, partition, offset)),
        }
    }

    fn enter(&mut self, topic: &str, partition: Partition, offset: i64) {
        match self {
            Self::Offsets(last) => drop(last.insert(partition, offset)),
            Self::Rows(rows) => drop(rows.insert(digest(topic, partition, offset))),
        }
    }
}

fn digest(topic: &str, partition: Partition, offset: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, partition, offset).hash(&mut hasher);
    hasher.finish()
}

/// A post that became no verdict.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    error: Option<Told<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    tombstone: Option<Told<'a>>,
    #[serde(borrow, skip_serializing)]
    data: Option<Data<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    replay: Name<'a>,
    #[serde(borrow)]
    kafka: At<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct Name<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct At<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: Partition,
    offset: i64,
}

/// Of a verdict, what is looked at.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    input: Input<'a>,
    #[serde(borrow)]
    replay: Option<Name<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    kafka: At<'a>,
}

impl Filed {
    /// Opens or makes the file, for this process alone, to hold what one replay makes of a topic, or of records where none
    /// is named; a last line that was torn by a crash is cut off.
    pub fn open(path: &Path, replay: &str, topic: Option<&str>) -> Result<Self, String> {
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(told)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => format!("{}: another process writes to it", path.display()),
            TryLockError::Error(error) => told(error),
        })?;
        let (written, whole) = read(&file, path, (replay, topic))?;
        file.set_len(whole).map_err(told)?;
        let file = BufWriter::new(file);
        let (path, replay, sync_at) = (path.to_owned(), replay.to_owned(), Instant::now());
        Ok(Self { path, replay, file, written, held: Vec::new(), sync_at })
    }

    /// What it holds now.
    pub fn written(&self) -> &Written {
        &self.written
    }

    pub(super) fn write(&mut self, original: &Original, outgoing: &Outgoing, receipt: Receipt) -> Result<(), Fatal> {
        let Original { topic, partition, offset, .. } = original;
        // A partition that was taken away and given back comes again from what was committed of it.
        if !self.written.has(topic, *partition, offset.0) {
            self.written.enter(topic, *partition, offset.0);
            self.append(original, outgoing).map_err(|error| self.lost(&error))?;
        }
        if self.held.is_empty() {
            self.sync_at = Instant::now() + SYNC;
        }
        self.held.push(receipt);
        Ok(())
    }

    fn append(&mut self, original: &Original, outgoing: &Outgoing) -> io::Result<()> {
        let Original { topic, partition, offset, .. } = original;
        let at = At { topic: (&**topic).into(), partition: *partition, offset: offset.0 };
        let (replay, data) = (Name { id: self.replay.as_str().into() }, None);
        let told = Told { replay, kafka: at, reason: None, stage: None, message: None };
        let out = &mut self.file;
        match outgoing {
            Outgoing::Verdict { event, .. } | Outgoing::Note { event, .. } => out.write_all(event.json())?,
            Outgoing::Tombstone => {
                serde_json::to_writer(&mut *out, &Line { error: None, tombstone: Some(told), data })?
            }
            Outgoing::DeadLetter(rejected) => {
                let (reason, stage) = (Some(rejected.reason.code()), Some(rejected.stage.code()));
                let error = Some(Told { reason, stage, message: Some(&rejected.message), ..told });
                serde_json::to_writer(&mut *out, &Line { error, tombstone: None, data })?;
            }
        }
        out.write_all(b"\n")
    }

    /// Waits for the next moment to make lines durable, does so, and hands their receipts back.
    pub(super) async fn reports(&mut self, reports: &mut Vec<Report>) -> usize {
        tokio::time::sleep_until(self.sync_at).await;
        let synced = tokio::task::block_in_place(|| {
            self.file.flush()?;
            self.file.get_ref().sync_data()
        });
        let durable = std::mem::take(&mut self.held);
        match synced {
            Ok(()) => reports.extend(durable.into_iter().map(Ok)),
            Err(error) => reports.push(Err(self.lost(&error))),
        }
        reports.len()
    }

    fn lost(&self, error: &io::Error) -> Fatal {
        Fatal::Output { to: self.path.display().to_string(), cause: error.to_string() }
    }
}

/// What the file holds, and how many bytes of it are whole lines.
fn read(mut file: &File, path: &Path, (replay, topic): (&str, Option<&str>)) -> Result<(Written, u64), String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    file.seek(SeekFrom::Start(0)).map_err(told)?;
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    let empty = topic.map_or(Written::Rows(HashSet::new()), |_| Written::Offsets(BTreeMap::new()));
    let (mut written, mut whole) = (empty, 0);
    for number in 1.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(told)?;
        if !line.ends_with(b"\n") {
            break;
        }
        let (name, at) = coordinates(&line).ok_or_else(|| {
            format!("{}, line {number}: not a line of a replay; name a file of its own", path.display())
        })?;
        if name != replay {
            let file = path.display();
            return Err(format!(
                "{file}, line {number}: of replay `{name}`; name another file, or go on with --id {name}"
            ));
        }
        if let Some(topic) = topic.filter(|topic| at.topic != *topic) {
            let (file, other) = (path.display(), at.topic);
            return Err(format!("{file}, line {number}: of `{other}`, and `{topic}` is replayed; name another file"));
        }
        written.enter(&at.topic, at.partition, at.offset);
        whole += bytes as u64;
    }
    Ok((written, whole))
}

fn coordinates(line: &[u8]) -> Option<(Cow<'_, str>, At<'_>)> {
    let Line { error, tombstone, data } = serde_json::from_slice(line).ok()?;
    match (data, error.or(tombstone)) {
        (Some(Data { input, replay }), _) => Some((replay?.id, input.kafka)),
        (None, Some(Told { replay, kafka, .. })) => Some((replay.id, kafka)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICT: &str = r#"{"id":"v","data":{"input":{"kafka":{"topic":"posts","partition":2,"offset":7,"timestamp_ms":1}},"replay":{"id":"r1"}}}"#;
    const ERROR: &str = r#"{"error":{"replay":{"id":"r1"},"kafka":{"topic":"posts","partition":0,"offset":3},"reason":"empty_text","stage":"decode","message":"a \"b\""}}"#;

    fn opened(text: &str) -> Result<(Written, String), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let written = Filed::open(file.path(), "r1", Some("posts"))?.written().clone();
        Ok((written, std::fs::read_to_string(file.path()).unwrap()))
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_the_whole_ones_are_known() {
        let whole = format!("{VERDICT}\n{ERROR}\n");
        let (written, left) = opened(&format!("{whole}{}", &VERDICT[..30])).unwrap();
        assert_eq!((written, left), (Written::Offsets([(0, 3), (2, 7)].into()), whole));
        assert_eq!(opened("").unwrap(), (Written::Offsets(BTreeMap::new()), String::new()));
    }

    #[test]
    fn a_file_of_something_else_is_not_appended_to() {
        let other = VERDICT.replace("r1", "r2");
        assert!(
            opened(&format!("{VERDICT}\n{other}\n"))
                .unwrap_err()
                .ends_with("line 2: of replay `r2`; name another file, or go on with --id r2")
        );
        let other = VERDICT.replace("posts", "tweets");
        assert!(opened(&format!("{other}\n")).unwrap_err().contains("line 1: of `tweets`, and `posts` is replayed"));
        assert!(opened("{\"id\":\"p\"}\n").unwrap_err().contains("line 1: not a line of a replay"));
        let live = r#"{"data":{"input":{"kafka":{"topic":"posts","partition":0,"offset":1}}}}"#;
        assert!(opened(&format!("{live}\n")).is_err(), "a live verdict");
    }

    #[test]
    fn two_processes_do_not_write_to_one_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = Filed::open(file.path(), "r1", Some("posts")).unwrap();
        assert!(
            Filed::open(file.path(), "r1", Some("posts"))
                .is_err_and(|why| why.ends_with("another process writes to it"))
        );
        drop(first);
        assert!(Filed::open(file.path(), "r1", Some("posts")).is_ok());
    }
}
