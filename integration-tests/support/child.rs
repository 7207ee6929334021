//! Processes that end when the test binary ends, however it ends: passed, failed, interrupted or killed.
//!
//! libtest has no place for a last action, and a killed process runs none. So each child has a watcher, a shell that
//! waits at a pipe whose other end only the test binary holds. The kernel closes that end with the test binary; the
//! watcher then kills the child by its process id and removes its folder.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// `$$` stays the process id of the outer shell, which `exec` then gives to the program: the one that is killed.
/// A line on the pipe means that the program has ended and its id may belong to another: the watcher leaves quietly.
const WATCHED: &str = r#"
folder=$1; shift
exec 3<&0 </dev/null
(
  exec >/dev/null 2>&1
  if read -r ended <&3; then exit 0; fi
  kill -9 $$
  rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
) &
exec 3<&-
exec "$@"
"#;

/// A running program under a watcher. Dropping it kills the program.
pub struct Guarded {
    child: Child,
    lifeline: Option<ChildStdin>,
    status: Option<ExitStatus>,
}

/// A command that runs `program` watched, writing to `log`; `folder` is removed if the tests die before it is dropped.
pub fn watched(program: &Path, folder: &Path, log: &Path) -> Command {
    let log = File::create(log).unwrap_or_else(|error| panic!("cannot create {}: {error}", log.display()));
    let mut command = Command::new("sh");
    command.args(["-c", WATCHED, "watched"]).arg(folder).arg(program);
    // Its own process group: an interrupt from the terminal is for the tests alone, the watcher does the rest.
    command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    command
}

impl Guarded {
    /// Starts a command made by [`watched`].
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let lifeline = child.stdin.take();
        Self { child, lifeline, status: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
            if self.status.is_some() {
                self.dismiss_watcher();
            }
        }
        self.status
    }

    /// The exit code, or 128 and the signal's number as in a shell; `None` when it still runs after `within`.
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < within {
            if let Some(status) = self.ended() {
                return status.code().or(status.signal().map(|signal| 128 + signal));
            }
            std::thread::sleep(super::POLL);
        }
        None
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&mut self, name: &str) {
        assert!(self.ended().is_none(), "no signal {name} can reach a program that has ended");
        // The shell's own `kill`: a bare Debian has no program of that name.
        let script = r#"kill -"$0" "$1""#;
        let sent = Command::new("sh").args(["-c", script, name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "signal {name} could not be sent to {}", self.pid());
    }

    fn dismiss_watcher(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            // A watcher that is gone has nothing left to watch.
            let _ = lifeline.write_all(b"ended\n");
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // SIGKILL ends a stopped program too. Killed and reaped before the watcher is dismissed.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.dismiss_watcher();
        }
    }
}
