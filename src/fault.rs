//! Points on the road where a test may place a fault: the process killed, a thread that hangs, a run that fails.
//!
//! Only a build with the feature `failpoints` has them; in any other they are nothing. A test names the point and the
//! action in the worker's environment, in the words of the crate `fail`: `FAILPOINTS="before_produce=99*off->return(kill)"`
//! kills the worker when it is about to publish its hundredth record. Actions are `kill`, `hang`, and for a run
//! `error` and `memory`; of a run, `kill:WORD` and its like mean only one that holds a post with that word.

/// The points, each in the place that its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A finished post is about to be published.
    BeforeProduce,
    /// The broker has acknowledged a record; its offset is not committed yet.
    AfterProduce,
    /// Partitions are being taken away; nothing has been drained yet.
    Revoke,
    /// An answer has gone to the cache; its post has not gone on yet.
    AfterCacheWrite,
    /// Rows are about to be run.
    ModelRun,
    /// A transaction holds records and is not committed yet.
    InsideTransaction,
    /// Files of the archive are in their places; the manifest does not name them yet.
    InsideArchive,
    /// A file of a replay is written and has no name yet.
    BeforePart,
    /// It has its name; its lines still stand in the journal.
    AfterPart,
}

pub use self::placed::{listen, reach, run};

#[cfg(not(feature = "failpoints"))]
mod placed {
    use super::Point;

    /// Reads the faults that the environment asks for: none in this build.
    pub fn listen() {}

    /// A point on the road.
    #[inline(always)]
    pub fn reach(_: Point) {}

    /// A run of the model over these texts.
    #[inline(always)]
    pub fn run<'a>(_: impl Iterator<Item = &'a str>) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
mod placed {
    use super::Point;

    /// What ONNX Runtime says when a device has no room for a run.
    const NO_MEMORY: &str = "Failed to allocate memory for requested buffer of size 1073741824";

    impl Point {
        fn name(self) -> &'static str {
            match self {
                Point::BeforeProduce => "before_produce",
                Point::AfterProduce => "after_produce",
                Point::Revoke => "revoke",
                Point::AfterCacheWrite => "after_cache_write",
                Point::ModelRun => "model_run",
                Point::InsideTransaction => "inside_transaction",
                Point::InsideArchive => "inside_archive",
                Point::BeforePart => "before_part",
                Point::AfterPart => "after_part",
            }
        }
    }

    /// Reads the faults that the environment asks for.
    pub fn listen() {
        // Kept for the life of the process.
        std::mem::forget(fail::FailScenario::setup());
    }

    /// A point on the road: kills or hangs where a test asked for it.
    pub fn reach(point: Point) {
        if let Some(action) = told(point) {
            let _ = act(&action, "");
        }
    }

    /// A run of the model over these texts: kills, hangs or fails where a test asked for it.
    pub fn run<'a>(mut texts: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let Some(told) = told(Point::ModelRun) else { return Ok(()) };
        let (action, argument) = told.split_once(':').unwrap_or((&told, ""));
        let meant = match action {
            "memory" => texts.count() > argument.parse().unwrap_or(1),
            _ => texts.any(|text| text.contains(argument)),
        };
        if meant { act(action, argument) } else { Ok(()) }
    }

    fn told(point: Point) -> Option<String> {
        fail::fail_point!(point.name(), |action| action);
        None
    }

    fn act(action: &str, argument: &str) -> Result<(), String> {
        match action {
            "kill" => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                hang()
            }
            "hang" => hang(),
            "memory" => Err(NO_MEMORY.to_owned()),
            _ => Err(format!("a fault placed by a test: {action} {argument}")),
        }
    }

    fn hang() -> Result<(), String> {
        loop {
            std::thread::park();
        }
    }
}
