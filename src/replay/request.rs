//! The range that is asked for, and whether it is the one that a replay has already.

use std::collections::BTreeMap;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::kafka::mark::Mark;
use crate::kafka::place::Place;
use crate::kafka::range::ReadError;
use crate::receipt::Partition;

/// Longest text of a place that is kept as it is: brokers keep some 4 kB beside an offset.
const LONGEST: usize = 1000;
/// Most partitions whose ends are told.
const TOLD: usize = 8;

/// A place, and in which words it was asked for: a time ago is another time when it is asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    text: String,
    /// The place.
    pub place: Place,
}

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), place: text.parse()? })
    }
}

impl Said {
    /// As it is kept.
    fn kept(&self) -> String {
        match self.text.len() {
            ..=LONGEST => self.text.clone(),
            _ => format!("sha256:{}", hex::encode(Sha256::digest(&self.text))),
        }
    }

    fn is(&self, kept: &str) -> bool {
        self.kept() == kept || kept.parse() == Ok(self.place.clone())
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Where the range begins; with the first record that is kept where nothing is said.
    pub from: Option<Said>,
    /// Where it ends; behind the last record where nothing is said.
    pub to: Option<Said>,
}

impl Request {
    /// Where it begins.
    pub fn from(&self) -> Place {
        self.from.as_ref().map_or(Place::Beginning, |said| said.place.clone())
    }

    /// Where it ends.
    pub fn to(&self) -> Place {
        self.to.as_ref().map_or(Place::End, |said| said.place.clone())
    }

    /// As a replay keeps it.
    pub(super) fn kept(&self) -> String {
        let kept = |said: &Option<Said>, usual: &str| said.as_ref().map_or(usual.to_owned(), Said::kept);
        format!("{} to {}", kept(&self.from, "beginning"), kept(&self.to, "end"))
    }

    /// A replay that is gone on with has its range: what is said of it must be the same, or nothing.
    pub(super) fn is_of(&self, marks: &BTreeMap<Partition, Mark>, group: &str) -> Result<(), ReadError> {
        let Some(range) = marks.values().find_map(|mark| mark.range.as_deref()) else { return Ok(()) };
        let Some((from, to)) = range.split_once(" to ") else { return Ok(()) };
        let is = |said: &Option<Said>, kept| said.as_ref().is_none_or(|said| said.is(kept));
        if is(&self.from, from) && is(&self.to, to) {
            return Ok(());
        }
        let ends = marks.iter().filter_map(|(partition, mark)| Some(format!("{partition}:{}", mark.end?)));
        let ends: Vec<String> = ends.collect();
        let more = if ends.len() > TOLD { ",..." } else { "" };
        Err(ReadError::Asked(format!(
            "the replay `{group}` has its range already: --from {from} --to {to}, which ends at {}{more}; leave --from and \
             --to out to go on with it, or take another --id for another range",
            ends[..ends.len().min(TOLD)].join(",")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: Option<&str>, to: Option<&str>) -> Request {
        let said = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        Request { from: said(from), to: said(to) }
    }

    fn goes_on(first: &Request, then: &Request) -> Result<(), ReadError> {
        let mark = Mark { next: 3, end: Some(9), range: Some(first.kept().into()) };
        then.is_of(&[(0, mark.clone()), (1, mark)].into(), "g.replay.r")
    }

    #[test]
    fn the_same_words_the_same_place_and_nothing_go_on_with_a_range_and_anything_else_does_not() {
        let day = request(Some("24h"), Some("2026-11-22T10:00:00Z"));
        for same in [
            day.clone(),
            request(None, None),
            request(Some("24h"), None),
            request(None, Some("2026-11-22T11:00:00+01:00")),
        ] {
            assert!(goes_on(&day, &same).is_ok(), "{same:?}");
        }
        for other in [request(Some("25h"), None), request(None, Some("end")), request(Some("0:5"), None)] {
            let error = goes_on(&day, &other).unwrap_err().to_string();
            assert!(error.contains("--from 24h --to 2026-11-22T10:00:00Z, which ends at 0:9,1:9; leave"), "{error}");
        }
        assert!(goes_on(&request(None, None), &request(Some("beginning"), Some("end"))).is_ok());
    }

    #[test]
    fn a_long_range_is_known_by_its_digest() {
        let offsets = |last: i64| (0..300).map(|n| format!("{n}:{}", n + last)).collect::<Vec<_>>().join(",");
        let long = request(Some(&offsets(7)), None);
        assert!(long.kept().len() < 100 && goes_on(&long, &long).is_ok());
        assert!(goes_on(&long, &request(Some(&offsets(8)), None)).is_err());
    }
}
