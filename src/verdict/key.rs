//! What identifies a question, a verdict and a text.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::receipt::Original;

/// Digest of exactly the token ids that the model saw and of every revision that shaped its answer: model, precision,
/// tokenizer, prompt. Equal keys mean equal questions to the same model; anything else never shares a cached answer.
/// A verdict's own key is this one [`under`](VerdictKey::under) the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerdictKey([u8; 32]);

impl fmt::Display for VerdictKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl VerdictKey {
    /// The key of the verdict that a policy gives on the answer to this question. Thresholds, calibration and the rest of
    /// a policy are applied to the raw answer, so they are no part of the question: a new calibration needs no new run.
    /// They are part of the verdict's key, or one id could stand for two verdicts that differ.
    pub fn under(&self, policy_digest: &str) -> Self {
        let hasher = Sha256::new_with_prefix(b"moderato/verdict-key/under/1").chain_update(self.0);
        Self(hasher.chain_update(policy_digest).finalize().into())
    }

    /// The key that is written so; `None` for anything else.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

/// Makes keys for one judge: the revisions are hashed once.
#[derive(Clone)]
pub struct Keyring(Sha256);

impl Keyring {
    /// `revisions` in a fixed order; each is length-prefixed, so that no two lists read alike.
    pub fn new(revisions: &[&str]) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-key/1");
        for revision in revisions {
            hasher.update((revision.len() as u64).to_le_bytes());
            hasher.update(revision.as_bytes());
        }
        Self(hasher)
    }

    /// The key of one row of token ids.
    pub fn key(&self, ids: &[u32]) -> VerdictKey {
        let mut hasher = self.0.clone();
        for id in ids {
            hasher.update(id.to_le_bytes());
        }
        VerdictKey(hasher.finalize().into())
    }

    /// The key of a row whose answer hangs on more than its ids: on what has this digest.
    pub fn key_beside(&self, ids: &[u32], digest: &[u8; 32]) -> VerdictKey {
        let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-key/beside/1");
        hasher.update(self.key(ids).0);
        hasher.update(digest);
        VerdictKey(hasher.finalize().into())
    }
}

/// The deterministic id of the verdict for one record.
pub fn verdict_id(original: &Original, key: &VerdictKey) -> String {
    let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-id/1");
    hasher.update((original.topic.len() as u64).to_le_bytes());
    hasher.update(original.topic.as_bytes());
    hasher.update(original.partition.to_le_bytes());
    hasher.update(original.offset.0.to_le_bytes());
    hasher.update(key.0);
    hex(&hasher.finalize()[..16])
}

/// SHA-256 of a text, hex.
pub fn text_sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(digest: &[u8]) -> String {
    let mut text = vec![0; 2 * digest.len()];
    // The room is exactly right, and hex is ASCII: neither can fail.
    let _ = hex::encode_to_slice(digest, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{Headers, Offset};

    #[test]
    fn every_revision_and_every_token_id_is_part_of_the_key() {
        let key = |revisions: &[&str], ids: &[u32]| Keyring::new(revisions).key(ids);
        let base = key(&["m", "t", "p", "q"], &[1, 2]);
        assert_eq!(base, key(&["m", "t", "p", "q"], &[1, 2]));
        for revisions in [["M", "t", "p", "q"], ["m", "T", "p", "q"], ["m", "t", "P", "q"], ["m", "t", "p", "Q"]] {
            assert_ne!(base, key(&revisions, &[1, 2]));
        }
        assert_ne!(base, key(&["m", "t", "p", "q"], &[1, 3]));
        assert_ne!(base, key(&["m", "t", "p", "q"], &[2, 1]));
        assert_ne!(key(&["ab", "c"], &[]), key(&["a", "bc"], &[]));
        assert_ne!(base.under("q"), base);
        assert_ne!(base.under("q"), base.under("r"));
        assert_ne!(base.under("q"), key(&["m", "t", "p", "q"], &[1, 3]).under("q"));
        assert_eq!(VerdictKey::from_hex(base.to_string().as_bytes()), Some(base));
        assert_eq!(VerdictKey::from_hex(&base.to_string().as_bytes()[2..]), None);
    }

    #[test]
    fn a_verdict_id_changes_with_each_coordinate_and_with_the_key() {
        let original = |topic: &str, partition, offset| Original {
            topic: topic.into(),
            partition,
            offset: Offset(offset),
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Headers::default(),
            span: crate::telemetry::trace::PostSpan::default(),
        };
        let key = Keyring::new(&[]).key(&[1]);
        let base = verdict_id(&original("t", 0, 5), &key);
        assert_eq!(base, verdict_id(&original("t", 0, 5), &key));
        assert_ne!(base, verdict_id(&original("u", 0, 5), &key));
        assert_ne!(base, verdict_id(&original("t", 1, 5), &key));
        assert_ne!(base, verdict_id(&original("t", 0, 6), &key));
        assert_ne!(base, verdict_id(&original("t", 0, 5), &Keyring::new(&[]).key(&[2])));
    }
}
