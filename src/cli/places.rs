//! Where verdicts and posts are read from, as it is said on the command line, and the records of such a place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Progress, told};
use crate::config::KafkaSettings;
use crate::error::Exit;
use crate::files::{self, FileError};
use crate::kafka::range::{Extent, ReadError, Reader, Span, Topic};

/// A topic, or files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `topic:NAME`.
    Topic(String),
    /// JSON Lines, Parquet, a folder of these, or `-`.
    Files(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("topic:")) {
            ("", _) | (_, Some("")) => Err("name a file, a folder, `-` or topic:NAME".to_owned()),
            (_, Some(topic)) => Ok(Self::Topic(topic.to_owned())),
            (path, None) => Ok(Self::Files(path.into())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::Files(_) if self.is_stdin() => f.write_str("standard input"),
            Self::Files(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A record while it is looked at.
pub(super) struct Entry<'a> {
    /// File and line or row; or topic, partition and offset.
    pub at: &'a dyn fmt::Display,
    /// None for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Whether it is a dead letter: the post as it came, and no verdict.
    pub dead_letter: bool,
}

/// A reading that ended for one of two reasons.
enum Ended {
    /// It could not be read, and that is said.
    Unread(Exit),
    /// Who takes the entries wants no more.
    Taken(Exit),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Unread(told(&error))
    }
}

impl From<FileError> for Ended {
    fn from(error: FileError) -> Self {
        eprintln!("{error}");
        Self::Unread(Exit::Config)
    }
}

impl Source {
    /// Whether a broker is needed.
    pub(super) fn is_topic(&self) -> bool {
        matches!(self, Self::Topic(_))
    }

    /// Whether it can be read only once.
    pub(super) fn is_stdin(&self) -> bool {
        matches!(self, Self::Files(path) if path == Path::new("-"))
    }

    /// Hands over every record that is there now, in order; `what` they are is said on the way.
    pub(super) fn each(
        &self,
        kafka: Option<&KafkaSettings>,
        what: &'static str,
        mut take: impl FnMut(&Entry<'_>) -> Result<(), Exit>,
    ) -> Result<(), Exit> {
        let mut progress = Progress::new(what);
        let name = self.to_string();
        let mut take = |entry: &Entry<'_>| {
            progress.tick(&name);
            take(entry).map_err(Ended::Taken)
        };
        let read = match (self, kafka) {
            (Self::Files(path), _) => {
                files::records(path, |at, row| take(&Entry { at, value: row.value.as_deref(), dead_letter: false }))
            }
            (Self::Topic(topic), Some(kafka)) => records(topic, kafka, take),
            (Self::Topic(topic), None) => {
                eprintln!("topic:{topic}: name the brokers: -c moderato.yaml, or --set kafka.brokers=HOST:PORT");
                return Err(Exit::Config);
            }
        };
        read.map_err(|ended| match ended {
            Ended::Unread(exit) | Ended::Taken(exit) => exit,
        })
    }
}

fn records(
    topic: &str,
    kafka: &KafkaSettings,
    mut take: impl FnMut(&Entry<'_>) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let reader = Reader::connect(kafka)?;
    let extents = reader.extents(Topic { key: "the name behind `topic:`", name: topic })?;
    let spans: Vec<Span> = extents.iter().map(Extent::whole).collect();
    reader.read(topic, &spans, |record| {
        let at = format_args!("{topic}/{}/{}", record.partition(), record.offset());
        // Verdicts may be events in binary mode, or stand behind the id of a schema.
        let dead_letter = record.header(c"moderato.error.reason").is_some();
        take(&Entry { at: &at, value: record.event_or_value().as_deref(), dead_letter })
    })
}
