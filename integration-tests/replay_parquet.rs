//! A range judged again into Parquet: a file is there once it is whole, and after a crash exactly the rest is added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moderato::files::{self, FileError};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kafka;
use crate::support::kafka::{Kafka, outside};
use crate::support::pool::{Pool, lines, posts};
use crate::support::records::Outgoing;
use crate::support::worker::Setup;

/// Little in flight and many commits, so that a process can be ended in the middle.
const SLOW: [(&str, &str); 3] =
    [("limits.max_in_flight", "16"), ("limits.max_batch_posts", "1"), ("kafka.commit_interval", "20ms")];
const JOURNAL: &str = ".unfinished.jsonl";

struct Stage<'a> {
    pool: Pool<'a>,
    folder: TempDir,
}

impl<'a> Stage<'a> {
    /// Three partitions of so many posts, and in each a record that is no post.
    fn new(kafka: &'a Kafka, each: usize) -> Self {
        let pool = Pool::new(kafka, 3);
        let number = |n: usize| i32::try_from(n % 3).unwrap();
        pool.post(posts("p", 3 * each).enumerate().map(|(n, post)| post.partition(number(n))));
        pool.post((0..3).map(|n| Outgoing::new("no json").key("k").partition(n)));
        Self { pool, folder: tempfile::tempdir().unwrap() }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("audit.parquet")
    }

    fn setup(&self, rows: &str) -> Setup {
        let setup = self.pool.mortal().verb("replay").argument("--id").argument("r1");
        setup.argument("--output").argument(self.output()).argument("--rows").argument(rows)
    }

    /// Names of what is there, without the journal; and whether that is empty.
    fn files(&self) -> (Vec<String>, bool) {
        let entries = std::fs::read_dir(self.output()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != JOURNAL);
        names.sort();
        let journal = std::fs::metadata(self.output().join(JOURNAL)).unwrap();
        (names, journal.len() == 0)
    }

    /// What the program itself reads out of them: partition and offset, and how often.
    fn rows(&self) -> BTreeMap<(i64, i64), u64> {
        let mut rows = BTreeMap::new();
        files::records(&self.output(), |_, row| {
            let line: Value = serde_json::from_slice(&row.value.unwrap()).unwrap();
            let at = line.pointer("/data/input/kafka").or(line.pointer("/error/kafka")).unwrap();
            *rows.entry((at["partition"].as_i64().unwrap(), at["offset"].as_i64().unwrap())).or_default() += 1;
            Ok::<(), FileError>(())
        })
        .unwrap();
        rows
    }
}

fn each_once(partitions: i64, offsets: i64) -> BTreeMap<(i64, i64), u64> {
    (0..partitions).flat_map(|partition| (0..offsets).map(move |offset| ((partition, offset), 1))).collect()
}

fn summary(setup: Setup) -> (Value, Option<i32>) {
    let output = setup.argument("--progress").argument("json").output(b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (lines(&output.stdout).pop().unwrap_or_else(|| panic!("no summary: {said}")), output.status.code())
}

fn query(path: &Path, sql: &str) -> Vec<Value> {
    let files = format!("read_parquet('{}/*.parquet')", path.display());
    lines(outside("duck.py", &[&sql.replace("verdicts", &files)]).as_bytes())
}

#[test]
fn a_replay_into_parquet_killed_wherever_it_hurts_has_every_post_exactly_once_in_the_end() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 200);
    // In the middle of a file; before a file has its name; after it has, with its lines still in the journal.
    for (point, action) in
        [("after_produce", "130*off->return(kill)"), ("before_part", "return(kill)"), ("after_part", "return(kill)")]
    {
        let mut victim = stage.setup("100").with(&SLOW).fault(point, action).start();
        assert_eq!(victim.wait(), 137, "{point}: {}", victim.log());
        let (names, empty) = stage.files();
        assert!(!empty, "{point}: {names:?}");
        assert_eq!(names.iter().any(|name| name.ends_with(".part")), point == "before_part", "{point}: {names:?}");
    }
    assert!(stage.rows().values().all(|times| *times == 1) && stage.rows().len() < 500);

    let (ended, exit) = summary(stage.setup("100").with(&SLOW));

    assert_eq!((&ended["finished"], &ended["resumed"], exit), (&json!(true), &json!(true), Some(0)));
    assert_eq!(stage.rows(), each_once(3, 201));
    let (names, empty) = stage.files();
    let wanted: Vec<_> = (0..names.len()).map(|n| format!("verdicts-{n:06}.parquet")).collect();
    assert!(names == wanted && (6..=9).contains(&names.len()) && empty, "{names:?}");

    let counted = query(
        &stage.output(),
        "SELECT count(*), count(DISTINCT (source_partition, source_offset)) FILTER (label IS NOT NULL), min(replay_id), max(replay_id), count(*) FILTER (label IS NULL) FROM verdicts",
    );
    assert_eq!(counted[0], json!([603, 600, "r1", "r1", 3]));

    let (again, exit) = summary(stage.setup("100"));
    assert_eq!((again["verdicts"].as_u64(), exit, stage.rows()), (Some(0), Some(0), each_once(3, 201)));
}

#[test]
fn a_replay_into_parquet_that_is_stopped_leaves_whole_files_and_what_they_hold_can_be_compared_and_verified() {
    let kafka = kafka!();
    let stage = Stage::new(&kafka, 60);
    let mut stopped = stage.setup("1000").with(&SLOW).argument("--rate").argument("40").start();
    let journal = stage.output().join(JOURNAL);
    let lines_in = || std::fs::read(&journal).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
    crate::support::eventually("some are judged", crate::support::PATIENCE, lines_in, |lines| *lines > 20);
    stopped.sigterm();
    assert_eq!(stopped.wait(), 1, "it is not done: {}", stopped.log());
    let (names, empty) = stage.files();
    assert_eq!((names, empty), (vec!["verdicts-000000.parquet".to_owned()], true));

    let (_, exit) = summary(stage.setup("1000"));

    assert_eq!((stage.rows(), exit), (each_once(3, 61), Some(0)));
    let verified = stage.pool.setup().verb("replay").argument("--verify").argument(stage.output());
    let (told, exit) = summary(verified);
    assert_eq!((&told["hold"], &told["unread"], exit), (&json!(180), &json!(3), Some(0)));
    let other = stage.pool.setup().verb("replay").argument("--id").argument("r2");
    let output = other.argument("--output").argument(stage.output()).output(b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("row 1: of replay `r1`; name another file, or go on with --id r1"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}
