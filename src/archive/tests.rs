use std::fs;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, tempdir};

use super::folder::{Folder, load};
use super::manifest::{Archived, Covered, DataFile, What};
use super::*;
use crate::evidence::key::{PublicKey, SigningKey};
use crate::evidence::link::Hex;
use crate::files::{self, Row, Sheet, Writer};

type Change<T> = fn(&mut T);

struct Keys {
    signing: SigningKey,
    public: PublicKey,
}

fn keys(seed: u8) -> Keys {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), [seed; 32]).unwrap();
    let signing = SigningKey::load(file.path()).unwrap();
    Keys { public: signing.public(), signing }
}

fn row(n: i64) -> Row {
    let value = serde_json::json!({"subject": format!("post-{}", n % 10), "data": {"verdict": {"label": "sound"}}});
    Row {
        key: Some(format!("post-{}", n % 10).into_bytes()),
        topic: Some("verdicts".to_owned()),
        partition: Some(0),
        offset: Some(n),
        timestamp_ms: Some(1_795_341_600_000),
        headers: Some("{}".to_owned()),
        value: Some(value.to_string().into_bytes()),
        salt: Some(vec![u8::try_from(n).unwrap(); 16]),
    }
}

const DATA: &str = "date=2026-11-22/verdicts-000000.parquet";
const DIGESTS: &str = "date=2026-11-22/verdicts-000000.digests";

/// An archive of forty rows on ten posts in two files, of an entry each.
fn archive(key: Option<&SigningKey>) -> TempDir {
    let temporary = tempdir().unwrap();
    let path = temporary.path();
    let folder = Folder::hold(path).unwrap();
    let mut manifest = ManifestV1::begin("verdicts", Hex([1; 16]));
    for (seq, day) in ["date=2026-11-22", "date=2026-11-23"].into_iter().enumerate() {
        fs::create_dir_all(path.join(day)).unwrap();
        let [data, digests] = ["parquet", "digests"].map(|ending| format!("{day}/verdicts-{seq:06}.{ending}"));
        let rows: Vec<Row> = (0..20).map(|n| row(20 * i64::try_from(seq).unwrap() + n)).collect();
        write(&path.join(&data), &rows);
        let list: String = rows.iter().map(|row| format!("{}\n", digest::of_row(row))).collect();
        fs::write(path.join(&digests), list).unwrap();
        let [data_sha256, digests_sha256] =
            [&data, &digests].map(|name| digest::of_file(&path.join(name)).unwrap().to_string());
        let (from, to) = (20 * i64::try_from(seq).unwrap(), 20 * i64::try_from(seq + 1).unwrap());
        let covered = Covered { partition: 0, from, to, rows: 20, lost_from: None };
        let file = DataFile { data, data_sha256, digests, digests_sha256, rows: 20 };
        let archived = Archived { retention_class: None, partitions: vec![covered], foreign: 0, files: vec![file] };
        manifest.append(What::Archived(archived), now(), key).unwrap();
    }
    folder.save(&manifest).unwrap();
    temporary
}

fn write(path: &Path, rows: &[Row]) {
    let mut writer = Writer::create(path, Sheet::Archive).unwrap();
    rows.iter().for_each(|row| writer.add(row).unwrap());
    writer.close().unwrap();
}

fn rows(path: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    files::records(path, |_, row| {
        rows.push(row);
        Ok::<(), ArchiveError>(())
    })
    .unwrap();
    rows
}

fn faults(path: &Path, key: Option<&PublicKey>) -> Vec<String> {
    verify(path, key, || ()).unwrap().faults
}

fn gone(path: &Path, whose: &Whose, key: Option<&SigningKey>) -> ErasedRows {
    erase(path, whose, "a request", key, || ()).unwrap()
}

fn everything(folder: &Path) -> Vec<u8> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| if path.is_dir() { everything(&path) } else { fs::read(path).unwrap() };
    paths.into_iter().flat_map(read).collect()
}

#[test]
fn a_signed_archive_is_whole_and_is_so_for_its_key_alone() {
    let (ours, theirs) = (keys(1), keys(2));
    let archive = archive(Some(&ours.signing));

    let findings = verify(archive.path(), Some(&ours.public), || ()).unwrap();

    assert_eq!((findings.rows, findings.entries, findings.signed, findings.faults.len()), (40, 2, 2, 0));
    let strange = faults(archive.path(), Some(&theirs.public));
    assert_eq!(strange.len(), 2);
    assert!(strange[0].contains("entry 0: its signature is not that of the key"), "{strange:?}");
    let unsigned = faults(super::tests::archive(None).path(), Some(&ours.public));
    assert!(unsigned[1].contains("entry 1: nobody has signed it"), "{unsigned:?}");
}

#[test]
fn erasing_a_post_takes_its_rows_leaves_what_was_signed_and_tells_nobody_whose_they_were() {
    let ours = keys(1);
    for whose in [Whose::Key(b"post-3".to_vec()), Whose::Post("post-3".to_owned())] {
        let archive = archive(Some(&ours.signing));
        let before = load(archive.path()).unwrap().unwrap();
        let lists = |name: &str| fs::read(archive.path().join(name)).unwrap();
        let list = lists(DIGESTS);

        let erased = gone(archive.path(), &whose, Some(&ours.signing));

        assert_eq!((erased.rows, erased.files), (4, 2));
        let after = load(archive.path()).unwrap().unwrap();
        assert_eq!((&after.log[..2], after.log.len()), (&before.log[..], 3));
        assert_eq!(lists(DIGESTS), list);
        let left = rows(archive.path());
        assert!(left.len() == 36 && left.iter().all(|row| row.key.as_deref() != Some(b"post-3")));
        assert!(!archive.path().join(DATA).exists());
        let findings = verify(archive.path(), Some(&ours.public), || ()).unwrap();
        assert_eq!((findings.rows, findings.erased, findings.faults.len()), (36, 4, 0));
        assert_eq!(gone(archive.path(), &whose, Some(&ours.signing)).rows, 0);
        let manifest = fs::read_to_string(archive.path().join("manifest.json")).unwrap();
        assert!(!manifest.contains("post-3"));
    }
}

#[test]
fn a_file_that_loses_its_last_row_goes_and_is_not_missed() {
    let archive = archive(None);
    for post in 0..10 {
        gone(archive.path(), &Whose::Post(format!("post-{post}")), None);
    }

    let findings = verify(archive.path(), None, || ()).unwrap();

    assert_eq!((findings.rows, findings.erased, findings.faults), (0, 40, vec![]));
    assert!(!everything(archive.path()).windows(4).any(|part| part == b"PAR1"));
}

#[test]
fn an_altered_removed_inserted_repeated_or_moved_row_is_named() {
    let pattern = archive(None);
    let whole = rows(&pattern.path().join(DATA));
    let cases: [(Change<Vec<Row>>, &str, &str); 5] = [
        (
            |rows| rows[6].value = Some(b"{}".to_vec()),
            "000000.parquet, row 7: was altered",
            "000000.digests, row 7: is missing",
        ),
        (|rows| drop(rows.remove(6)), "", "000000.digests, row 7: is missing: it was removed or altered"),
        (|rows| rows.insert(6, row(99)), "000000.parquet, row 7: was altered or inserted", ""),
        (|rows| rows.insert(6, row(2)), "000000.parquet, row 7: is there twice", ""),
        (|rows| rows.swap(6, 7), "000000.parquet, row 8: stands in another order", ""),
    ];
    for (change, first, second) in cases {
        let archive = archive(None);
        let mut rows = whole.clone();
        change(&mut rows);
        write(&archive.path().join(DATA), &rows);

        let faults = faults(archive.path(), None);

        let told = |words: &str| words.is_empty() || faults.iter().any(|fault| fault.contains(words));
        assert!(told(first) && told(second) && !faults.is_empty(), "{first} {second}: {faults:?}");
    }
}

#[test]
fn a_column_beside_the_record_cannot_be_altered_either() {
    let archive = archive(None);
    // The same rows written in another way: no record differs, some byte does.
    let path = archive.path().join(DATA);
    let rows = rows(&path);
    let mut writer = Writer::create(&path, Sheet::Archive).unwrap();
    rows.iter().for_each(|row| writer.add(row).unwrap());
    writer.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let created = bytes.windows(8).position(|part| part == b"parquet-").unwrap();
    bytes[created] = b'q';
    fs::write(&path, bytes).unwrap();

    let faults = faults(archive.path(), None);

    assert!(
        faults.len() == 1 && faults[0].contains("every record in it is whole, but the file is another"),
        "{faults:?}"
    );
}

#[test]
fn whoever_changes_the_log_without_the_key_is_found() {
    let ours = keys(1);
    let changes: [(Change<ManifestV1>, &str); 5] = [
        (|manifest| drop(manifest.log.remove(0)), "entry 0: does not follow"),
        (|manifest| manifest.log.swap(0, 1), "entry 0: does not follow"),
        (|manifest| manifest.topic = "other".to_owned(), "entry 0: does not follow"),
        (
            |manifest| {
                let What::Archived(archived) = &mut manifest.log[1].statement.what else { panic!("archived") };
                archived.retention_class = Some("for ever".to_owned());
            },
            "entry 1: was altered",
        ),
        (
            |manifest| {
                let entry = manifest.log.remove(1);
                manifest.append(entry.statement.what, now(), None).unwrap();
            },
            "entry 1: nobody has signed it",
        ),
    ];
    for (change, words) in changes {
        let archive = archive(Some(&ours.signing));
        let mut manifest = load(archive.path()).unwrap().unwrap();
        change(&mut manifest);
        Folder::hold(archive.path()).unwrap().save(&manifest).unwrap();

        let faults = faults(archive.path(), Some(&ours.public));

        assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:?}");
    }
}

#[test]
fn a_manifest_that_names_what_lies_outside_is_refused() {
    for name in ["../verdicts-1.parquet", "date=../../verdicts-1.parquet", "/etc/passwd", "manifest.json"] {
        let archive = archive(None);
        let mut manifest = load(archive.path()).unwrap().unwrap();
        let What::Archived(archived) = &mut manifest.log[0].statement.what else { panic!("archived") };
        archived.files[0].data = name.to_owned();
        Folder::hold(archive.path()).unwrap().save(&manifest).unwrap();

        let refused = erase(archive.path(), &Whose::Post("post-1".to_owned()), "", None, || ()).unwrap_err();

        assert!(refused.to_string().contains("which no archive writes"), "{refused}");
    }
}

#[test]
fn offsets_that_were_left_out_are_found() {
    let archive = archive(None);
    let mut manifest = load(archive.path()).unwrap().unwrap();
    let covered = Covered { partition: 0, from: 41, to: 50, rows: 0, lost_from: None };
    let archived = Archived { retention_class: None, partitions: vec![covered], foreign: 0, files: vec![] };
    manifest.append(What::Archived(archived), now(), None).unwrap();
    Folder::hold(archive.path()).unwrap().save(&manifest).unwrap();

    assert_eq!(faults(archive.path(), None), ["manifest.json, entry 2: partition 0 goes on at 41, not at 40"]);
}

#[test]
fn what_a_killed_process_left_is_told_and_then_removed() {
    let archive = archive(None);
    let left = ["verdicts-000002.parquet.part", "verdicts-000002.parquet"]
        .map(|name| archive.path().join("date=2026-11-22").join(name));
    left.iter().for_each(|path| fs::write(path, "part").unwrap());

    let before = faults(archive.path(), None);
    drop(Folder::hold(archive.path()).unwrap());

    assert!(
        before[0].contains("000002.parquet: is not in the manifest") && before[1].contains("left by a process"),
        "{before:?}"
    );
    assert!(faults(archive.path(), None).is_empty() && left.iter().all(|path| !path.exists()));
    assert_eq!(rows(archive.path()).len(), 40);
}

#[test]
fn one_process_at_a_time_writes_and_a_signed_archive_is_signed_on() {
    let ours = keys(1);
    let archive = archive(Some(&ours.signing));
    let held = Folder::hold(archive.path()).unwrap();
    let busy = erase(archive.path(), &Whose::Post("post-1".to_owned()), "", None, || ()).unwrap_err();
    drop(held);
    let unsigned = erase(archive.path(), &Whose::Post("post-1".to_owned()), "", None, || ()).unwrap_err();

    assert!(busy.to_string().contains("another process writes to this archive"), "{busy}");
    assert!(matches!(&unsigned, ArchiveError::Asked(words) if words.contains("--signing-key")), "{unsigned}");
}

#[test]
fn a_digest_tells_every_part_of_a_row_from_every_other() {
    let changes: [Change<Row>; 9] = [
        |row| row.key = None,
        |row| row.topic = Some("verdict".to_owned()),
        |row| row.partition = Some(1),
        |row| row.offset = None,
        |row| row.timestamp_ms = Some(1),
        |row| row.headers = None,
        |row| row.value = None,
        |row| row.value = Some(vec![]),
        |row| row.salt = Some(vec![0; 16]),
    ];
    let mut seen = std::collections::HashSet::from([digest::of_row(&row(5)).to_string()]);
    for change in changes {
        let mut row = row(5);
        change(&mut row);
        assert!(seen.insert(digest::of_row(&row).to_string()), "{row:?}");
    }
}
