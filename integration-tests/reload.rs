//! Policies that change while a worker runs, and quotas.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::kafka;
use crate::support::pool::{POLICY, Pool, posts};
use crate::support::records::Record;
use crate::support::web::{admin, get, metric};
use crate::support::worker::{Setup, Worker};
use crate::support::{PATIENCE, eventually, repository};

/// The tests' policy with another revision, and what else is to be another: every label's thresholds are left out.
fn policy(revision: &str, change: impl Fn(String) -> String) -> String {
    let text = fs::read_to_string(repository(POLICY)).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("thresholds:"));
    let lines = lines.map(|line| match line.strip_prefix("revision:") {
        Some(_) => format!("revision: {revision}"),
        None => line.to_owned(),
    });
    change(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// Every label acts from 0 on, with these words beside.
fn acting(more: &'static str) -> impl Fn(String) -> String {
    move |text| text.replace("\n    answer:", &format!("\n    thresholds: {{review: 0, act: 0}}{more}\n    answer:"))
}

/// As Kubernetes mounts a ConfigMap: `policy.md` -> `..data/policy.md`, and `..data` -> a folder that is swapped.
struct ConfigMap {
    folder: tempfile::TempDir,
    swaps: usize,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let mut map = Self { folder: tempfile::tempdir().unwrap(), swaps: 0 };
        map.swap(text);
        std::os::unix::fs::symlink("..data/policy.md", map.file()).unwrap();
        map
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("policy.md")
    }

    fn swap(&mut self, text: &str) {
        self.swaps += 1;
        let at = |name: &str| self.folder.path().join(name);
        let data = format!("..{}", self.swaps);
        fs::create_dir(at(&data)).unwrap();
        fs::write(at(&data).join("policy.md"), text).unwrap();
        std::os::unix::fs::symlink(Path::new(&data), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    }
}

fn under(pool: &Pool<'_>, file: &Path) -> Setup {
    pool.setup().set("policy", file.display())
}

fn of(verdict: &Record, pointer: &str) -> Value {
    verdict.json().pointer(pointer).cloned().unwrap_or_default()
}

/// Posts once more, and hands back their verdicts.
fn next(pool: &Pool<'_>, prefix: &str, count: usize) -> Vec<Record> {
    pool.post(posts(prefix, count));
    let verdicts = pool.verdicts_of_all();
    let mine = |verdict: &Record| verdict.json()["subject"].as_str().is_some_and(|id| id.starts_with(prefix));
    verdicts.into_iter().filter(mine).collect()
}

fn is_in_force(worker: &mut Worker, address: &str, revision: &str) {
    let info = || serde_json::from_str::<Value>(&get(address, "/info").body).unwrap()["policy"]["revision"].clone();
    eventually(&format!("{revision} is in force ({})", worker.pid()), PATIENCE, info, |now| now == revision);
}

#[test]
fn a_swapped_configmap_comes_into_force_and_every_verdict_says_which_policy_made_it() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let mut map = ConfigMap::new(&policy("first", |text| text));
    let mut worker = under(&pool, &map.file()).set("policy_reload", "100ms").start();
    let address = admin(&mut worker);
    let before = next(&pool, "before", 3);
    assert!(
        before.iter().all(|it| of(it, "/data/policy/revision") == "first" && of(it, "/data/verdict/action") == "allow")
    );

    map.swap(&policy("second", acting("")));
    is_in_force(&mut worker, &address, "second");

    let after = next(&pool, "after", 3);
    assert!(
        after.iter().all(|it| of(it, "/data/policy/revision") == "second" && of(it, "/data/verdict/action") == "act")
    );
    for digest in ["/data/policy/digest", "/data/fingerprint/digest"] {
        assert_ne!(of(&before[0], digest), of(&after[0], digest), "{digest}");
    }
    assert_eq!(metric(&address, "moderato_policy_reloads_total", &["outcome=\"applied\""]), 1.0);
    assert_eq!(
        metric(&address, "moderato_policy_info", &[of(&after[0], "/data/policy/digest").as_str().unwrap()]),
        1.0
    );
}

#[test]
fn on_sighup_a_changed_policy_is_taken_and_no_post_is_lost_meanwhile() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let map = ConfigMap::new(&policy("first", |text| text));
    let mut worker = under(&pool, &map.file()).set("policy_reload", "0s").start();
    let address = admin(&mut worker);
    pool.post(posts("p", 200));
    pool.wait_for_verdicts(1);
    fs::write(map.file(), policy("second", acting(""))).unwrap();
    worker.signal("HUP");
    is_in_force(&mut worker, &address, "second");
    pool.post(posts("q", 50));

    let verdicts = pool.verdicts_of_all();
    assert_eq!(verdicts.len(), 250);
    let agree =
        |it: &Record| (of(it, "/data/policy/revision") == "second") == (of(it, "/data/verdict/action") == "act");
    assert!(verdicts.iter().all(agree), "thresholds and revision change together");
}

#[test]
fn a_policy_that_cannot_be_taken_leaves_the_one_in_force_and_is_told_once() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let mut map = ConfigMap::new(&policy("first", |text| text));
    let mut worker = under(&pool, &map.file()).set("policy_reload", "50ms").start();
    let address = admin(&mut worker);
    next(&pool, "before", 1);
    let refused = |count: f64| {
        let seen = || metric(&address, "moderato_policy_reloads_total", &["outcome=\"refused\""]);
        eventually("it is refused", PATIENCE, seen, |now| *now == count);
        assert_eq!(metric(&address, "moderato_policy_stale", &[]), 1.0);
    };
    map.swap("---\nid: [");
    refused(1.0);
    map.swap(&policy("another-prompt", |text| text + "\nAnd be kind.\n"));
    refused(2.0);
    assert_eq!(of(&next(&pool, "between", 1)[0], "/data/policy/revision"), "first");

    map.swap(&policy("third", acting("")));
    is_in_force(&mut worker, &address, "third");
    assert_eq!(metric(&address, "moderato_policy_stale", &[]), 0.0);
    let log = worker.stop();
    assert_eq!(log.matches("the changed policy is refused").count(), 2);
    assert!(log.contains("restart the workers to take it"));
}

#[test]
fn beyond_its_quota_a_label_is_for_review_and_the_metric_says_how_often() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let map = ConfigMap::new(&policy("quota", acting("\n    act_quota: {most: 2, window: 1h}")));
    let mut worker = under(&pool, &map.file()).start();
    let address = admin(&mut worker);

    let verdicts = next(&pool, "p", 12);

    let count = |label: &Value, action: &str| {
        let is =
            |it: &&Record| of(it, "/data/verdict/action_label") == *label && of(it, "/data/verdict/action") == action;
        verdicts.iter().filter(is).count()
    };
    let mut over = 0;
    let labels: std::collections::BTreeSet<String> =
        verdicts.iter().map(|it| of(it, "/data/verdict/action_label").as_str().unwrap().to_owned()).collect();
    for label in labels {
        let label = Value::from(label);
        let (acted, reviewed) = (count(&label, "act"), count(&label, "review"));
        assert!(acted <= 2 && (reviewed == 0 || acted == 2), "{label}: {acted} acted, {reviewed} reviewed");
        over += reviewed;
    }
    assert!(over >= 12 - 2 * 4);
    let reasons = verdicts.iter().filter(|it| of(it, "/data/verdict/action_reason") == "quota").count();
    assert_eq!(reasons, over);
    assert_eq!(metric(&address, "moderato_quota_exceeded_total", &["action=\"act\""]), over as f64);
}
