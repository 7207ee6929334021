//! Servers behind locks, reached through the configuration: brokers with passwords and certificates, Redis with TLS,
//! users and several nodes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Output;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::pool::{Pool, answered_by, judged, post, posts};
use crate::support::redis::{Private, RIGHTS, answers};
use crate::support::secured::{self, Authority, KEY_PASSWORD, PASSWORD, Secured, USER};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually};
use crate::{kafka, redis, test_name};

/// The shared secured broker. Leaves the test where it may be skipped.
macro_rules! secured {
    () => {
        match secured::used(test_name!()) {
            Some(secured) => secured,
            None => return,
        }
    };
}

/// A mounted secret, with the line end that editors leave.
fn secret(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "{text}").unwrap();
    file
}

/// A worker that comes in by user and password.
fn by_password(secured: &Secured, pool: &Pool<'_>, mechanism: &str, password: &NamedTempFile) -> Setup {
    pool.setup()
        .set("kafka.brokers", &secured.by_password)
        .set("kafka.options.security.protocol", "SASL_SSL")
        .set("kafka.options.ssl.ca.location", secured.authority.certificate().display())
        .set("kafka.options.sasl.mechanism", mechanism)
        .set("kafka.options.sasl.username", USER)
        .set("kafka.password_file", password.path().display())
}

/// A worker that trusts the broker of the door that asks for a certificate, and has none to show yet.
fn without_certificate(secured: &Secured, pool: &Pool<'_>) -> Setup {
    pool.setup()
        .set("kafka.brokers", &secured.by_certificate)
        .set("kafka.options.security.protocol", "SSL")
        .set("kafka.options.ssl.ca.location", secured.authority.certificate().display())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Checks, judges and stops; hands back all that was said on the way.
fn checks_and_judges(pool: &Pool<'_>, setup: impl Fn() -> Setup) -> String {
    pool.post(posts("p", 5));
    let check = setup().verb("check").output(b"");
    assert!(check.status.success(), "{}", said(&check));
    // The client library's own log too: it tells every setting.
    let worker = setup().set("log.filter", "trace").set("kafka.options.debug", "security,broker,conf").start();

    assert_eq!(judged(&pool.verdicts_of_all()).len(), 5);
    said(&check) + &worker.stop()
}

fn assert_untold(said: &str, secret: &str) {
    // Also not a part of it, nor as it stands in a URL or in JSON.
    for part in secret.split(|c: char| !c.is_alphanumeric()) {
        assert!(!said.contains(part), "`{part}` of a secret is told");
    }
}

#[test]
fn a_password_from_a_file_opens_sasl_plain_over_tls_and_is_told_nowhere() {
    let secured = secured!();
    let pool = Pool::new(&secured.kafka, 1);
    let password = secret(PASSWORD);

    let said = checks_and_judges(&pool, || by_password(&secured, &pool, "PLAIN", &password));

    assert!(said.contains("sasl.password = [redacted]"), "{said}");
    assert_untold(&said, PASSWORD);
}

#[test]
fn a_password_from_a_file_opens_scram_sha_512_over_tls_and_is_told_nowhere() {
    let secured = secured!();
    let pool = Pool::new(&secured.kafka, 1);
    let password = secret(PASSWORD);

    let said = checks_and_judges(&pool, || by_password(&secured, &pool, "SCRAM-SHA-512", &password));

    assert!(said.contains("sasl.password = [redacted]"), "{said}");
    assert_untold(&said, PASSWORD);
}

#[test]
fn a_wrong_password_is_named_by_check_and_ends_the_worker_as_kafka_lost() {
    let secured = secured!();
    let pool = Pool::new(&secured.kafka, 1);
    pool.post(posts("p", 1));
    let wrong = secret("rosebud xyzzy");
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let setup = || by_password(&secured, &pool, mechanism, &wrong);

        let check = setup().verb("check").output(b"");
        let mut worker = setup().start();

        assert_eq!(worker.wait(), 1);
        let end: Value = serde_json::from_str(&worker.wait_for_log("\"ended\"")).unwrap();
        assert_eq!(end["error.type"], "kafka_lost");
        assert!(end["error"].as_str().unwrap().contains("Authentication"), "{end}");
        let told = said(&check);
        let line = told.lines().find(|line| line.starts_with("FAIL  kafka")).unwrap_or_else(|| panic!("{told}"));
        assert!(line.contains("Authentication failed") && line.contains("kafka.password_file"), "{line}");
        assert_eq!(check.status.code(), Some(1));
        assert_untold(&(told + &worker.log()), "rosebud xyzzy");
    }
    assert_eq!(pool.count(&pool.verdicts), 0);
}

#[test]
fn a_broker_whose_authority_is_unknown_is_refused_and_gets_no_verdict() {
    let secured = secured!();
    let pool = Pool::new(&secured.kafka, 1);
    pool.post(posts("p", 1));
    let (password, folder) = (secret(PASSWORD), tempfile::tempdir().unwrap());
    let stranger = Authority::new(folder.path(), "stranger").unwrap();
    let trusting = stranger.certificate();
    let setup =
        || by_password(&secured, &pool, "PLAIN", &password).set("kafka.options.ssl.ca.location", trusting.display());

    let check = setup().verb("check").output(b"");
    let mut worker = setup().start();
    worker.wait_for_log("certificate verify failed");

    let told = said(&check);
    let line = told.lines().find(|line| line.starts_with("FAIL  kafka")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("certificate verify failed") && line.contains("ssl.ca.location"), "{line}");
    assert_eq!(check.status.code(), Some(1));
    assert_eq!((pool.count(&pool.verdicts), pool.committed()), (0, BTreeMap::new()));
}

#[test]
fn a_client_key_under_a_password_from_a_file_opens_mutual_tls() {
    let secured = secured!();
    let pool = Pool::new(&secured.kafka, 1);
    let (password, wrong) = (secret(KEY_PASSWORD), secret("rosebud xyzzy"));
    let shown = |password: &NamedTempFile| {
        without_certificate(&secured, &pool)
            .set("kafka.options.ssl.certificate.location", secured.client.display())
            .set("kafka.options.ssl.key.location", secured.client.display())
            .set("kafka.tls_key_password_file", password.path().display())
    };

    let told = checks_and_judges(&pool, || shown(&password));

    assert!(told.contains("ssl.key.password = [redacted]"), "{told}");
    assert_untold(&told, KEY_PASSWORD);
    let refused = without_certificate(&secured, &pool).verb("check").output(b"");
    assert!(said(&refused).contains("FAIL  kafka"), "{}", said(&refused));
    let locked = said(&shown(&wrong).verb("check").output(b""));
    assert!(locked.contains("FAIL  kafka") && locked.contains("ssl.key.location"), "{locked}");
}

/// Posts the same texts in rounds until a whole round is answered from the cache; hands back the texts' number.
fn is_answered_from_the_cache(pool: &Pool<'_>) -> usize {
    const TEXTS: usize = 40;
    let mut round = 0;
    let answered = || {
        let same = |n| post(&format!("{round}-{n}"), &format!("Claim {n}: it was never tested."));
        pool.post((0..TEXTS).map(same));
        round += 1;
        let verdicts = pool.verdicts_of_all();
        let this_round: Vec<_> = verdicts.into_iter().rev().take(TEXTS).collect();
        answered_by(&this_round)
    };
    let all = BTreeMap::from([("cache".to_owned(), TEXTS)]);
    eventually("a round of posts is answered from the cache", PATIENCE, answered, |answered| *answered == all);
    TEXTS
}

fn with_redis(pool: &Pool<'_>, url: &str) -> Setup {
    pool.cached(url, "cache").set("log.filter", "trace")
}

fn kept(server: &Private) -> usize {
    answers(&mut server.connection(), "cache").len()
}

#[test]
fn redis_over_tls_serves_as_the_cache() {
    let (kafka, redis) = (kafka!(), redis!());
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority").unwrap();
    let (server, url) = secured::redis_over_tls(&redis, &authority);
    let pool = Pool::new(&kafka, 1);
    let setup = || with_redis(&pool, &url).set("cache.redis.ca_file", authority.certificate().display());

    let check = setup().verb("check").output(b"");
    let worker = setup().start();

    assert_eq!(is_answered_from_the_cache(&pool), kept(&server));
    worker.stop();
    assert!(check.status.success(), "{}", said(&check));
}

#[test]
fn a_redis_whose_authority_is_unknown_is_not_asked_and_costs_no_verdict() {
    let (kafka, redis) = (kafka!(), redis!());
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority").unwrap();
    let stranger = Authority::new(folder.path(), "stranger").unwrap();
    let (server, url) = secured::redis_over_tls(&redis, &authority);
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 20));
    let setup = || with_redis(&pool, &url).set("cache.redis.ca_file", stranger.certificate().display());

    let check = setup().verb("check").output(b"");
    let worker = setup().start();
    let verdicts = pool.verdicts_of_all();

    assert_eq!(answered_by(&verdicts), BTreeMap::from([("model".to_owned(), 20)]));
    assert_eq!(kept(&server), 0);
    worker.stop();
    let told = said(&check);
    let line = told.lines().find(|line| line.starts_with("FAIL  cache")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("certificate") && line.contains("cache.redis.ca_file"), "{line}");
    assert_eq!(check.status.code(), Some(1));
}

#[test]
fn a_redis_user_with_a_password_from_a_file_is_let_in_and_the_password_told_nowhere() {
    let (kafka, redis) = (kafka!(), redis!());
    let server = redis.private();
    let mut link = server.connection();
    let user = ["SETUSER", USER, "on", &format!(">{PASSWORD}"), "~cache:*"];
    let () = redis::cmd("ACL").arg(&user).arg(&RIGHTS).query(&mut link).unwrap();
    let () = redis::cmd("ACL").arg(&["SETUSER", "default", "-@all", "+keys", "+ping"]).query(&mut link).unwrap();
    let pool = Pool::new(&kafka, 1);
    let password = secret(PASSWORD);
    let setup = || {
        with_redis(&pool, &server.url)
            .set("cache.redis.username", USER)
            .set("cache.redis.password_file", password.path().display())
    };

    let check = setup().verb("check").output(b"");
    let worker = setup().start();

    assert_eq!(is_answered_from_the_cache(&pool), kept(&server));
    assert!(check.status.success(), "{}", said(&check));
    let told = said(&check) + &worker.stop();
    assert!(!told.contains("redis refuses a command"), "{told}");
    assert_untold(&told, PASSWORD);
}

#[test]
fn a_redis_user_that_is_made_late_is_let_in_without_a_restart() {
    let (kafka, redis) = (kafka!(), redis!());
    let server = redis.private();
    let pool = Pool::new(&kafka, 1);
    let setup = with_redis(&pool, &server.url).set("cache.redis.username", USER);
    let worker = setup.environment("MODERATO__CACHE__REDIS__PASSWORD", PASSWORD).start();
    let mut round = 0;
    let refused = || {
        round += 1;
        pool.post(posts(&format!("before-{round}"), 5));
        worker.count_in_log("authentication failed")
    };
    eventually("a refused login is told", PATIENCE, refused, |lines| *lines > 0);

    let user = ["SETUSER", USER, "on", &format!(">{PASSWORD}"), "~*"];
    let () = redis::cmd("ACL").arg(&user).arg(&RIGHTS).query(&mut server.connection()).unwrap();

    let mut round = 0;
    let kept_since = || {
        round += 1;
        pool.post(posts(&format!("after-{round}"), 5));
        kept(&server)
    };
    eventually("Redis keeps answers", PATIENCE, kept_since, |keys| *keys > 0);
    assert_untold(&worker.stop(), PASSWORD);
}

#[test]
fn a_redis_cluster_of_three_serves_as_the_cache() {
    let (kafka, redis) = (kafka!(), redis!());
    let nodes = secured::redis_cluster(&redis);
    let user = ["SETUSER", USER, "on", &format!(">{PASSWORD}"), "~cache:*"];
    for node in &nodes {
        let () = redis::cmd("ACL").arg(&user).arg(&RIGHTS).arg("+cluster|slots").query(&mut node.connection()).unwrap();
    }
    let pool = Pool::new(&kafka, 1);
    let password = secret(PASSWORD);
    // One seed is enough: the others are found through it.
    let setup = || {
        with_redis(&pool, &nodes[0].url)
            .set("cache.redis.cluster", true)
            .set("cache.redis.username", USER)
            .set("cache.redis.password_file", password.path().display())
    };

    let check = setup().verb("check").output(b"");
    let worker = setup().start();

    let texts = is_answered_from_the_cache(&pool);
    let shares = nodes.each_ref().map(kept);
    assert_eq!(shares.iter().sum::<usize>(), texts);
    assert!(shares.iter().all(|keys| *keys > 0), "{shares:?}");
    assert!(!worker.stop().contains("redis refuses a command"));
    assert!(check.status.success(), "{}", said(&check));
}
