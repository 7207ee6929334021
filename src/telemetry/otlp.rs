//! OpenTelemetry's providers, as its own environment variables ask: a signal is exported where its endpoint is named
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, ...) or `OTEL_TRACES_EXPORTER=otlp` asks for it.
//!
//! Queues are bounded and exporting has threads of its own: a collector that is away or slow costs spans, never time.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::Registry;

use super::trace;

/// Longest wait for what is still to be exported when the worker ends.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// The providers; told to finish by [`Telemetry::finish`].
pub struct Telemetry {
    /// What `/metrics` shows.
    pub registry: Registry,
    traces: Option<SdkTracerProvider>,
    metrics: SdkMeterProvider,
    logs: Option<SdkLoggerProvider>,
}

type Bridge = OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>;

impl Telemetry {
    pub(super) fn start(worker: &str) -> Result<(Self, Option<Bridge>), String> {
        // Exporters over TLS ask for the program's choice; where one is made already, it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resource = resource(worker);
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        let reader = reader.build().map_err(|error| format!("/metrics: {error}"))?;
        let mut metrics = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader);
        if wanted("METRICS", |name| std::env::var(name).ok()) {
            let exporter = MetricExporter::builder().build().map_err(|error| fault("METRICS", &error))?;
            metrics = metrics.with_periodic_exporter(exporter);
        }
        let metrics = metrics.build();
        global::set_meter_provider(metrics.clone());
        let traces = wanted("TRACES", |name| std::env::var(name).ok()).then(|| tracer(&resource)).transpose()?;
        let logs = wanted("LOGS", |name| std::env::var(name).ok()).then(|| logger(&resource)).transpose()?;
        let bridge = logs.as_ref().map(OpenTelemetryTracingBridge::new);
        Ok((Self { registry, traces, metrics, logs }, bridge))
    }

    /// Exports what is left, all signals side by side, within 5 s. Blocks; not on the runtime's threads.
    pub fn finish(self) {
        // A collector that is away is no reason for another exit code; the exporter has logged it.
        std::thread::scope(|scope| {
            scope.spawn(|| self.traces.as_ref().map(|traces| traces.shutdown_with_timeout(LAST_EXPORT)));
            scope.spawn(|| self.logs.as_ref().map(|logs| logs.shutdown_with_timeout(LAST_EXPORT)));
            let _ = self.metrics.shutdown_with_timeout(LAST_EXPORT);
        });
    }
}

fn tracer(resource: &Resource) -> Result<SdkTracerProvider, String> {
    let exporter = SpanExporter::builder().build().map_err(|error| fault("TRACES", &error))?;
    let provider = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter).build();
    global::set_tracer_provider(provider.clone());
    trace::enable(provider.tracer("moderato"));
    Ok(provider)
}

fn logger(resource: &Resource) -> Result<SdkLoggerProvider, String> {
    let exporter = LogExporter::builder().build().map_err(|error| fault("LOGS", &error))?;
    Ok(SdkLoggerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter).build())
}

fn fault(signal: &str, error: &dyn std::error::Error) -> String {
    format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT or OTEL_EXPORTER_OTLP_*: {error}")
}

/// Whether a signal is to be exported.
fn wanted(signal: &str, variable: impl Fn(&str) -> Option<String>) -> bool {
    let says = |name: &str, what: &str| variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(what));
    let named = |name: &str| variable(name).is_some_and(|value| !value.trim().is_empty());
    let exporter = format!("OTEL_{signal}_EXPORTER");
    if says("OTEL_SDK_DISABLED", "true") || says(&exporter, "none") {
        return false;
    }
    says(&exporter, "otlp")
        || named("OTEL_EXPORTER_OTLP_ENDPOINT")
        || named(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
}

/// Who speaks; what the environment says of it stands.
fn resource(worker: &str) -> Resource {
    let given = Resource::builder().build();
    let has = |key: &'static str| {
        given.get_ref(&key.into()).is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let ours =
        [("service.name", "moderato"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", worker)];
    let missing = ours.into_iter().filter(|(key, _)| !has(key));
    let missing: Vec<_> = missing.map(|(key, value)| KeyValue::new(key, value.to_owned())).collect();
    Resource::builder().with_attributes(missing).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(signal: &str, variables: &[(&str, &str)]) -> bool {
        wanted(signal, |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_signal_is_exported_where_its_endpoint_is_named_and_nobody_says_no() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(!asked("TRACES", &[]), "no collector, no exporter that fails for ever");
        assert!(asked("TRACES", &[endpoint]) && asked("LOGS", &[endpoint]));
        assert!(!asked("LOGS", &[endpoint, ("OTEL_LOGS_EXPORTER", "none")]));
        assert!(!asked("METRICS", &[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!asked("METRICS", &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")]));
        assert!(asked("METRICS", &[("OTEL_METRICS_EXPORTER", "otlp")]));
        assert!(!asked("TRACES", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
    }
}
