//! The direction of use in `src/`, one way only, and which client libraries appear where.

use std::fs;
use std::path::Path;

use crate::support::repository;

/// From the top down: a module uses what stands below it, never its neighbours. The last line's may use each other.
const FLOORS: [&[&str]; 8] = [
    &["main", "lib"],
    &["cli"],
    &["diff"],
    &["app", "shutdown", "replay", "eval", "reconcile", "dead_letters", "export", "explain", "audit"],
    &["admin"],
    &["pipeline"],
    &["kafka", "cache", "model"],
    &[
        "post",
        "verdict",
        "rejection",
        "receipt",
        "policy",
        "error",
        "config",
        "samples",
        "telemetry",
        "fault",
        "files",
        "suspects",
        "html",
        "hygiene",
        "note",
        "reply",
        "calibration",
        "language",
        "shape",
        "evidence",
    ],
];

/// Client libraries, and the beginnings of the paths that may name them.
const CLIENTS: [(&str, &[&str]); 3] =
    [("rdkafka", &["kafka/", "cli/demo"]), ("ort", &["model/"]), ("redis", &["cache/redis/"])];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("module `{module}` has no floor yet: give it one in structure.rs"))
}

/// What is wrong with the uses of one file, named by its path below `src/`.
fn faults(path: &str, code: &str) -> Vec<String> {
    let own = path.split(['/', '.']).next().unwrap();
    let mut faults = Vec::new();
    for line in code.lines().map(without_comment) {
        for used in named_after("crate::", line) {
            let below = floor(used) > floor(own);
            let beside = used == own || (floor(used) == floor(own) && floor(own) == FLOORS.len() - 1);
            if !below && !beside {
                faults.push(format!("{path}: `{own}` uses `{used}`, which does not lie below it: {}", line.trim()));
            }
        }
        for (client, homes) in CLIENTS {
            let names_it = starts_of(&format!("{client}::"), line).next().is_some();
            if names_it && !homes.iter().any(|home| path.starts_with(home)) {
                faults.push(format!("{path}: `{client}` belongs to {}: {}", homes.join(", "), line.trim()));
            }
        }
    }
    faults
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line.split(" // ").next().unwrap_or(line) }
}

/// Where a path begins with `word`: not in the middle of a longer name or path.
fn starts_of<'a>(word: &'a str, line: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(word).map(|(at, _)| at).filter(move |at| !line[..*at].ends_with(inside))
}

/// The names that follow `word`, also in a group: `crate::{cache, model::Prompt}`.
fn named_after<'a>(word: &'a str, line: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    starts_of(word, line).flat_map(move |at| {
        let rest = &line[at + word.len()..];
        let group = rest.strip_prefix('{').map_or(rest, |group| group.trim_end_matches(['}', ';']));
        let names = if rest.starts_with('{') { group.split(',').collect() } else { vec![rest] };
        names.into_iter().filter_map(|name| {
            let end = name.trim().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.trim().len());
            Some(&name.trim()[..end]).filter(|name| name.starts_with(char::is_lowercase))
        })
    })
}

fn files(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

#[test]
fn every_use_in_src_points_down() {
    let mut found = Vec::new();
    files(&repository("src"), "", &mut found);

    let faults: Vec<String> = found.iter().flat_map(|(path, code)| faults(path, code)).collect();

    assert!(found.len() > 20, "only {} files read", found.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_arrow_the_other_way_is_seen() {
    let seen = |path: &str, code: &str| faults(path, code).len();
    assert_eq!(seen("kafka/ledger.rs", "use crate::pipeline::judge::Judge;"), 1);
    assert_eq!(seen("cache/mod.rs", "use crate::{config, model::Prompt};"), 1);
    assert_eq!(seen("pipeline/mod.rs", "    let x = crate::app::load(config);"), 1);
    assert_eq!(seen("post.rs", "use crate::kafka::ledger::Ledger;"), 1);
    assert_eq!(seen("pipeline/mod.rs", "use ort::session::Session;"), 1);
    assert_eq!(seen("cache/mod.rs", "let client = redis::Client::open(url);"), 1);
    assert_eq!(seen("cli/check.rs", "use rdkafka::ClientConfig;"), 1);
    assert_eq!(seen("verdict.rs", "use crate::policy::Action;"), 0);
    assert_eq!(seen("pipeline/mod.rs", "use crate::kafka::publisher::Publisher; // crate::app"), 0);
    assert_eq!(seen("cache/mod.rs", "pub use self::redis::Redis;"), 0);
    assert_eq!(seen("cli/demo.rs", "use rdkafka::mocking::MockCluster;"), 0);
}
