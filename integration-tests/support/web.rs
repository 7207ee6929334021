//! A little HTTP: questions to a worker's admin port, and the far end of a real OpenTelemetry Collector.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::untold::assert_untold;
use super::worker::Worker;
use super::{PATIENCE, eventually, free_port, provided};

/// An answer: its status, its head and its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// The worker's admin address.
pub fn admin(worker: &mut Worker) -> String {
    let line = worker.wait_for_log("probes, metrics and status page are served");
    let line: Value = serde_json::from_str(&line).expect("a log line is JSON");
    line["address"].as_str().expect("an address").to_owned()
}

/// One GET; nothing of what a worker says there is a post's text or a secret.
pub fn get(address: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let asked = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).expect("it can be asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers in UTF-8");
    assert_untold(text.as_bytes(), path);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A page after its scripts ran, if it has any, as headless Chromium sees it. One in a file may look into others beside it.
pub fn rendered(url: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let profile = format!("--user-data-dir={}", folder.path().display());
    let flags =
        ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--allow-file-access-from-files"];
    let told = ["--virtual-time-budget=5000", "--dump-dom", &profile];
    let Ok(output) = Command::new("chromium").args(flags).args(told).arg(url).output() else {
        assert!(std::env::var_os("CI").is_none(), "chromium is missing; `make test` installs it");
        return None;
    };
    Some(String::from_utf8(output.stdout).expect("a page is UTF-8"))
}

/// The sum over all series of that name that have these labels; no number where there is none.
pub fn metric(address: &str, name: &str, labels: &[&str]) -> f64 {
    let text = get(address, "/metrics").body;
    let of =
        |line: &&str| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label));
    let values = text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value).unwrap_or(f64::NAN)
}

/// A collector that sends on, as JSON, what it is sent; and what arrived.
pub struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    arrived: Arc<Mutex<Vec<(String, Value)>>>,
    _process: Guarded,
    _folder: TempDir,
}

impl Collector {
    pub fn start() -> Self {
        let program = program();
        let folder = tempfile::Builder::new().prefix("moderato-collector-").tempdir().expect("a temporary folder");
        let (sink, arrived) = sink();
        let port = free_port();
        let config = folder.path().join("config.yaml");
        let text = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}
exporters: {{otlphttp: {{endpoint: 'http://{sink}', encoding: json, compression: none, sending_queue: {{enabled: false}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlphttp]}}
    metrics: {{receivers: [otlp], exporters: [otlphttp]}}
    logs: {{receivers: [otlp], exporters: [otlphttp]}}
"
        );
        std::fs::write(&config, text).expect("the temporary folder can be written");
        let log = folder.path().join("log");
        let mut command: Command = watched(&program, folder.path(), &log);
        command.arg(format!("--config=file:{}", config.display()));
        let process = Guarded::start(command);
        let up =
            || TcpStream::connect(("127.0.0.1", port)).map_err(|_| std::fs::read_to_string(&log).unwrap_or_default());
        eventually("the collector listens", PATIENCE, || up().map(drop), Result::is_ok).ok();
        let endpoint = format!("http://127.0.0.1:{port}");
        Self { endpoint, arrived, _process: process, _folder: folder }
    }

    /// Everything of one signal, such as `/v1/traces`, down to spans, log records or metrics.
    pub fn all(&self, path: &str, outer: &str, middle: &str, inner: &str) -> Vec<Value> {
        let arrived = self.arrived.lock().expect("nobody panicked");
        let lists = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let of = arrived.iter().filter(|(at, _)| at == path).map(|(_, body)| body);
        let resources = of.flat_map(|body| lists(body, outer));
        let scopes = resources.flat_map(|resource| lists(&resource, middle));
        scopes.flat_map(|scope| lists(&scope, inner)).collect()
    }

    pub fn spans(&self) -> Vec<Value> {
        self.all("/v1/traces", "resourceSpans", "scopeSpans", "spans")
    }

    pub fn logs(&self) -> Vec<Value> {
        self.all("/v1/logs", "resourceLogs", "scopeLogs", "logRecords")
    }

    pub fn metrics(&self) -> Vec<Value> {
        self.all("/v1/metrics", "resourceMetrics", "scopeMetrics", "metrics")
    }
}

/// What `make test` built of `integration-tests/collector`.
fn program() -> PathBuf {
    let program = provided("MODERATO_TEST_COLLECTOR", ".cache/tools/collector-0.160.0/collector");
    assert!(program.is_file(), "{} is missing; `make test` builds it", program.display());
    program
}

type Arrived = Arc<Mutex<Vec<(String, Value)>>>;

/// Takes what is posted, tells nobody's text, and keeps it.
fn sink() -> (String, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let arrived = Arrived::default();
    let kept = arrived.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || take(stream, &kept));
        }
    });
    (address, arrived)
}

fn take(stream: TcpStream, kept: &Arrived) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let path = lines.first()?.split(' ').nth(1)?.to_owned();
        let length =
            lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        assert_untold(&body, &path);
        kept.lock().ok()?.push((path, serde_json::from_slice(&body).unwrap_or_default()));
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").ok()?;
    }
}

/// An attribute's value, whatever its type.
pub fn attribute(of: &Value, key: &str) -> Option<String> {
    let all = of["attributes"].as_array()?;
    let value = &all.iter().find(|attribute| attribute["key"] == key)?["value"];
    let (_, value) = value.as_object()?.iter().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
