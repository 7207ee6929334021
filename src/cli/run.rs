//! `moderato run`: the worker.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Common, VerbSettings, report, runtime};
use crate::app;
use crate::config::Needs;
use crate::error::Exit;
use crate::pipeline::tally::Tally;

pub(super) fn run(common: &Common) -> Result<Exit, Exit> {
    let config = common.start(&VerbSettings::default(), Needs::Kafka)?;
    let runtime = runtime()?;
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        app::stop_on_signals(&stop).map_err(|error| {
            tracing::error!(%error, "cannot listen for signals");
            Exit::Failed
        })?;
        let loading = config.clone();
        // A signal while the model loads must not wait for it: there is nothing in flight yet.
        let judges = tokio::select! {
            loaded = tokio::task::spawn_blocking(move || app::load_work(&loading)) => loaded.map_err(|_| Exit::Failed)?,
            () = stop.cancelled() => return Ok(Exit::Ok),
        };
        let judges = judges.map_err(|error| report(&error))?;
        app::run(&config, judges, Arc::new(Tally::default()), stop.clone()).await.map_err(|error| report(&error))?;
        Ok(Exit::Ok)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
