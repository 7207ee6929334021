//! Logs: structured, to standard error, never holding post text or secrets.

use std::io::{self, IsTerminal};

use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging. A filter that does not parse falls back to `info`: the configuration check has named it already.
pub fn start(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).try_init()
    };
    if started.is_ok() {
        quiet_panics();
    }
}

/// A panic's own message can quote the string it stumbled over, which may be a post: log only where it happened.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        error!(place, thread, "panic; its message is withheld because it may quote a post");
    }));
}
