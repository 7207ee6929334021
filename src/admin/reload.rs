//! A changed policy comes into force without a restart: looked for every few seconds and on SIGHUP, taken between posts. The
//! file's content is compared, so that a ConfigMap's symlinks may be swapped as they like.
//!
//! What the model reads stays: another prompt, other labels, answers or masks need another cache of the prompt, hence a
//! restart. A file that cannot be taken leaves the policy in force as it is, and is told once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Facts;
use crate::model::{self, ModelInfo};
use crate::policy::Policy;
use crate::telemetry::metrics;

/// Looks after the policy in force.
pub struct Reloader {
    /// The policy file.
    pub file: PathBuf,
    /// How often it is looked at; never but on SIGHUP, where there is none.
    pub every: Option<Duration>,
    /// The model folder: what the model reads is told by its tokenizer.
    pub model: PathBuf,
    /// The model that answers.
    pub info: Arc<ModelInfo>,
    /// The policy in force.
    pub in_force: Policy,
    /// Whether the calibration is for this model and prompt.
    pub fits: fn(&Policy, &ModelInfo) -> Result<(), String>,
    /// For `/info` and metrics.
    pub facts: Facts,
    /// To conclude.
    pub to: mpsc::Sender<Policy>,
}

impl Reloader {
    /// Runs until nobody takes policies any more.
    pub async fn run(mut self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let reloads = metrics::reloads();
        let mut refused = None;
        loop {
            tokio::select! {
                () = look(self.every) => {}
                _ = hangup.recv() => info!("looking at the policy file"),
                () = self.to.closed() => return Ok(()),
            }
            match self.read().await {
                Ok(None) => self.in_force(&mut refused),
                Ok(Some(policy)) => {
                    self.in_force(&mut refused);
                    self.take(policy, &reloads).await;
                }
                Err(why) => self.refuse(why, &mut refused, &reloads),
            }
        }
    }

    /// The policy on disk, if it is another than the one in force and can take its place.
    async fn read(&self) -> Result<Option<Policy>, String> {
        let (file, model, info) = (self.file.clone(), self.model.clone(), self.info.clone());
        let (in_force, fits) = (self.in_force.clone(), self.fits);
        let read = move || {
            let policy = Policy::load(&file).map_err(|error| error.to_string())?;
            if policy.digest() == in_force.digest() {
                return Ok(None);
            }
            let prompt = model::load_tokenizer_only(&model, &policy).map_err(|error| error.to_string())?;
            let same_labels =
                policy.labels.iter().map(|label| &label.id).eq(in_force.labels.iter().map(|label| &label.id));
            if prompt.digest() != info.prompt_digest || !same_labels || policy.mask != in_force.mask {
                return Err(format!(
                    "policy {}: its prompt, labels, answers or masks are others than those in force; restart the workers to take it",
                    file.display()
                ));
            }
            fits(&policy, &info)?;
            Ok(Some(policy))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn take(&mut self, policy: Policy, reloads: &Counter<u64>) {
        let calibration = policy.calibration.as_ref().map_or("none", |calibration| calibration.id.as_str());
        info!(
            policy = %policy.id, revision = %policy.revision, digest = policy.digest(), before = self.in_force.digest(), calibration,
            "a changed policy is in force"
        );
        self.in_force = policy.clone();
        let told = facts(&policy);
        let _ = self.to.send(policy).await;
        reloads.add(1, &[KeyValue::new("outcome", "applied")]);
        self.facts.set("policy", told);
    }

    fn in_force(&self, refused: &mut Option<String>) {
        if refused.take().is_some() {
            self.facts.set("policy_refused", json!(null));
        }
    }

    fn refuse(&self, why: String, refused: &mut Option<String>, reloads: &Counter<u64>) {
        if refused.as_ref() == Some(&why) {
            return;
        }
        warn!(
            in_force = self.in_force.digest(),
            "the changed policy is refused and the one before stays in force: {why}"
        );
        self.facts.set("policy_refused", json!(why));
        reloads.add(1, &[KeyValue::new("outcome", "refused")]);
        *refused = Some(why);
    }
}

/// What `/info` tells of a policy.
pub fn facts(policy: &Policy) -> serde_json::Value {
    json!({
        "id": policy.id,
        "revision": policy.revision,
        "digest": policy.digest(),
        "calibration": policy.calibration.as_ref().map(|calibration| &calibration.id),
    })
}

async fn look(every: Option<Duration>) {
    match every {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
}
