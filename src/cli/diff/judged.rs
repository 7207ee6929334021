//! Both sides judged in this run: the posts of a place under the policy in force and under the candidate, each read once.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sides::{Account, Accounts};
use super::{DiffArguments, input, mend};
use crate::app::{self, Spent};
use crate::cli::places::Source;
use crate::cli::{Common, Progress, VerbSettings, problems, report, runtime};
use crate::config::{Config, Needs, Task};
use crate::diff::report::JudgedReport;
use crate::diff::{Books, Range};
use crate::error::Exit;
use crate::pipeline::outlet::Lines;
use crate::policy::Policy;

/// The policy in force and the candidate, and all else that the configuration says for each.
pub(super) struct Configs {
    pub(super) live: Config,
    candidate: Config,
    changes: String,
}

impl Configs {
    pub(super) fn of(arguments: &DiffArguments, posts: &Source) -> Result<Self, Exit> {
        let DiffArguments { common, candidate_set, .. } = arguments;
        let needs = if posts.is_topic() { Needs::Kafka } else { Needs::ModelOnly };
        let settings = VerbSettings {
            defaults: &[("log.filter", "warn,ort=error")],
            fixed: &[("cache.kind", "off"), ("shadow.share", "0")],
        };
        let Common { config, set, model, policy } = common;
        let with = |set| Common { config: config.clone(), set, model: model.clone(), policy: None };
        let live = with(set.clone()).start(&settings, needs)?;
        let named = policy.iter().map(|policy| ("policy".to_owned(), policy.clone()));
        let own: Vec<_> = named.chain(candidate_set.iter().cloned()).collect();
        let candidate = with(set.iter().cloned().chain(own.iter().cloned()).collect()).load(&settings, needs);
        let candidate = candidate.and_then(|loaded| loaded.checked).map_err(|error| {
            eprintln!("of the candidate (--policy, --candidate-set)");
            problems(&error)
        })?;
        if [&live, &candidate].iter().any(|config| config.task != Task::Classify) {
            return Err(mend("task: only posts are judged by two policies; use the configuration of the judging pool"));
        }
        let changes = own.iter().filter(|(key, _)| key != "policy").map(|(key, value)| format!(", {key}={value}"));
        Ok(Self { live, candidate, changes: changes.collect() })
    }
}

/// Two policies in force side by side, and what became of the posts.
pub(super) struct Judged {
    pub(super) policies: [Policy; 2],
    pub(super) accounts: Accounts,
    pub(super) report: JudgedReport,
}

/// Judges every post of the place that lies in the range, into the books.
pub(super) fn run(configs: &Configs, posts: &Source, range: &Range, books: &mut Books) -> Result<Judged, Exit> {
    let Configs { live, candidate, changes } = configs;
    let records = input::records(posts, &live.kafka, range)?;
    let both = [live, candidate];
    let loaded = app::load_both(both).map_err(|error| report(&error))?;
    let policies = [loaded[0].policy.clone(), loaded[1].policy.clone()];
    let weights_shared = loaded[0].model.shares_weights_with(&loaded[1].model);
    let accounts = [
        Account::named(live.policy.display().to_string()),
        Account::named(format!("{}{changes}", candidate.policy.display())),
    ];
    let gathered = Arc::new(Mutex::new(Gathered { books: std::mem::take(books), accounts }));
    let sink = |which| Sink {
        gathered: gathered.clone(),
        which,
        line: Vec::new(),
        progress: Progress::new(["posts judged", "posts judged by the candidate"][which]),
    };
    let lines = [Lines::to(sink(0)), Lines::to(sink(1))];
    let runtime = runtime()?;
    let spent = runtime.block_on(app::both(both, loaded, records, lines)).map_err(|error| report(&error));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let [a, b]: [Spent; 2] = spent?;
    let Gathered { books: filled, accounts } = std::mem::take(&mut *held(&gathered));
    *books = filled;
    let accounts = Accounts::of(accounts);
    accounts.hold_any(books)?;
    Ok(Judged { policies, accounts, report: JudgedReport { posts: posts.to_string(), weights_shared, a, b } })
}

#[derive(Default)]
struct Gathered {
    books: Books,
    accounts: [Account; 2],
}

fn held(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of one side's road: its lines go into the books one by one.
struct Sink {
    gathered: Arc<Mutex<Gathered>>,
    which: usize,
    line: Vec<u8>,
    progress: Progress,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The road flushes after each line.
    fn flush(&mut self) -> io::Result<()> {
        let Gathered { books: Books { names, a, b }, accounts } = &mut *held(&self.gathered);
        let side = if self.which == 0 { a } else { b };
        // The line of a tombstone.
        let line = Some(self.line.trim_ascii()).filter(|line| *line != b"null");
        if let Some(verdict) = accounts[self.which].verdict(&"the road's end", line) {
            side.take(names, &verdict, (&verdict.data.verdict, &verdict.data.policy));
        }
        self.progress.tick("this run");
        self.line.clear();
        Ok(())
    }
}
