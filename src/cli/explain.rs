//! `moderato explain`: the story of one post, from the topics.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::classify::explained;
use super::{Common, Progress, VerbSettings, problems, told};
use crate::config::Needs;
use crate::error::Exit;
use crate::explain::{Event, ExplainV1, Request, Text, What, explain};
use crate::note::NoteV1;
use crate::reconcile::time;

/// Tells everything that the topics know of a post, in the order in which it happened: its versions and its deletion, each
/// verdict with scores, thresholds and the revisions that made it, notes, dead letters, the shadow's verdicts and replays.
///
/// Each topic is read once, whole or between two times; nothing is written and no group is joined.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 found; 1 nothing found, or the topics could not be read; 2 mend the command line or the configuration."
)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    common: Common,
    /// The post's id.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    post_id: String,
    /// Look only at records of that time or later, such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Look only at records before the first of that time or later.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Tell the text of the post and of notes too.
    #[arg(long)]
    show_text: bool,
    /// Print one JSON object (`moderato schema explain`).
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ExplainArguments) -> Result<Exit, Exit> {
    let ExplainArguments { common, post_id, from, to, show_text, json } = arguments;
    let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
    let topics = common.load(&quiet, Needs::KafkaOnly).map_err(|error| problems(&error))?.raw.kafka.topics;
    let config = common.start(&quiet, Needs::KafkaOnly)?;
    let request = Request { post_id: post_id.clone(), from_ms: *from, to_ms: *to, show_text: *show_text };
    let mut progress = Progress::new("records read");
    let report =
        explain(&config.kafka, &topics, &request, |topic| progress.tick(topic)).map_err(|error| told(&error))?;
    if *json {
        say!("{}", serde_json::to_string(&report).map_err(|_| Exit::Failed)?);
    } else {
        print(&report);
    }
    Ok(if report.events.is_empty() { Exit::Failed } else { Exit::Ok })
}

fn print(report: &ExplainV1) {
    say!("post {}", report.post_id);
    for event in &report.events {
        let Event { time, topic, partition, offset, replay_id, what } = event;
        let time = time.as_deref().unwrap_or("at an unknown time");
        say!("\n{time}  {}  ({topic}/{partition}/{offset})", title(what));
        for line in body(what).lines() {
            say!("{}", format!("    {line}").trim_end());
        }
        if let Some(id) = replay_id {
            say!("    replay      {id}");
        }
    }
    if report.events.is_empty() {
        say!("\nnothing was found");
    }
    say!();
    for looked in &report.looked {
        let (topic, key) = (&looked.topic, looked.key);
        match (looked.exists, looked.cut_partitions.is_empty()) {
            (false, _) => say!("not looked in {topic} ({key}): there is no such topic, or it may not be described"),
            (true, true) => say!("looked in {topic} ({key}): {} records", looked.records),
            (true, false) => say!(
                "looked in {topic} ({key}): {} records; earlier ones of partitions {:?} have been deleted",
                looked.records,
                looked.cut_partitions
            ),
        }
    }
}

fn title(what: &What) -> &'static str {
    match what {
        What::Post(_) => "posted",
        What::Flagged { .. } => "passed on, because the policy flagged it",
        What::Tombstone => "deleted: a tombstone",
        What::Verdict { .. } => "judged",
        What::Shadow { .. } => "judged by the shadow, which decides nothing",
        What::Replay { .. } => "judged again by a replay",
        What::Note { .. } => "a note was drafted",
        What::DeadLetter { replay: false, .. } => "could not be judged",
        What::DeadLetter { replay: true, .. } => "could not be judged by a replay",
        What::PutBack { .. } => "put back on the input topic",
    }
}

fn body(what: &What) -> String {
    match what {
        What::Post(post) => text(post),
        What::Flagged { post, verdict_id } => {
            let id = verdict_id.as_ref().map(|id| format!("\nwith verdict {id}")).unwrap_or_default();
            format!("{}{id}", text(post))
        }
        What::Tombstone => String::new(),
        What::Verdict { verdict } | What::Shadow { verdict } | What::Replay { verdict } => judged(verdict),
        What::Note { note } => noted(note),
        What::DeadLetter { reason, stage, message, of, .. } => format!("{of}: {reason}, at {stage}\n{message}"),
        What::PutBack { of } => of.clone(),
    }
}

fn text(post: &Text) -> String {
    let Text { readable, bytes, version, lang, evidence, text_sha256, text } = post;
    if !readable {
        return format!("{bytes} bytes that are no post.v1");
    }
    let version = version.map(|version| format!("version {version}, ")).unwrap_or_default();
    let lang = lang.as_ref().map(|lang| format!("{lang}, ")).unwrap_or_default();
    let sha256 = text_sha256.as_deref().unwrap_or_default();
    let text = text.as_ref().map(|text| format!("\n{text:?}")).unwrap_or_default();
    format!("{version}{lang}{bytes} bytes, {evidence} pieces of evidence\ntext sha256 {sha256}{text}")
}

/// As `moderato classify` tells a verdict, and what it leaves out.
fn judged(verdict: &serde_json::Value) -> String {
    let (story, _) = explained(&verdict.to_string());
    let text = |place: &str| verdict.pointer(place).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    let number = |place: &str| verdict.pointer(place).map_or("?".to_owned(), ToString::to_string);
    let mut lines = vec![
        story,
        format!(
            "of          {}/{}/{}",
            text("/data/input/kafka/topic"),
            number("/data/input/kafka/partition"),
            number("/data/input/kafka/offset")
        ),
        format!("answered by {}, computed at {}", text("/data/answered_by"), text("/data/model/computed_at")),
        format!("verdict     {}", text("/id")),
        format!("weights     {}", text("/data/model/digest")),
        format!("tokenizer   {}", text("/data/model/tokenizer_digest")),
        format!("prompt      {}", text("/data/model/prompt_digest")),
    ];
    let fingerprint = verdict.pointer("/data/fingerprint/digest").and_then(|digest| digest.as_str());
    lines.extend(fingerprint.map(|digest| format!("fingerprint {digest}")));
    lines.join("\n")
}

fn noted(note: &serde_json::Value) -> String {
    let Some(id) = note.get("id").and_then(|id| id.as_str()) else { return "no note.v1".to_owned() };
    let summary = note.pointer("/data/note/summary").and_then(|text| text.as_str());
    let mut shown = note.clone();
    if let Some(text) = shown.pointer_mut("/data/note/summary").filter(|text| text.is_null()) {
        *text = "".into();
    }
    let Ok(read) = serde_json::from_value::<NoteV1>(shown) else {
        return format!("note {id}, which this version cannot read");
    };
    let drafted = &read.data.note;
    let failed: Vec<&str> = drafted.checks.failed().into_iter().map(|check| check.words()).collect();
    let checks = if failed.is_empty() { "passed".to_owned() } else { failed.join("; ") };
    let form = if drafted.fixed_form { "the fixed form" } else { "written by the model" };
    let verdict = read.data.verdict.verdict_id.as_deref().unwrap_or("?");
    let mut lines = vec![
        format!("note {id}, for verdict {verdict}"),
        format!(
            "{form}, {} drafts, {} refused; {} citations",
            drafted.attempts,
            drafted.refused.len(),
            drafted.citations.len()
        ),
        format!("checks: {checks}"),
    ];
    lines.extend(summary.map(|text| format!("{text:?}")));
    lines.join("\n")
}
