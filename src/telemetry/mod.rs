//! Logs to standard error; and for a worker, traces, metrics and logs by OpenTelemetry's own environment variables, and the
//! registry behind `/metrics`. Nothing here ever holds post text or secrets.

pub mod metrics;
mod otlp;
mod repeats;
pub mod trace;
pub mod vitals;

use std::io::{self, IsTerminal};

use tracing::error;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub use self::otlp::Telemetry;
pub use self::repeats::suppressed;
use crate::config::LogFormat;

type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// Starts logging. A filter that does not parse falls back to `info`: the configuration check has named it already.
pub fn start(format: LogFormat, filter: &str) {
    begin(vec![to_standard_error(format, filter)]);
}

/// Starts logging and whatever the environment asks to be exported. Where a variable cannot be followed, the error names
/// it. Must be called on the runtime.
pub fn start_worker(format: LogFormat, filter: &str, worker: &str) -> Result<Telemetry, String> {
    let (telemetry, bridge) = Telemetry::start(worker)?;
    let mut layers = vec![to_standard_error(format, filter)];
    layers.extend(bridge.map(|bridge| bridge.with_filter(exportable(filter)).boxed()));
    begin(layers);
    Ok(telemetry)
}

fn begin(layers: Layers) {
    if tracing_subscriber::registry().with(layers).try_init().is_ok() {
        quiet_panics();
    }
}

fn to_standard_error(format: LogFormat, filter: &str) -> Box<dyn Layer<Registry> + Send + Sync> {
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = if json {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).boxed()
    };
    layer.with_filter(repeats::Repeats::default()).with_filter(parsed(filter)).boxed()
}

fn parsed(filter: &str) -> EnvFilter {
    EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// What the exporters say of themselves is not exported: each failure would make the next.
fn exportable(filter: &str) -> EnvFilter {
    let own = ["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp", "hyper", "h2", "tonic", "reqwest", "tower"];
    own.iter().fold(parsed(filter), |filter, target| match format!("{target}=off").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    })
}

/// A panic's own message can quote the string it stumbled over, which may be a post: log only where it happened.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        error!(place, thread, "panic; its message is withheld because it may quote a post");
    }));
}
