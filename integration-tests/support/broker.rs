//! A broker of a test's own, to be stopped, killed, cut off and starved of room.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::child::{Guarded, watched};
use super::kafka::{Kafka, Ports, folder, launch_in, requirements_met};
use super::proxy::Proxy;
use super::{PATIENCE, eventually, free_port, summary};

/// The broker, and the test's view of it.
pub struct Own {
    pub kafka: Kafka,
    ports: Ports,
    more: Vec<OsString>,
    process: Option<Guarded>,
    room: Option<Room>,
    folder: TempDir,
}

impl Own {
    /// Starts one for `test`; `None` where the test is to be skipped. `settings` are lines for its properties.
    pub fn start(test: &'static str, settings: &str) -> Option<Self> {
        Self::start_in(test, settings, None)
    }

    /// One with a second door, which it tells its clients to enter through the proxy; hands back both.
    pub fn behind_a_proxy(test: &'static str) -> Option<(Self, Proxy)> {
        let (door, proxy) = (free_port(), free_port());
        let settings = format!(
            "listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,PROXIED://127.0.0.1:{door}
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"
        );
        let own = Self::start(test, &settings)?;
        Some((own, Proxy::start(proxy, door)))
    }

    /// One whose disk has so many megabytes; `None` too where this user may not mount one.
    pub fn on_a_small_disk(test: &'static str, megabytes: usize) -> Option<Self> {
        let folder = folder();
        match Room::of(folder.path(), megabytes) {
            Ok(room) => Self::start_with(test, "", folder, Some(room)),
            Err(why) => {
                summary::skipped(&format!("no small disk: {why}"), test);
                None
            }
        }
    }

    fn start_in(test: &'static str, settings: &str, room: Option<Room>) -> Option<Self> {
        Self::start_with(test, settings, folder(), room)
    }

    fn start_with(test: &'static str, settings: &str, folder: TempDir, room: Option<Room>) -> Option<Self> {
        if let Err(why) = requirements_met() {
            summary::missing(&why, test);
            return None;
        }
        let file = folder.path().join("own.properties");
        std::fs::write(&file, settings).expect("the temporary folder can be written");
        let ports = Ports { broker: free_port(), controller: free_port() };
        let kafka = Kafka { brokers: format!("127.0.0.1:{}", ports.broker), test };
        let mut own = Self { kafka, ports, more: vec![file.into()], process: None, room, folder };
        let version = own.launch();
        summary::used("kafka", &version, test);
        Some(own)
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Starts it again where it was, with what it had.
    pub fn start_again(&mut self) {
        self.process = None;
        self.launch();
    }

    /// Takes all the room that its disk has left.
    pub fn fill_the_disk(&self) {
        self.room().run(r#"cat /dev/zero > "$0/data/ballast" || true"#);
    }

    /// Gives that room back.
    pub fn clear_the_disk(&self) {
        self.room().run(r#"rm "$0/data/ballast""#);
    }

    fn room(&self) -> &Room {
        self.room.as_ref().expect("a broker on a small disk")
    }

    fn end(&mut self, signal: &str) {
        let process = self.process.as_mut().expect("a broker that runs");
        if process.ended().is_none() {
            process.signal(signal);
        }
        assert!(process.exit_code(PATIENCE).is_some(), "the broker still runs");
    }

    fn launch(&mut self) -> String {
        let prefix = self.room.as_ref().map(Room::prefix).unwrap_or_default();
        let (process, version) =
            launch_in(self.folder.path(), &self.ports, &prefix, &self.more).unwrap_or_else(|why| panic!("{why}"));
        self.process = Some(process);
        version
    }
}

/// A disk in memory, mounted at a folder's `data` in a name space of its own: it is gone with the processes in it.
struct Room {
    holder: Guarded,
    folder: std::path::PathBuf,
}

impl Room {
    fn of(folder: &Path, megabytes: usize) -> Result<Self, String> {
        let (data, log) = (folder.join("data"), folder.join("room.log"));
        std::fs::create_dir(&data).expect("the temporary folder can be written");
        let script = r#"mount -t tmpfs -o size="$1m" tmpfs "$0" && echo mounted && exec sleep infinity"#;
        let mut command = watched(Path::new("unshare"), folder, &log);
        command.args(["-m", "sh", "-c", script]).arg(&data).arg(megabytes.to_string());
        let mut holder = Guarded::start(command);
        let told = || (std::fs::read_to_string(&log).unwrap_or_default(), holder.ended());
        let (text, ended) = eventually("a disk is mounted", PATIENCE, told, |(text, ended)| {
            text.contains("mounted") || ended.is_some()
        });
        match ended {
            None => Ok(Self { holder, folder: folder.to_owned() }),
            Some(_) => Err(text.trim().to_owned()),
        }
    }

    /// What makes a program see the disk.
    fn prefix(&self) -> Vec<OsString> {
        ["nsenter", "-m", "-t", &self.holder.pid().to_string()].map(OsString::from).to_vec()
    }

    fn run(&self, script: &str) {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(["sh", "-c", script]).arg(&self.folder);
        let output = command.output().expect("nsenter is part of every Debian");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
