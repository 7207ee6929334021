//! Posts that put the same question to the model while it is still being answered: they wait for the first one and
//! share its answer, so that a text which arrives a thousand times at once runs once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::pipeline::TokenizedPost;
use crate::receipt::Envelope;
use crate::verdict::VerdictKey;

/// The questions being answered, each with the posts that wait for it. The only thing on the road that two tasks
/// share: prepare enters, and whoever has the answer finishes.
#[derive(Debug, Default)]
pub struct Twins(Mutex<HashMap<VerdictKey, Vec<Envelope<TokenizedPost>>>>);

impl Twins {
    /// Gives the post back if it is the first with its key: its caller must see to an answer and then call
    /// [`Twins::finish`]. Otherwise keeps it until then.
    pub fn enter(&self, post: Envelope<TokenizedPost>) -> Option<Envelope<TokenizedPost>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&post.body.key) {
            Some(twins) => {
                twins.push(post);
                None
            }
            None => {
                waiting.insert(post.body.key, Vec::new());
                Some(post)
            }
        }
    }

    /// The question is answered: hands out the posts that waited for it.
    pub fn finish(&self, key: &VerdictKey) -> Vec<Envelope<TokenizedPost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }
}
