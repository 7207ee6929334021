//! Reads both sides into the books.

use serde::Deserialize;

use super::DiffArguments;
use crate::cli::places::{Entry, Source};
use crate::config::KafkaSettings;
use crate::diff::candidate::Candidate;
use crate::diff::report::{DiffV1, SideReport};
use crate::diff::{Books, Range};
use crate::error::Exit;
use crate::reconcile::Findings;
use crate::verdict::VerdictV1;

/// What the reading of a side came upon besides verdicts.
#[derive(Default)]
pub(super) struct Account {
    name: String,
    outside: u64,
    without_verdict: u64,
    unread: Findings<String>,
}

pub(super) struct Accounts {
    a: Account,
    b: Account,
}

impl Accounts {
    /// Into the report.
    pub(super) fn enter(self, report: &mut DiffV1) {
        let enter = |account: Account, side: &mut SideReport| {
            let Account { name, outside, without_verdict, unread } = account;
            (side.name, side.outside, side.without_verdict, side.unread) = (name, outside, without_verdict, unread);
        };
        enter(self.a, &mut report.a);
        enter(self.b, &mut report.b);
    }
}

pub(super) struct Reading<'a> {
    pub(super) kafka: Option<&'a KafkaSettings>,
    pub(super) range: &'a Range,
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
        arguments: &DiffArguments,
        candidate: Option<&Candidate>,
        books: &mut Books,
    ) -> Result<Accounts, Exit> {
        let Books { names, a, b } = books;
        let first = self.side(&arguments.a, |verdict| {
            let (judged, policy) = (&verdict.data.verdict, &*verdict.data.policy);
            if let (true, Some(candidate)) = (a.take(names, verdict, (judged, policy)), candidate) {
                let judged = candidate.judge(verdict)?;
                b.take(names, verdict, (&judged, &candidate.reference));
            }
            Ok(())
        })?;
        let second = match &arguments.b {
            Some(source) => self.side(source, |verdict| {
                b.take(names, verdict, (&verdict.data.verdict, &verdict.data.policy));
                Ok(())
            })?,
            None => Account {
                name: candidate.map(|candidate| candidate.file.display().to_string()).unwrap_or_default(),
                ..Account::default()
            },
        };
        for (account, side) in [(&first, &*a), (&second, &*b)] {
            if side.rows.is_empty() {
                eprintln!("{}: there are no verdicts of the range; look at the name, --from and --to", account.name);
                return Err(Exit::Config);
            }
        }
        Ok(Accounts { a: first, b: second })
    }

    fn side(
        &self,
        source: &Source,
        mut take: impl FnMut(&VerdictV1<'_>) -> Result<(), String>,
    ) -> Result<Account, Exit> {
        let mut account = Account { name: source.to_string(), ..Account::default() };
        source.each(self.kafka, "verdicts read", |Entry { at, value }| {
            let Some(value) = value else {
                account.without_verdict += 1;
                return Ok(());
            };
            let Ok(verdict) = serde_json::from_slice::<VerdictV1<'_>>(value) else {
                match serde_json::from_slice::<Rejected>(value) {
                    Ok(_) => account.without_verdict += 1,
                    Err(_) => account.unread.add(at.to_string(), 3),
                }
                return Ok(());
            };
            if !self.range.holds(&verdict.data.input.kafka) {
                account.outside += 1;
                return Ok(());
            }
            take(&verdict).map_err(|why| {
                eprintln!("{at}: the candidate cannot be put to this verdict: {why}");
                Exit::Config
            })
        })?;
        Ok(account)
    }
}
