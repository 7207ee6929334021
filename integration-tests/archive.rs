//! `moderato archive`: what stands on the verdict topic becomes Parquet that DuckDB reads, each record once, and rows are
//! erased without touching what was signed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moderato::event;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kafka;
use crate::support::assert_fits;
use crate::support::kafka::outside;
use crate::support::pool::{Pool, lines, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::worker::{Setup, moderato, moderato_killed_at};

/// 2026-01-01T12:00:00Z.
const NOON: i64 = 1_767_268_800_000;
const DAY: i64 = 86_400_000;

struct Archive<'a> {
    pool: &'a Pool<'a>,
    folder: TempDir,
}

impl<'a> Archive<'a> {
    fn of(pool: &'a Pool<'a>) -> Self {
        Self { pool, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> String {
        self.folder.path().join("archive").display().to_string()
    }

    fn setup(&self, arguments: &[&str]) -> Setup {
        let setup = self.pool.setup().verb("archive").argument("--to").argument(self.path());
        arguments.iter().fold(setup, |setup, one| setup.argument(one))
    }

    /// Standard output, both outputs, and the exit code.
    fn run(&self, arguments: &[&str]) -> (String, Option<i32>) {
        told(self.setup(arguments).output(b""))
    }

    fn verb(&self, verb: &str, arguments: &[&str]) -> (String, Option<i32>) {
        let path = self.path();
        told(moderato(&[&["archive", verb, &path], arguments].concat(), b""))
    }

    /// Rows of a query, with `verdicts` for the archive.
    fn query(&self, sql: &str) -> Vec<Value> {
        let files = format!("read_parquet('{}/**/*.parquet', hive_partitioning = true)", self.path());
        lines(outside("duck.py", &[&sql.replace("verdicts", &files)]).as_bytes())
    }

    /// The archived topic's coordinates, each with how often it is there.
    fn coordinates(&self) -> BTreeMap<(i64, i64), i64> {
        let rows = self.query("SELECT \"partition\", \"offset\", count(*) FROM verdicts GROUP BY ALL");
        let number = |value: &Value| value.as_i64().unwrap();
        rows.iter().map(|row| ((number(&row[0]), number(&row[1])), number(&row[2]))).collect()
    }

    fn manifest(&self) -> Value {
        let manifest = fs::read(Path::new(&self.path()).join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_fits(&manifest, "archive_manifest.v1.json");
        manifest
    }

    /// A private key and its public half, by OpenSSL.
    fn keys(&self) -> [String; 2] {
        let [private, public] = ["key.pem", "key.pub"].map(|name| self.folder.path().join(name).display().to_string());
        for line in [
            vec!["genpkey", "-algorithm", "ed25519", "-out", &private],
            vec!["pkey", "-in", &private, "-pubout", "-out", &public],
        ] {
            assert!(std::process::Command::new("openssl").args(line).output().unwrap().status.success());
        }
        [private, public]
    }
}

fn told(output: std::process::Output) -> (String, Option<i32>) {
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

/// Each of these coordinates once.
fn once(records: &[Record]) -> BTreeMap<(i64, i64), i64> {
    records.iter().map(|record| ((record.partition.into(), record.offset), 1)).collect()
}

/// Real verdicts, once more on other days, and tombstones among them.
fn verdicts_of_several_days(pool: &Pool<'_>, days: i64) -> Vec<Record> {
    pool.post(posts("p", 30));
    let mut worker = pool.start();
    let real = pool.wait_for_verdicts(30);
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
    let again = (0..days).flat_map(|day| real.iter().map(move |record| (day, record)));
    let again = again.filter(|(day, record)| (record.offset + day) % 3 != 0);
    let copies = again.map(|(day, record)| {
        let (key, value) = (record.key.clone().unwrap(), record.value.clone().unwrap());
        let copy = if (record.offset + day) % 7 == 0 { Outgoing::tombstone() } else { Outgoing::new(value) };
        copy.key(key).timestamp(NOON + day * DAY)
    });
    pool.kafka.produce(&pool.verdicts, copies.collect::<Vec<_>>());
    pool.kafka.read_all(&pool.verdicts)
}

#[test]
fn duckdb_counts_in_the_archive_by_day_and_label_what_stands_on_the_topic() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    let archive = Archive::of(&pool);
    let records = verdicts_of_several_days(&pool, 4);

    let (said, exit) = archive.run(&["--retention-class", "appeals"]);

    assert_eq!(exit, Some(0), "{said}");
    let mut wanted = BTreeMap::<(String, String, String), i64>::new();
    for record in &records {
        let time = jiff::Timestamp::from_millisecond(record.timestamp.unwrap()).unwrap();
        let (label, id) = match &record.value {
            None => ("none".to_owned(), "none".to_owned()),
            Some(_) => {
                let verdict = record.json();
                let text = |place: &str| verdict.pointer(place).unwrap().as_str().unwrap().to_owned();
                (text("/data/verdict/label"), text("/subject"))
            }
        };
        *wanted.entry((time.to_string()[..10].to_owned(), label, id)).or_default() += 1;
    }
    let counted = archive.query(
        "SELECT date::VARCHAR, coalesce(label, 'none'), coalesce(post_id, 'none'), count(*) FROM verdicts GROUP BY ALL",
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let counted: BTreeMap<_, _> =
        counted.iter().map(|row| ((text(&row[0]), text(&row[1]), text(&row[2])), row[3].as_i64().unwrap())).collect();
    assert_eq!(counted, wanted);
    assert_eq!(archive.coordinates(), once(&records));
    let typed = archive.query(
        "SELECT count(*) FROM verdicts WHERE value IS NOT NULL AND (score BETWEEN 0 AND 1) AND action IN ('allow', 'review', 'act') AND time > TIMESTAMP '2026-01-01' AND source_offset >= 0 AND model_digest IS NOT NULL AND headers LIKE '{%'",
    );
    assert_eq!(typed[0][0], records.iter().filter(|record| record.value.is_some()).count());
    assert_eq!(archive.manifest()["log"][0]["statement"]["what"]["archived"]["retention_class"], "appeals");
    let (said, exit) = archive.verb("verify", &[]);
    assert!(exit == Some(0) && said.contains("whole: every row is what was archived"), "{said}");
}

#[test]
fn a_verdict_is_archived_whole_and_erased_by_its_post_however_it_was_published() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let archive = Archive::of(&pool);
    pool.post(posts("p", 6));
    let worker = pool.setup().set("kafka.cloudevents", "binary").start();
    let binary = pool.verdicts_of_all();
    worker.stop();
    let whole = binary.iter().map(|record| {
        let json = event::json(record.value.as_deref().unwrap(), |name| record.header(name)).unwrap();
        String::from_utf8(json.into_owned()).unwrap()
    });
    let whole: Vec<String> = whole.collect();
    // Bytes of a schema's id need be no text.
    let behind_an_id = |json: &String| Outgoing::new([&[0, 0x80, 0, 0, 1], json.as_bytes()].concat());
    kafka.produce(&pool.verdicts, whole.iter().map(behind_an_id));

    let (said, exit) = archive.run(&[]);

    assert!(exit == Some(0) && said.starts_with("12 rows in 1 new files"), "{said}");
    let rows = archive.query("SELECT value, post_id, label FROM verdicts ORDER BY \"offset\"");
    for (row, json) in rows.iter().zip(whole.iter().chain(&whole)) {
        let event: Value = serde_json::from_str(json).unwrap();
        assert_eq!((&row[0], &row[1]), (&json!(json), &event["subject"]));
        assert_eq!(row[2], event["data"]["verdict"]["label"]);
    }
    let (said, exit) = archive.verb("erase", &["--post-id", "p-4"]);
    assert!(exit == Some(0) && said.starts_with("2 rows erased"), "{said}");
    let (said, exit) = archive.verb("verify", &[]);
    assert_eq!((archive.coordinates().len(), exit), (10, Some(0)), "{said}");
}

#[test]
fn a_second_run_adds_what_is_new_and_a_killed_one_leaves_nothing_out_and_nothing_twice() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let archive = Archive::of(&pool);
    // A step ends when files of many days are open: twenty days are several steps.
    let first = verdicts_of_several_days(&pool, 20);

    let mut killed = archive.setup(&[]).fault("inside_archive", "1*off->return(kill)").start();
    assert_eq!(killed.wait(), 137, "{}", killed.log());
    let part = archive.manifest()["log"].as_array().unwrap().len();
    let (said, exit) = archive.run(&[]);

    assert_eq!((part, exit), (1, Some(0)), "{said}");
    assert_eq!(archive.coordinates(), once(&first));
    let nothing = archive.run(&[]);
    assert!(nothing.0.starts_with("0 rows in 0 new files"), "{nothing:?}");
    kafka.produce(&pool.verdicts, (0..5).map(|n| Outgoing::new("{}").key(format!("new-{n}"))));
    let (said, _) = archive.run(&[]);
    assert!(said.starts_with("5 rows in 1 new files"), "{said}");
    assert_eq!(archive.coordinates(), once(&kafka.read_all(&pool.verdicts)));
    let (said, exit) = archive.verb("verify", &[]);
    assert_eq!(exit, Some(0), "{said}");
}

#[test]
fn an_erased_post_is_in_no_file_and_the_signed_archive_stays_whole() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let archive = Archive::of(&pool);
    verdicts_of_several_days(&pool, 3);
    kafka.produce(&pool.verdicts, [Outgoing::tombstone().key("p-4")]);
    let records = kafka.read_all(&pool.verdicts);
    let [private, public] = archive.keys();
    let evidence =
        [("evidence.chain", "true"), ("evidence.signing_key_file", &private), ("kafka.topics.checkpoints", "c")];
    let (said, exit) = told(archive.setup(&[]).with(&evidence).output(b""));
    assert_eq!(exit, Some(0), "{said}");
    let before = archive.manifest();
    let of_post = records.iter().filter(|record| record.key.as_deref() == Some(b"p-4")).count();

    let refused = archive.verb("erase", &["--key", "p-4"]);
    moderato_killed_at(
        "inside_archive",
        &["archive", "erase", &archive.path(), "--key", "p-4", "--signing-key", &private],
    );
    assert_eq!(archive.manifest(), before);
    let (said, exit) = archive.verb("erase", &["--key", "p-4", "--signing-key", &private, "--reason", "request 17"]);

    assert_eq!(refused.1, Some(2), "{refused:?}");
    assert!(exit == Some(0) && said.starts_with(&format!("{of_post} rows erased from ")), "{said}");
    let left = archive.query("SELECT count(*) FROM verdicts WHERE post_id = 'p-4' OR key = 'p-4'::BLOB");
    assert_eq!(left[0][0], 0);
    assert_eq!(archive.coordinates().len(), records.len() - of_post);
    let after = archive.manifest();
    let log = |manifest: &Value| manifest["log"].as_array().unwrap().clone();
    assert_eq!(log(&after)[..log(&before).len()], log(&before));
    assert_eq!(log(&after).last().unwrap()["statement"]["what"]["erased"]["reason"], "request 17");
    assert!(!after.to_string().contains("p-4"));
    let (said, exit) = archive.verb("verify", &["--public-key", &public]);
    assert!(exit == Some(0) && said.contains(&format!("{of_post} erased")), "{said}");
    let again = archive.verb("erase", &["--key", "p-4", "--signing-key", &private]);
    assert!(again.1 == Some(1) && again.0.contains("no row of that key"), "{again:?}");
}

#[test]
fn a_label_that_was_altered_in_a_file_is_found_and_the_file_named() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let archive = Archive::of(&pool);
    verdicts_of_several_days(&pool, 1);
    archive.run(&[]);
    let data = archive.manifest()["log"][0]["statement"]["what"]["archived"]["files"][0]["data"].clone();
    let file = Path::new(&archive.path()).join(data.as_str().unwrap()).display().to_string();

    let copy = archive.folder.path().join("copy.parquet").display().to_string();
    outside(
        "duck.py",
        &[&format!("COPY (SELECT * REPLACE ('sound' AS label) FROM '{file}') TO '{copy}' (FORMAT parquet)")],
    );
    fs::rename(&copy, &file).unwrap();
    let (column, exit_of_column) = archive.verb("verify", &[]);
    outside(
        "duck.py",
        &[&format!(
            "COPY (SELECT * REPLACE (replace(value, 'allow', 'review') AS value) FROM '{file}') TO '{copy}' (FORMAT parquet)"
        )],
    );
    fs::rename(&copy, &file).unwrap();
    let (value, exit_of_value) = archive.verb("verify", &[]);

    assert!(exit_of_column == Some(3) && column.contains(&format!("{file}: every record in it is whole")), "{column}");
    assert!(exit_of_value == Some(3) && value.contains("was altered or inserted"), "{value}");
    assert!(value.contains(&format!("{file}, row ")), "{value}");
}

#[test]
fn what_retention_deleted_first_is_told_and_proved_and_times_bound_what_is_taken() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let archive = Archive::of(&pool);
    let at = |n: i64| Outgoing::new("{}").key("k").timestamp(NOON + n * DAY);
    kafka.produce(&pool.verdicts, (0..10).map(at));

    let (said, _) = archive.run(&["--from", "2026-01-03T00:00:00Z", "--until", "2026-01-06T00:00:00Z"]);
    assert!(said.starts_with("3 rows in 3 new files"), "{said}");
    kafka.delete_before(&pool.verdicts, 0, 8);
    let (said, exit) = archive.run(&[]);

    assert!(exit == Some(0) && said.contains("partition 0: 5 to 8 was deleted by retention"), "{said}");
    let offsets: Vec<i64> = archive.coordinates().keys().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [2, 3, 4, 8, 9]);
    let (said, exit) = archive.verb("verify", &[]);
    assert!(exit == Some(0) && said.contains("partition 0: 5 to 8 was deleted"), "{said}");
}

#[test]
fn a_folder_of_another_topic_and_a_folder_that_is_no_archive_are_refused() {
    let kafka = kafka!();
    let (pool, other) = (Pool::new(&kafka, 1), Pool::named(&kafka, "other-", 1));
    let archive = Archive::of(&pool);
    kafka.produce(&pool.verdicts, [Outgoing::new("{}")]);
    archive.run(&[]);

    let foreign = told(other.setup().verb("archive").argument("--to").argument(archive.path()).output(b""));
    let nothing = told(moderato(&["archive", "verify", &archive.folder.path().display().to_string()], b""));

    assert!(
        foreign.1 == Some(2) && foreign.0.contains(&pool.verdicts) && foreign.0.contains("another folder"),
        "{foreign:?}"
    );
    assert!(nothing.1 == Some(2) && nothing.0.contains("has no manifest.json"), "{nothing:?}");
    assert_eq!(json!(archive.manifest()["log"]).as_array().unwrap().len(), 1);
}
