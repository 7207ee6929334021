//! Judges a range again: the same road, with an end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::beside::Beside;
use super::feed::Feed;
use super::schemas::Schemas;
use super::{AppError, CLOSING, Judges, Reading, consume, operated, supervise, tell};
use crate::config::Config;
use crate::error::Fatal;
use crate::kafka::bounds::{Bounds, Pace};
use crate::kafka::publisher::Publisher;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::replayed::Replayed;
use crate::pipeline::tally::Tally;
use crate::pipeline::{Road, Work};
use crate::receipt::Original;

/// A replay.
pub struct Replay {
    /// Its mark and its account.
    pub replayed: Arc<Replayed>,
    /// Where posts come from.
    pub input: Input,
    /// Where verdicts go: the topics of the configuration where nothing is said.
    pub outlet: Option<Outlet>,
}

/// Where the posts of a replay come from.
pub enum Input {
    /// The topic of posts, within bounds.
    Topic(Bounds),
    /// These records.
    Records {
        /// In their order.
        records: Box<dyn Iterator<Item = Result<Original, Fatal>> + Send>,
        /// Most of them in a second.
        rate: Option<f64>,
    },
}

/// Judges all that the replay is for, or until `stop` is cancelled.
pub async fn replay(
    config: &Config,
    mut judges: Judges,
    replay: Replay,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let Replay { replayed, input, outlet } = replay;
    // Nobody acts on what is judged again, so nothing of a quota is used up.
    judges.policy.labels.iter_mut().for_each(|label| label.act_quota = None);
    // The audit topic has a subject of its own; a line of a file has no schema's id before it.
    let schemas = match &outlet {
        Some(_) => Schemas::none(config),
        None => tokio::task::block_in_place(|| Schemas::open(config, &tally.metrics))?,
    };
    let work = Work::from(judges);
    let beside = Beside { replayed: Some(replayed), schemas, ..Beside::none(config) };
    match input {
        Input::Topic(bounds) => {
            let reading = Reading { bounds: Some(bounds), outlet };
            consume(config, work, beside, reading, tally, stop).await
        }
        Input::Records { records, rate } => {
            let outlet = match outlet {
                Some(outlet) => outlet,
                None => Outlet::Kafka(Publisher::of_records(&config.kafka, &tally.metrics)?),
            };
            let Road { intake, settled, stages, suspects } = operated(config, work, outlet, tally.clone(), beside)?;
            let (permits, pace) = (config.limits.max_in_flight, rate.map(Pace::new));
            let source = Feed { records, permits, pace, intake, settled, stop: stop.clone() }.spawn()?;
            let outcome = supervise(source, stages, &stop, config.grace + CLOSING).await;
            suspects.close(outcome.as_ref().is_err_and(Fatal::is_of_a_run));
            tell(&tally);
            Ok(outcome?)
        }
    }
}
