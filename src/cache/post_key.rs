//! What a post is called where the cache remembers which answers were made for it.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::receipt::Original;

/// Digest of topic and record key: one post through all its versions, up to its tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PostKey([u8; 32]);

impl PostKey {
    pub(super) fn new(topic: &str, key: &[u8]) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"moderato/post-key/1");
        hasher.update((topic.len() as u64).to_le_bytes());
        hasher.update(topic.as_bytes());
        hasher.update(key);
        Self(hasher.finalize().into())
    }

    /// `None` for a record without a key: no tombstone can name it.
    pub(super) fn of(original: &Original) -> Option<Self> {
        original.key.as_deref().map(|key| Self::new(&original.topic, key))
    }
}

impl fmt::Display for PostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_and_key_both_count_and_do_not_run_together() {
        let base = PostKey::new("posts", b"key");
        assert_eq!(base, PostKey::new("posts", b"key"));
        assert_ne!(base, PostKey::new("postsk", b"ey"));
        assert_ne!(base, PostKey::new("posts", b""));
        assert_ne!(base, PostKey::new("replies", b"key"));
    }
}
