//! The real program, as a user starts it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::untold::assert_untold;
use super::{PATIENCE, assert_fits, eventually, provided};

/// The program, running. Dropped while it runs, it is killed; dropped by a failing test, it shows its log, which holds
/// no post and no secret.
pub struct Worker {
    process: Guarded,
    folder: TempDir,
    shows_posts: bool,
}

/// How the program is to be started.
pub struct Setup {
    verb: &'static str,
    config: String,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// `moderato run` with a config file of this YAML text.
    pub fn new(config: impl Into<String>) -> Self {
        Self { verb: "run", config: config.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// Another verb than `run`, with the same config file; a verb below a verb is set apart by a blank.
    pub fn verb(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    /// A flag after `VERB -c FILE`.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One key, by flag: `--set KEY=VALUE`.
    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.argument("--set").argument(format!("{key}={value}"))
    }

    /// Several keys.
    pub fn with(self, settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(self, |setup, (key, value)| setup.set(key, value))
    }

    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A fault at a named point, in the words of `src/fault.rs`.
    pub fn fault(self, point: &str, action: &str) -> Self {
        if !cfg!(feature = "failpoints") {
            panic!("faults can be placed with `--features failpoints` only");
        }
        self.environment("FAILPOINTS", &format!("{point}={action}"))
    }

    /// Starts it and lets it run.
    pub fn start(self) -> Worker {
        let folder = folder();
        let mut command = watched(&program(), folder.path(), &folder.path().join("log"));
        let shows_posts = self.shows_posts();
        self.fill(&mut command, &folder);
        Worker { process: Guarded::start(command), folder, shows_posts }
    }

    /// Runs it to its end with `input` on standard input.
    pub fn output(self, input: &[u8]) -> Output {
        let folder = folder();
        let mut command = Command::new(program());
        let (verb, shows_posts) = (self.verb, self.shows_posts());
        self.fill(&mut command, &folder);
        let output = to_its_end(command, input);
        // A note may quote its post.
        if !shows_posts && verb != "draft" {
            assert_untold(&output.stdout, verb);
        }
        if !shows_posts {
            assert_untold(&output.stderr, verb);
        }
        output
    }

    /// Runs it to its end: the JSON that it prints, which fits the published schema, and its exit code.
    pub fn report(self, schema: &str) -> (Value, Option<i32>) {
        let output = self.output(b"");
        let errors = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
        assert_fits(&report, schema);
        (report, output.status.code())
    }

    /// The demo is there to show posts.
    fn shows_posts(&self) -> bool {
        self.verb == "demo"
    }

    fn fill(self, command: &mut Command, folder: &TempDir) {
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, &self.config).expect("the temporary folder can be written");
        command.args(self.verb.split(' ')).arg("-c").arg(&config).args(&self.arguments);
        clean_environment(command);
        // Workers of one test run side by side.
        command.env("MODERATO__ADMIN__LISTEN", "127.0.0.1:0");
        command.envs(self.environment);
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("moderato-worker-").tempdir().expect("a temporary folder")
}

impl Worker {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it has written so far, standard output and standard error together.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The first log line that contains `text`, waited for; panics with the log when the worker ends without it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let path = self.folder.path().join("log");
        let process = &mut self.process;
        let line = || {
            // In this order: what it wrote before it ended is there to be read after.
            let ended = process.ended();
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            // A line without its end may still be growing.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            (whole.lines().find(|line| line.contains(text)).map(str::to_owned), ended)
        };
        let what = format!("a log line with {text:?}");
        let (found, ended) = eventually(&what, PATIENCE, line, |(found, ended)| found.is_some() || ended.is_some());
        found.unwrap_or_else(|| panic!("the worker ended ({ended:?}) without {what}"))
    }

    /// The log's last word: the code it ended with, and the reason for a person.
    pub fn last_word(&mut self) -> (String, String) {
        let line = self.wait_for_log("\"ended\"");
        let line: serde_json::Value = serde_json::from_str(&line).expect("a log line is JSON");
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (text("error.type"), text("error"))
    }

    /// How many log lines contain `text` so far.
    pub fn count_in_log(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Asks it to stop in good order.
    pub fn sigterm(&mut self) {
        self.process.signal("TERM");
    }

    /// Stops it in good order; hands back its log.
    pub fn stop(mut self) -> String {
        self.sigterm();
        assert_eq!(self.wait(), 0);
        self.log()
    }

    /// The same; hands back the line of totals.
    pub fn totals(self) -> serde_json::Value {
        let log = self.stop();
        let line = log.lines().find(|line| line.contains("\"stopped\"")).expect("a worker that stops says so");
        serde_json::from_str(line).expect("a log line is JSON")
    }

    /// How it ended, if it has: its exit code, or 128 and the signal's number.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.ended()?;
        Some(self.wait())
    }

    /// Sends a signal, such as `KILL`, and waits for nothing.
    pub fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.process.signal("KILL");
        self.wait();
    }

    /// Stops it where it stands; [`Worker::resume`] lets it go on.
    pub fn pause(&mut self) {
        self.process.signal("STOP");
    }

    pub fn resume(&mut self) {
        self.process.signal("CONT");
    }

    /// Its exit code, or 128 and the signal's number.
    pub fn wait(&mut self) -> i32 {
        self.wait_within(PATIENCE)
    }

    pub fn wait_within(&mut self, within: Duration) -> i32 {
        self.process.exit_code(within).unwrap_or_else(|| panic!("the worker still runs after {within:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(60);
            eprintln!("--- the end of the worker's log (process {})", self.pid());
            log.lines().skip(skip).for_each(|line| eprintln!("{line}"));
            eprintln!("---");
        } else if !self.shows_posts {
            assert_untold(self.log().as_bytes(), "the worker's log");
        }
    }
}

/// The program with these arguments alone, run to its end with `input` on standard input.
pub fn moderato(arguments: &[&str], input: &[u8]) -> Output {
    to_its_end(plain(arguments), input)
}

/// The same, killed at a named point of `src/fault.rs`.
pub fn moderato_killed_at(point: &str, arguments: &[&str]) {
    let mut command = plain(arguments);
    command.env("FAILPOINTS", format!("{point}=return(kill)"));
    let output = to_its_end(command, b"");
    assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
}

fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    clean_environment(&mut command);
    command.args(arguments);
    command
}

fn to_its_end(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // Beside the reading: both pipes may fill up. A program that does not read its input is no fault.
        scope.spawn(move || std::io::Write::write_all(&mut stdin, input));
        child.wait_with_output().expect("a child can be waited for")
    })
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_moderato"))
}

/// Settings of the person who runs the tests do not reach the program; the ONNX Runtime library does.
pub fn clean_environment(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("MODERATO_") || key == "RUST_LOG" {
            command.env_remove(key);
        }
    }
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        command.env("MODERATO__MODEL__ONNXRUNTIME", provided("ORT_DYLIB_PATH", ""));
    }
}
