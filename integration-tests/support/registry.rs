//! A real schema registry: Apicurio Registry, in memory, through its Confluent interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::{PATIENCE, eventually, free_port, provided, summary};

const MEDIA: &str = "application/vnd.schemaregistry.v1+json";

/// A registry under the harness's own hand.
pub struct Registry {
    pub url: String,
    port: u16,
    process: Guarded,
    folder: TempDir,
}

/// The one of all tests of a run; `None` where the test is to be skipped.
pub fn shared(test: &'static str) -> Option<&'static Registry> {
    static SHARED: OnceLock<Result<Registry, String>> = OnceLock::new();
    told(SHARED.get_or_init(Registry::start).as_ref().map_err(Clone::clone), test)
}

/// One to be killed.
pub fn private(test: &'static str) -> Option<Registry> {
    told(Registry::start(), test)
}

fn told<R>(started: Result<R, String>, test: &'static str) -> Option<R> {
    match started {
        Ok(registry) => Some(registry),
        Err(why) => {
            summary::missing(&why, test);
            None
        }
    }
}

fn home() -> PathBuf {
    provided("MODERATO_TEST_SCHEMA_REGISTRY", ".cache/schema-registry")
}

fn launch(folder: &Path, port: u16) -> Guarded {
    let jar = home().read_dir().into_iter().flatten().flatten().map(|file| file.path());
    let jar = jar.into_iter().find(|path| path.to_string_lossy().ends_with("-runner.jar")).expect("a runner's jar");
    let mut command = watched(Path::new("java"), folder, &folder.join("registry.log"));
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx384m", "-Dquarkus.http.host=127.0.0.1"]);
    command.arg(format!("-Dquarkus.http.port={port}")).arg("-jar").arg(jar).current_dir(folder);
    Guarded::start(command)
}

impl Registry {
    fn start() -> Result<Self, String> {
        if !Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success()) {
            return Err("Java is missing, and the schema registry runs on it".to_owned());
        }
        if !home().join(".complete").is_file() {
            return Err(format!("Apicurio Registry is missing in {}: `make schema-registry`", home().display()));
        }
        let folder = tempfile::Builder::new().prefix("moderato-registry-").tempdir().expect("a temporary folder");
        let port = free_port();
        let process = launch(folder.path(), port);
        let mut registry = Self { url: format!("http://127.0.0.1:{port}/apis/ccompat/v7"), port, process, folder };
        registry.wait();
        Ok(registry)
    }

    fn wait(&mut self) {
        let url = format!("{}/subjects", self.url);
        let process = &mut self.process;
        let answers = || (process.ended(), client().get(&url).send().is_ok_and(|answer| answer.status().is_success()));
        let (ended, _) =
            eventually("the registry answers", 2 * PATIENCE, answers, |(ended, up)| ended.is_some() || *up);
        assert_eq!(ended, None, "the registry ended: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("registry.log")).unwrap_or_default()
    }

    /// Ends it as a power cut would; what it knew is lost.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        assert!(self.process.exit_code(PATIENCE).is_some(), "the registry still runs");
    }

    /// Starts it again at the same address, empty.
    pub fn start_again(&mut self) {
        self.process = launch(self.folder.path(), self.port);
        self.wait();
    }

    /// Registers a schema as a producer would; `kind` is `JSON` or `AVRO`.
    pub fn register(&self, subject: &str, kind: &str, schema: &str) -> u32 {
        let body = json!({ "schemaType": kind, "schema": schema }).to_string();
        let url = format!("{}/subjects/{subject}/versions", self.url);
        let answer = client().post(url).header("content-type", MEDIA).body(body).send().expect("the registry answers");
        let text = answer.text().expect("text");
        let id = serde_json::from_str::<Value>(&text).ok().and_then(|answer| answer["id"].as_u64());
        u32::try_from(id.unwrap_or_else(|| panic!("{subject}: {text}"))).expect("an id")
    }

    /// The id and the schema of a subject's latest version, if it has one.
    pub fn latest(&self, subject: &str) -> Option<(u32, Value)> {
        let answer = client().get(format!("{}/subjects/{subject}/versions/latest", self.url)).send();
        let answer = answer.expect("the registry answers");
        let found: Value = serde_json::from_str(&answer.text().expect("text")).expect("JSON");
        let schema = serde_json::from_str(found["schema"].as_str()?).expect("a schema");
        Some((u32::try_from(found["id"].as_u64()?).expect("an id"), schema))
    }
}

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("an HTTP client")
}
