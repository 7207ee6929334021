//! Keeps one log line from drowning the others: of each place in the code so many lines a window, the rest counted.
//! What somebody turned on to look closely (debug, trace) is told whole.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one place in a window.
const MOST: u32 = 50;

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// How many lines were left out.
pub fn suppressed() -> &'static AtomicU64 {
    &SUPPRESSED
}

/// Lets through of each place's warnings and information [`MOST`] lines each [`WINDOW`], and all of any other level.
#[derive(Default)]
pub(super) struct Repeats(Mutex<HashMap<Identifier, Seen>>);

struct Seen {
    since: Instant,
    lines: u32,
}

impl Repeats {
    fn lets_through(&self, place: Identifier, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(place).or_insert(Seen { since: now, lines: 0 });
        if now.saturating_duration_since(seen.since) >= WINDOW {
            *seen = Seen { since: now, lines: 0 };
        }
        seen.lines += 1;
        seen.lines <= MOST
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let bounded = matches!(*metadata.level(), Level::WARN | Level::INFO);
        let through = !bounded || self.lets_through(metadata.callsite(), Instant::now());
        if !through {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        }
        through
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_repeats_is_left_out_and_others_errors_and_what_was_asked_for_are_not() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer =
            tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_filter(Repeats::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..MOST * 3 {
                tracing::warn!(n, "often");
                tracing::error!(n, "grave");
                tracing::debug!(n, "asked for");
            }
            tracing::warn!("once");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let count = |word| text.matches(word).count();
        let all = 3 * MOST as usize;
        assert_eq!((count("often"), count("once"), count("grave"), count("asked for")), (MOST as usize, 1, all, all));
    }

    #[test]
    fn a_new_window_lets_lines_through_again() {
        struct Place;
        impl tracing::Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}

            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("only its address is looked at")
            }
        }
        static PLACE: Place = Place;
        let (repeats, start) = (Repeats::default(), Instant::now());
        let through = |at| (0..100).filter(|_| repeats.lets_through(tracing::callsite::Identifier(&PLACE), at)).count();
        assert_eq!((through(start), through(start + WINDOW)), (MOST as usize, MOST as usize));
    }
}
