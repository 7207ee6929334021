//! Answers kept in this process: the demo's cache, the one for a single worker without Redis, and what a worker with
//! Redis keeps at hand.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::post_key::PostKey;
use crate::reply::Reply;
use crate::verdict::VerdictKey;

/// Answers remembered for one post, the latest; a post that is edited more often loses sight of its oldest.
const VERSIONS: usize = 16;

/// Bounded maps whose entries expire.
pub struct InProcess {
    answers: Cache<VerdictKey, Arc<Reply>>,
    /// Which answers were made for which post, so that a tombstone finds them.
    posts: Cache<PostKey, Vec<VerdictKey>>,
}

impl InProcess {
    /// Keeps at most `max_entries` answers, each for at most `ttl`.
    pub(super) fn new(max_entries: u64, ttl: Duration) -> Self {
        Self {
            answers: Cache::builder().max_capacity(max_entries).time_to_live(ttl).build(),
            posts: Cache::builder().max_capacity(max_entries).time_to_live(ttl).build(),
        }
    }

    pub(super) fn get(&self, key: &VerdictKey) -> Option<Arc<Reply>> {
        self.answers.get(key)
    }

    pub(super) fn put(&self, key: VerdictKey, answer: Arc<Reply>) {
        self.answers.insert(key, answer);
    }

    /// Remembers that the answer was made for this post.
    pub(super) fn belongs(&self, key: VerdictKey, post: PostKey) {
        self.posts.entry(post).and_upsert_with(|entry| {
            let mut keys = entry.map(|entry| entry.into_value()).unwrap_or_default();
            keys.retain(|known| *known != key);
            keys.push(key);
            keys.drain(..keys.len().saturating_sub(VERSIONS));
            keys
        });
    }

    /// Removes the answers that were made for these posts.
    pub(super) fn forget(&self, posts: &[PostKey]) {
        posts.iter().filter_map(|post| self.posts.remove(post)).for_each(|keys| self.remove(&keys));
    }

    pub(super) fn remove(&self, keys: &[VerdictKey]) {
        keys.iter().for_each(|key| self.answers.invalidate(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::answer;
    use crate::verdict::Keyring;

    #[test]
    fn a_post_is_forgotten_with_the_answers_of_all_its_versions_and_no_others() {
        let cache = InProcess::new(100, Duration::from_secs(60));
        let keyring = Keyring::new(&["m"]);
        let [first, edited, others] = [1, 2, 3].map(|id| keyring.key(&[id]));
        let [post, other] = ["post", "other"].map(|key| PostKey::new("posts", key.as_bytes()));
        for (key, post) in [(first, post), (edited, post), (others, other)] {
            cache.put(key, Arc::new(Reply::Scores(answer())));
            cache.belongs(key, post);
        }
        cache.forget(&[post]);
        assert_eq!([first, edited, others].map(|key| cache.get(&key).is_some()), [false, false, true]);
    }

    #[test]
    fn a_post_that_is_edited_without_end_takes_no_more_room() {
        let cache = InProcess::new(100, Duration::from_secs(60));
        let (keyring, post) = (Keyring::new(&["m"]), PostKey::new("posts", b"post"));
        (0..1000).for_each(|id| cache.belongs(keyring.key(&[id]), post));
        let kept = cache.posts.get(&post).unwrap();
        assert_eq!((kept.len(), kept.last()), (VERSIONS, Some(&keyring.key(&[999]))));
    }
}
