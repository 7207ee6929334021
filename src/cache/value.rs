//! An answer as it is stored: readable JSON that repeats its verdict key and, where the configuration has a key for
//! that, stands behind a seal.
//!
//! ```text
//! {"version":1,"key":"5f2c...","scores":[...],...}
//! {"version":1,"key":"5f2c...","note":{...}}
//! 9b41...e0 {"version":1,"key":"5f2c...","scores":[...],...}
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::language::Detected;
use crate::note::Draft;
use crate::reply::{Kind as Expected, Reply};
use crate::verdict::{Answer, Conditions, Execution, VerdictKey};

/// Version of the cached value; another version is a miss.
const VERSION: u32 = 1;

/// Writes answers and reads them back.
pub(super) struct Values {
    seal: Option<Hmac<Sha256>>,
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
    /// Not in values of older workers, nor where no policy asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<Cow<'a, Detected>>,
    /// Not in values of older workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conditions: Option<Cow<'a, Conditions>>,
}

/// A note as stored.
#[derive(Serialize, Deserialize)]
struct NoteValue<'a> {
    version: u32,
    #[serde(borrow)]
    key: Cow<'a, str>,
    note: Cow<'a, Draft>,
}

impl Values {
    /// With a key, values are sealed by it, and one that is not is no value: whoever can write to the store but has not
    /// the key cannot make an answer, nor put one in another's place.
    pub(super) fn new(hmac_key: Option<&SecretString>) -> Result<Self, String> {
        let seal = hmac_key.map(|key| Hmac::new_from_slice(key.expose_secret().as_bytes()));
        Ok(Self { seal: seal.transpose().map_err(|error| error.to_string())? })
    }

    /// `place` is where the value will lie: the whole name of its key.
    pub(super) fn encode(&self, place: &str, key: &VerdictKey, reply: &Reply) -> Vec<u8> {
        // Serialising plain numbers and strings to memory cannot fail; an empty value would read as a miss anyway.
        let body = match reply {
            Reply::Scores(answer) => serde_json::to_vec(&Value::of(key, answer)).unwrap_or_default(),
            Reply::Note(note) => serde_json::to_vec(&NoteValue::of(key, note)).unwrap_or_default(),
        };
        match &self.seal {
            None => body,
            Some(seal) => {
                let tag = hex::encode(over(seal, place, &body).finalize().into_bytes());
                [tag.as_bytes(), b" ", &body].concat()
            }
        }
    }

    /// Anything but a whole value of this version, for this key, of the kind that is expected, is none. A seal is looked at
    /// before anything else is.
    pub(super) fn decode(&self, place: &str, bytes: &[u8], key: &VerdictKey, expected: Expected) -> Option<Reply> {
        let body = match &self.seal {
            None => bytes,
            Some(seal) => {
                let (tag, body) = bytes.split_at_checked(2 * 32)?;
                let body = body.strip_prefix(b" ")?;
                // In constant time, so that answers tell nothing about how much of a forged tag was right.
                over(seal, place, body).verify_slice(&hex::decode(tag).ok()?).ok()?;
                body
            }
        };
        match expected {
            Expected::Scores { labels } => Value::read(body, key, labels).map(Reply::Scores),
            Expected::Note => NoteValue::read(body, key).map(|note| Reply::Note(Box::new(note))),
        }
    }
}

impl<'a> Value<'a> {
    fn of(key: &VerdictKey, answer: &'a Answer) -> Self {
        Self {
            version: VERSION,
            key: key.to_string().into(),
            scores: answer.scores.as_slice().into(),
            outside_labels: answer.outside_labels,
            execution: Cow::Borrowed(&answer.execution),
            computed_at: answer.computed_at.as_str().into(),
            language: answer.language.as_ref().map(Cow::Borrowed),
            conditions: answer.conditions.as_deref().map(Cow::Borrowed),
        }
    }

    /// Scores that are probabilities, one for each label.
    fn read(body: &'a [u8], key: &VerdictKey, labels: usize) -> Option<Answer> {
        let value: Value<'a> = serde_json::from_slice(body).ok()?;
        let probability = |p: &f64| (0.0..=1.0).contains(p);
        let sound = value.version == VERSION
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
            language: value.language.map(Cow::into_owned),
            conditions: value.conditions.map(|conditions| Arc::new(conditions.into_owned())),
        })
    }
}

impl<'a> NoteValue<'a> {
    fn of(key: &VerdictKey, note: &'a Draft) -> Self {
        Self { version: VERSION, key: key.to_string().into(), note: Cow::Borrowed(note) }
    }

    /// A note whose checks all passed.
    fn read(body: &'a [u8], key: &VerdictKey) -> Option<Draft> {
        let value: NoteValue<'a> = serde_json::from_slice(body).ok()?;
        let sound = value.version == VERSION && value.key == key.to_string() && value.note.checks.failed().is_empty();
        sound.then(|| value.note.into_owned())
    }
}

/// The place is part of what is sealed and has its length before it, so that no two pairs read alike.
fn over(seal: &Hmac<Sha256>, place: &str, body: &[u8]) -> Hmac<Sha256> {
    let length = (place.len() as u64).to_le_bytes();
    [b"moderato/answer/1", &length[..], place.as_bytes(), body]
        .iter()
        .fold(seal.clone(), |seal, part| seal.chain_update(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::answer;
    use crate::verdict::{Keyring, tests::conditions};

    const PLACE: &str = "moderato:v1:k";
    const TWO: Expected = Expected::Scores { labels: 2 };
    const FOUR: Expected = Expected::Scores { labels: 4 };

    fn values(key: Option<&str>) -> Values {
        Values::new(key.map(SecretString::from).as_ref()).unwrap()
    }

    #[test]
    fn a_stored_answer_comes_back_to_the_last_bit() {
        let key = Keyring::new(&["m"]).key(&[1]);
        let language = Some(crate::language::detect("The mayor said on Tuesday that the bridge would be closed."));
        let conditions = Some(Arc::new(conditions()));
        let answer = Reply::Scores(Answer { scores: vec![1.0 / 3.0, 2.0 / 3.0], language, conditions, ..answer() });
        for values in [values(None), values(Some("a key"))] {
            assert_eq!(values.decode(PLACE, &values.encode(PLACE, &key, &answer), &key, TWO), Some(answer.clone()));
        }
    }

    #[test]
    fn an_answer_of_an_older_worker_is_still_one() {
        let key = Keyring::new(&["m"]).key(&[1]);
        let old = format!(
            r#"{{"version":1,"key":"{key}","scores":[0.5,0.5],"outside_labels":0.25,"execution":{{"provider":"cpu","precision":"fp32","onnxruntime":"1.31.1"}},"computed_at":"2026-11-21T00:00:00Z"}}"#
        );
        let Some(Reply::Scores(answer)) = values(None).decode(PLACE, old.as_bytes(), &key, TWO) else { panic!("none") };
        assert_eq!((answer.scores, answer.language, answer.conditions), (vec![0.5, 0.5], None, None));
    }

    #[test]
    fn a_damaged_or_foreign_value_is_a_miss() {
        let keys = Keyring::new(&["m"]);
        let (key, other) = (keys.key(&[1]), keys.key(&[2]));
        let values = values(None);
        let good = values.encode(PLACE, &key, &Reply::Scores(answer()));
        let decode = |bytes: &[u8], key, labels| values.decode(PLACE, bytes, key, Expected::Scores { labels });
        assert!(decode(&good, &key, 4).is_some());
        assert_eq!(decode(&good, &other, 4), None, "another key");
        assert_eq!(decode(&good, &key, 3), None, "another label set");
        assert_eq!(decode(&good[..good.len() - 1], &key, 4), None, "cut");
        assert_eq!(decode(b"", &key, 4), None, "empty");
        let tampered = String::from_utf8(good).unwrap().replace("0.4", "0.9");
        assert_eq!(decode(tampered.as_bytes(), &key, 4), None, "scores that do not sum to 1");
    }

    #[test]
    fn a_value_without_the_right_seal_for_its_place_is_a_miss() {
        let key = Keyring::new(&["m"]).key(&[1]);
        let (sealed, other, open) = (values(Some("a key")), values(Some("another")), values(None));
        let good = sealed.encode(PLACE, &key, &Reply::Scores(answer()));
        let decode = |bytes: &[u8]| sealed.decode(PLACE, bytes, &key, FOUR);
        assert!(decode(&good).is_some());
        assert_eq!(decode(&other.encode(PLACE, &key, &Reply::Scores(answer()))), None, "another key");
        assert_eq!(decode(&open.encode(PLACE, &key, &Reply::Scores(answer()))), None, "no seal");
        assert_eq!(sealed.decode("moderato:v1:l", &good, &key, FOUR), None, "another place");
        assert_eq!(open.decode(PLACE, &good, &key, FOUR), None, "a seal that nobody asked for");
        // Scores that are as good as the true ones: only the seal tells.
        let swapped = String::from_utf8(good.clone()).unwrap().replace("0.1,0.2", "0.2,0.1");
        assert_ne!(swapped.as_bytes(), good);
        assert_eq!(decode(swapped.as_bytes()), None, "tampered");
        assert_eq!(decode(&good[..40]), None, "cut in the seal");
    }
}
