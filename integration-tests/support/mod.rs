//! What the integration tests stand on: a real broker, a real Redis, and the real program.
//!
//! Servers start once a test binary, at first use, on free ports in a temporary folder, and end with it however it ends
//! (`child.rs`). A test asks for them by `kafka!()` and `redis!()`, which also record its name for the closing summary.
//! Nothing here sleeps in place of an event: every wait looks for a fact and, when its time is up, says what it saw last.

#![allow(dead_code, reason = "the bench builds on a part of it")]
#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

pub mod broker;
pub mod child;
pub mod kafka;
pub mod notes;
pub mod oracle;
pub mod pool;
pub mod proxy;
pub mod records;
pub mod redis;
pub mod registry;
pub mod secured;
pub mod summary;
pub mod untold;
pub mod web;
pub mod worker;

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Long enough for a busy machine of two cores; no test is meant to come near it.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// The name of the test function it is written in, whichever thread runs it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::support::function_name(std::any::type_name_of_val(&here))
    }};
}

/// The shared broker, as [`kafka::Kafka`]. Leaves the test where it may be skipped (`MODERATO_TEST_ALLOW_MISSING=1`).
#[macro_export]
macro_rules! kafka {
    () => {
        match $crate::support::kafka::used($crate::test_name!()) {
            Some(kafka) => kafka,
            None => return,
        }
    };
}

/// The shared Redis, as [`redis::Redis`]. Leaves the test where it may be skipped (`MODERATO_TEST_ALLOW_MISSING=1`).
#[macro_export]
macro_rules! redis {
    () => {
        match $crate::support::redis::used($crate::test_name!()) {
            Some(redis) => redis,
            None => return,
        }
    };
}

/// `integration::road::a_test::{{closure}}::here` is the test `a_test`.
pub fn function_name(path: &'static str) -> &'static str {
    let outer = path.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    outer.rsplit("::").next().unwrap_or(outer)
}

/// Looks until what it sees `holds`, and hands that back; gives up loudly, with the last sight, after `within`.
pub fn eventually<T: Debug>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}; last seen: {seen:?}");
        std::thread::sleep(POLL);
    }
}

/// A few letters that no other run of the tests has, for names on servers that outlive one run.
pub fn run_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| format!("{:06x}", random() & 0xff_ffff))
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// A port that is free now. Below the range from which the kernel gives ports to outgoing connections, so that none
/// of the tests' own connections takes it while the server is still starting.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| 20_000 + u16::try_from(random() % 12_000).unwrap_or_default())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or_else(|| panic!("no free port between 20000 and 32000 on 127.0.0.1"))
}

/// A path of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The document fits a schema of `schemas/`.
pub fn assert_fits(document: &serde_json::Value, schema: &str) {
    let text = std::fs::read(repository("schemas").join(schema)).expect("a schema that is published");
    let schema = serde_json::from_slice(&text).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a JSON schema");
    let faults: Vec<String> = schema.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?} in {document:#}");
}

/// A file or folder that `make test` puts in place: at `variable`, or else at its usual path in the repository.
pub fn provided(variable: &str, usual: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| repository(usual), |path| repository("").join(path))
}

/// The folder of one exported model, such as `tiny-fp32`.
pub fn model(name: &str) -> PathBuf {
    let folder = provided("MODERATO_TEST_MODELS", ".cache/models").join(name);
    let manifest = folder.join("manifest.json");
    assert!(manifest.is_file(), "{} is missing; `make test` makes it", manifest.display());
    folder
}

/// Runs a future of the Kafka or Redis client to its end, also inside a test that has a runtime of its own.
pub fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        scope.spawn(move || runtime().block_on(future)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
