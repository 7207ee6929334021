//! How far a replay has come: a bar for a person, lines for a log, events for a program.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tracing::info;

/// Between two lines of a log.
const LINES: Duration = Duration::from_secs(10);
/// Between two events.
const EVENTS: Duration = Duration::from_secs(1);

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    /// A bar on a terminal, lines of the log elsewhere.
    Auto,
    /// A bar.
    Bar,
    /// A line of the log every 10 seconds.
    Log,
    /// JSON lines on standard output, the summary among them.
    Json,
    /// Not at all.
    Off,
}

impl Shown {
    fn settled(self) -> Self {
        match self {
            Self::Auto if io::stderr().is_terminal() => Self::Bar,
            Self::Auto => Self::Log,
            other => other,
        }
    }

    /// The log's lines would tear the bar.
    pub(super) fn log_filter(self) -> &'static [(&'static str, &'static str)] {
        if self.settled() == Self::Bar { &[("log.filter", "warn,ort=error")] } else { &[] }
    }
}

/// What is known of a replay's way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Offsets, or posts, that are finished since this process began.
    pub done: u64,
    /// And those that are left, where that is known.
    pub left: Option<u64>,
    /// How far the live group is behind, where that is looked at.
    pub live_lag: Option<u64>,
    /// Whether posts wait for the live ones.
    pub held: bool,
}

/// Tells it.
pub(super) struct Progress {
    shown: Shown,
    id: String,
    bar: ProgressBar,
    /// When it was told last, and what was done by then.
    last: (Instant, u64),
}

impl Progress {
    pub(super) fn new(shown: Shown, id: &str) -> Self {
        let shown = shown.settled();
        let bar = if shown == Shown::Bar { ProgressBar::no_length() } else { ProgressBar::hidden() };
        Self { shown, id: id.to_owned(), bar, last: (Instant::now(), 0) }
    }

    pub(super) fn show(&mut self, way: Way) {
        let every = match self.shown {
            Shown::Bar => return self.draw(way),
            Shown::Off | Shown::Auto => return,
            Shown::Log => LINES,
            Shown::Json => EVENTS,
        };
        let (since, before) = self.last;
        let took = since.elapsed();
        if took < every {
            return;
        }
        self.last = (Instant::now(), way.done);
        let rate = way.done.saturating_sub(before) as f64 / took.as_secs_f64();
        let seconds_left = way.left.filter(|_| rate > 0.0).map(|left| (left as f64 / rate).ceil() as u64);
        let Way { done, left, live_lag, held } = way;
        let id = &self.id;
        if self.shown == Shown::Json {
            let event = json!({
                "event": "progress", "id": id, "done": done, "left": left, "per_second": rate.round(),
                "seconds_left": seconds_left, "live_lag": live_lag, "waits_for_live": held,
            });
            say!("{event}");
        } else {
            info!(
                id,
                done,
                left,
                per_second = rate.round(),
                seconds_left,
                live_lag,
                waits_for_live = held,
                "replaying"
            );
        }
    }

    fn draw(&self, Way { done, left, live_lag, held }: Way) {
        let template = match left {
            Some(_) => "{bar:40} {pos}/{len}, {per_sec}, {eta} left {msg}",
            None => "{spinner} {pos} posts, {per_sec} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if let Some(left) = left {
            self.bar.set_length(done + left);
        }
        self.bar.set_position(done);
        let waits = live_lag.filter(|_| held).map(|lag| format!("(waits: the live group is {lag} posts behind)"));
        self.bar.set_message(waits.unwrap_or_default());
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
