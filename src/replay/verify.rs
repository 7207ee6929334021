//! Do old verdicts hold? Posts are judged again, and what is said of them now is held against what was said then.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::claim::{Claim, Compared, Judged};
use crate::kafka::publisher::Outgoing;
use crate::receipt::{Original, Partition};

/// Where a post stood: topic, partition, offset.
pub type Place = (String, Partition, i64);

/// An old verdict.
#[derive(Debug)]
pub struct Old {
    /// Where the post stood that it is about.
    pub place: Place,
    /// Where the verdict stands: file and line or row; or topic, partition and offset.
    pub at: String,
    /// What it says.
    pub claim: Claim,
}

/// Old verdicts, and what has come of them so far.
pub struct Verification {
    claims: HashMap<Place, Vec<Old>>,
    tolerance: f64,
    outcome: Outcome,
}

/// What has come of them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many hold.
    pub held: u64,
    /// Those that do not.
    pub failed: Vec<Failed>,
    /// How many were compared under another fingerprint, by what differs in it.
    pub elsewhere: BTreeMap<Vec<&'static str>, u64>,
}

/// A verdict that does not hold.
#[derive(Debug)]
pub struct Failed {
    /// It.
    pub old: Old,
    /// What is said now, where that is a verdict.
    pub now: Option<Judged>,
    /// What became of the post, where that is no verdict; or what is to be known about the difference.
    pub compared: Compared,
    /// Why the post is rejected now.
    pub rejected: Option<String>,
}

impl Verification {
    /// Of these verdicts. Where the fingerprint is another, scores may differ by so much.
    pub fn new(old: impl IntoIterator<Item = Old>, tolerance: f64) -> Self {
        let mut claims: HashMap<Place, Vec<Old>> = HashMap::new();
        for old in old {
            claims.entry(old.place.clone()).or_default().push(old);
        }
        Self { claims, tolerance, outcome: Outcome::default() }
    }

    /// The posts that must be judged again.
    pub fn places(&self) -> HashSet<Place> {
        self.claims.keys().cloned().collect()
    }

    /// What a post has become now.
    pub fn take(&mut self, original: &Original, outgoing: &Outgoing) {
        let place = (original.topic.to_string(), original.partition, original.offset.0);
        let Some(claims) = self.claims.remove(&place) else { return };
        let now = match outgoing {
            Outgoing::Verdict { event, .. } => match serde_json::from_slice(event.json()) {
                Ok(verdict) => Ok(Claim::of(&verdict)),
                Err(error) => Err(("rejected", error.to_string())),
            },
            Outgoing::DeadLetter(rejected) => Err(("rejected", rejected.reason.code().to_owned())),
            Outgoing::Tombstone => Err(("tombstone", "it is a tombstone".to_owned())),
            Outgoing::Note { .. } => Err(("rejected", "it became a note".to_owned())),
        };
        for old in claims {
            self.enter(old, now.as_ref());
        }
    }

    fn enter(&mut self, old: Old, now: Result<&Claim, &(&'static str, String)>) {
        let Outcome { held, failed, elsewhere } = &mut self.outcome;
        match now {
            Ok(now) => {
                let compared = old.claim.compared(now, self.tolerance);
                if let Some(other) = &compared.other {
                    *elsewhere.entry(other.clone()).or_default() += 1;
                }
                if compared.why.is_empty() {
                    *held += 1;
                } else {
                    failed.push(Failed { old, now: Some(now.judged.clone()), compared, rejected: None });
                }
            }
            Err((what, why)) => {
                let compared = Compared { why: vec![what], other: None, difference: None };
                failed.push(Failed { old, now: None, compared, rejected: Some(why.clone()) });
            }
        }
    }

    /// A verdict about a post that never was.
    pub fn no_such_post(&mut self, old: Old, why: String) {
        let compared = Compared { why: vec!["no such post"], other: None, difference: None };
        self.outcome.failed.push(Failed { old, now: None, compared, rejected: Some(why) });
    }

    /// Those about which nothing has been found out, and takes them away.
    pub fn left(&mut self) -> Vec<Old> {
        self.claims.drain().flat_map(|(_, olds)| olds).collect()
    }

    /// What has come of them, in the order of the posts' places.
    pub fn outcome(&mut self) -> Outcome {
        let mut outcome = std::mem::take(&mut self.outcome);
        outcome.failed.sort_by(|a, b| (&a.old.place, &a.old.at).cmp(&(&b.old.place, &b.old.at)));
        outcome
    }
}
