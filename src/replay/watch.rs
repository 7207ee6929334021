//! Watches a replay from beside it: how much is left, whether it is over, and whether live posts need the machine more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{POSTS, Plan};
use crate::config::KafkaSettings;
use crate::kafka::bounds::Watch;
use crate::kafka::range::{ReadError, Reader, Topic};
use crate::receipt::Partition;

/// Between two looks at the group's commits.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at the live group's lag, which asks more of the brokers.
const LIVE: Duration = Duration::from_secs(2);
/// How late a stop is noticed.
const TURN: Duration = Duration::from_millis(50);

/// Reads the commits of the replay's group, and of the live one.
pub struct Watcher {
    own: Reader,
    topic: String,
    partitions: Vec<Partition>,
    live: Option<(Reader, u64)>,
    watch: Arc<Watch>,
}

/// What it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Offsets that nobody has finished yet.
    pub left: u64,
    /// How far the live group is behind, if that is looked at.
    pub live_lag: Option<u64>,
    /// Whether posts wait for the live ones.
    pub held: bool,
}

impl Watcher {
    /// `yield_to`: posts wait while the live group is further behind than that.
    pub fn connect(
        live: &KafkaSettings,
        replay: &KafkaSettings,
        plan: &Plan,
        yield_to: Option<u64>,
        watch: Arc<Watch>,
    ) -> Result<Self, ReadError> {
        let own = Reader::connect(replay)?;
        let live = yield_to.map(|most| Ok::<_, ReadError>((Reader::connect(live)?, most))).transpose()?;
        let partitions = plan.left.iter().map(|span| span.partition).collect();
        let watcher = Self { own, topic: replay.posts.clone(), partitions, live, watch };
        // Nothing is taken before it is known whether it may be.
        watcher.look_at_live()?;
        Ok(watcher)
    }

    /// Looks until everything is finished, or `stop` is cancelled. Whether it is finished.
    pub fn run(&self, stop: &CancellationToken, mut show: impl FnMut(Seen)) -> bool {
        let (mut lag, mut next_live) = (None, Instant::now());
        while !stop.is_cancelled() {
            if Instant::now() >= next_live {
                next_live = Instant::now() + LIVE;
                match self.look_at_live() {
                    Ok(seen) => lag = seen,
                    Err(error) => warn!(%error, "cannot see how far the live group is behind"),
                }
            }
            match self.left() {
                Ok(left) => {
                    let held = lag.is_some_and(|(_, held)| held);
                    show(Seen { left, live_lag: lag.map(|(lag, _)| lag), held });
                    if left == 0 {
                        self.watch.is_over();
                        return true;
                    }
                }
                Err(error) => warn!(%error, "cannot see how much is left"),
            }
            wait(stop);
        }
        false
    }

    fn left(&self) -> Result<u64, ReadError> {
        let marks = self.own.marks(&self.topic, self.partitions.iter().copied())?;
        let left = marks.values().map(|mark| u64::try_from(mark.end.unwrap_or(0) - mark.next).unwrap_or_default());
        Ok(left.sum())
    }

    fn look_at_live(&self) -> Result<Option<(u64, bool)>, ReadError> {
        let Some((live, most)) = &self.live else { return Ok(None) };
        let extents = live.extents(Topic { key: POSTS, name: &self.topic })?;
        let committed = live.committed(&self.topic, &extents)?;
        let behind = extents.iter().map(|extent| {
            let next = committed.get(&extent.partition).copied().unwrap_or(extent.low).max(extent.low);
            u64::try_from(extent.stable - next).unwrap_or_default()
        });
        let lag = behind.sum();
        self.watch.hold(lag > *most);
        Ok(Some((lag, lag > *most)))
    }
}

fn wait(stop: &CancellationToken) {
    let until = Instant::now() + LOOK;
    while Instant::now() < until && !stop.is_cancelled() {
        std::thread::sleep(TURN);
    }
}
