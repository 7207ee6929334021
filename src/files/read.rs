//! Parquet, row by row. Only the columns that are wanted are decoded.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::{Field, Row as Fields};
use ::parquet::schema::types::Type;

use super::columns::RECORD;
use super::{At, FileError, Row, posts};

/// Hands over every row of a file.
pub(super) fn rows<E: From<FileError>>(path: &Path, each: &mut impl FnMut(&At, Row) -> Result<(), E>) -> Result<(), E> {
    let file = File::open(path).map_err(FileError::system(path, "read"))?;
    let reader = guarded(path, None, || SerializedFileReader::new(file))?;
    let schema = reader.metadata().file_metadata().schema();
    let has = |name: &str| schema.get_fields().iter().any(|field| field.name() == name);
    let make = match (has("value"), has("id") && has("text")) {
        (true, _) => record,
        (_, true) => posts::post,
        _ => {
            let cause = "has neither a column `value` nor columns `id` and `text`".to_owned();
            return Err(FileError::Parquet { path: path.to_owned(), row: None, cause }.into());
        }
    };
    let wanted = if has("value") { RECORD.map(|(name, _)| name).to_vec() } else { posts::FIELDS.to_vec() };
    let fields = schema.get_fields().iter().filter(|field| wanted.contains(&field.name())).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
    let projection = projection.map_err(|error| fault(path, None, &error))?;
    let mut rows = guarded(path, None, || reader.get_row_iter(Some(projection)))?;
    let mut at = At { file: path.to_owned(), what: "row", number: 0 };
    while let Some(fields) = guarded(path, Some(at.number + 1), || rows.next().transpose())? {
        at.number += 1;
        let row =
            make(fields).map_err(|cause| FileError::Parquet { path: path.to_owned(), row: Some(at.number), cause })?;
        each(&at, row)?;
    }
    Ok(())
}

fn record(fields: Fields) -> Result<Row, String> {
    let mut row = Row::default();
    for (name, field) in fields.into_columns() {
        match name.as_str() {
            "key" => row.key = bytes(&name, field)?,
            "topic" => row.topic = text(&name, field)?,
            "partition" => row.partition = number(&name, &field)?.map(narrow).transpose()?,
            "offset" => row.offset = number(&name, &field)?,
            "timestamp_ms" => row.timestamp_ms = number(&name, &field)?,
            "headers" => row.headers = text(&name, field)?,
            "value" => row.value = bytes(&name, field)?,
            "salt" => row.salt = bytes(&name, field)?,
            _ => {}
        }
    }
    Ok(row)
}

fn narrow(number: i64) -> Result<i32, String> {
    number.try_into().map_err(|_| format!("column `partition` holds {number}, which is no partition"))
}

pub(super) fn bytes(name: &str, field: Field) -> Result<Option<Vec<u8>>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Str(text) => Ok(Some(text.into_bytes())),
        Field::Bytes(bytes) => Ok(Some(bytes.data().to_vec())),
        _ => Err(format!("column `{name}` is neither text nor bytes")),
    }
}

pub(super) fn text(name: &str, field: Field) -> Result<Option<String>, String> {
    let bytes = bytes(name, field)?;
    bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| format!("column `{name}` is not UTF-8"))).transpose()
}

pub(super) fn number(name: &str, field: &Field) -> Result<Option<i64>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Byte(number) => Ok(Some((*number).into())),
        Field::Short(number) => Ok(Some((*number).into())),
        Field::Int(number) => Ok(Some((*number).into())),
        Field::Long(number) | Field::TimestampMillis(number) => Ok(Some(*number)),
        Field::UByte(number) => Ok(Some((*number).into())),
        Field::UShort(number) => Ok(Some((*number).into())),
        Field::UInt(number) => Ok(Some((*number).into())),
        Field::ULong(number) => {
            (*number).try_into().map(Some).map_err(|_| format!("column `{name}` holds {number}, which is too large"))
        }
        Field::TimestampMicros(number) => Ok(Some(number.div_euclid(1000))),
        _ => Err(format!("column `{name}` is not a whole number")),
    }
}

/// The library panics at some damaged files. What it was reading is not touched again.
fn guarded<T>(path: &Path, row: Option<u64>, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, FileError> {
    let read = catch_unwind(AssertUnwindSafe(read));
    let read = read.unwrap_or_else(|_| Err(ParquetError::General("its structure makes no sense".to_owned())));
    read.map_err(|error| fault(path, row, &error))
}

fn fault(path: &Path, row: Option<u64>, error: &ParquetError) -> FileError {
    let said = error.to_string();
    let cause = if said.contains("Disabled feature") || matches!(error, ParquetError::NYI(_)) {
        format!("is compressed in another way than zstd or snappy; write it anew in one of these ({said})")
    } else {
        format!("is damaged or no Parquet: {said}")
    };
    FileError::Parquet { path: path.to_owned(), row, cause }
}
