//! A drafting pool as its operator sees it, and flagged posts as a judging pool passes them on.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::kafka::Kafka;
use super::pool::Pool;
use super::records::{Outgoing, Record};
use super::repository;
use super::untold::OVERHEARD;
use super::worker::Setup;

/// A pool whose verdict topic is for notes, with the note policy that ships; its drafts are short, so that the tiny model's
/// nonsense is soon over.
pub struct NotesPool<'a> {
    pub pool: Pool<'a>,
    policy: TempDir,
}

impl<'a> NotesPool<'a> {
    pub fn new(kafka: &'a Kafka, partitions: i32) -> Self {
        Self::of(Pool::new(kafka, partitions))
    }

    pub fn of(pool: Pool<'a>) -> Self {
        let shipped = std::fs::read_to_string(repository("model/policies/note.md")).expect("the note policy");
        let policy = tempfile::tempdir().expect("a temporary folder");
        let short = shipped.replace("max_new_tokens: 96", "max_new_tokens: 12");
        assert_ne!(short, shipped);
        std::fs::write(policy.path().join("note.md"), short).expect("a policy file");
        Self { pool, policy }
    }

    /// A drafting worker of this pool, still to be started.
    pub fn setup(&self) -> Setup {
        self.drafting(self.pool.setup())
    }

    /// The same for another start of the pool.
    pub fn drafting(&self, setup: Setup) -> Setup {
        let policy = self.policy.path().join("note.md").display().to_string();
        setup.with(&[("task", "draft_note"), ("kafka.topics.notes", &self.pool.verdicts), ("policy", &policy)])
    }

    /// All notes, once the group has committed every offset.
    pub fn notes_of_all(&self) -> Vec<Record> {
        self.pool.verdicts_of_all()
    }
}

/// A `verdict.v1` as far as drafting reads it.
pub fn verdict(id: &str, label: &str) -> Value {
    json!({
        "id": format!("verdict-of-{id}"),
        "subject": id,
        "data": {"verdict": {"label": label, "score": 0.9, "action": "review"}},
    })
}

/// A post with two pieces of evidence.
pub fn with_evidence(id: &str, text: &str) -> Value {
    json!({
        "id": id,
        "text": format!("{text} ({OVERHEARD})"),
        "lang": "en",
        "evidence": [
            {"id": "e1", "publisher": "Road Office", "quote": "The bridge was open on all days of the year.", "url": "https://roads.example/bridge"},
            {"id": "e2", "quote": "No closure was reported."},
        ],
    })
}

/// A post on the topic of flagged posts.
pub fn flagged(post: &Value) -> Outgoing {
    let id = post["id"].as_str().expect("an id");
    let verdict = verdict(id, "misinformation").to_string();
    Outgoing::new(post.to_string()).key(id).header("moderato.verdict", Some(verdict.as_bytes()))
}

/// `count` different flagged posts with the ids `PREFIX-0` and on.
pub fn flagged_posts(prefix: &str, count: usize) -> impl Iterator<Item = Outgoing> {
    (0..count).map(move |n| {
        flagged(&with_evidence(&format!("{prefix}-{n}"), &format!("Claim {n} of {prefix}: the bridge was closed.")))
    })
}
