//! Which posts are looked at: by the offsets or times of their records.

use crate::reconcile::Place;
use crate::verdict::SourceRef;

/// From a place on, up to and without another.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Where it begins.
    pub from: Option<Place>,
    /// Where it ends.
    pub to: Option<Place>,
}

/// A place that can be told from a verdict alone.
pub fn place(text: &str) -> Result<Place, String> {
    match text.parse()? {
        Place::Committed => {
            Err("`committed` cannot be told from verdicts: say beginning, end, a time or offsets".to_owned())
        }
        place => Ok(place),
    }
}

impl Range {
    /// Whether the post that stood there is one of them. One without a time is in no range of times.
    pub fn holds(&self, source: &SourceRef<'_>) -> bool {
        let from = self.from.as_ref().is_none_or(|place| bound(place, source, |here, bound| here >= bound));
        from && self.to.as_ref().is_none_or(|place| bound(place, source, |here, bound| here < bound))
    }
}

fn bound(place: &Place, source: &SourceRef<'_>, within: fn(i64, i64) -> bool) -> bool {
    match place {
        Place::Beginning | Place::End | Place::Committed => true,
        Place::Time(ms) => source.timestamp_ms.is_some_and(|here| within(here, *ms)),
        Place::Offsets(offsets) => offsets.get(&source.partition).is_none_or(|offset| within(source.offset, *offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_at_its_first_place_and_ends_before_its_second() {
        let at = |partition, offset, timestamp_ms| SourceRef { topic: "t".into(), partition, offset, timestamp_ms };
        let range = |from: &str, to: &str| Range { from: place(from).ok(), to: place(to).ok() };
        let offsets = range("0:5", "0:7");
        let held: Vec<i64> = (0..10).filter(|offset| offsets.holds(&at(0, *offset, None))).collect();
        assert_eq!(held, [5, 6]);
        assert!(offsets.holds(&at(1, 0, None)), "of a partition that is not named everything");
        let times = range("1970-01-01T00:00:05Z", "1970-01-01T00:00:07Z");
        let held: Vec<i64> = (0..10).filter(|second| times.holds(&at(0, 0, Some(second * 1_000)))).collect();
        assert_eq!(held, [5, 6]);
        assert!(!times.holds(&at(0, 0, None)));
        assert!(place("committed").is_err() && place("yesterday").is_err());
    }
}
