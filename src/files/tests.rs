use ::parquet::data_type::{ByteArrayType, DataType, Int64Type};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use tempfile::tempdir;

use super::*;

fn verdict(n: i64) -> Vec<u8> {
    let time = "2026-11-22T10:00:00.25Z";
    let value = serde_json::json!({
        "id": format!("v{n}"), "subject": format!("p{n}"), "time": time,
        "data": {
            "verdict": {"label": "sound", "score": 0.75, "action": "allow", "abstained": n % 2 == 0},
            "input": {"version": n, "kafka": {"topic": "posts", "partition": 3, "offset": n}},
        },
    });
    value.to_string().into_bytes()
}

fn row(n: i64) -> Row {
    Row {
        key: Some(vec![0xff, u8::try_from(n % 200).unwrap()]),
        topic: Some("verdicts".to_owned()),
        partition: Some(2),
        offset: Some(n),
        timestamp_ms: (n % 3 != 0).then_some(1_795_341_600_000 + n),
        headers: Some("{}".to_owned()),
        value: (n % 5 != 0).then(|| verdict(n)),
        salt: None,
    }
}

fn write(path: &Path, sheet: Sheet, rows: &[Row]) {
    let mut writer = Writer::create(path, sheet).unwrap();
    rows.iter().for_each(|row| writer.add(row).unwrap());
    writer.close().unwrap();
}

fn read(path: &Path) -> Result<Vec<(String, Row)>, FileError> {
    let mut rows = Vec::new();
    records(path, |at, row| {
        rows.push((at.to_string(), row));
        Ok::<(), FileError>(())
    })?;
    Ok(rows)
}

#[test]
fn what_is_written_is_read_again_byte_for_byte_over_several_row_groups() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("verdicts.parquet");
    let rows: Vec<Row> = (0..60_000).map(row).collect();
    write(&path, Sheet::Verdicts, &rows);

    let back = read(&path).unwrap();

    assert!(back.iter().map(|(_, row)| row).eq(&rows));
    assert_eq!(back[59_999].0, format!("{}, row 60000", path.display()));
    assert!(!folder.path().join("verdicts.parquet.part").exists());
}

#[test]
fn a_salt_is_kept_in_an_archive_alone() {
    let folder = tempdir().unwrap();
    let salted = Row { salt: Some(vec![7; 16]), ..row(1) };
    for (sheet, salt) in [(Sheet::Archive, salted.salt.clone()), (Sheet::Verdicts, None)] {
        let path = folder.path().join("one.parquet");
        write(&path, sheet, std::slice::from_ref(&salted));
        assert_eq!(read(&path).unwrap()[0].1, Row { salt, ..salted.clone() });
    }
}

#[test]
fn a_file_without_its_last_step_does_not_bear_its_name() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("verdicts.parquet");
    let mut writer = Writer::create(&path, Sheet::Verdicts).unwrap();
    writer.add(&row(1)).unwrap();
    drop(writer);

    assert!(matches!(read(folder.path()), Err(FileError::Empty(_))));
}

#[test]
fn a_folder_is_read_in_the_order_of_names_and_blank_lines_are_no_records() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    let [c, b, hidden] = ["c.jsonl", "b/1.jsonl", ".hidden.jsonl"].map(|name| folder.path().join(name));
    fs::write(&c, "{\"c\":1}\r\n\n {\"c\":3}").unwrap();
    fs::write(&b, "{\"b\":1}\n").unwrap();
    fs::write(hidden, "no").unwrap();
    fs::write(folder.path().join("manifest.json"), "no").unwrap();

    let all = read(folder.path()).unwrap();

    let told: Vec<_> = all.iter().map(|(at, row)| (at.clone(), row.value.clone().unwrap())).collect();
    let at = |path: &Path, line| format!("{}, line {line}", path.display());
    let wanted =
        [(at(&b, 1), b"{\"b\":1}".to_vec()), (at(&c, 1), b"{\"c\":1}".to_vec()), (at(&c, 3), b"{\"c\":3}".to_vec())];
    assert_eq!(told, wanted);
}

#[test]
fn what_is_not_there_not_known_or_no_parquet_is_told_by_name() {
    let folder = tempdir().unwrap();
    let told = |name: &str| read(&folder.path().join(name)).unwrap_err().to_string();
    fs::write(folder.path().join("a.csv"), "").unwrap();
    fs::write(folder.path().join("a.parquet"), "no Parquet").unwrap();

    assert!(told("gone.jsonl").contains("gone.jsonl: cannot be read"), "{}", told("gone.jsonl"));
    assert!(told("a.csv").contains("a.csv: is neither .jsonl nor .parquet"));
    assert!(told("a.parquet").contains("a.parquet: is damaged or no Parquet"));
}

/// One column of somebody else's file.
fn other<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: &[T::T], levels: &[(i16, i16)]) {
    let (defined, repeated): (Vec<i16>, Vec<i16>) = levels.iter().copied().unzip();
    let mut column = group.next_column().unwrap().unwrap();
    let levels = |levels: &[i16]| (!levels.is_empty()).then(|| levels.to_vec());
    let (defined, repeated) = (levels(&defined), levels(&repeated));
    column.typed::<T>().write_batch(values, defined.as_deref(), repeated.as_deref()).unwrap();
    column.close().unwrap();
}

#[test]
fn posts_are_made_of_columns_that_are_named_as_their_fields() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("posts.parquet");
    let schema = "message posts {
        required int64 id; required binary text (STRING); optional int32 likes; optional int64 version;
        optional group evidence (LIST) { repeated group list { optional group element {
            required binary id (STRING); required binary quote (STRING); } } }
    }";
    let schema = parse_message_type(schema).unwrap();
    let file = File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema.into(), std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    other::<Int64Type>(&mut group, &[7, 8], &[]);
    other::<ByteArrayType>(&mut group, &["it is so".into(), "\"no\"".into()], &[]);
    other::<::parquet::data_type::Int32Type>(&mut group, &[5], &[(1, 0), (0, 0)]);
    other::<Int64Type>(&mut group, &[2], &[(0, 0), (1, 0)]);
    for texts in [["e1", "e2"], ["who", "says"]] {
        other::<ByteArrayType>(&mut group, &texts.map(Into::into), &[(3, 0), (3, 1), (0, 0)]);
    }
    group.close().unwrap();
    writer.close().unwrap();

    let rows = read(&path).unwrap();

    let posts: Vec<_> =
        rows.iter().map(|(_, row)| crate::post::decode(row.value.as_ref().unwrap(), 1000).unwrap()).collect();
    assert_eq!((&*posts[0].id.0, posts[0].text.as_str(), posts[0].version), ("7", "it is so", None));
    assert_eq!((posts[0].evidence.len(), posts[0].evidence[1].quote.as_str()), (2, "says"));
    assert_eq!((&*posts[1].id.0, posts[1].text.as_str(), posts[1].version), ("8", "\"no\"", Some(2)));
    assert_eq!(rows[1].1.key.as_deref(), Some(b"8".as_slice()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_file_is_told_and_ends_nothing(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let folder = tempdir().unwrap();
        let path = folder.path().join("verdicts.parquet");
        write(&path, Sheet::Archive, &(0..40).map(row).collect::<Vec<_>>());
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if cut {
            bytes.truncate(at);
        }
        fs::write(&path, bytes).unwrap();
        let _ = read(&path);
    }
}
