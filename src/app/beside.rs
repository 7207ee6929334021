//! What a running worker has beside its road: facts for whoever asks, policies that change, a shadow.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::schemas::Schemas;
use super::{AppError, Judges, calibrated, load};
use crate::admin::reload::{self, Reloader};
use crate::admin::{Facts, observe};
use crate::cache::Cache;
use crate::config::{CacheSettings, Config, RawConfig, Shadow};
use crate::event::Format;
use crate::kafka::aside::Aside;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::replayed::Replayed;
use crate::pipeline::shadow::{Comparison, Tap};
use crate::pipeline::tally::Tally;
use crate::pipeline::{self, Work};
use crate::policy::Policy;
use crate::telemetry::metrics::Metrics;

/// What a running worker has beside its road.
pub(super) struct Beside {
    /// Policies that come into force.
    pub(super) policies: mpsc::Receiver<Policy>,
    /// Where a shadow has its share.
    pub(super) tap: Option<Tap>,
    /// How what is published stands in its topics.
    pub(super) schemas: Schemas,
    /// The replay that it runs, if it does.
    pub(super) replayed: Option<Arc<Replayed>>,
}

impl Beside {
    /// Nothing.
    pub(super) fn none(config: &Config) -> Self {
        Self { policies: mpsc::channel(1).1, tap: None, schemas: Schemas::none(config), replayed: None }
    }

    /// What the configuration asks for.
    pub(super) fn start(
        config: &Config,
        work: &Work,
        judges: Option<Judges>,
        facts: Facts,
        metrics: &Metrics,
        schemas: Schemas,
    ) -> Result<Self, AppError> {
        Ok(Self {
            policies: reload(config, work, facts),
            tap: shadow(config, judges, metrics, schemas.shadow)?,
            schemas,
            replayed: None,
        })
    }
}

/// What `/info` tells before the model is there.
pub fn facts(config: &Config, raw: &RawConfig) -> Facts {
    let facts = Facts::default();
    facts.set(
        "versions",
        json!({ "moderato": env!("CARGO_PKG_VERSION"), "librdkafka": crate::kafka::client_version() }),
    );
    facts.set("worker", json!(config.kafka.worker_id));
    facts.set("license_accepted", json!(config.model.license_accepted));
    facts.set("configuration", json!(raw));
    facts
}

/// From here on posts can be judged: probes, metrics and `/info` say by what.
pub fn is_warm(work: &Work, tally: &Arc<Tally>, facts: &Facts) {
    let info = work.info();
    facts.set("model", json!(info));
    facts.set(
        "policy",
        match work {
            Work::Judge { policy, .. } => reload::facts(policy),
            Work::Draft { policy, .. } => json!({ "id": policy.id, "digest": policy.digest() }),
        },
    );
    observe::register(tally, info, facts);
    tally.vitals.is_warm();
}

/// Keeps the policy in force the one on disk, if it is a classifier's.
fn reload(config: &Config, work: &Work, facts: Facts) -> mpsc::Receiver<Policy> {
    let (to, policies) = mpsc::channel(1);
    if let Work::Judge { policy, model } = work {
        let reloader = Reloader {
            file: config.policy.clone(),
            every: config.policy_reload,
            model: config.model.path.clone(),
            info: model.info.clone(),
            in_force: policy.clone(),
            fits: |policy, info| calibrated(policy, info).map_err(|error| error.to_string()),
            facts,
            to,
        };
        tokio::spawn(async move {
            if let Err(error) = reloader.run().await {
                warn!(%error, "policies are not reloaded: cannot listen for SIGHUP");
            }
        });
    }
    policies
}

/// Loads what judges beside, if anything does. Blocks.
pub(super) fn load_shadow(config: &Config) -> Result<Option<Judges>, AppError> {
    let Some(Shadow { policy, model, .. }) = &config.shadow else { return Ok(None) };
    let judged = Config { policy: policy.clone(), model: model.clone(), ..config.clone() };
    let mut judges = load(&judged).map_err(|error| AppError::Shadow(Box::new(error)))?;
    // It acts on nothing, and would use up its quotas on its share alone.
    judges.policy.labels.iter_mut().for_each(|label| label.act_quota = None);
    Ok(Some(judges))
}

fn shadow(config: &Config, judges: Option<Judges>, metrics: &Metrics, format: Format) -> Result<Option<Tap>, AppError> {
    let (Some(Shadow { share, topic, .. }), Some(judges)) = (&config.shadow, judges) else { return Ok(None) };
    let (comparison, live) = Comparison::new(Aside::connect(&config.kafka, topic, metrics)?, metrics.clone());
    let pool = format!("{}:shadow", config.kafka.group);
    let (_, policies) = mpsc::channel(1);
    let road = pipeline::build(pipeline::Parts {
        work: judges.into(),
        cache: Cache::open(&CacheSettings::Off, Arc::default()).map_err(AppError::Cache)?,
        outlet: Outlet::Shadow(comparison),
        format,
        // Posts that the road has let pass.
        registry: None,
        limits: config.limits.clone(),
        // A post that ends the process in here is given up in here.
        suspects: Arc::new(super::suspects_of(config, &pool)?),
        pool,
        tally: Arc::new(Tally::silent()),
        policies,
        tap: None,
        replayed: None,
    })?;
    let (tap, tapped) = Tap::new(*share, metrics.clone());
    pipeline::shadow::run(road, tapped, live, config.limits.max_in_flight)?;
    info!(share, topic, "a shadow judges beside");
    Ok(Some(tap))
}
