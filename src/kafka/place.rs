//! Where a range begins or ends, as it is said on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::range::{Extent, ReadError, Reader, Span};
use crate::config;
use crate::receipt::Partition;

/// An offset of each partition.
pub type Offsets = BTreeMap<Partition, i64>;

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

/// A time as RFC 3339, or as a duration that long ago, in milliseconds since the Unix epoch.
pub fn time(text: &str) -> Result<i64, String> {
    let parsed = text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).ok();
    parsed.or_else(|| ago(text, jiff::Timestamp::now().as_millisecond())).ok_or_else(|| {
        format!("`{text}` is not a time, such as 2026-11-22T10:00:00Z, nor how long ago, such as 24h or 7d")
    })
}

fn ago(text: &str, now: i64) -> Option<i64> {
    let before = i64::try_from(config::duration(text)?.as_millis()).ok()?;
    now.checked_sub(before)
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
                        "`{text}` is no place: beginning, end, committed, a time such as 2026-11-22T10:00:00Z or how long ago such as 24h, or PARTITION:OFFSET,... such as 0:1500,1:1400"
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

/// From the first record of `from` or later up to the first of `to` or later, milliseconds since the Unix epoch; without
/// a time, from the beginning and to the end.
pub fn between(
    reader: &Reader,
    topic: &str,
    extents: &[Extent],
    from: Option<i64>,
    to: Option<i64>,
) -> Result<Vec<Span>, ReadError> {
    let (from, to) = (from.map_or(Place::Beginning, Place::Time), to.map_or(Place::End, Place::Time));
    // No place here means what a group committed.
    let range = Range { reader, topic, extents, group: "", committed: &Offsets::new() };
    range.spans(&from, &to, |extent| extent.stable)
}

/// A topic, to be cut to what is asked for.
pub struct Range<'a> {
    /// Reads it.
    pub reader: &'a Reader,
    /// The topic.
    pub topic: &'a str,
    /// What is there of it.
    pub extents: &'a [Extent],
    /// Whose commits a place may mean.
    pub group: &'a str,
    /// These.
    pub committed: &'a Offsets,
}

impl Range<'_> {
    /// The part of each partition that lies between the two places, of what is there; `usual` is where a partition ends
    /// that `to` says nothing of.
    pub fn spans(&self, from: &Place, to: &Place, usual: impl Fn(&Extent) -> i64) -> Result<Vec<Span>, ReadError> {
        let from = self.offsets(from, "--from")?;
        let any = self.extents.iter().any(|extent| extent.low < extent.stable);
        if *to == Place::Committed && self.committed.is_empty() && any {
            return Err(ReadError::Asked(format!(
                "group `{}` has committed nothing of `{}`: mend kafka.group, or say --to end",
                self.group, self.topic
            )));
        }
        let to = self.offsets(to, "--to")?;
        let span = |extent: &Extent| {
            let partition = extent.partition;
            let start = from.get(&partition).map_or(extent.low, |from| (*from).max(extent.low));
            let end = to.get(&partition).copied().unwrap_or_else(|| usual(extent)).min(extent.stable).max(start);
            Span { partition, start, end }
        };
        Ok(self.extents.iter().map(span).collect())
    }

    /// The place in each partition; one that has none is left out.
    fn offsets(&self, place: &Place, flag: &str) -> Result<Offsets, ReadError> {
        Ok(match place {
            Place::Beginning => self.extents.iter().map(|extent| (extent.partition, extent.low)).collect(),
            Place::End => self.extents.iter().map(|extent| (extent.partition, extent.stable)).collect(),
            Place::Committed => self.committed.clone(),
            Place::Time(ms) => {
                let found = self.reader.at_time(self.topic, self.extents, *ms)?;
                let at = |extent: &Extent| {
                    (extent.partition, found.get(&extent.partition).copied().unwrap_or(extent.stable))
                };
                self.extents.iter().map(at).collect()
            }
            Place::Offsets(offsets) => {
                let known = |partition: &Partition| self.extents.iter().any(|extent| extent.partition == *partition);
                if let Some(unknown) = offsets.keys().find(|partition| !known(partition)) {
                    return Err(ReadError::Asked(format!(
                        "{flag}: `{}` has no partition {unknown}; it has {}",
                        self.topic,
                        self.extents.len()
                    )));
                }
                offsets.clone()
            }
        })
    }
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
        assert_eq!((ago("24h", 86_400_001), ago("1d", 86_400_001)), (Some(1), Some(1)));
        let before = jiff::Timestamp::now().as_millisecond();
        assert!(matches!(place("1h"), Ok(Place::Time(at)) if (before - 3_600_000..=before).contains(&at)));
        for wrong in ["", "yesterday", "-1h", "0:-1", "0:1,x", "15", "2026-11-22"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
