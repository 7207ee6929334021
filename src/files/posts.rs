//! Posts in columns that are named as the fields of `post.v1` are.

use ::parquet::record::{Field, Row as Fields};
use serde_json::{Map, Value};

use super::Row;
use super::read::{number, text};

/// The columns that make a post.
pub(super) const FIELDS: [&str; 5] = ["id", "text", "lang", "version", "evidence"];

/// A row as the bytes of a post. An id may be a number.
pub(super) fn post(fields: Fields) -> Result<Row, String> {
    let (mut post, mut key) = (Map::new(), None);
    for (name, field) in fields.into_columns() {
        let value = match (name.as_str(), field) {
            (_, Field::Null) => continue,
            ("version", field) => number(&name, &field)?.map(Value::from),
            ("evidence", field) => Some(json(&field).ok_or("column `evidence` is no list of pieces of evidence")?),
            ("id", field @ Field::Str(_) | field @ Field::Bytes(_)) => text(&name, field)?.map(Value::from),
            ("id", field) => number(&name, &field)?.map(|number| number.to_string().into()),
            (_, field) => text(&name, field)?.map(Value::from),
        };
        if name == "id" {
            key = value.as_ref().and_then(Value::as_str).map(|id| id.as_bytes().to_vec());
        }
        post.extend(value.map(|value| (name, value)));
    }
    let value = serde_json::to_vec(&post).map_err(|error| error.to_string())?;
    Ok(Row { key, value: Some(value), ..Row::default() })
}

/// Text, lists and structures of these: what evidence is made of.
fn json(field: &Field) -> Option<Value> {
    match field {
        Field::Null => Some(Value::Null),
        Field::Str(text) => Some(text.as_str().into()),
        Field::Group(row) => {
            let fields = row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null));
            fields
                .map(|(name, field)| Some((name.clone(), json(field)?)))
                .collect::<Option<Map<_, _>>>()
                .map(Value::from)
        }
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        _ => None,
    }
}
