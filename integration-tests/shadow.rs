//! A policy that judges a share of the posts beside the one in force.

use std::collections::BTreeSet;
use std::fs;

use sha2::{Digest as _, Sha256};

use crate::kafka;
use crate::support::pool::{POLICY, Pool, judged, posts};
use crate::support::web::{admin, metric};
use crate::support::{PATIENCE, eventually, repository};

#[test]
fn a_shadow_judges_the_same_share_each_time_to_its_own_topic_and_decides_nothing() {
    let kafka = kafka!();
    let folder = tempfile::tempdir().unwrap();
    let candidate = folder.path().join("candidate.md");
    let text = fs::read_to_string(repository(POLICY)).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("thresholds:"));
    let lines = lines.map(|line| if line.starts_with("revision:") { "revision: candidate" } else { line });
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(&candidate, text.replace("\n    answer:", "\n    thresholds: {review: 0, act: 0}\n    answer:")).unwrap();

    // Half of all places that the first eight bytes of an id's SHA-256 can take.
    let half = |id: &String| Sha256::digest(id)[0] < 0x80;
    let expected: BTreeSet<String> = (0..60).map(|n| format!("p-{n}")).filter(half).collect();
    for pool in [Pool::named(&kafka, "one-", 2), Pool::named(&kafka, "two-", 2)] {
        let shadow = kafka.topic(&format!("shadow-{}", pool.group), 1);
        let mut worker = pool
            .setup()
            .with(&[("shadow.share", "0.5"), ("kafka.topics.shadow", &shadow)])
            .set("shadow.policy", candidate.display())
            .start();
        let address = admin(&mut worker);
        pool.post(posts("p", 60));
        let live = pool.verdicts_of_all();
        let seen = || metric(&address, "moderato_shadow_posts_total", &["outcome=\"action_differs\""]);
        eventually("the shadow has its share", PATIENCE, seen, |count| *count == expected.len() as f64);
        let beside = kafka.read(&shadow, expected.len(), PATIENCE);
        assert_eq!(judged(&live).len(), 60);
        assert!(live.iter().all(|it| it.json()["data"]["policy"]["revision"] != "candidate"));
        assert!(beside.iter().all(|it| it.json()["data"]["policy"]["revision"] == "candidate"));
        assert!(beside.iter().all(|it| it.header("moderato.shadow") == Some("true")));
        assert!(beside.iter().all(|it| it.json()["data"]["verdict"]["action"] == "act"));
        assert_eq!(judged(&beside), expected);
        worker.sigterm();
        assert_eq!(worker.wait(), 0);
    }
}
