//! Reads both sides into the books.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Deserialize;

use super::mend;
use crate::cli::places::{Entry, Source};
use crate::config::KafkaSettings;
use crate::diff::candidate::Candidate;
use crate::diff::report::{DiffV1, SideReport};
use crate::diff::{Books, Range};
use crate::error::Exit;
use crate::reconcile::Findings;
use crate::verdict::{Replay, VerdictV1};

/// What the reading of a side came upon besides verdicts.
#[derive(Default)]
pub(super) struct Account {
    name: String,
    outside: u64,
    without_verdict: u64,
    other_replays: u64,
    /// Those that gave verdicts of the range, and how many.
    replays: BTreeMap<String, u64>,
    unread: Findings<String>,
}

pub(super) struct Accounts {
    a: Account,
    b: Account,
    masks_unknown: u64,
}

impl Account {
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// The verdict of a record; what is none is counted.
    pub(super) fn verdict<'a>(&mut self, at: &dyn Display, value: Option<&'a [u8]>) -> Option<VerdictV1<'a>> {
        let Some(value) = value else {
            self.without_verdict += 1;
            return None;
        };
        let verdict = serde_json::from_slice(value).ok();
        if verdict.is_none() {
            match serde_json::from_slice::<Rejected>(value) {
                Ok(_) => self.without_verdict += 1,
                Err(_) => self.unread.add(at.to_string(), 3),
            }
        }
        verdict
    }

    /// Whether a verdict of the range is live, or of the replay that is meant, if one is.
    fn is_meant(&mut self, verdict: &VerdictV1<'_>, replay: Option<&str>) -> bool {
        let Some(Replay { id }) = &verdict.data.replay else { return true };
        match self.replays.get_mut(&**id) {
            Some(count) => *count += 1,
            None => drop(self.replays.insert(id.to_string(), 1)),
        }
        let meant = replay.is_none_or(|meant| meant == id);
        self.other_replays += u64::from(!meant);
        meant
    }

    /// Verdicts of several replays are no side: which of them is meant must be said.
    fn hold_one(&self, replay: Option<&str>) -> Result<(), Exit> {
        let Self { name, replays, .. } = self;
        let told: Vec<String> = replays.iter().map(|(id, count)| format!("{id} ({count})")).collect();
        let told = told.join(", ");
        match replay {
            None if replays.len() > 1 => Err(mend(&format!(
                "{name}: holds verdicts of several replays of the range: {told}; say which with --replay ID"
            ))),
            Some(meant) if !replays.is_empty() && !replays.contains_key(meant) => {
                Err(mend(&format!("{name}: holds no verdict of replay {meant}, but of {told}; mend --replay")))
            }
            _ => Ok(()),
        }
    }
}

impl Accounts {
    pub(super) fn of([a, b]: [Account; 2]) -> Self {
        Self { a, b, masks_unknown: 0 }
    }

    /// Without verdicts on either side there is nothing to tell.
    pub(super) fn hold_any(&self, books: &Books) -> Result<(), Exit> {
        for (account, side) in [(&self.a, &books.a), (&self.b, &books.b)] {
            if side.rows.is_empty() {
                eprintln!("{}: there are no verdicts of the range; look at the name, --from and --to", account.name);
                return Err(Exit::Config);
            }
        }
        Ok(())
    }

    /// Into the report.
    pub(super) fn enter(self, report: &mut DiffV1) {
        let enter = |account: Account, side: &mut SideReport| {
            let Account { name, outside, without_verdict, other_replays, unread, .. } = account;
            (side.name, side.outside, side.without_verdict, side.unread) = (name, outside, without_verdict, unread);
            side.other_replays = other_replays;
        };
        enter(self.a, &mut report.a);
        enter(self.b, &mut report.b);
        report.masks_unknown = self.masks_unknown;
    }
}

pub(super) struct Reading<'a> {
    pub(super) kafka: Option<&'a KafkaSettings>,
    pub(super) range: &'a Range,
    /// The replays that are meant, of A and of B.
    pub(super) replays: [Option<&'a str>; 2],
}

/// What `moderato classify` writes for a post that it rejects.
#[derive(Deserialize)]
struct Rejected {
    #[serde(rename = "error")]
    _error: serde::de::IgnoredAny,
}

impl Reading<'_> {
    /// A, and B or what the candidate makes of A.
    pub(super) fn both(
        &self,
        (first, second): (&Source, Option<&Source>),
        candidate: Option<&Candidate>,
        books: &mut Books,
    ) -> Result<Accounts, Exit> {
        let Books { names, a, b } = books;
        let mut masks_unknown = 0;
        let first = self.side((first, self.replays[0]), |verdict| {
            let (judged, policy) = (&verdict.data.verdict, &*verdict.data.policy);
            if let (true, Some(candidate)) = (a.take(names, verdict, (judged, policy)), candidate) {
                let judged = candidate.judge(verdict)?;
                masks_unknown += u64::from(!candidate.knows_masks(verdict));
                b.take(names, verdict, (&judged, &candidate.reference));
            }
            Ok(())
        })?;
        let second = match second {
            Some(source) => self.side((source, self.replays[1]), |verdict| {
                b.take(names, verdict, (&verdict.data.verdict, &verdict.data.policy));
                Ok(())
            })?,
            None => Account::named(candidate.map(|candidate| candidate.file.display().to_string()).unwrap_or_default()),
        };
        let accounts = Accounts { a: first, b: second, masks_unknown };
        accounts.hold_any(books)?;
        Ok(accounts)
    }

    fn side(
        &self,
        (source, replay): (&Source, Option<&str>),
        mut take: impl FnMut(&VerdictV1<'_>) -> Result<(), String>,
    ) -> Result<Account, Exit> {
        let mut account = Account::named(source.to_string());
        source.each(self.kafka, "verdicts read", |Entry { at, value, dead_letter }| {
            let Some(verdict) = account.verdict(at, value.filter(|_| !dead_letter)) else { return Ok(()) };
            if !self.range.holds(&verdict.data.input.kafka) {
                account.outside += 1;
                return Ok(());
            }
            if !account.is_meant(&verdict, replay) {
                return Ok(());
            }
            take(&verdict).map_err(|why| {
                eprintln!("{at}: the candidate cannot be put to this verdict: {why}");
                Exit::Config
            })
        })?;
        account.hold_one(replay)?;
        Ok(account)
    }
}
