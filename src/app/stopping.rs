//! How a running worker ends: by a signal, by the end of its source, or by the first fault.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Fatal;

/// Waits for the source to end and the stages behind it to close. The first fault stops everything: stages that can
/// no longer finish are aborted, which tells the source to commit what is finished and leave. It is the one told, unless
/// it is only the echo of another.
pub async fn supervise(
    source: JoinHandle<Result<(), Fatal>>,
    mut stages: JoinSet<Result<(), Fatal>>,
    stop: &CancellationToken,
    patience: Duration,
) -> Result<(), Fatal> {
    let mut source = tokio::task::spawn_blocking(move || source.join());
    let mut fault = None;
    let mut source_ended = false;
    while !(source_ended && stages.is_empty()) {
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        let fresh = tokio::select! {
            ended = &mut source, if !source_ended => {
                source_ended = true;
                ended.map_err(|error| internal("source", &error)).and_then(|joined| {
                    joined.unwrap_or_else(|_| Err(Fatal::Internal { part: "source", cause: "its thread panicked".to_owned() }))
                }).err()
            }
            Some(ended) = stages.join_next() => stage_fault(ended),
            () = overdue => {
                fault.get_or_insert(Fatal::Internal { part: "shutdown", cause: "not finished in time".to_owned() });
                break;
            }
        };
        if let Some(fresh) = fresh {
            // Told in full by whoever gets the first one back.
            info!(error.type = fresh.code(), "stopping early");
            if fault.as_ref().is_none_or(|first| matches!(first, Fatal::Abandoned { .. })) {
                fault = Some(fresh);
            }
            stop.cancel();
            stages.abort_all();
        }
    }
    fault.map_or(Ok(()), Err)
}

/// What a stage's end means: an aborted one means nothing new.
fn stage_fault(ended: Result<Result<(), Fatal>, JoinError>) -> Option<Fatal> {
    match ended {
        Ok(outcome) => outcome.err(),
        Err(error) if error.is_cancelled() => None,
        Err(error) => Some(internal("a stage", &error)),
    }
}

fn internal(part: &'static str, error: &JoinError) -> Fatal {
    Fatal::Internal { part, cause: if error.is_panic() { "it panicked".to_owned() } else { error.to_string() } }
}

/// Cancels `stop` on SIGTERM or SIGINT; a second signal ends the process at once.
pub fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Where policies are reloaded it is listened to; elsewhere it must not end the process, as it would by itself.
    drop(signal(SignalKind::hangup())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        for seen in 0.. {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if seen > 0 {
                warn!("second signal: ending at once; what is in flight will be judged again");
                std::process::exit(1);
            }
            info!("stopping: finishing what is in flight");
            stop.cancel();
        }
    });
    Ok(())
}
