//! The columns of a Parquet file of verdicts: what makes up the record, and what is drawn out of its value.

use ::parquet::data_type::ByteArray;
use serde_json::Value;

use super::Row;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bytes,
    Text,
    Int,
    Long,
    Double,
    Truth,
    /// Microseconds since the Unix epoch, UTC.
    Time,
}

impl Kind {
    /// As a schema of Parquet's says it.
    pub(super) fn declared(self, name: &str) -> String {
        match self {
            Kind::Bytes => format!("optional binary {name}"),
            Kind::Text => format!("optional binary {name} (STRING)"),
            Kind::Int => format!("optional int32 {name}"),
            Kind::Long => format!("optional int64 {name}"),
            Kind::Double => format!("optional double {name}"),
            Kind::Truth => format!("optional boolean {name}"),
            Kind::Time => format!("optional int64 {name} (TIMESTAMP(MICROS,true))"),
        }
    }
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Nothing,
    Bytes(ByteArray),
    Int(i32),
    Long(i64),
    Double(f64),
    Truth(bool),
}

/// The record itself. Reading takes these and no others; `salt` is an archive's.
pub(super) const RECORD: [(&str, Kind); 8] = [
    ("key", Kind::Bytes),
    ("topic", Kind::Text),
    ("partition", Kind::Int),
    ("offset", Kind::Long),
    ("timestamp_ms", Kind::Long),
    ("headers", Kind::Text),
    ("value", Kind::Text),
    ("salt", Kind::Bytes),
];

/// Drawn out of a verdict, each with its place there.
pub(super) const DRAWN: [(&str, Kind, &str); 29] = [
    ("verdict_id", Kind::Text, "/id"),
    ("post_id", Kind::Text, "/subject"),
    ("time", Kind::Time, "/time"),
    ("version", Kind::Long, "/data/input/version"),
    ("lang", Kind::Text, "/data/input/lang"),
    ("lang_detected", Kind::Text, "/data/input/lang_detected"),
    ("text_sha256", Kind::Text, "/data/input/text_sha256"),
    ("truncated", Kind::Truth, "/data/input/truncated"),
    ("label", Kind::Text, "/data/verdict/label"),
    ("score", Kind::Double, "/data/verdict/score"),
    ("action", Kind::Text, "/data/verdict/action"),
    ("action_reason", Kind::Text, "/data/verdict/action_reason"),
    ("action_label", Kind::Text, "/data/verdict/action_label"),
    ("abstained", Kind::Truth, "/data/verdict/abstained"),
    ("policy_id", Kind::Text, "/data/policy/id"),
    ("policy_revision", Kind::Text, "/data/policy/revision"),
    ("policy_digest", Kind::Text, "/data/policy/digest"),
    ("model", Kind::Text, "/data/model/name"),
    ("model_digest", Kind::Text, "/data/model/digest"),
    ("prompt_digest", Kind::Text, "/data/model/prompt_digest"),
    ("calibration_revision", Kind::Text, "/data/verdict/calibration/revision"),
    ("answered_by", Kind::Text, "/data/answered_by"),
    ("fingerprint", Kind::Text, "/data/fingerprint/digest"),
    ("replay_id", Kind::Text, "/data/replay/id"),
    ("source_topic", Kind::Text, "/data/input/kafka/topic"),
    ("source_partition", Kind::Int, "/data/input/kafka/partition"),
    ("source_offset", Kind::Long, "/data/input/kafka/offset"),
    ("source_timestamp_ms", Kind::Long, "/data/input/kafka/timestamp_ms"),
    ("worker_version", Kind::Text, "/data/worker_version"),
];

/// The cells of a row, in the order of [`RECORD`] and then [`DRAWN`]. What the value does not say, or says in another
/// type, is null.
pub(super) fn cells(row: &Row) -> Vec<Cell> {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Cell::Nothing, |bytes| Cell::Bytes(bytes.into()));
    let text = |text: &Option<String>| text.as_deref().map_or(Cell::Nothing, |text| Cell::Bytes(text.into()));
    let long = |number: Option<i64>| number.map_or(Cell::Nothing, Cell::Long);
    let mut cells = vec![
        bytes(&row.key),
        text(&row.topic),
        row.partition.map_or(Cell::Nothing, Cell::Int),
        long(row.offset),
        long(row.timestamp_ms),
        text(&row.headers),
        bytes(&row.value),
        bytes(&row.salt),
    ];
    let value: Value = row.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
    cells.extend(
        DRAWN.iter().map(|(_, kind, place)| {
            value.pointer(place).and_then(|value| drawn(value, *kind)).unwrap_or(Cell::Nothing)
        }),
    );
    cells
}

fn drawn(value: &Value, kind: Kind) -> Option<Cell> {
    Some(match kind {
        Kind::Bytes | Kind::Text => Cell::Bytes(value.as_str()?.into()),
        Kind::Int => Cell::Int(value.as_i64()?.try_into().ok()?),
        Kind::Long => Cell::Long(value.as_i64()?),
        Kind::Double => Cell::Double(value.as_f64()?),
        Kind::Truth => Cell::Truth(value.as_bool()?),
        Kind::Time => Cell::Long(value.as_str()?.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
    })
}
