//! The manifest: a log to which archiving and erasing append, each entry bound to the one before and, with a key, signed.
//! Nothing in it is ever rewritten; what stands in the folder now follows from it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ArchiveError;
use super::digest::Sum;
use crate::evidence::key::{PublicKey, SigningKey};
use crate::evidence::link::Hex;
use crate::receipt::Partition;

/// What `schema` says.
pub const SCHEMA: &str = "urn:moderato:schema:archive_manifest.v1";
const BEGIN: &[u8] = b"moderato.archive.v1\0begin\0";
const ENTRY: &[u8] = b"moderato.archive.v1\0entry\0";

/// `archive_manifest.v1`: `manifest.json` of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "archive_manifest.v1")]
#[serde(deny_unknown_fields)]
pub struct ManifestV1 {
    /// `urn:moderato:schema:archive_manifest.v1`.
    pub schema: String,
    /// The topic that is archived.
    pub topic: String,
    /// Tells this archive from every other: 32 hex digits, drawn when it began.
    pub instance: String,
    /// What was done, in order.
    pub log: Vec<Entry>,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The statement that the hash is over.
    pub statement: Statement,
    /// SHA-256, hex: of `moderato.archive.v1`, a zero byte, `entry`, a zero byte, and the statement as JSON without
    /// spaces, its fields in the order in which they stand here.
    pub hash: String,
    /// Which key has signed: the first 32 hex digits of the SHA-256 of the public key; null where none has.
    pub key_id: Option<String>,
    /// Ed25519 over the 32 bytes of the hash, hex; null where nobody has signed.
    pub signature: Option<String>,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The entry's number, from 0.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The hash of the entry before; of the first, a digest of topic and instance.
    pub previous: String,
    /// What was done.
    pub what: What,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// A part of the topic was archived.
    Archived(Archived),
    /// Rows were erased.
    Erased(Erased),
}

/// A part of the topic was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archived {
    /// The name of how long these verdicts are to be kept, as the operator gave it.
    pub retention_class: Option<String>,
    /// Which part.
    pub partitions: Vec<Covered>,
    /// Records that are not archived: their value is no UTF-8.
    pub foreign: u64,
    /// The files that were written.
    pub files: Vec<DataFile>,
}

/// The part of a partition: from `from` up to, and without, `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Covered {
    /// The partition of the archived topic.
    pub partition: Partition,
    /// The first offset.
    pub from: i64,
    /// One past the last.
    pub to: i64,
    /// Rows that came of it.
    pub rows: u64,
    /// What stood before `from` and was deleted by retention before it could be archived begins here; null: nothing.
    pub lost_from: Option<i64>,
}

/// A data file and the list of its rows' digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Parquet, by its path in the folder; `date=` is the day of the records, UTC.
    pub data: String,
    /// Its SHA-256, hex.
    pub data_sha256: String,
    /// The list of digests, by its path.
    pub digests: String,
    /// Its SHA-256, hex.
    pub digests_sha256: String,
    /// Rows.
    pub rows: u64,
}

/// Rows were erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Erased {
    /// Why, as the operator said it.
    pub reason: String,
    /// The files that lost rows.
    pub files: Vec<ErasedFile>,
}

/// A file that lost rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasedFile {
    /// The list of digests that tells which file.
    pub digests: String,
    /// The rows, from 0 in that list, with their digests.
    pub rows: Vec<ErasedRow>,
    /// What is left of the data file, under a new name; null where nothing is.
    pub data: Option<String>,
    /// Its SHA-256, hex.
    pub data_sha256: Option<String>,
}

/// A row that was erased: whose it was is said nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasedRow {
    /// From 0 in the list of digests.
    pub row: u64,
    /// Its digest.
    pub digest: String,
}

/// What follows from the log for one list of digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The list's own digest.
    pub digests_sha256: String,
    /// The data file and its digest, if any row is left.
    pub data: Option<(String, String)>,
    /// Rows as they were archived.
    pub rows: u64,
    /// Those that were erased since.
    pub erased: BTreeMap<u64, String>,
}

impl ManifestV1 {
    /// An archive without anything in it.
    pub fn begin(topic: &str, instance: Hex<16>) -> Self {
        let (schema, topic) = (SCHEMA.to_owned(), topic.to_owned());
        Self { schema, topic, instance: instance.to_string(), log: Vec::new() }
    }

    /// Appends what was done.
    pub fn append(&mut self, what: What, time: String, key: Option<&SigningKey>) -> Result<(), ArchiveError> {
        let statement = Statement { seq: self.log.len() as u64, time, previous: self.head(), what };
        let hash = statement.hash()?;
        let key_id = key.map(|key| key.public().id().to_string());
        let signature = key.map(|key| key.sign(&hash.0).to_string());
        self.log.push(Entry { statement, hash: hash.to_string(), key_id, signature });
        Ok(())
    }

    /// What the next entry follows on: whoever notes it can tell later whether an older manifest was put in place.
    pub fn head(&self) -> String {
        self.log.last().map_or_else(|| self.beginning().to_string(), |entry| entry.hash.clone())
    }

    fn beginning(&self) -> Sum {
        let hasher = Sha256::new().chain_update(BEGIN).chain_update(&self.instance).chain_update(&self.topic);
        Hex(hasher.finalize().into())
    }

    /// Whether anybody has signed an entry.
    pub fn is_signed(&self) -> bool {
        self.log.iter().any(|entry| entry.signature.is_some())
    }

    /// The offsets to go on with.
    pub fn next_offsets(&self) -> BTreeMap<Partition, i64> {
        let archived = self.log.iter().filter_map(|entry| match &entry.statement.what {
            What::Archived(archived) => Some(&archived.partitions),
            What::Erased(_) => None,
        });
        archived.flatten().map(|covered| (covered.partition, covered.to)).collect()
    }

    /// The files as they should stand now, by their lists of digests.
    pub fn standing(&self) -> BTreeMap<String, Standing> {
        let mut files = BTreeMap::<String, Standing>::new();
        for entry in &self.log {
            match &entry.statement.what {
                What::Archived(archived) => files.extend(archived.files.iter().map(|file| {
                    let data = Some((file.data.clone(), file.data_sha256.clone()));
                    let digests_sha256 = file.digests_sha256.clone();
                    (file.digests.clone(), Standing { digests_sha256, data, rows: file.rows, erased: BTreeMap::new() })
                })),
                What::Erased(erased) => {
                    for file in &erased.files {
                        let standing = files.entry(file.digests.clone()).or_default();
                        standing.data = file.data.clone().zip(file.data_sha256.clone());
                        standing.erased.extend(file.rows.iter().map(|row| (row.row, row.digest.clone())));
                    }
                }
            }
        }
        files
    }

    /// What is wrong with the log itself, entry by entry. Without a key no signature is looked at.
    pub fn faults(&self, key: Option<&PublicKey>) -> Vec<String> {
        let mut faults = Vec::new();
        let (mut previous, mut next) = (self.beginning().to_string(), BTreeMap::<Partition, i64>::new());
        for (index, entry) in self.log.iter().enumerate() {
            let mut fault = |what: String| faults.push(format!("manifest.json, entry {index}: {what}"));
            let Statement { seq, previous: told, what, .. } = &entry.statement;
            if *seq != index as u64 || *told != previous {
                fault("does not follow on the one before: an entry was removed, inserted or moved here".to_owned());
            }
            match entry.statement.hash() {
                Ok(hash) if hash.to_string() == entry.hash => {
                    if let Some(why) = key.and_then(|key| unproved(entry, hash, key)) {
                        fault(why);
                    }
                }
                _ => fault("was altered: its hash is another".to_owned()),
            }
            if let What::Archived(archived) = what {
                for covered in &archived.partitions {
                    let begins = covered.lost_from.unwrap_or(covered.from);
                    let before = next.insert(covered.partition, covered.to);
                    if let Some(before) = before.filter(|before| *before != begins) {
                        fault(format!("partition {} goes on at {begins}, not at {before}", covered.partition));
                    }
                }
            }
            previous.clone_from(&entry.hash);
        }
        faults
    }
}

fn unproved(entry: &Entry, hash: Sum, key: &PublicKey) -> Option<String> {
    let Some(signature) = &entry.signature else { return Some("nobody has signed it".to_owned()) };
    let proved = signature.parse().is_ok_and(|signature: Hex<64>| key.proves(&hash.0, &signature));
    (!proved).then(|| "its signature is not that of the key that was given".to_owned())
}

impl Statement {
    fn hash(&self) -> Result<Sum, ArchiveError> {
        let json = serde_json::to_vec(self).map_err(|error| ArchiveError::Internal(error.to_string()))?;
        Ok(Hex(Sha256::new().chain_update(ENTRY).chain_update(json).finalize().into()))
    }
}
