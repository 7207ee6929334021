//! A signed statement of how far a chain had come: whoever can write to the verdict topic could make a chain of their
//! own, and nobody without the key a checkpoint of it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SigningKey};
use super::link::{Hash, Head, Hex, Instance};
use crate::receipt::Partition;

const SCHEMA: &str = "urn:moderato:schema:checkpoint.v1";
const DOMAIN: &[u8] = b"moderato.checkpoint.v1\0";

/// `checkpoint.v1`: what a record of `kafka.topics.checkpoints` says; its key is `TOPIC/PARTITION/INSTANCE`. It is signed
/// over its fields in the order and form that docs/evidence.md tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "checkpoint.v1")]
pub struct CheckpointV1 {
    /// `urn:moderato:schema:checkpoint.v1`.
    pub schema: String,
    /// The input topic whose posts the chain is about.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// Which chain: 16 hex digits, drawn where it began.
    pub instance: String,
    /// The last link's number, from 0.
    pub seq: u64,
    /// The last link's hash, hex.
    pub hash: String,
    /// What the group had committed by then: every post before it is finished.
    pub next_offset: i64,
    /// When it was signed, RFC 3339.
    pub time: String,
    /// Which key has signed: the first 32 hex digits of the SHA-256 of the 32 bytes of the public key.
    pub key_id: String,
    /// Ed25519, hex.
    pub signature: String,
}

/// A checkpoint whose signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Which chain.
    pub instance: Instance,
    /// The link's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Why a checkpoint is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It cannot be read.
    Malformed,
    /// It names a key that was not given.
    UnknownKey(String),
    /// The signature is not that key's, or not over this statement.
    Forged,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed => f.write_str("it is no checkpoint.v1"),
            Refused::UnknownKey(id) => write!(f, "signed by key {id}, which is none of those given"),
            Refused::Forged => f.write_str("its signature does not hold"),
        }
    }
}

impl CheckpointV1 {
    /// Signs how far a chain has come. `None` while it has no link.
    pub fn sign(
        key: &SigningKey,
        (topic, partition): (&str, Partition),
        head: &Head,
        next_offset: i64,
        time: String,
    ) -> Option<Self> {
        let mut checkpoint = Self {
            schema: SCHEMA.to_owned(),
            topic: topic.to_owned(),
            partition,
            instance: head.instance.to_string(),
            seq: head.links.checked_sub(1)?,
            hash: head.hash.to_string(),
            next_offset,
            time,
            key_id: key.public().id().to_string(),
            signature: String::new(),
        };
        checkpoint.signature = key.sign(&checkpoint.statement()).to_string();
        Some(checkpoint)
    }

    /// The record's key: on a compacted topic the last checkpoint of each chain stays.
    pub fn record_key(&self) -> String {
        format!("{}/{}/{}", self.topic, self.partition, self.instance)
    }

    /// What is signed: the fields in their order, each text behind its length.
    fn statement(&self) -> Vec<u8> {
        let mut all = DOMAIN.to_vec();
        let text = |all: &mut Vec<u8>, text: &str| {
            all.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            all.extend(text.as_bytes());
        };
        text(&mut all, &self.topic);
        all.extend(self.partition.to_be_bytes());
        text(&mut all, &self.instance);
        all.extend(self.seq.to_be_bytes());
        text(&mut all, &self.hash);
        all.extend(self.next_offset.to_be_bytes());
        text(&mut all, &self.time);
        text(&mut all, &self.key_id);
        all
    }

    /// Reads a checkpoint and proves its signature.
    pub fn prove(value: &[u8], keys: &[PublicKey]) -> Result<(Self, Proven), Refused> {
        let read: Self = serde_json::from_slice(value).map_err(|_| Refused::Malformed)?;
        let (Ok(instance), Ok(hash), Ok(signature)) = (read.instance.parse(), read.hash.parse(), signature(&read))
        else {
            return Err(Refused::Malformed);
        };
        let key = keys.iter().find(|key| key.id().to_string() == read.key_id);
        let key = key.ok_or_else(|| Refused::UnknownKey(read.key_id.clone()))?;
        if read.schema != SCHEMA || !key.proves(&read.statement(), &signature) {
            return Err(Refused::Forged);
        }
        let proven = Proven { instance, seq: read.seq, hash };
        Ok((read, proven))
    }
}

fn signature(checkpoint: &CheckpointV1) -> Result<Hex<64>, ()> {
    Hex::from_str(&checkpoint.signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [seed; 32]).unwrap();
        SigningKey::load(file.path()).unwrap()
    }

    fn checkpoint() -> CheckpointV1 {
        let head = Head { links: 8, ..Head::begin(Hex([1; 8]), "posts", 2) };
        CheckpointV1::sign(&key(1), ("posts", 2), &head, 90, "2026-11-22T10:00:00Z".to_owned()).unwrap()
    }

    fn prove(checkpoint: &CheckpointV1) -> Result<Proven, Refused> {
        let value = serde_json::to_vec(checkpoint).unwrap();
        CheckpointV1::prove(&value, &[key(2).public(), key(1).public()]).map(|(_, proven)| proven)
    }

    #[test]
    fn a_checkpoint_is_proved_by_its_key_and_by_no_other() {
        let proven = prove(&checkpoint()).unwrap();
        assert_eq!((proven.instance, proven.seq), (Hex([1; 8]), 7));
        let value = serde_json::to_vec(&checkpoint()).unwrap();
        let unknown = CheckpointV1::prove(&value, &[key(2).public()]).unwrap_err();
        assert_eq!(unknown, Refused::UnknownKey(key(1).public().id().to_string()));
    }

    #[test]
    fn no_field_of_a_checkpoint_can_be_changed() {
        let changes: [fn(&mut CheckpointV1); 9] = [
            |one| one.schema.push('2'),
            |one| one.topic = "other".to_owned(),
            |one| one.partition = 3,
            |one| one.instance = "02".repeat(8),
            |one| one.seq = 8,
            |one| one.hash = "00".repeat(32),
            |one| one.next_offset = 91,
            |one| one.time = "2026-11-22T10:00:01Z".to_owned(),
            |one| one.key_id = key(2).public().id().to_string(),
        ];
        for change in changes {
            let mut changed = checkpoint();
            change(&mut changed);
            assert_eq!(prove(&changed), Err(Refused::Forged), "{changed:?}");
        }
        assert_eq!(prove(&CheckpointV1 { signature: String::new(), ..checkpoint() }), Err(Refused::Malformed));
    }

    #[test]
    fn a_chain_without_a_link_is_not_signed() {
        let head = Head::begin(Hex([1; 8]), "posts", 2);
        assert!(CheckpointV1::sign(&key(1), ("posts", 2), &head, 0, String::new()).is_none());
    }
}
