//! Servers behind locks: one Apache Kafka broker that asks for passwords and client certificates, authorities that
//! sign for it and for Redis, and a Redis cluster.
//!
//! The tests themselves look through a second, open door of the same server, so that only the program has to pass.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::kafka::{Broker, Kafka, answers, at, folder, launch};
use super::redis::{Private, Redis};
use super::{PATIENCE, eventually, free_port, repository, summary};

pub const USER: &str = "moderato";
/// With a blank and signs that some place on the way might take for its own.
pub const PASSWORD: &str = "correct horse/battery@staple";
pub const KEY_PASSWORD: &str = "purple#monkey dishwasher";

/// One test's view of the secured broker.
pub struct Secured {
    /// The open door, for topics and records.
    pub kafka: Kafka,
    /// SASL over TLS: PLAIN and SCRAM-SHA-512.
    pub by_password: String,
    /// TLS that asks for a client certificate.
    pub by_certificate: String,
    /// Signs for the broker and its clients.
    pub authority: &'static Authority,
    /// Certificate and key of a client; the key is under [`KEY_PASSWORD`].
    pub client: &'static Path,
}

struct Shared {
    broker: Broker,
    by_password: String,
    by_certificate: String,
    authority: Authority,
    client: PathBuf,
}

/// The secured broker for `test`, started at first use; `None` where the test is to be skipped.
pub fn used(test: &'static str) -> Option<Secured> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    match SHARED.get_or_init(start) {
        Ok(shared) => {
            summary::used("kafka", &shared.broker.version, test);
            Some(Secured {
                kafka: Kafka { brokers: shared.broker.address.clone(), test },
                by_password: shared.by_password.clone(),
                by_certificate: shared.by_certificate.clone(),
                authority: &shared.authority,
                client: &shared.client,
            })
        }
        Err(why) => {
            summary::missing(why, test);
            None
        }
    }
}

fn start() -> Result<Shared, String> {
    let folder = folder();
    let authority = Authority::new(folder.path(), "authority")?;
    authority.sign("server", None)?;
    let client = authority.sign("client", Some(KEY_PASSWORD))?;
    let (sasl, tls) = (free_port(), free_port());

    let template = repository("integration-tests/kafka/secured.properties");
    let settings = std::fs::read_to_string(template).expect("a file of the repository");
    let words = [("@SASL_PORT@", &*sasl.to_string()), ("@TLS_PORT@", &tls.to_string())];
    let words = words.into_iter().chain([("@USER@", USER), ("@PASSWORD@", PASSWORD)]);
    let settings = words.fold(settings, |text, (word, value)| text.replace(word, value));
    let file = folder.path().join("secured.properties");
    std::fs::write(&file, settings).expect("the temporary folder can be written");
    let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
    let broker = launch(folder, &[file.into(), "--add-scram".into(), user.into()])?;

    let by_password = format!("127.0.0.1:{sasl}");
    let mut inside = at(&by_password);
    inside.set("security.protocol", "SASL_SSL").set("ssl.ca.location", authority.certificate().to_string_lossy());
    inside.set("sasl.mechanism", "SCRAM-SHA-512").set("sasl.username", USER).set("sasl.password", PASSWORD);
    answers(inside, PATIENCE).map_err(|error| format!("the secured broker lets nobody in: {error}"))?;
    summary::announce(&format!("secured broker: Apache Kafka {} ({by_password})", broker.version));
    Ok(Shared { broker, by_password, by_certificate: format!("127.0.0.1:{tls}"), authority, client })
}

/// A certificate authority in a folder: its own certificate, and what it signs, each in one PEM file with its key.
pub struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Result<Self, String> {
        let authority = Self { folder: folder.to_owned(), name: name.to_owned() };
        // Its own, because every system's differs in what it adds to a certificate.
        std::fs::write(folder.join("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")
            .expect("the temporary folder can be written");
        let key = folder.join(format!("{name}.key"));
        authority.make(&authority.certificate(), &key, "basicConstraints=critical,CA:TRUE", None, false)?;
        Ok(authority)
    }

    /// What a client is to trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Certificate and key for `name` on this machine, in one file; the key under a password where one is given.
    pub fn sign(&self, name: &str, password: Option<&str>) -> Result<PathBuf, String> {
        let file = self.folder.join(format!("{name}.pem"));
        self.make(&file, &file, "basicConstraints=critical,CA:FALSE", password, true)?;
        Ok(file)
    }

    fn make(&self, file: &Path, key: &Path, kind: &str, password: Option<&str>, sign: bool) -> Result<(), String> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-subj", &format!("/CN={name}"), "-addext", kind, "-addext", "subjectAltName=IP:127.0.0.1"]);
        command.arg("-config").arg(self.folder.join("openssl.cnf")).arg("-keyout").arg(key).arg("-out").arg(file);
        match password {
            Some(password) => command.args(["-passout", &format!("pass:{password}")]),
            None => command.arg("-noenc"),
        };
        if sign {
            command.arg("-CA").arg(self.certificate());
            command.arg("-CAkey").arg(self.folder.join(format!("{}.key", self.name)));
        }
        let output = command
            .output()
            .map_err(|error| format!("openssl cannot be started ({error}): install Debian's package openssl"))?;
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// A redis-server that also listens for TLS; hands back that address beside the open door.
pub fn redis_over_tls(redis: &Redis, authority: &Authority) -> (Private, String) {
    let server = authority.sign("redis", None).unwrap_or_else(|why| panic!("{why}"));
    let (server, trusted, port) = (server.to_string_lossy(), authority.certificate(), free_port().to_string());
    let trusted = trusted.to_string_lossy();
    let private = redis.private_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &server,
        "--tls-key-file",
        &server,
        "--tls-ca-cert-file",
        &trusted,
        "--tls-auth-clients",
        "no",
    ]);
    (private, format!("rediss://127.0.0.1:{port}/"))
}

/// Three redis-servers that share the slots of one cluster, once each of them says so.
pub fn redis_cluster(redis: &Redis) -> [Private; 3] {
    let buses = [(); 3].map(|()| free_port().to_string());
    let nodes =
        [0, 1, 2].map(|n: usize| redis.private_with(&["--cluster-enabled", "yes", "--cluster-port", &buses[n]]));
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for ((node, bus), (first, last)) in nodes.iter().zip(&buses).zip(slots) {
        let mut link = node.connection();
        let () = redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", first, last]).query(&mut link).expect("slots are taken");
        let meet = ["MEET", "127.0.0.1", &node.port.to_string(), bus];
        let () = redis::cmd("CLUSTER").arg(&meet).query(&mut nodes[0].connection()).expect("nodes meet");
    }
    for node in &nodes {
        let told = || redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut node.connection()).expect("it answers");
        eventually("the cluster stands", PATIENCE, told, |told| {
            ["cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"]
                .iter()
                .all(|fact| told.contains(fact))
        });
    }
    nodes
}
