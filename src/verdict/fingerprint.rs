//! What the bits of a score hang on, so that a verdict can be repeated, and so that it is known where it cannot be.

use std::borrow::Cow;
use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::Determinism;

/// What an answer was computed under; stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Conditions {
    /// `strict`: the same post has the same raw scores, to the last bit, under the same fingerprint, whatever else is judged.
    /// `off`: to about 0.0001, since neighbours and their lengths choose the kernels.
    pub determinism: Determinism,
    /// Rows and tokens of the run, padding included, such as `2x64`: with `strict`, a matter of the post's length alone.
    /// Null with `off`.
    pub bucket: Option<String>,
    /// What selects kernels: the CPU's instruction sets, such as `x86_64 avx2 fma avx512_vnni`, or the GPU and its driver.
    pub hardware: String,
    /// Execution provider.
    pub provider: String,
    /// Version of the provider's libraries, where it is not a part of ONNX Runtime.
    pub provider_version: Option<String>,
    /// ONNX Runtime's version.
    pub onnxruntime: String,
    /// Precision of the weights, and what they are computed in, where that is another.
    pub precision: String,
    /// Threads of one run, where a CPU computes.
    pub threads: Option<usize>,
}

/// What identifies a question beside its text: the digests of all that judged.
#[derive(Debug, Clone, Copy)]
pub struct Revisions<'a> {
    /// Of the model folder.
    pub model: &'a str,
    /// Of the tokenizer and chat template.
    pub tokenizer: &'a str,
    /// Of the token ids of prompt, tail and labels.
    pub prompt: &'a str,
    /// Of the policy.
    pub policy: &'a str,
    /// Of the policy's calibration, if it names one.
    pub calibration: Option<&'a str>,
}

/// What the scores of a verdict hang on. Equal digests with `determinism: strict` mean equal raw scores for equal posts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fingerprint<'a> {
    /// SHA-256 over the JSON array, without blanks, of: `fingerprint/1`; the digests of model, tokenizer, prompt and policy and
    /// the revision of the calibration or null; `determinism`, `bucket`, `hardware`, `provider`, `provider_version`,
    /// `onnxruntime`, `precision`, `threads`.
    pub digest: Cow<'a, str>,
    /// What the answer was computed under.
    #[serde(flatten)]
    pub conditions: Cow<'a, Conditions>,
}

impl Conditions {
    /// All but the bucket, as one word: with `strict`, part of the key under which answers are kept, so that none is taken
    /// that was computed under others.
    pub fn revision(&self) -> String {
        Value::from(Self { bucket: None, ..self.clone() }.parts().to_vec()).to_string()
    }

    fn parts(&self) -> [Value; 8] {
        [
            json!(self.determinism),
            json!(self.bucket),
            json!(self.hardware),
            json!(self.provider),
            json!(self.provider_version),
            json!(self.onnxruntime),
            json!(self.precision),
            json!(self.threads),
        ]
    }
}

impl<'a> Fingerprint<'a> {
    /// Of what these revisions computed under these conditions.
    pub fn of(revisions: Revisions<'_>, conditions: &'a Conditions) -> Self {
        let Revisions { model, tokenizer, prompt, policy, calibration } = revisions;
        let revisions = ["fingerprint/1", model, tokenizer, prompt, policy].map(Value::from);
        let all: Vec<Value> = revisions.into_iter().chain([json!(calibration)]).chain(conditions.parts()).collect();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(Value::from(all).to_string())));
        Self { digest: digest.into(), conditions: Cow::Borrowed(conditions) }
    }
}

/// Digests by conditions, each hashed once while the revisions stay the same.
#[derive(Debug, Default)]
pub struct Digests(HashMap<Conditions, String>);

impl Digests {
    /// A worker's own conditions are as many as its buckets; what other workers left in a shared cache knows no bound.
    const MOST: usize = 1024;

    /// The fingerprint of what these revisions, the same at each call, computed under these conditions.
    pub fn fingerprint<'a>(&mut self, revisions: Revisions<'_>, conditions: &'a Conditions) -> Fingerprint<'a> {
        if let Some(digest) = self.0.get(conditions) {
            return Fingerprint { digest: digest.clone().into(), conditions: Cow::Borrowed(conditions) };
        }
        let fingerprint = Fingerprint::of(revisions, conditions);
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(conditions.clone(), fingerprint.digest.to_string());
        fingerprint
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn conditions() -> Conditions {
        Conditions {
            determinism: Determinism::Strict,
            bucket: Some("2x64".to_owned()),
            hardware: "x86_64 avx2".to_owned(),
            provider: "cpu".to_owned(),
            provider_version: None,
            onnxruntime: "1.31.1".to_owned(),
            precision: "fp32".to_owned(),
            threads: Some(1),
        }
    }

    const REVISIONS: Revisions<'static> =
        Revisions { model: "m", tokenizer: "t", prompt: "p", policy: "q", calibration: None };

    #[test]
    fn every_condition_and_every_revision_is_part_of_the_digest() {
        let digest = |revisions, conditions: &Conditions| Fingerprint::of(revisions, conditions).digest.into_owned();
        let base = digest(REVISIONS, &conditions());
        assert_eq!(base, digest(REVISIONS, &conditions()));
        let same = conditions;
        let conditions = [
            Conditions { determinism: Determinism::Off, ..same() },
            Conditions { bucket: Some("2x80".to_owned()), ..same() },
            Conditions { hardware: "x86_64 avx2 avx512f".to_owned(), ..same() },
            Conditions { provider: "openvino".to_owned(), ..same() },
            Conditions { provider_version: Some("1".to_owned()), ..same() },
            Conditions { onnxruntime: "1.31.2".to_owned(), ..same() },
            Conditions { precision: "int8".to_owned(), ..same() },
            Conditions { threads: Some(2), ..same() },
        ];
        for other in &conditions {
            assert_ne!(base, digest(REVISIONS, other), "{other:?}");
            assert_eq!(other.revision() != same().revision(), other.bucket == same().bucket, "{other:?}");
        }
        for other in [
            Revisions { model: "M", ..REVISIONS },
            Revisions { tokenizer: "T", ..REVISIONS },
            Revisions { prompt: "P", ..REVISIONS },
            Revisions { policy: "Q", ..REVISIONS },
            Revisions { calibration: Some("c"), ..REVISIONS },
        ] {
            assert_ne!(base, digest(other, &same()), "{other:?}");
        }
    }

    #[test]
    fn what_was_hashed_once_is_what_hashing_again_gives_and_is_bounded() {
        let mut digests = Digests::default();
        let all: Vec<Conditions> = (0..Digests::MOST + 10)
            .map(|width| Conditions { bucket: Some(format!("1x{width}")), ..conditions() })
            .collect();
        for conditions in all.iter().chain(&all[..5]).chain(&all) {
            let expected = Fingerprint::of(REVISIONS, conditions).digest;
            assert_eq!(digests.fingerprint(REVISIONS, conditions).digest, expected, "{conditions:?}");
            assert!(digests.0.len() <= Digests::MOST);
        }
    }
}
