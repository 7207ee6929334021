//! Answers that were computed before. The cache may only ever save time: a read that fails is a miss, a write that
//! fails is forgotten, and no delivery decision rests on it.

mod breaker;
mod counts;
mod in_process;
mod post_key;
mod redis;
mod value;

use std::sync::Arc;
use std::time::Duration;

pub use self::counts::Counts;
use self::counts::add;
use self::in_process::InProcess;
use self::post_key::PostKey;
use self::redis::Redis;
use crate::config::CacheSettings;
use crate::receipt::Original;
use crate::reply::{Kind as Expected, Reply};
use crate::verdict::VerdictKey;

/// Answers that a worker with Redis keeps at hand besides, about 10 MB, and for how long at most: a text that comes back
/// within the minute costs no call, and a flush of Redis is noticed within it.
const NEAR_ENTRIES: u64 = 16_384;
const NEAR_TTL: Duration = Duration::from_secs(60);

/// The verdict cache.
pub struct Cache {
    kind: Kind,
    counts: Arc<Counts>,
}

enum Kind {
    /// Shared between workers: the answers met lately, and all of them.
    Redis { near: InProcess, far: Box<Redis> },
    /// This process only.
    InProcess(InProcess),
    /// None.
    Off,
}

/// What is known of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Its answer.
    Answered(Arc<Reply>),
    /// Nothing, and whoever asked is the one to answer it: by [`Cache::put`], or not at all by [`Cache::give_up`].
    Open,
    /// Another worker is answering it: see [`Cache::ask_again`].
    Elsewhere,
}

impl Cache {
    /// Opens the cache; an unreachable Redis is no error, it is retried while posts run without it. Must be called on
    /// the runtime that will use it.
    pub fn open(settings: &CacheSettings, counts: Arc<Counts>) -> Result<Self, String> {
        let kind = match settings {
            CacheSettings::Redis(settings) => Kind::Redis {
                near: InProcess::new(NEAR_ENTRIES, NEAR_TTL.min(settings.ttl)),
                far: Box::new(Redis::open(settings, counts.clone())?),
            },
            CacheSettings::InProcess { max_entries, ttl } => Kind::InProcess(InProcess::new(*max_entries, *ttl)),
            CacheSettings::Off => Kind::Off,
        };
        Ok(Self { kind, counts })
    }

    /// Asks several questions at once. What is missing, damaged or unreachable is open, unless another worker is
    /// answering it. Two calls at most, each of which waits at most for the cache's timeout; the second is made only
    /// where the first one found something missing.
    pub async fn ask(&self, keys: &[VerdictKey], expected: Expected) -> Vec<Question> {
        let mut questions = match &self.kind {
            Kind::Off => return vec![Question::Open; keys.len()],
            Kind::InProcess(near) | Kind::Redis { near, .. } => at_hand(near, keys),
        };
        if let Kind::Redis { near, far } = &self.kind {
            let (places, asked) = open(&questions, keys);
            let found = far.ask(&asked, expected).await;
            keep_at_hand(near, &asked, &found);
            fill(&mut questions, places, found);
        }
        let count = |is: fn(&Question) -> bool| questions.iter().filter(|question| is(question)).count();
        let hits = count(|question| matches!(question, Question::Answered(_)));
        add(&self.counts.hits, hits);
        add(&self.counts.misses, questions.len() - hits);
        add(&self.counts.waited, count(|question| matches!(question, Question::Elsewhere)));
        questions
    }

    /// Asks again what another worker was answering. One call; a question whose worker is gone is open now.
    pub async fn ask_again(&self, keys: &[VerdictKey], expected: Expected) -> Vec<Question> {
        let Kind::Redis { near, far } = &self.kind else { return vec![Question::Open; keys.len()] };
        let questions = far.claim(keys, expected).await;
        keep_at_hand(near, keys, &questions);
        questions
    }

    /// How long to go on asking for another worker's answer.
    pub fn patience(&self) -> Duration {
        match &self.kind {
            Kind::Redis { far, .. } => far.patience(),
            Kind::InProcess(_) | Kind::Off => Duration::ZERO,
        }
    }

    /// Keeps the answer to a question, made for this post. Waits at most for the cache's timeout; a failure is counted
    /// and forgotten.
    pub async fn put(&self, key: VerdictKey, answer: &Arc<Reply>, original: &Original) {
        let post = PostKey::of(original);
        match &self.kind {
            Kind::Redis { near, far } => {
                near.put(key, answer.clone());
                far.put(&key, answer, post).await;
            }
            Kind::InProcess(near) => {
                near.put(key, answer.clone());
                if let Some(post) = post {
                    near.belongs(key, post);
                }
            }
            Kind::Off => {}
        }
    }

    /// There will be no answer: whoever else has the question may try.
    pub async fn give_up(&self, key: &VerdictKey) {
        if let Kind::Redis { far, .. } = &self.kind {
            far.give_up(key).await;
        }
    }

    /// Removes the answers that were made for deleted posts. Two calls at most.
    pub async fn forget(&self, deleted: &[&Original]) {
        let posts: Vec<PostKey> = deleted.iter().filter_map(|original| PostKey::of(original)).collect();
        match &self.kind {
            Kind::Redis { near, far } => near.remove(&far.forget(&posts).await),
            Kind::InProcess(near) => near.forget(&posts),
            Kind::Off => {}
        }
    }

    /// Asks Redis to answer at all. Without Redis there is nothing to ask.
    pub async fn ping(&self) -> Result<(), String> {
        match &self.kind {
            Kind::Redis { far, .. } => far.ping().await,
            Kind::InProcess(_) | Kind::Off => Ok(()),
        }
    }
}

fn at_hand(near: &InProcess, keys: &[VerdictKey]) -> Vec<Question> {
    keys.iter().map(|key| near.get(key).map_or(Question::Open, Question::Answered)).collect()
}

/// Places and keys of the questions that are open.
fn open(questions: &[Question], keys: &[VerdictKey]) -> (Vec<usize>, Vec<VerdictKey>) {
    let open = questions.iter().zip(keys).enumerate().filter(|(_, (question, _))| **question == Question::Open);
    open.map(|(place, (_, key))| (place, *key)).unzip()
}

fn fill(questions: &mut [Question], places: Vec<usize>, found: Vec<Question>) {
    for (place, question) in places.into_iter().zip(found) {
        questions[place] = question;
    }
}

fn keep_at_hand(near: &InProcess, keys: &[VerdictKey], questions: &[Question]) {
    for (key, question) in keys.iter().zip(questions) {
        if let Question::Answered(answer) = question {
            near.put(*key, answer.clone());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verdict::{Answer, Execution};

    pub(crate) fn answer() -> Answer {
        Answer {
            scores: vec![0.1, 0.2, 0.3, 0.4],
            outside_labels: 0.25,
            execution: Arc::new(Execution {
                provider: "cpu".into(),
                nodes: [("cpu".to_owned(), 1296)].into(),
                precision: "fp32".into(),
                onnxruntime: "1.31.1".into(),
            }),
            computed_at: "2026-11-21T00:00:00Z".into(),
            language: None,
            conditions: None,
        }
    }
}
