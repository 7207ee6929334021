//! One link of a chain: what a record's header says, and how it is computed. `docs/evidence.md` tells the same for
//! whoever verifies without this program.
//!
//! There is a chain for each partition of the input topic, over what goes to the output topic: verdicts or notes, and
//! passed tombstones. A link's hash covers digests of key and value, not these themselves: so a link can be verified
//! where a value has been erased and its digest kept.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::receipt::Partition;

/// The header that carries a link.
pub const HEADER: &str = "moderato.chain";
const VERSION: &str = "v1";
const LINK: &[u8] = b"moderato.chain.v1\0link\0";
const BEGIN: &[u8] = b"moderato.chain.v1\0begin\0";

/// So many bytes, written as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Tells a chain from every other: drawn at random where it begins.
pub type Instance = Hex<8>;
/// The hash of a link.
pub type Hash = Hex<32>;
/// Half the SHA-256 of a record's key: tells which key a link that is gone belonged to.
pub type KeyDigest = Hex<16>;

/// What a link vouches for: a record of the output topic and the record of the input topic that it came from.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// The offset in that.
    pub offset: i64,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value, as published; `None` for a passed tombstone.
    pub value: Option<&'a [u8]>,
}

/// How far a chain has come: what the next link follows on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which chain.
    pub instance: Instance,
    /// Links so far: the number of the next.
    pub links: u64,
    /// The last link's hash.
    pub hash: Hash,
    /// The last record's key.
    pub key: KeyDigest,
}

/// What a record says of its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Which chain.
    pub instance: Instance,
    /// The link's number, from 0.
    pub seq: u64,
    /// The hash of the link before.
    pub prev: Hash,
    /// The key of the record before.
    pub before: KeyDigest,
    /// This link's hash.
    pub hash: Hash,
}

impl Head {
    /// Where a new chain begins.
    pub fn begin(instance: Instance, topic: &str, partition: Partition) -> Self {
        let hasher = Sha256::new().chain_update(BEGIN).chain_update(instance.0);
        let hash = Hex(chain_of(hasher, topic, partition).finalize().into());
        Self { instance, links: 0, hash, key: Hex([0; 16]) }
    }

    /// The next link, and the head behind it.
    pub fn next(&self, content: &Content<'_>) -> (Link, Head) {
        let Head { instance, links: seq, hash: prev, key: before } = *self;
        let key = Hex::from(content.key_digest());
        let hash = content.hash(instance, seq, prev, before);
        (Link { instance, seq, prev, before, hash }, Head { instance, links: seq + 1, hash, key })
    }
}

impl Link {
    /// Whether the record is the one that this link was made for.
    pub fn holds(&self, content: &Content<'_>) -> bool {
        self.hash == content.hash(self.instance, self.seq, self.prev, self.before)
    }
}

impl Content<'_> {
    fn hash(&self, instance: Instance, seq: u64, prev: Hash, before: KeyDigest) -> Hash {
        let hasher = Sha256::new().chain_update(LINK).chain_update(instance.0);
        let hasher = chain_of(hasher, self.topic, self.partition)
            .chain_update(seq.to_be_bytes())
            .chain_update(prev.0)
            .chain_update(before.0)
            .chain_update(self.offset.to_be_bytes())
            .chain_update(self.key_digest())
            .chain_update(digest(self.value));
        Hex(hasher.finalize().into())
    }

    /// Of the record's key.
    pub fn key_digest(&self) -> [u8; 32] {
        digest(self.key)
    }
}

fn chain_of(hasher: Sha256, topic: &str, partition: Partition) -> Sha256 {
    let length = u32::try_from(topic.len()).unwrap_or(u32::MAX);
    hasher.chain_update(length.to_be_bytes()).chain_update(topic).chain_update(partition.to_be_bytes())
}

/// Nothing is not the same as nothing in it: a null has a digest of zeros.
fn digest(bytes: Option<&[u8]>) -> [u8; 32] {
    bytes.map_or([0; 32], |bytes| Sha256::digest(bytes).into())
}

impl From<[u8; 32]> for KeyDigest {
    fn from(digest: [u8; 32]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Hex(half)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 128];
        let text = &mut text[..2 * N];
        hex::encode_to_slice(self.0, text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ())?;
        Ok(Self(bytes))
    }
}

/// The header: `v1;INSTANCE;SEQ;PREV;BEFORE;HASH`.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link { instance, seq, prev, before, hash } = self;
        write!(f, "{VERSION};{instance};{seq};{prev};{before};{hash}")
    }
}

impl FromStr for Link {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(';').collect();
        let [VERSION, instance, seq, prev, before, hash] = parts[..] else { return Err(()) };
        Ok(Self {
            instance: instance.parse()?,
            seq: seq.parse().map_err(|_| ())?,
            prev: prev.parse()?,
            before: before.parse()?,
            hash: hash.parse()?,
        })
    }
}

/// In a committed offset's metadata: `INSTANCE:LINKS:HASH:KEY`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { instance, links, hash, key } = self;
        write!(f, "{instance}:{links}:{hash}:{key}")
    }
}

impl FromStr for Head {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let [instance, links, hash, key] = parts[..] else { return Err(()) };
        Ok(Self {
            instance: instance.parse()?,
            links: links.parse().map_err(|_| ())?,
            hash: hash.parse()?,
            key: key.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content<'_> =
        Content { topic: "posts", partition: 3, offset: 4711, key: Some(b"post-1"), value: Some(b"{}") };

    fn head() -> Head {
        Head::begin(Hex([7; 8]), "posts", 3)
    }

    /// Computed by Python's hashlib, as `docs/evidence.md` shows.
    #[test]
    fn a_link_is_what_another_language_computes() {
        let (link, next) = head().next(&CONTENT);
        assert_eq!(head().hash.to_string(), "c261021894edcd5cb5d85495ca50ef337dc318aff8565b128c0c36d1e7996f3c");
        assert_eq!(link.hash.to_string(), "4ed6b66b36a4f6a2cdcc0507ef671e70359bfa459cd7ab8364d097fffbae0454");
        assert_eq!(next.key.to_string(), "38ba61681706177105d426c1890b083b");
        let (tombstone, _) = next.next(&Content { key: None, value: None, offset: 4712, ..CONTENT });
        assert_eq!(tombstone.hash.to_string(), "1c3a057a33ad147b40454d5d4ec24fa6353f5478e469e9dac4aa437a9393aa4c");
    }

    #[test]
    fn a_link_and_a_head_come_back_from_their_text() {
        let (link, head) = head().next(&CONTENT);
        assert_eq!(link.to_string().parse(), Ok(link));
        assert_eq!(head.to_string().parse(), Ok(head));
        for wrong in ["", "v2;00;0;00;00;00", &link.to_string()[1..], &format!("{link};")] {
            assert_eq!(wrong.parse::<Link>(), Err(()), "{wrong}");
        }
        assert_eq!("0:1:2".parse::<Head>(), Err(()));
    }

    #[test]
    fn a_link_holds_for_its_record_alone() {
        let (link, _) = head().next(&CONTENT);
        assert!(link.holds(&CONTENT));
        let others = [
            Content { topic: "post", ..CONTENT },
            Content { partition: 4, ..CONTENT },
            Content { offset: 4712, ..CONTENT },
            Content { key: None, ..CONTENT },
            Content { key: Some(b""), ..CONTENT },
            Content { value: None, ..CONTENT },
            Content { value: Some(b"{ }"), ..CONTENT },
        ];
        for other in others {
            assert!(!link.holds(&other), "{other:?}");
        }
        assert!(!Link { seq: 1, ..link }.holds(&CONTENT));
        assert!(!Link { prev: link.hash, ..link }.holds(&CONTENT));
    }
}
