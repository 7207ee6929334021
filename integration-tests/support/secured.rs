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

/// Why a server's certificate is no good although the right authority signed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is another server's.
    Name,
    /// It has expired.
    Time,
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
        authority.make(&authority.certificate(), &authority.key(), "basicConstraints=critical,CA:TRUE", None, false)?;
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

    /// The same for a server that no client is to believe, because of its names or of the time that is over.
    pub fn sign_wrongly(&self, name: &str, wrong: Wrong) -> PathBuf {
        let (names, end) = match wrong {
            Wrong::Name => ("DNS:elsewhere.example", "20991231000000Z"),
            Wrong::Time => ("IP:127.0.0.1", "20211231000000Z"),
        };
        let path = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let mut request = self.openssl("req");
        request.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]);
        request.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName={names}")]);
        done(request.arg("-keyout").arg(path("pem")).arg("-out").arg(path("csr")));
        std::fs::write(path("index"), "").expect("the temporary folder can be written");
        let settings = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {}\nnew_certs_dir = {}\nrand_serial = yes\npolicy = names\n\
             copy_extensions = copy\n[names]\ncommonName = supplied\n",
            path("index").display(),
            self.folder.display()
        );
        std::fs::write(path("cnf"), settings).expect("the temporary folder can be written");
        let mut sign = Command::new("openssl");
        sign.arg("ca").args(["-batch", "-notext", "-md", "sha256", "-startdate", "20200101000000Z", "-enddate", end]);
        sign.arg("-config").arg(path("cnf")).arg("-in").arg(path("csr")).arg("-out").arg(path("crt"));
        done(sign.arg("-cert").arg(self.certificate()).arg("-keyfile").arg(self.key()));
        let both = [path("pem"), path("crt")].map(|file| std::fs::read(file).expect("openssl wrote it"));
        std::fs::write(path("pem"), both.concat()).expect("the temporary folder can be written");
        path("pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join(format!("{}.key", self.name))
    }

    fn openssl(&self, verb: &str) -> Command {
        let mut command = Command::new("openssl");
        command.arg(verb).arg("-config").arg(self.folder.join("openssl.cnf"));
        command
    }

    fn make(&self, file: &Path, key: &Path, kind: &str, password: Option<&str>, sign: bool) -> Result<(), String> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let mut command = self.openssl("req");
        command.args(["-x509", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-subj", &format!("/CN={name}"), "-addext", kind, "-addext", "subjectAltName=IP:127.0.0.1"]);
        command.arg("-keyout").arg(key).arg("-out").arg(file);
        match password {
            Some(password) => command.args(["-passout", &format!("pass:{password}")]),
            None => command.arg("-noenc"),
        };
        if sign {
            command.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.key());
        }
        let output = command
            .output()
            .map_err(|error| format!("openssl cannot be started ({error}): install Debian's package openssl"))?;
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Runs a command of openssl that was found before.
fn done(command: &mut Command) {
    let output = command.output().expect("openssl can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A redis-server that also listens for TLS; hands back that address beside the open door.
pub fn redis_over_tls(redis: &Redis, authority: &Authority) -> (Private, String) {
    let server = authority.sign("redis", None).unwrap_or_else(|why| panic!("{why}"));
    redis_with_certificate(redis, authority, &server)
}

/// The same with a certificate that is already there.
pub fn redis_with_certificate(redis: &Redis, authority: &Authority, server: &Path) -> (Private, String) {
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

/// What a node of a cluster is started with: a master's death is noticed within a second.
const NODE: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

fn node(redis: &Redis) -> Node {
    let bus = free_port().to_string();
    let server = redis.private_with(&[&NODE[..], &["--cluster-port", &bus]].concat());
    Node { server, bus }
}

/// A node, and the port at which the others talk to it.
struct Node {
    server: Private,
    bus: String,
}

impl Node {
    fn meets(&self, other: &Private) {
        let meet = ["MEET", "127.0.0.1", &self.server.port.to_string(), &self.bus];
        let () = redis::cmd("CLUSTER").arg(&meet).query(&mut other.connection()).expect("nodes meet");
    }
}

/// What a node says of its cluster, asked until it says all of these facts.
fn stands(node: &Private, facts: &[&str]) {
    let told = || redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut node.connection()).expect("it answers");
    eventually("the cluster stands", PATIENCE, told, |told| facts.iter().all(|fact| told.contains(fact)));
}

/// Three redis-servers that share the slots of one cluster, once each of them says so.
pub fn redis_cluster(redis: &Redis) -> [Private; 3] {
    let nodes = [(); 3].map(|()| node(redis));
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (node, (first, last)) in nodes.iter().zip(slots) {
        let mut link = node.server.connection();
        let () = redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", first, last]).query(&mut link).expect("slots are taken");
        node.meets(&nodes[0].server);
    }
    let nodes = nodes.map(|node| node.server);
    nodes
        .iter()
        .for_each(|node| stands(node, &["cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"]));
    nodes
}

/// One more node that holds a copy of the first one's slots and takes its place when it dies.
pub fn redis_replica(redis: &Redis, nodes: &[Private; 3]) -> Private {
    let replica = node(redis);
    replica.meets(&nodes[0]);
    let replica = replica.server;
    stands(&replica, &["cluster_known_nodes:4"]);
    let ask = |node: &Private, words: &[&str]| redis::cmd("CLUSTER").arg(words).query::<String>(&mut node.connection());
    let master = ask(&nodes[0], &["MYID"]).expect("a node knows its name");
    // Refused until the master has been heard of as one.
    let follow = || ask(&replica, &["REPLICATE", &master]).ok();
    eventually("the replica follows its master", PATIENCE, follow, Option::is_some);
    let link = || redis::cmd("INFO").arg("replication").query::<String>(&mut replica.connection()).expect("it answers");
    eventually("the replica has its master's data", PATIENCE, link, |told| told.contains("master_link_status:up"));
    nodes.iter().for_each(|node| stands(node, &["cluster_known_nodes:4"]));
    replica
}
