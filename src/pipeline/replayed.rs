//! What tells a road that judges posts again from a live one: its mark, the posts it is for, and the account of what came
//! of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::policy::Action;
use crate::post;
use crate::receipt::{Offset, Original, Partition};
use crate::verdict::VerdictV1;

/// A replay: one for all stages of its road.
pub struct Replayed {
    id: Arc<str>,
    /// The posts it is for; all of them where nothing is said.
    ids: Option<HashSet<String>>,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    sheet: Sheet,
    live: Option<Live>,
}

/// What came of the posts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sheet {
    /// Verdicts by label and action.
    pub verdicts_by_label: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Posts that the replay is not for.
    pub passed_over: u64,
    /// How the verdicts compare with the live ones, if that was asked for.
    pub compared: Option<Compared>,
}

/// How verdicts compare with the live ones of the same posts: each is counted once, under the first that holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The action is another.
    pub action_differs: u64,
    /// The label is another.
    pub label_differs: u64,
    /// A score is not the same to the last bit.
    pub score_differs: u64,
    /// All is the same.
    pub same: u64,
    /// There is no live verdict on the post.
    pub not_found: u64,
}

impl Compared {
    /// Whether anything differs that has a live verdict.
    pub fn differ(&self) -> bool {
        self.action_differs + self.label_differs + self.score_differs > 0
    }
}

impl Replayed {
    /// A replay of that name, for these posts only if they are named, compared with the live verdicts if those are given.
    pub fn new(id: Arc<str>, ids: Option<HashSet<String>>, live: Option<Live>) -> Self {
        let compared = live.as_ref().map(|_| Compared::default());
        let sheet = Sheet { compared, ..Sheet::default() };
        Self { id, ids, account: Mutex::new(Account { sheet, live }) }
    }

    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether the replay is not for this post; where posts are named, one that cannot be decoded is not among them.
    pub(super) fn passes_over(&self, value: Option<&[u8]>, max_bytes: usize) -> bool {
        let Some(ids) = &self.ids else { return false };
        let post = value.and_then(|value| post::decode(value, max_bytes).ok());
        !post.is_some_and(|post| ids.contains(&*post.id.0))
    }

    pub(super) fn passed_over(&self) {
        self.account().sheet.passed_over += 1;
    }

    pub(super) fn judged(&self, original: &Original, verdict: &VerdictV1<'_>) {
        let judged = &verdict.data.verdict;
        let account = &mut *self.account();
        let by_label = match account.sheet.verdicts_by_label.get_mut(&*judged.label) {
            Some(by_label) => by_label,
            None => account.sheet.verdicts_by_label.entry(judged.label.to_string()).or_default(),
        };
        *by_label.entry(judged.action.name()).or_default() += 1;
        if let (Some(live), Some(compared)) = (&account.live, &mut account.sheet.compared) {
            let again = Known::new(&judged.label, judged.action, scores(&judged.scores));
            let count = match live.0.get(&(original.partition, original.offset)) {
                None => &mut compared.not_found,
                Some(known) if known.action != again.action => &mut compared.action_differs,
                Some(known) if known.label != again.label => &mut compared.label_differs,
                Some(known) if known.scores != again.scores => &mut compared.score_differs,
                Some(_) => &mut compared.same,
            };
            *count += 1;
        }
    }

    /// As it stands.
    pub fn sheet(&self) -> Sheet {
        self.account().sheet.clone()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The live verdicts on the posts of a range, as far as they are compared.
#[derive(Default)]
pub struct Live(HashMap<(Partition, Offset), Known>);

/// Digests: a million posts should not need more memory than this.
#[derive(PartialEq, Eq)]
struct Known {
    label: u64,
    scores: u64,
    action: Action,
}

#[derive(Deserialize)]
struct Published {
    data: PublishedData,
}

#[derive(Deserialize)]
struct PublishedData {
    verdict: PublishedVerdict,
}

#[derive(Deserialize)]
struct PublishedVerdict {
    label: String,
    action: Action,
    scores: BTreeMap<String, f64>,
}

impl Live {
    /// Enters the verdict on a post; the last one counts. Whether it is one.
    pub fn enter(&mut self, partition: Partition, offset: Offset, verdict: &[u8]) -> bool {
        let Ok(Published { data: PublishedData { verdict } }) = serde_json::from_slice(verdict) else { return false };
        let PublishedVerdict { label, action, scores: all } = verdict;
        self.0.insert((partition, offset), Known::new(&label, action, scores(&all)));
        true
    }
}

impl Known {
    fn new(label: &str, action: Action, scores: u64) -> Self {
        Self { label: digest(|to| label.hash(to)), scores, action }
    }
}

fn scores<L: AsRef<str>>(scores: &BTreeMap<L, f64>) -> u64 {
    digest(|to| {
        for (label, score) in scores {
            label.as_ref().hash(to);
            score.to_bits().hash(to);
        }
    })
}

fn digest(fill: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    fill(&mut hasher);
    hasher.finish()
}
