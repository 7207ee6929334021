//! `moderato classify`: the same road without Kafka, from standard input to standard output; or one text, explained.

use std::fmt::Write as _;
use std::io;

use clap::Args;

use super::lines::{Captured, judge_lines};
use super::{Common, VerbSettings};
use crate::config::Needs;
use crate::error::Exit;
use crate::pipeline::outlet::Lines;
use crate::verdict::{ActionReason, VerdictV1};

#[derive(Debug, Args)]
pub(super) struct ClassifyArguments {
    #[command(flatten)]
    common: Common,
    /// One text to judge and explain; without it, lines are read from standard input: `post.v1` JSON where a line
    /// begins with `{`, plain text otherwise.
    text: Option<String>,
}

pub(super) fn run(arguments: &ClassifyArguments) -> Result<Exit, Exit> {
    // Logs would drown the answer to a person's single question.
    let quiet: &[_] = if arguments.text.is_some() { &[("log.filter", "warn,ort=error")] } else { &[] };
    let config = arguments.common.start(&VerbSettings { defaults: quiet, fixed: &[] }, Needs::ModelOnly)?;
    match &arguments.text {
        None => judge_lines(&config, Box::new(io::stdin().lock_reader()), Lines::to(io::stdout())),
        Some(text) => {
            let line = serde_json::json!({ "id": "text", "text": text }).to_string();
            let captured = Captured::default();
            let exit = judge_lines(&config, Box::new(io::Cursor::new(line.into_bytes())), Lines::to(captured.clone()))?;
            let (text, judged) = explained(&captured.text());
            say!("{text}");
            Ok(if judged { exit } else { Exit::Failed })
        }
    }
}

/// Standard input that can move to the source's thread.
trait LockReader {
    fn lock_reader(self) -> io::BufReader<Self>
    where
        Self: Sized;
}

impl LockReader for io::Stdin {
    fn lock_reader(self) -> io::BufReader<Self> {
        io::BufReader::new(self)
    }
}

/// For a person, and whether there is a verdict at all.
pub(super) fn explained(line: &str) -> (String, bool) {
    match serde_json::from_str::<VerdictV1>(line) {
        Ok(verdict) => (explain(&verdict), true),
        Err(_) => (line.trim_end().to_owned(), false),
    }
}

/// Why this verdict, for a person.
fn explain(verdict: &VerdictV1) -> String {
    let data = &verdict.data;
    let (judged, input, timing) = (&data.verdict, &data.input, &data.timing_ms);
    let mut text = format!("{}  →  {:?}", judged.label, judged.action).to_lowercase();
    let mut line = |part: String| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{part}");
    };
    line(String::new());
    let mut scores: Vec<_> = judged.scores.iter().collect();
    scores.sort_by(|a, b| b.1.total_cmp(a.1));
    for (label, score) in scores {
        // As the model gave it, where that is not what counts.
        let raw = judged.raw_scores.get(label).filter(|_| judged.calibration.is_some());
        let raw = raw.map(|raw| format!("  raw {raw:.4}")).unwrap_or_default();
        line(format!("  {label:<20} {score:>7.4}{raw}  {}", "█".repeat((score * 40.0).round() as usize)));
    }
    line(format!("  outside the labels   {:>7.4}", judged.outside_labels));
    line(String::new());
    if let Some(thresholds) = judged.thresholds {
        let act = thresholds.act.map_or("never".to_owned(), |act| act.to_string());
        line(format!("thresholds  {}: review from {}, act from {act}", judged.action_label, thresholds.review));
    }
    let reason = match judged.action_reason {
        ActionReason::Thresholds => None,
        ActionReason::NotWhollySeen => Some("the model saw only part of the post"),
        ActionReason::Abstained => Some("no score is as high as the policy's abstain_below"),
        ActionReason::Quota => Some("the label has used up its act_quota"),
        ActionReason::UnsupportedLanguage => Some("the post is in a language that the policy does not name"),
    };
    if let Some(reason) = reason {
        line(format!("action      review, because {reason}"));
    }
    if let (Some(lang), Some(confidence)) = (&input.lang_detected, input.lang_confidence) {
        line(format!("language    {lang}, by the text itself (confidence {confidence:.2})"));
    }
    line(format!(
        "tokens      {} of {} of the post{}, after {} of the shared prompt",
        input.tokens_seen,
        input.tokens_total,
        if input.truncated { " (truncated)" } else { "" },
        input.tokens_prompt
    ));
    line(format!(
        "time        tokenise {:.1} ms, queue {:.1} ms, classify {:.1} ms, total {:.1} ms",
        timing.tokenise, timing.queue, timing.classify, timing.total
    ));
    let (model, policy) = (&data.model, &data.policy);
    line(format!("model       {} {} on {}", model.name, model.execution.precision, model.execution.provider));
    line(format!("policy      {} {} ({})", policy.id, policy.revision, policy.digest));
    if let Some(fit) = &judged.calibration {
        let other = if fit.matches_model { "" } else { ", FITTED FOR ANOTHER MODEL OR PROMPT" };
        line(format!("calibration {} ({}){other}", fit.id, fit.revision));
    }
    text
}
