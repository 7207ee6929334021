//! `moderato reconcile`: was every post judged?

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Common, Progress, VerbSettings, told};
use crate::config::Needs;
use crate::error::Exit;
use crate::reconcile::{At, Findings, Place, ReconcileV1, Request, reconcile};

/// Compares the input topic with the topics of verdicts, dead letters and, if configured, flagged posts: every record of
/// the range must have become exactly one verdict, dead letter or passed tombstone.
///
/// The output topics are read from their beginning, whatever the range is. A place is `beginning`, `end`, `committed`, a
/// time (2026-11-22T10:00:00Z: the first record of that time or later), or offsets (0:1500,1:1400: of these partitions;
/// the others as if nothing were said).
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 whole; 1 not whole, or the topics could not be read; 2 mend the command line or the configuration."
)]
pub(super) struct ReconcileArguments {
    #[command(flatten)]
    common: Common,
    /// Where the range begins.
    #[arg(long, value_name = "PLACE", default_value = "beginning")]
    from: Place,
    /// Where the range ends. What the group has committed is what the pool says it has finished; with `end`, posts that are
    /// still in flight are missing.
    #[arg(long, value_name = "PLACE", default_value = "committed")]
    to: Place,
    /// How many of each kind of fault are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    list: usize,
    /// Take a range for whole although verdicts were published twice with the same id, as at least once allows after a
    /// crash.
    #[arg(long)]
    allow_repeats: bool,
    /// Print one JSON object (`moderato schema reconcile`).
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ReconcileArguments) -> Result<Exit, Exit> {
    let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
    let config = arguments.common.start(&quiet, Needs::KafkaOnly)?;
    let ReconcileArguments { from, to, list, allow_repeats, json, .. } = arguments;
    let request = Request { from: from.clone(), to: to.clone(), list: *list, allow_repeats: *allow_repeats };
    let mut progress = Progress::new("records read");
    let report = reconcile(&config.kafka, &request, |topic| progress.tick(topic)).map_err(|error| told(&error))?;
    if *json {
        say!("{}", serde_json::to_string(&report).map_err(|_| Exit::Failed)?);
    } else {
        print(&report);
    }
    Ok(if report.whole { Exit::Ok } else { Exit::Failed })
}

fn print(report: &ReconcileV1) {
    let compacted = if report.compacted { ", compacted" } else { "" };
    say!("{}{compacted}, group {}", report.topic, report.group);
    say!("{}\n", ranges(report));
    say!("{}\n", counts(report));
    for output in report.outputs.iter().filter(|output| !output.cut_partitions.is_empty()) {
        let (topic, partitions) = (&output.topic, &output.cut_partitions);
        say!(
            "{topic}: the first records of partitions {partitions:?} have been deleted; what is missing may have stood there"
        );
    }
    for gap in &report.retention_gaps {
        let judged = if gap.finished { "the group had finished it" } else { "the group had NOT finished it" };
        say!("partition {}: {} to {} was deleted by retention; {judged}", gap.partition, gap.from, gap.to);
    }
    listed("missing", &report.missing, |one| format!("{}/{}/{}", report.topic, one.partition, one.offset));
    listed("duplicate", &report.duplicates, |one| {
        let same = if one.same { "the same again" } else { "another one" };
        format!("{}/{}/{}: {same} at {}", report.topic, one.partition, one.offset, place(&one.at))
    });
    listed("stranger", &report.strangers, |one| match (one.partition, one.offset) {
        (Some(partition), Some(offset)) => {
            format!("{}: {}, {}/{partition}/{offset}", place(&one.at), one.why, report.topic)
        }
        _ => format!("{}: {}", place(&one.at), one.why),
    });
    say!("{}", if report.whole { "whole: every record is accounted for" } else { "NOT whole" });
}

fn ranges(report: &ReconcileV1) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["partition", "from", "to", "committed", "records"]);
    for range in &report.partitions {
        let committed = range.committed.map_or("nothing".to_owned(), |offset| offset.to_string());
        let number = |number: i64| number.to_string();
        table.add_row([
            range.partition.to_string(),
            number(range.from),
            number(range.to),
            committed,
            range.records.to_string(),
        ]);
    }
    table
}

fn counts(report: &ReconcileV1) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let always = [
        ("records expected", report.expected),
        ("of them tombstones", report.expected_tombstones),
        ("verdicts", report.verdicts),
        ("tombstones passed on", report.tombstones),
        ("dead letters", report.dead_letters),
        ("missing", report.missing.count),
        ("duplicates", report.duplicates.count),
        ("of them different", report.duplicates_that_differ),
        ("strangers", report.strangers.count),
    ];
    let if_any = [
        ("flagged posts", report.flagged),
        ("outside of the range", report.outside),
        ("of compacted records", report.compacted_away),
        ("of other input topics", report.other_topics),
        ("put back on the input topic", report.redriven),
    ];
    for (what, count) in always.into_iter().chain(if_any.into_iter().filter(|(_, count)| *count > 0)) {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    table
}

fn place(at: &At) -> String {
    format!("{}/{}/{}", at.topic, at.partition, at.offset)
}

fn listed<T>(kind: &str, findings: &Findings<T>, text: impl Fn(&T) -> String) {
    for one in &findings.first {
        say!("{kind} {}", text(one));
    }
    let more = findings.count - u64::try_from(findings.first.len()).unwrap_or_default();
    if more > 0 {
        say!("{kind} and {more} more (--list)");
    }
}
