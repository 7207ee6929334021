//! Evidence: what the configuration may say about it, and what is known of it once checked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Needs;
use super::check::Checker;
use crate::evidence::key::SigningKey;

/// A record that tells when it was tampered with: see docs/evidence.md.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawEvidence {
    /// Whether every verdict or note, and every passed tombstone, is linked to the one before by a hash in the header
    /// `moderato.chain`, so that `moderato audit verify` finds what was altered, removed, inserted or put in another order.
    pub chain: bool,
    /// Ed25519 private key, PEM or a seed of 32 bytes, that signs how far each chain has come, to `kafka.topics.checkpoints`.
    pub signing_key_file: Option<String>,
    /// How often it is signed, if there is anything new; besides, whenever a partition goes or the worker stops.
    pub checkpoint_interval: String,
}

impl Default for RawEvidence {
    fn default() -> Self {
        Self { chain: false, signing_key_file: None, checkpoint_interval: "60s".to_owned() }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct EvidenceSettings {
    /// Whether records are linked.
    pub chain: bool,
    /// How chains are signed, if they are.
    pub signing: Option<Signing>,
}

/// How chains are signed.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The private key.
    pub key: Arc<SigningKey>,
    /// Topic of the checkpoints.
    pub topic: String,
    /// How often.
    pub every: Duration,
}

impl Checker {
    pub(super) fn evidence(&mut self, raw: &RawEvidence, topic: Option<&String>) -> EvidenceSettings {
        let every = self.duration("evidence.checkpoint_interval", &raw.checkpoint_interval);
        let Some(file) = &raw.signing_key_file else { return EvidenceSettings { chain: raw.chain, signing: None } };
        self.require(raw.chain, "evidence.chain", || "signing_key_file signs chains: write true".to_owned());
        self.require(topic.is_some(), "kafka.topics.checkpoints", || {
            "is required for evidence.signing_key_file".to_owned()
        });
        let key = match SigningKey::load(Path::new(file)) {
            Ok(key) => Some(Arc::new(key)),
            Err(why) => {
                // Whoever only reads may have no private key.
                self.require(self.needs() == Needs::KafkaOnly, "evidence.signing_key_file", || why);
                None
            }
        };
        let signing = key.zip(topic).map(|(key, topic)| Signing { key, topic: topic.clone(), every });
        EvidenceSettings { chain: raw.chain, signing }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::super::raw::RawConfig;
    use super::*;

    fn keys_at_fault(needs: Needs, change: impl FnOnce(&mut RawConfig)) -> Vec<String> {
        let mut raw = RawConfig::default();
        raw.kafka.brokers = "localhost:9092".to_owned();
        raw.policy = "Cargo.toml".to_owned();
        raw.model.path = "src".to_owned();
        change(&mut raw);
        let found = check(&raw, needs).map_or_else(|error| error.0, |_| Vec::new());
        found.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn a_key_signs_chains_alone_and_needs_a_topic_and_has_to_be_one() {
        let found = keys_at_fault(Needs::Kafka, |raw| {
            raw.evidence.signing_key_file = Some("Cargo.toml".to_owned());
            raw.evidence.checkpoint_interval = "never".to_owned();
        });
        let wanted =
            ["evidence.checkpoint_interval", "evidence.chain", "kafka.topics.checkpoints", "evidence.signing_key_file"];
        assert_eq!(found, wanted);
    }

    #[test]
    fn whoever_only_reads_needs_no_private_key() {
        let change = |raw: &mut RawConfig| {
            raw.evidence.chain = true;
            raw.evidence.signing_key_file = Some("not/mounted/here".to_owned());
            raw.kafka.topics.checkpoints = Some("checkpoints".to_owned());
        };
        assert_eq!(keys_at_fault(Needs::KafkaOnly, change), Vec::<String>::new());
        assert_eq!(keys_at_fault(Needs::Kafka, change), ["evidence.signing_key_file"]);
    }
}
