//! Where a range begins or ends, as it is said on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::receipt::Partition;

/// A place in every partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The first record that is kept.
    Beginning,
    /// Behind the last record that is committed now.
    End,
    /// What the group has committed.
    Committed,
    /// The first record of that time or later, milliseconds since the Unix epoch.
    Time(i64),
    /// These offsets; the usual place for partitions that are not named.
    Offsets(BTreeMap<Partition, i64>),
}

/// A time as RFC 3339, in milliseconds since the Unix epoch.
pub fn time(text: &str) -> Result<i64, String> {
    let parsed = text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond);
    parsed.map_err(|_| format!("`{text}` is not a time, such as 2026-11-22T10:00:00Z"))
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            "committed" => Ok(Self::Committed),
            _ => match text.split(',').map(offset).collect::<Option<BTreeMap<_, _>>>() {
                Some(offsets) => Ok(Self::Offsets(offsets)),
                None => time(text).map(Self::Time).map_err(|_| {
                    format!(
                        "`{text}` is no place: beginning, end, committed, a time such as 2026-11-22T10:00:00Z, or PARTITION:OFFSET,... such as 0:1500,1:1400"
                    )
                }),
            },
        }
    }
}

fn offset(text: &str) -> Option<(Partition, i64)> {
    let (partition, offset) = text.split_once(':')?;
    let (partition, offset) = (partition.trim().parse().ok()?, offset.trim().parse().ok()?);
    (partition >= 0 && offset >= 0).then_some((partition, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_times_and_offsets_are_told_apart() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("end"), Ok(Place::End));
        assert_eq!(place("2026-11-22T10:00:00Z"), Ok(Place::Time(1_795_341_600_000)));
        assert_eq!(place("0:15, 2:7"), Ok(Place::Offsets([(0, 15), (2, 7)].into())));
        for wrong in ["", "yesterday", "0:-1", "0:1,x", "15", "2026-11-22"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
