//! Parquet, row by row. Only the columns that are wanted are decoded.

use std::fs::File;
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
    let reader = SerializedFileReader::new(file).map_err(|error| fault(path, None, &error))?;
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
    let rows = reader.get_row_iter(Some(projection)).map_err(|error| fault(path, None, &error))?;
    let mut at = At { file: path.to_owned(), what: "row", number: 0 };
    for fields in rows {
        at.number += 1;
        let fields = fields.map_err(|error| fault(path, Some(at.number), &error))?;
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

fn fault(path: &Path, row: Option<u64>, error: &ParquetError) -> FileError {
    let said = error.to_string();
    let cause = if said.contains("Disabled feature") || matches!(error, ParquetError::NYI(_)) {
        format!("is compressed in another way than zstd or snappy; write it anew in one of these ({said})")
    } else {
        format!("is damaged or no Parquet: {said}")
    };
    FileError::Parquet { path: path.to_owned(), row, cause }
}
