//! Verdicts to a file, one JSON line each: appended in order, and durable before a receipt goes back. What a file holds
//! already, when a replay goes on with it, is read first; nothing in it is written twice. Where Parquet is wanted, so many
//! lines become a file of it (see `packed`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::packed::{self, Packed};
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
    /// What becomes of the lines, if anything does.
    packed: Option<Packed>,
    lines: u64,
}

/// What one replay makes of a topic, or of records where none is named.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// The replay.
    pub replay: &'a str,
    /// The topic.
    pub topic: Option<&'a str>,
}

/// Topic, partition and offset of a post.
pub(super) type Place = (String, Partition, i64);

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

    pub(super) fn enter(&mut self, (topic, partition, offset): &Place) {
        self.add(topic, *partition, *offset);
    }

    fn add(&mut self, topic: &str, partition: Partition, offset: i64) {
        match self {
            Self::Offsets(last) => drop(last.insert(partition, offset)),
            Self::Rows(rows) => drop(rows.insert(digest(topic, partition, offset))),
        }
    }

    fn of(topic: Option<&str>) -> Self {
        topic.map_or(Self::Rows(HashSet::new()), |_| Self::Offsets(BTreeMap::new()))
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
    /// Opens or makes the file, for this process alone; a last line that was torn by a crash is cut off. A folder, or a name
    /// that ends in `.parquet`, is for Parquet files of so many verdicts at most.
    pub fn open(path: &Path, of: Of<'_>, most: u64) -> Result<Self, String> {
        let folder = packed::is_meant(path).then_some(path);
        let path = folder.map_or(Ok(path.to_owned()), packed::journal)?;
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(told)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => format!("{}: another process writes to it", path.display()),
            TryLockError::Error(error) => told(error),
        })?;
        let mut written = Written::of(of.topic);
        let packed = folder.map(|folder| Packed::open(folder, most, of, &mut written)).transpose()?;
        // All of them are in a finished file already, or none is.
        let (mut are_packed, mut lines) = (None, 0);
        let whole = read(&file, &path, of, |place| {
            let (topic, partition, offset) = place;
            if !*are_packed.get_or_insert_with(|| written.has(topic, *partition, *offset)) {
                written.enter(place);
                lines += 1;
            }
        })?;
        let whole = if are_packed == Some(true) { 0 } else { whole };
        file.set_len(whole).map_err(told)?;
        let (file, replay, sync_at) = (BufWriter::new(file), of.replay.to_owned(), Instant::now());
        Ok(Self { path, replay, file, written, held: Vec::new(), sync_at, packed, lines })
    }

    /// What it holds now.
    pub fn written(&self) -> &Written {
        &self.written
    }

    pub(super) fn write(&mut self, original: &Original, outgoing: &Outgoing, receipt: Receipt) -> Result<(), Fatal> {
        let Original { topic, partition, offset, .. } = original;
        // A partition that was taken away and given back comes again from what was committed of it.
        if !self.written.has(topic, *partition, offset.0) {
            self.written.add(topic, *partition, offset.0);
            self.lines += 1;
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
        let durable = std::mem::take(&mut self.held);
        let is_due = self.packed.as_ref().is_some_and(|packed| packed.is_due(self.lines));
        match tokio::task::block_in_place(|| self.sync().and_then(|()| if is_due { self.pack() } else { Ok(()) })) {
            Ok(()) => reports.extend(durable.into_iter().map(Ok)),
            Err(fatal) => reports.push(Err(fatal)),
        }
        reports.len()
    }

    /// Nothing more comes.
    pub(super) fn close(&mut self) -> Result<(), Fatal> {
        self.sync()?;
        if self.lines > 0 { self.pack() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|error| self.lost(&error))
    }

    /// What is durable in lines becomes a file.
    fn pack(&mut self) -> Result<(), Fatal> {
        let Some(packed) = &mut self.packed else { return Ok(()) };
        let to = self.path.display().to_string();
        packed.pack(&self.path).map_err(|cause| Fatal::Output { to, cause })?;
        let emptied = self.file.get_ref().set_len(0).and_then(|()| self.file.get_ref().sync_data());
        emptied.map_err(|error| self.lost(&error))?;
        self.lines = 0;
        Ok(())
    }

    fn lost(&self, error: &io::Error) -> Fatal {
        Fatal::Output { to: self.path.display().to_string(), cause: error.to_string() }
    }
}

/// Hands over which posts a file of lines holds; how many bytes of it are whole lines.
fn read(mut file: &File, path: &Path, of: Of<'_>, mut each: impl FnMut(&Place)) -> Result<u64, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    file.seek(SeekFrom::Start(0)).map_err(told)?;
    let (mut reader, mut line, mut whole) = (BufReader::new(file), Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(told)?;
        if !line.ends_with(b"\n") {
            break;
        }
        each(&place(&line, of).map_err(|why| format!("{}, line {number}: {why}", path.display()))?);
        whole += bytes as u64;
    }
    Ok(whole)
}

/// Which post a line is about; or why it does not belong to this replay.
pub(super) fn place(line: &[u8], Of { replay, topic }: Of<'_>) -> Result<Place, String> {
    let (name, At { topic: of, partition, offset }) =
        coordinates(line).ok_or("not of a replay; name a file or a folder of its own")?;
    if name != replay {
        return Err(format!("of replay `{name}`; name another file, or go on with --id {name}"));
    }
    if let Some(topic) = topic.filter(|topic| of != *topic) {
        return Err(format!("of `{of}`, and `{topic}` is replayed; name another file"));
    }
    Ok((of.into_owned(), partition, offset))
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

    fn open(path: &Path) -> Result<Filed, String> {
        Filed::open(path, Of { replay: "r1", topic: Some("posts") }, 10)
    }

    fn opened(text: &str) -> Result<(Written, String), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let written = open(file.path())?.written().clone();
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
        assert!(opened("{\"id\":\"p\"}\n").unwrap_err().contains("line 1: not of a replay"));
        let live = r#"{"data":{"input":{"kafka":{"topic":"posts","partition":0,"offset":1}}}}"#;
        assert!(opened(&format!("{live}\n")).is_err(), "a live verdict");
    }

    #[test]
    fn two_processes_do_not_write_to_one_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = open(file.path()).unwrap();
        assert!(open(file.path()).is_err_and(|why| why.ends_with("another process writes to it")));
        drop(first);
        assert!(open(file.path()).is_ok());
    }
}
