//! Takes what is new on the topic into the archive, step by step: a step is whole in the manifest or not there at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::digest::{self, Sum};
use super::folder::{Folder, signed_on};
use super::manifest::{Archived, Covered, DataFile, ManifestV1, What};
use super::{ArchiveError, now};
use crate::config::KafkaSettings;
use crate::evidence::key::SigningKey;
use crate::evidence::link::Hex;
use crate::files::{self, Row, Sheet, Writer};
use crate::kafka::place::between;
use crate::kafka::range::{Reader, Record, Span, Topic};
use crate::receipt::Partition;

/// Most rows, and most bytes of values, of a step; and most days whose files are open at once.
const STEP: (u64, usize, usize) = (250_000, 512 << 20, 8);

/// What is to be archived.
pub struct Request {
    /// The archive.
    pub folder: PathBuf,
    /// An archive that begins begins with the first record of that time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Ends before the first record of that time or later.
    pub to_ms: Option<i64>,
    /// The name of how long the verdicts are to be kept.
    pub retention_class: Option<String>,
    /// Signs.
    pub key: Option<SigningKey>,
}

/// What was archived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows.
    pub rows: u64,
    /// Data files.
    pub files: usize,
    /// Records without UTF-8 in their value, which are left out.
    pub foreign: u64,
    /// Partition, first and one past the last offset that retention deleted before it could be archived.
    pub lost: Vec<(Partition, i64, i64)>,
    /// What the next entry of the manifest follows on.
    pub head: String,
}

/// Archives everything that is new. `progress` hears of every record.
pub fn take(settings: &KafkaSettings, request: &Request, mut progress: impl FnMut()) -> Result<Taken, ArchiveError> {
    let mut folder = Folder::hold(&request.folder)?;
    let topic = Topic { key: settings.output_key(), name: &settings.output };
    let manifest = match folder.manifest.take() {
        Some(manifest) if manifest.topic == topic.name => manifest,
        Some(other) => {
            let (path, theirs) = (request.folder.display(), other.topic);
            let what = format!(
                "{path} is the archive of `{theirs}`, not of `{}` ({}): name another folder",
                topic.name, topic.key
            );
            return Err(ArchiveError::Asked(what));
        }
        None => ManifestV1::begin(topic.name, random()?),
    };
    signed_on(&manifest, request.key.as_ref())?;
    let reader = Reader::connect(settings)?;
    let extents = reader.extents(topic)?;
    let mut spans = between(&reader, topic.name, &extents, request.from_ms, request.to_ms)?;
    let next = manifest.next_offsets();
    let mut step = Step::new(&folder, request, manifest, topic.name);
    for (span, extent) in spans.iter_mut().zip(&extents) {
        let next = next.get(&span.partition).copied();
        if let Some(next) = next {
            // What was archived is not archived again, and where retention was faster there is nothing more.
            span.start = next.max(extent.low);
            span.end = span.end.max(span.start);
        }
        step.begin(span, next);
    }
    reader.read(topic.name, &spans, |record| {
        progress();
        step.add(record)
    })?;
    for span in &spans {
        step.reach(span.partition, span.end);
    }
    step.finish()?;
    step.taken.head = step.manifest.head();
    Ok(step.taken)
}

fn random<const N: usize>() -> Result<Hex<N>, ArchiveError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| ArchiveError::Internal("the system gave no random numbers".to_owned()))?;
    Ok(Hex(bytes))
}

/// A file that is being written.
struct Open {
    name: String,
    writer: Writer,
    digests: String,
    rows: u64,
}

/// What has been read and is not in the manifest yet.
struct Step<'a> {
    folder: &'a Folder,
    request: &'a Request,
    manifest: ManifestV1,
    topic: &'a str,
    /// By day.
    open: BTreeMap<String, Open>,
    covered: BTreeMap<Partition, Covered>,
    foreign: u64,
    bytes: usize,
    taken: Taken,
}

impl<'a> Step<'a> {
    fn new(folder: &'a Folder, request: &'a Request, manifest: ManifestV1, topic: &'a str) -> Self {
        let (open, covered, taken) = (BTreeMap::new(), BTreeMap::new(), Taken::default());
        Self { folder, request, manifest, topic, open, covered, foreign: 0, bytes: 0, taken }
    }

    fn begin(&mut self, span: &Span, next: Option<i64>) {
        let Span { partition, start: from, .. } = *span;
        let lost_from = next.filter(|next| *next < from);
        self.taken.lost.extend(lost_from.map(|lost| (partition, lost, from)));
        self.covered.insert(partition, Covered { partition, from, to: from, rows: 0, lost_from });
    }

    fn reach(&mut self, partition: Partition, to: i64) {
        if let Some(covered) = self.covered.get_mut(&partition) {
            covered.to = to;
        }
    }

    fn add(&mut self, record: &Record<'_>) -> Result<(), ArchiveError> {
        self.reach(record.partition(), record.offset() + 1);
        let value = record.event_or_value();
        if value.as_deref().is_some_and(|value| std::str::from_utf8(value).is_err()) {
            self.foreign += 1;
            return Ok(());
        }
        let row = Row {
            key: record.key().map(<[u8]>::to_vec),
            topic: Some(self.topic.to_owned()),
            partition: Some(record.partition()),
            offset: Some(record.offset()),
            timestamp_ms: record.timestamp_ms(),
            headers: serde_json::to_string(&record.headers()).ok(),
            value: value.map(Cow::into_owned),
            salt: Some(random::<16>()?.0.to_vec()),
        };
        self.bytes += row.value.as_ref().map_or(0, Vec::len);
        let open = self.file_of(&day(record.timestamp_ms()))?;
        open.writer.add(&row)?;
        open.digests.push_str(&digest::of_row(&row).to_string());
        open.digests.push('\n');
        open.rows += 1;
        if let Some(covered) = self.covered.get_mut(&record.partition()) {
            covered.rows += 1;
        }
        let rows: u64 = self.open.values().map(|open| open.rows).sum();
        if rows >= STEP.0 || self.bytes >= STEP.1 || self.open.len() > STEP.2 {
            self.finish()?;
        }
        Ok(())
    }

    fn file_of(&mut self, day: &str) -> Result<&mut Open, ArchiveError> {
        if !self.open.contains_key(day) {
            let folder = self.folder.path.join(format!("date={day}"));
            fs::create_dir_all(&folder).map_err(|cause| ArchiveError::unwritten(&folder, cause))?;
            let name = format!("date={day}/verdicts-{:06}", self.manifest.log.len());
            let writer = Writer::create(&self.folder.path.join(format!("{name}.parquet")), Sheet::Archive)?;
            self.open.insert(day.to_owned(), Open { name, writer, digests: String::new(), rows: 0 });
        }
        self.open.get_mut(day).ok_or_else(|| ArchiveError::Internal("a file of the archive is gone".to_owned()))
    }

    /// Puts the files in their places, and then the manifest that names them.
    fn finish(&mut self) -> Result<(), ArchiveError> {
        let mut files = Vec::new();
        for (_, Open { name, writer, digests: list, rows }) in std::mem::take(&mut self.open) {
            writer.close()?;
            let (data, digests) = (format!("{name}.parquet"), format!("{name}.digests"));
            files::replace(&self.folder.path.join(&digests), list.as_bytes())?;
            let sum = |name: &str| -> Result<String, ArchiveError> {
                digest::of_file(&self.folder.path.join(name)).map(|sum: Sum| sum.to_string())
            };
            let (data_sha256, digests_sha256) = (sum(&data)?, sum(&digests)?);
            self.taken.rows += rows;
            files.push(DataFile { data, data_sha256, digests, digests_sha256, rows });
        }
        let moved = |covered: &&Covered| covered.from < covered.to || covered.lost_from.is_some();
        let partitions: Vec<Covered> = self.covered.values().filter(moved).cloned().collect();
        if partitions.is_empty() {
            return Ok(());
        }
        for covered in self.covered.values_mut() {
            *covered = Covered { from: covered.to, rows: 0, lost_from: None, ..*covered };
        }
        self.taken.files += files.len();
        let foreign = std::mem::take(&mut self.foreign);
        self.taken.foreign += foreign;
        self.bytes = 0;
        let retention_class = self.request.retention_class.clone();
        let archived = Archived { retention_class, partitions, foreign, files };
        self.manifest.append(What::Archived(archived), now(), self.request.key.as_ref())?;
        self.folder.save(&self.manifest)
    }
}

/// The day of a record, UTC; a record without a timestamp is of the first day that there is.
fn day(timestamp_ms: Option<i64>) -> String {
    let time =
        jiff::Timestamp::from_millisecond(timestamp_ms.unwrap_or_default()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).date().to_string()
}
