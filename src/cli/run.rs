//! `moderato run`: the worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Common, VerbSettings, problems, report, runtime};
use crate::admin::{Admin, Facts};
use crate::app;
use crate::config::{Config, ConfigError, Needs, Problem};
use crate::error::Exit;
use crate::pipeline::tally::Tally;
use crate::telemetry::{self, Telemetry};

pub(super) fn run(common: &Common) -> Result<Exit, Exit> {
    let loaded = common.load(&VerbSettings::default(), Needs::Kafka).map_err(|error| problems(&error))?;
    let config = loaded.checked.map_err(|error| problems(&error))?;
    let runtime = runtime()?;
    let telemetry = start_telemetry(&config, &runtime)?;
    // After the meter is there: instruments belong to the one that made them.
    let tally = Arc::new(Tally::default());
    let facts = app::facts(&config, &loaded.raw);
    let outcome =
        serve(&config, &telemetry, &tally, &facts).and_then(|()| runtime.block_on(work(&config, tally, facts)));
    // On the runtime, or OTLP over gRPC would have nobody to send; a second signal still ends it.
    telemetry.finish();
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn start_telemetry(config: &Config, runtime: &Runtime) -> Result<Telemetry, Exit> {
    let _on_the_runtime = runtime.enter();
    let started = telemetry::start_worker(config.log_format, &config.log_filter, &config.kafka.worker_id);
    started.map_err(|message| told("environment", message))
}

fn serve(config: &Config, telemetry: &Telemetry, tally: &Tally, facts: &Facts) -> Result<(), Exit> {
    let Some(at) = config.admin else { return Ok(()) };
    let admin = Admin { vitals: tally.vitals.clone(), registry: telemetry.registry.clone(), facts: facts.clone() };
    let at = admin
        .serve(at)
        .map_err(|error| told("admin.listen", format!("{at}: {error}; name an address that is free, or `off`")))?;
    tracing::info!(address = %at, "probes, metrics and status page are served");
    Ok(())
}

fn told(key: &str, message: String) -> Exit {
    problems(&ConfigError(vec![Problem { key: key.to_owned(), message }]))
}

async fn work(config: &Config, tally: Arc<Tally>, facts: Facts) -> Result<Exit, Exit> {
    let stop = CancellationToken::new();
    app::stop_on_signals(&stop).map_err(|error| {
        tracing::error!(%error, "cannot listen for signals");
        Exit::Failed
    })?;
    let loading = config.clone();
    // A signal while the model loads must not wait for it: there is nothing in flight yet.
    let work = tokio::select! {
        loaded = tokio::task::spawn_blocking(move || app::load_all(&loading)) => loaded.map_err(|_| Exit::Failed)?,
        () = stop.cancelled() => return Ok(Exit::Ok),
    };
    let (work, shadow) = work.map_err(|error| report(&error))?;
    app::is_warm(&work, &tally, &facts);
    app::run(config, work, shadow, tally, facts, stop).await.map_err(|error| report(&error))?;
    Ok(Exit::Ok)
}
