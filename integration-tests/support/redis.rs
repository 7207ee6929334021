//! One Redis for all tests of a run, or the one that `MODERATO_TEST_REDIS` names; and private ones to stop and kill.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use redis::ConnectionLike as _;
use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::{PATIENCE, eventually, free_port, run_id, summary};

/// All that a worker's user in Redis must be allowed to do.
pub const RIGHTS: [&str; 8] = ["-@all", "+ping", "+mget", "+set", "+del", "+sadd", "+smembers", "+pexpire"];

/// A redis-server under the harness's own hand.
pub struct Private {
    pub url: String,
    pub port: u16,
    arguments: Vec<String>,
    process: Guarded,
    folder: TempDir,
}

/// One test's view of the shared Redis. The keys of other tests are in it too: use [`Redis::name`] as a prefix.
pub struct Redis {
    pub url: String,
    pub test: &'static str,
}

struct Shared {
    url: String,
    version: String,
    _own: Option<Private>,
}

/// Redis for `test`, started at first use; `None` where the test is to be skipped. Called by `redis!()`.
pub fn used(test: &'static str) -> Option<Redis> {
    let redis = unrecorded(test)?;
    summary::used("redis", version().as_deref().unwrap_or("?"), test);
    Some(redis)
}

/// The same without a line in the summary: for tests that prove the harness, not the program.
pub fn unrecorded(test: &'static str) -> Option<Redis> {
    match shared() {
        Ok(shared) => Some(Redis { url: shared.url.clone(), test }),
        Err(why) => {
            summary::missing(why, test);
            None
        }
    }
}

/// The server's own word for its version.
pub fn version() -> Option<String> {
    shared().as_ref().ok().map(|shared| shared.version.clone())
}

fn shared() -> &'static Result<Shared, String> {
    static REDIS: OnceLock<Result<Shared, String>> = OnceLock::new();
    REDIS.get_or_init(|| {
        let (url, own) = match std::env::var("MODERATO_TEST_REDIS") {
            Ok(url) if !url.is_empty() => (url, None),
            _ => {
                let own = Private::try_start(Vec::new())?;
                (own.url.clone(), Some(own))
            }
        };
        let version = told_version(&url).map_err(|error| format!("Redis at {url} does not answer: {error}"))?;
        summary::announce(&format!("redis: {version} ({url})"));
        Ok(Shared { url, version, _own: own })
    })
}

fn told_version(url: &str) -> redis::RedisResult<String> {
    let mut connection = redis::Client::open(url)?.get_connection_with_timeout(PATIENCE)?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.unwrap_or("of an untold version").to_owned())
}

fn ping(url: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?.get_connection_with_timeout(PATIENCE)?;
    redis::cmd("PING").query(&mut connection)
}

impl Redis {
    /// A key prefix of this test and run alone.
    pub fn name(&self, purpose: &str) -> String {
        format!("{}-{purpose}-{}", self.test, run_id())
    }

    /// A blocking connection, to look into the cache or to spoil it.
    pub fn connection(&self) -> redis::Connection {
        connection(&self.url)
    }

    /// An own server, started for this test alone.
    pub fn private(&self) -> Private {
        self.private_with(&[])
    }

    /// The same with further arguments of redis-server.
    pub fn private_with(&self, arguments: &[&str]) -> Private {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Private::try_start(arguments).unwrap_or_else(|why| panic!("{why}"))
    }
}

/// The keys that match, in order.
pub fn keys(link: &mut redis::Connection, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(link).expect("Redis tells its keys");
    keys.sort();
    keys
}

/// The keys of the answers under a prefix, in order.
pub fn answers(link: &mut redis::Connection, prefix: &str) -> Vec<String> {
    keys(link, &format!("{prefix}:v1:*"))
}

fn connection(url: &str) -> redis::Connection {
    let client = redis::Client::open(url).unwrap_or_else(|error| panic!("{url} is no Redis address: {error}"));
    let mut connection = client.get_connection_with_timeout(PATIENCE).expect("Redis accepts a connection");
    assert!(connection.check_connection(), "Redis at {url} does not answer a PING");
    connection
}

impl Private {
    fn try_start(arguments: Vec<String>) -> Result<Self, String> {
        if !Command::new("redis-server").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Err("redis-server is missing: install Debian's package redis-server".to_owned());
        }
        let folder = tempfile::Builder::new().prefix("moderato-redis-").tempdir().expect("a temporary folder");
        let port = free_port();
        let process = launch(port, &folder, &arguments);
        let mut private = Self { url: format!("redis://127.0.0.1:{port}/"), port, arguments, process, folder };
        private.wait_until_it_answers()?;
        Ok(private)
    }

    pub fn connection(&self) -> redis::Connection {
        connection(&self.url)
    }

    /// Stops it without closing its connections: a server that hangs.
    pub fn pause(&mut self) {
        self.process.signal("STOP");
    }

    pub fn resume(&mut self) {
        self.process.signal("CONT");
    }

    /// Ends it at once: its connections are reset and new ones refused.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        assert!(self.process.exit_code(PATIENCE).is_some(), "a killed redis-server still runs");
    }

    /// Starts it again after [`Private::kill`], empty, at the same address.
    pub fn restart(&mut self) {
        self.process = launch(self.port, &self.folder, &self.arguments);
        self.wait_until_it_answers().unwrap_or_else(|why| panic!("{why}"));
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let (url, process) = (&self.url, &mut self.process);
        eventually(
            "redis-server answers a PING",
            PATIENCE,
            || (process.ended(), ping(url).err()),
            |(ended, fault)| ended.is_some() || fault.is_none(),
        );
        if process.ended().is_none() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default();
        Err(format!("redis-server did not start; its log:\n{log}"))
    }
}

fn launch(port: u16, folder: &TempDir, arguments: &[String]) -> Guarded {
    let mut command = watched(Path::new("redis-server"), folder.path(), &folder.path().join("redis.log"));
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder.path()).args(arguments);
    Guarded::start(command)
}
