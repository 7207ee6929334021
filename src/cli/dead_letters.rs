//! `moderato dead-letters`: what could not be judged and why, and posts put back once the cause is mended.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Common, VerbSettings, told};
use crate::config::{Config, Needs};
use crate::dead_letters::{DeadLettersV1, Filter, list, redrive};
use crate::error::Exit;
use crate::kafka::redrive::RedriveError;
use crate::receipt::Partition;
use crate::reconcile::time;
use crate::rejection::Reason;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArguments {
    #[command(subcommand)]
    verb: DeadLettersVerb,
}

#[derive(Debug, Subcommand)]
enum DeadLettersVerb {
    /// Count dead letters by reason, and list those whose post was not put back; no post text is shown.
    List {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: FilterArguments,
        /// How many are listed.
        #[arg(long, value_name = "N", default_value_t = 100)]
        list: usize,
        /// Print one JSON object (`moderato schema dead_letters`).
        #[arg(long)]
        json: bool,
    },
    /// Put posts back on the input topic, in the partition they came from, each once: a second run finds nothing to do.
    ///
    /// Key, value and headers are as they came; `moderato.redrive.source` names the dead letter. In one transaction with
    /// each post goes a marker to the dead-letter topic, by which this verb, `list` and `reconcile` know it. A post that is
    /// put back stands behind newer posts of its key.
    Redrive {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: FilterArguments,
        /// Only say how many posts would be put back.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters; all of them unless told.
#[derive(Debug, Args)]
struct FilterArguments {
    /// Of this reason; may be repeated.
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(Reason::ALL.map(Reason::code)))]
    reason: Vec<String>,
    /// Of posts from this partition of the input topic.
    #[arg(long, value_name = "PARTITION")]
    partition: Option<Partition>,
    /// Written at that time or later, such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
}

impl FilterArguments {
    fn filter(&self) -> Filter {
        let asked = |reason: &Reason| self.reason.iter().any(|code| code == reason.code());
        let reasons = Reason::ALL.into_iter().filter(asked).collect();
        Filter { reasons, partition: self.partition, since_ms: self.since }
    }
}

pub(super) fn run(arguments: &DeadLettersArguments) -> Result<Exit, Exit> {
    match &arguments.verb {
        DeadLettersVerb::List { common, filter, list: most, json } => {
            let config = start(common)?;
            let report = list(&config.kafka, &filter.filter(), *most).map_err(|error| told(&error))?;
            if *json {
                say!("{}", serde_json::to_string(&report).map_err(|_| Exit::Failed)?);
            } else {
                print(&report);
            }
        }
        DeadLettersVerb::Redrive { common, filter, dry_run } => put_back(&start(common)?, &filter.filter(), *dry_run)?,
    }
    Ok(Exit::Ok)
}

fn start(common: &Common) -> Result<Config, Exit> {
    common.start(&VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] }, Needs::KafkaOnly)
}

fn put_back(config: &Config, filter: &Filter, dry_run: bool) -> Result<(), Exit> {
    let said = |posts| eprintln!("{posts} posts put back so far");
    let done = redrive(&config.kafka, filter, dry_run, said).map_err(|error| match &error {
        RedriveError::Read(error) => told(error),
        other => {
            eprintln!("{other}");
            Exit::Failed
        }
    })?;
    let would = if dry_run { "would be put back" } else { "put back" };
    say!("{} posts {would} on {}", done.total(), config.kafka.posts);
    for (reason, count) in &done.posts {
        say!("  {reason} {count}");
    }
    if done.before > 0 {
        say!("{} dead letters passed over: their post was put back already", done.before);
    }
    if done.elsewhere > 0 {
        say!("{} dead letters passed over: their post came from another topic", done.elsewhere);
    }
    Ok(())
}

fn print(report: &DeadLettersV1) {
    let mut counts = Table::new();
    counts.load_preset(NOTHING).set_header(["reason", "stage", "dead letters", "put back"]);
    for count in &report.counts {
        counts.add_row([&count.reason, &count.stage, &count.letters.to_string(), &count.redriven.to_string()]);
    }
    say!("{}\n{counts}\n", report.topic);
    let mut letters = Table::new();
    letters.load_preset(NOTHING).set_header(["dead letter", "written", "post", "reason", "message"]);
    for letter in &report.letters {
        let written = letter.timestamp_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        letters.add_row([
            format!("{}/{}", letter.partition, letter.offset),
            written.map(|time| time.to_string()).unwrap_or_default(),
            format!("{}/{}/{}", letter.post_topic, letter.post_partition, letter.post_offset),
            letter.reason.clone(),
            letter.message.clone(),
        ]);
    }
    say!("{letters}");
    let open: u64 = report.counts.iter().map(|count| count.letters - count.redriven).sum();
    let more = open.saturating_sub(u64::try_from(report.letters.len()).unwrap_or_default());
    if more > 0 {
        say!("and {more} more (--list)");
    }
    if report.foreign > 0 {
        say!("{} records of {} are no dead letters: somebody else wrote them", report.foreign, report.topic);
    }
}
