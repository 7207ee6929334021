//! Answers that were computed before. The cache may only ever save time: a read that fails is a miss, a write that
//! fails is forgotten, and no delivery decision rests on it.

mod breaker;
mod in_process;
mod redis;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::in_process::InProcess;
pub use self::redis::Redis;
use crate::config::CacheSettings;
use crate::verdict::{Answer, Execution, VerdictKey};

/// Version of the cached value; another version is a miss.
const VALUE_VERSION: u32 = 1;

/// Answers that a worker with Redis keeps at hand besides, about 10 MB, and for how long at most: a text that comes back
/// within the minute costs no call, and a flush of Redis is noticed within it.
const NEAR_ENTRIES: u64 = 16_384;
const NEAR_TTL: Duration = Duration::from_secs(60);

/// The verdict cache.
pub enum Cache {
    /// Shared between workers.
    Redis {
        /// The answers met lately.
        near: InProcess,
        /// All of them.
        far: Box<Redis>,
    },
    /// This process only.
    InProcess(InProcess),
    /// None.
    Off,
}

impl Cache {
    /// Opens the cache; an unreachable Redis is no error, it is retried while posts run without it.
    pub fn open(settings: &CacheSettings) -> Result<Self, String> {
        Ok(match settings {
            CacheSettings::Redis(settings) => Cache::Redis {
                near: InProcess::new(NEAR_ENTRIES, NEAR_TTL.min(settings.ttl)),
                far: Box::new(Redis::open(settings)?),
            },
            CacheSettings::InProcess { max_entries, ttl } => Cache::InProcess(InProcess::new(*max_entries, *ttl)),
            CacheSettings::Off => Cache::Off,
        })
    }

    /// Looks up several keys at once; what is missing, damaged or unreachable is `None`. Waits at most for the cache's
    /// timeout.
    pub async fn get_many(&self, keys: &[VerdictKey], labels: usize) -> Vec<Option<Arc<Answer>>> {
        let (near, far) = match self {
            Cache::Redis { near, far } => (near, Some(far)),
            Cache::InProcess(near) => (near, None),
            Cache::Off => return vec![None; keys.len()],
        };
        let mut answers: Vec<_> = keys.iter().map(|key| near.get(key)).collect();
        let Some(far) = far else { return answers };
        let missing: Vec<usize> = (0..keys.len()).filter(|&i| answers[i].is_none()).collect();
        let asked: Vec<VerdictKey> = missing.iter().map(|&i| keys[i]).collect();
        for (i, bytes) in missing.into_iter().zip(far.get_many(&asked).await) {
            answers[i] = bytes.and_then(|bytes| decode(&bytes, &keys[i], labels)).map(Arc::new);
            if let Some(answer) = &answers[i] {
                near.put(keys[i], answer.clone());
            }
        }
        answers
    }

    /// Keeps an answer. Waits at most for the cache's timeout; a failure is counted and forgotten.
    pub async fn put(&self, key: VerdictKey, answer: &Arc<Answer>) {
        match self {
            Cache::Redis { near, far } => {
                near.put(key, answer.clone());
                far.put(&key, encode(&key, answer)).await;
            }
            Cache::InProcess(near) => near.put(key, answer.clone()),
            Cache::Off => {}
        }
    }
}

/// The value as stored. It repeats its key, so that a value that landed under another key is recognised.
#[derive(Serialize, Deserialize)]
struct Value<'a> {
    version: u32,
    #[serde(borrow)]
    key: Cow<'a, str>,
    scores: Cow<'a, [f64]>,
    outside_labels: f64,
    execution: Cow<'a, Execution>,
    computed_at: Cow<'a, str>,
}

fn encode(key: &VerdictKey, answer: &Answer) -> Vec<u8> {
    // Serialising plain numbers and strings to memory cannot fail; an empty value would read as a miss anyway.
    let value = Value {
        version: VALUE_VERSION,
        key: key.to_string().into(),
        scores: answer.scores.as_slice().into(),
        outside_labels: answer.outside_labels,
        execution: Cow::Borrowed(&answer.execution),
        computed_at: answer.computed_at.as_str().into(),
    };
    serde_json::to_vec(&value).unwrap_or_default()
}

/// Anything but a whole value of this version, for this key and label set, with scores that are probabilities, is a
/// miss.
fn decode(bytes: &[u8], key: &VerdictKey, labels: usize) -> Option<Answer> {
    let value: Value<'_> = serde_json::from_slice(bytes).ok()?;
    let probability = |p: &f64| (0.0..=1.0).contains(p);
    let sound = value.version == VALUE_VERSION
        && value.key == key.to_string()
        && value.scores.len() == labels
        && value.scores.iter().all(probability)
        && (value.scores.iter().sum::<f64>() - 1.0).abs() < 1e-6
        && probability(&value.outside_labels);
    sound.then(|| Answer {
        scores: value.scores.into_owned(),
        outside_labels: value.outside_labels,
        execution: Arc::new(value.execution.into_owned()),
        computed_at: value.computed_at.into_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verdict::Keyring;

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
        }
    }

    #[test]
    fn a_stored_answer_comes_back_to_the_last_bit() {
        let key = Keyring::new(&["m"]).key(&[1]);
        let answer = Answer { scores: vec![1.0 / 3.0, 2.0 / 3.0], ..answer() };
        assert_eq!(decode(&encode(&key, &answer), &key, 2), Some(answer));
    }

    #[test]
    fn a_damaged_or_foreign_value_is_a_miss() {
        let keys = Keyring::new(&["m"]);
        let (key, other) = (keys.key(&[1]), keys.key(&[2]));
        let good = encode(&key, &answer());
        assert!(decode(&good, &key, 4).is_some());
        assert_eq!(decode(&good, &other, 4), None, "another key");
        assert_eq!(decode(&good, &key, 3), None, "another label set");
        assert_eq!(decode(&good[..good.len() - 1], &key, 4), None, "cut");
        assert_eq!(decode(b"", &key, 4), None, "empty");
        let tampered = String::from_utf8(good).unwrap().replace("0.4", "0.9");
        assert_eq!(decode(tampered.as_bytes(), &key, 4), None, "scores that do not sum to 1");
    }
}
