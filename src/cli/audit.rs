//! `moderato audit`: is the log of verdicts as it was written?

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Common, Progress, VerbSettings, told};
use crate::audit::{Request, verify};
use crate::config::{Config, Needs};
use crate::error::Exit;
use crate::evidence::key::PublicKey;
use crate::evidence::verify::{AuditV1, ChainReport, Fault};
use crate::reconcile::Place;

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    #[command(subcommand)]
    verb: AuditVerb,
}

#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// Follow the chains through the topic of verdicts or notes, prove the checkpoints, and name what was altered, removed,
    /// inserted or put in another order.
    #[command(
        after_help = "Exit codes: 0 whole; 1 the topics could not be read; 2 mend the command line or the configuration; 3 not whole."
    )]
    Verify(Box<VerifyArguments>),
    /// Print the public key of `evidence.signing_key_file`, to be kept where nobody who writes the topics can change it.
    PublicKey {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct VerifyArguments {
    #[command(flatten)]
    common: Common,
    /// The topic; the pool's output topic unless told.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Where to begin in it: `beginning`, a time (2026-11-22T10:00:00Z) or offsets (0:1500,1:1400).
    #[arg(long, value_name = "PLACE", default_value = "beginning")]
    from: Place,
    /// Ed25519 public key, PEM; may be repeated. That of `evidence.signing_key_file` unless told; none: nothing is proved
    /// against whoever can write the topic.
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// Take posts with several records for whole although `kafka.delivery` is `exactly_once`: it was not always.
    #[arg(long)]
    allow_repeats: bool,
    /// How many faults are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    list: usize,
    /// Print one JSON object (`moderato schema audit`).
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &AuditArguments) -> Result<Exit, Exit> {
    match &arguments.verb {
        AuditVerb::Verify(arguments) => run_verify(arguments),
        AuditVerb::PublicKey { common } => {
            let config = start(common)?;
            let none = "evidence.signing_key_file: names no key that can be read";
            let signing = config.kafka.evidence.signing.ok_or_else(|| refused(none))?;
            say!("{}", signing.key.public().pem());
            Ok(Exit::Ok)
        }
    }
}

fn start(common: &Common) -> Result<Config, Exit> {
    common.start(&VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] }, Needs::KafkaOnly)
}

fn refused(why: &str) -> Exit {
    eprintln!("{why}");
    Exit::Config
}

fn run_verify(arguments: &VerifyArguments) -> Result<Exit, Exit> {
    let VerifyArguments { common, topic, from, public_key, allow_repeats, list, json } = arguments;
    let config = start(common)?;
    let keys = keys(public_key, &config)?;
    let mut request = Request {
        topic: topic.as_deref(),
        from: Default::default(),
        since_ms: None,
        keys: &keys,
        allow_repeats: *allow_repeats,
        list: *list,
    };
    match from {
        Place::Beginning => {}
        Place::Time(ms) => request.since_ms = Some(*ms),
        Place::Offsets(offsets) => request.from = offsets.clone(),
        Place::End | Place::Committed => {
            return Err(refused("--from: say beginning, a time, or offsets of the topic that is read"));
        }
    }
    let mut progress = Progress::new("records read");
    let report = verify(&config.kafka, &request, |topic| progress.tick(topic)).map_err(|error| told(&error))?;
    if *json {
        say!("{}", serde_json::to_string(&report).map_err(|_| Exit::Failed)?);
    } else {
        print(&report, !keys.is_empty());
    }
    Ok(if report.whole { Exit::Ok } else { Exit::Differs })
}

fn keys(files: &[PathBuf], config: &Config) -> Result<Vec<PublicKey>, Exit> {
    if files.is_empty() {
        return Ok(config.kafka.evidence.signing.iter().map(|signing| signing.key.public()).collect());
    }
    let load =
        |path: &PathBuf| PublicKey::load(Path::new(path)).map_err(|why| refused(&format!("--public-key: {why}")));
    files.iter().map(load).collect()
}

fn print(report: &AuditV1, with_keys: bool) {
    let AuditV1 { topic, records, linked, before_chain, .. } = report;
    let compacted = if report.compacted { ", compacted" } else { "" };
    say!("{topic}{compacted}: {records} records, {linked} of them linked, {before_chain} from before the chain\n");
    report.chains.iter().for_each(print_chain);
    if report.linked == 0 && report.records > 0 {
        say!("no record has a link: `evidence.chain: true` makes them");
    }
    match (report.signed, with_keys) {
        (true, _) => {}
        (false, true) => say!("nothing is signed by a key that was given"),
        (false, false) => {
            say!("no key was given (--public-key): whoever can write the topic could have made all of it")
        }
    }
    say!("");
    report.first.iter().for_each(|fault| print_fault(topic, fault));
    let more = report.faults.saturating_sub(u64::try_from(report.first.len()).unwrap_or_default());
    if more > 0 {
        say!("and {more} more (--list)");
    }
    say!("{}", if report.whole { "whole: every link holds" } else { "NOT whole" });
}

fn print_chain(chain: &ChainReport) {
    let ChainReport { topic, partition, instance, first_seq, last_seq, links, .. } = chain;
    say!("{topic}/{partition}, chain {instance}: {links} links, {first_seq} to {last_seq}");
    let begins = &chain.begins;
    if chain.anew {
        say!("  begins anew at {}/{}: the group's offsets were lost or set anew", begins.partition, begins.offset);
    }
    let counts = [
        (chain.cut, "gone from its beginning: deleted by retention, or before --from"),
        (chain.repeats, "published again after a crash"),
        (chain.repeats_that_differ, "of these, judged otherwise than what counts"),
        (chain.erased, "replaced by a later record of the same key, which the chain has"),
        (chain.unproved, "gone from a compacted topic, and nothing says whether by compaction"),
        (chain.unsettled, "not there yet: the topic is being written"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        say!("  {count} {what}");
    }
    match chain.signed_to {
        Some(seq) if seq == *last_seq => say!("  signed to its end"),
        Some(seq) => say!("  signed to link {seq}; {} links behind it are not signed", last_seq - seq),
        None => say!("  not signed"),
    }
}

fn print_fault(topic: &str, fault: &Fault) {
    let Fault { kind, at, seq, source, what, .. } = fault;
    let link = seq.map(|seq| format!(", link {seq}")).unwrap_or_default();
    let post = match source {
        Some(range) if range.from == range.to => format!(", of the post at {}", range.from),
        Some(range) => format!(", of posts from {} to {}", range.from, range.to),
        None => String::new(),
    };
    say!("{} at {topic}/{}/{}{link}{post}: {what}", kind.name(), at.partition, at.offset);
}
