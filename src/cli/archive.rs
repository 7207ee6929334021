//! `moderato archive`: verdicts in Parquet by day, rows erased again, and the proof that nothing else was changed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Common, Progress, VerbSettings, problems};
use crate::archive::{ArchiveError, Findings, Request, Taken, Whose, erase, take, verify};
use crate::config::Needs;
use crate::error::Exit;
use crate::evidence::key::{PublicKey, SigningKey};
use crate::kafka::range::ReadError;
use crate::reconcile::time;

/// Writes what is new on the verdict topic to a folder, as Parquet files by day; a second run goes on where the first one
/// ended, however that was.
///
/// `date=YYYY-MM-DD` is the day of the record, UTC. `manifest.json` (`moderato schema archive_manifest`) says what was
/// archived and, with a key, proves it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 done, or the archive is whole; 1 it could not be written or read; 2 mend the command line or the configuration; 3 the archive is not what was archived."
)]
pub(super) struct ArchiveArguments {
    #[command(subcommand)]
    verb: Option<ArchiveVerb>,
    #[command(flatten)]
    common: Common,
    /// The archive's folder; made if it is not there.
    #[arg(long, value_name = "FOLDER", required = true)]
    to: Option<PathBuf>,
    /// Begin with the first record of that time or later, such as 2026-11-22T00:00:00Z; an archive that has begun goes on
    /// where it ended.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// End before the first record of that time or later.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// How long these verdicts are to be kept, by the name that you have for it.
    #[arg(long, value_name = "NAME")]
    retention_class: Option<String>,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, Args)]
struct Signing {
    /// Ed25519 private key that signs the manifest: PKCS#8, or a seed of 32 bytes. `archive` takes that of
    /// `evidence.signing_key_file` unless told.
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

impl Signing {
    /// The flag's key, or else the configuration's.
    fn key(&self, configured: Option<&str>) -> Result<Option<SigningKey>, Exit> {
        let file = self.signing_key.as_deref().or(configured.map(Path::new));
        file.map(SigningKey::load).transpose().map_err(|error| mend(&error))
    }
}

#[derive(Debug, Subcommand)]
enum ArchiveVerb {
    /// Erase the rows of a post: their data files are written anew, what was signed stays as it is.
    ///
    /// The manifest tells how many rows went, when and why, and never whose they were. Backups and copies of the folder are
    /// not reached, and neither is the topic: there a tombstone on the posts' topic does it.
    Erase {
        /// The archive's folder.
        folder: PathBuf,
        #[command(flatten)]
        whose: WhoseArguments,
        /// Why, for the manifest; nothing personal.
        #[arg(long, value_name = "TEXT", default_value = "erasure request")]
        reason: String,
        #[command(flatten)]
        signing: Signing,
    },
    /// Is every row that is there what was archived, and was every row that is gone erased? Names file and row otherwise.
    Verify {
        /// The archive's folder.
        folder: PathBuf,
        /// Ed25519 public key: every entry of the manifest must bear its signature.
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhoseArguments {
    /// Of records with this key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Of verdicts on this post, whatever their key is.
    #[arg(long, value_name = "ID")]
    post_id: Option<String>,
}

pub(super) fn run(arguments: &ArchiveArguments) -> Result<Exit, Exit> {
    match &arguments.verb {
        None => archived(arguments),
        Some(ArchiveVerb::Erase { folder, whose, reason, signing }) => {
            let whose = match (&whose.key, &whose.post_id) {
                (Some(key), _) => Whose::Key(key.as_bytes().to_vec()),
                (_, id) => Whose::Post(id.clone().unwrap_or_default()),
            };
            let mut progress = Progress::new("rows read");
            let key = signing.key(None)?;
            let erased = erase(folder, &whose, reason, key.as_ref(), || progress.tick("the archive"));
            let erased = erased.map_err(|error| told(&error))?;
            if erased.rows == 0 {
                eprintln!("no row of that key or post is in {}", folder.display());
                return Err(Exit::Failed);
            }
            say!("{} rows erased from {} files; head {}", erased.rows, erased.files, erased.head);
            Ok(Exit::Ok)
        }
        Some(ArchiveVerb::Verify { folder, public_key }) => {
            let key = public_key.as_deref().map(PublicKey::load).transpose().map_err(|error| mend(&error))?;
            let mut progress = Progress::new("rows read");
            let findings = verify(folder, key.as_ref(), || progress.tick("the archive"));
            let findings = findings.map_err(|error| told(&error))?;
            print(&findings, key.is_some());
            Ok(if findings.faults.is_empty() { Exit::Ok } else { Exit::Differs })
        }
    }
}

fn archived(arguments: &ArchiveArguments) -> Result<Exit, Exit> {
    let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
    let raw = arguments.common.load(&quiet, Needs::KafkaOnly).map_err(|error| problems(&error))?.raw;
    let config = arguments.common.start(&quiet, Needs::KafkaOnly)?;
    let request = Request {
        folder: arguments.to.clone().unwrap_or_default(),
        from_ms: arguments.from,
        to_ms: arguments.until,
        retention_class: arguments.retention_class.clone(),
        key: arguments.signing.key(raw.evidence.signing_key_file.as_deref())?,
    };
    let mut progress = Progress::new("records read");
    let taken = take(&config.kafka, &request, || progress.tick(&config.kafka.output)).map_err(|error| told(&error))?;
    let Taken { rows, files, foreign, lost, head } = taken;
    say!("{rows} rows in {files} new files; head {head}");
    if foreign > 0 {
        say!("{foreign} records left out: their value is no UTF-8, so moderato did not write it");
    }
    tell_lost(&lost);
    Ok(Exit::Ok)
}

fn print(findings: &Findings, with_key: bool) {
    let Findings { entries, signed, rows, erased, lost, faults, head } = findings;
    for fault in faults {
        say!("{fault}");
    }
    tell_lost(lost);
    let proved = match (with_key, signed) {
        (true, _) => "all signatures looked at".to_owned(),
        (false, 0) => "nobody has signed: this shows damage, not who did it".to_owned(),
        (false, _) => format!("{signed} of them signed, by whom was not looked at: give --public-key FILE"),
    };
    say!("{rows} rows, {erased} erased; {entries} entries, {proved}; head {head}");
    match faults.len() {
        0 => say!("whole: every row is what was archived"),
        count => say!("NOT whole: {count} faults"),
    }
}

fn tell_lost(lost: &[(i32, i64, i64)]) {
    for (partition, from, to) in lost {
        say!("partition {partition}: {from} to {to} was deleted by retention before it could be archived");
    }
}

fn mend(problem: &str) -> Exit {
    eprintln!("{problem}");
    Exit::Config
}

fn told(error: &ArchiveError) -> Exit {
    eprintln!("{error}");
    match error {
        ArchiveError::Asked(_) | ArchiveError::Topic(ReadError::Asked(_)) => Exit::Config,
        _ => Exit::Failed,
    }
}
