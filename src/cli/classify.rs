//! `moderato classify`: the same road without Kafka, from standard input to standard output; or one text, explained.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Common, VerbSettings, report, runtime};
use crate::app;
use crate::config::{Config, Needs};
use crate::error::{Exit, Fatal};
use crate::kafka::ledger::Ledger;
use crate::pipeline::Road;
use crate::pipeline::outlet::{Lines, Outlet};
use crate::pipeline::tally::Tally;
use crate::receipt::{Envelope, Headers, Offset, Original, RawMessage};
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
            let (text, judged) = captured.explained();
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

fn judge_lines(config: &Config, input: Box<dyn BufRead + Send>, lines: Lines) -> Result<Exit, Exit> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let judges = app::load(config).map_err(|error| report(&error))?;
        let road = app::road(config, judges, Outlet::Lines(lines), Arc::new(Tally::default()));
        let Road { intake, settled, stages, .. } = road.map_err(|error| report(&error))?;
        let source =
            Source { input, intake, settled, limits: (config.limits.max_in_flight, config.limits.max_post_bytes) };
        let source = thread::Builder::new().name("source".to_owned()).spawn(move || source.run());
        let source = source.map_err(|_| Exit::Failed)?;
        let ended = app::supervise(source, stages, &stop, config.grace).await;
        ended.map_err(|fatal| report(&fatal.into()))?;
        Ok(Exit::Ok)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Reads lines as if they were one partition's records, line number for offset.
struct Source {
    input: Box<dyn BufRead + Send>,
    intake: tokio::sync::mpsc::Sender<Envelope<RawMessage>>,
    settled: crossbeam_channel::Receiver<crate::receipt::Receipt>,
    /// Permits, and the longest line that is kept.
    limits: (usize, usize),
}

impl Source {
    fn run(mut self) -> Result<(), Fatal> {
        let (permits, max_bytes) = self.limits;
        let topic: Arc<str> = "stdin".into();
        let mut ledger = Ledger::default();
        ledger.assign([0], Instant::now());
        for number in 0.. {
            let Some(line) = read_line(&mut *self.input, max_bytes).map_err(|error| input_lost(&error))? else { break };
            while ledger.in_flight(&[0]) >= permits {
                self.settle(&mut ledger)?;
            }
            let received = Instant::now();
            let Some(receipt) = ledger.deliver(0, Offset(number), received) else { break };
            let original = Original {
                topic: topic.clone(),
                partition: 0,
                offset: Offset(number),
                timestamp_ms: None,
                key: None,
                value: Some(as_post(line, number)),
                headers: Headers::default(),
            };
            let envelope = Envelope { body: RawMessage, receipt, original: Arc::new(original), received };
            if self.intake.blocking_send(envelope).is_err() {
                return Ok(()); // The road is broken; the stage that broke says why.
            }
        }
        while ledger.in_flight(&[0]) > 0 {
            self.settle(&mut ledger)?;
        }
        Ok(())
    }

    fn settle(&self, ledger: &mut Ledger) -> Result<(), Fatal> {
        let receipt = self.settled.recv();
        let receipt = receipt.map_err(|_| Fatal::Internal { part: "conclude", cause: "it ended early".to_owned() })?;
        let _ = ledger.settle(receipt, Instant::now());
        Ok(())
    }
}

fn input_lost(error: &io::Error) -> Fatal {
    Fatal::Internal { part: "standard input", cause: error.to_string() }
}

/// One line without its end, or `None` at the end of input. Of a longer line than `max_bytes` only that much and one
/// byte is kept: enough to be rejected as too large.
fn read_line(input: &mut dyn BufRead, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = (max_bytes + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(line));
        }
    }
}

/// A plain line becomes a post named after its number; bytes that are no text are left for decoding to reject.
fn as_post(line: Vec<u8>, number: i64) -> Vec<u8> {
    if line.trim_ascii_start().first() == Some(&b'{') {
        return line;
    }
    match String::from_utf8(line) {
        Ok(text) => serde_json::json!({ "id": format!("line-{}", number + 1), "text": text }).to_string().into_bytes(),
        Err(error) => error.into_bytes(),
    }
}

/// What the road wrote, kept to be explained.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    /// For a person, and whether there is a verdict at all.
    fn explained(&self) -> (String, bool) {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::from_slice::<VerdictV1>(&bytes) {
            Ok(verdict) => (explain(&verdict), true),
            Err(_) => (String::from_utf8_lossy(&bytes).trim_end().to_owned(), false),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], max: usize) -> Vec<Vec<u8>> {
        let mut input = io::BufReader::with_capacity(3, text);
        std::iter::from_fn(|| read_line(&mut input, max).unwrap()).collect()
    }

    #[test]
    fn lines_are_read_whole_across_buffers_and_a_long_one_is_cut_one_byte_past_the_limit() {
        assert_eq!(lines(b"ab\r\n\ncdefg", 10), [b"ab".to_vec(), b"".to_vec(), b"cdefg".to_vec()]);
        assert_eq!(lines(b"abcdefgh\nx", 4), [b"abcde".to_vec(), b"x".to_vec()]);
    }

    #[test]
    fn a_plain_line_becomes_a_post_and_json_stays_as_it_is() {
        assert_eq!(as_post(b"a \"b\"".to_vec(), 4), br#"{"id":"line-5","text":"a \"b\""}"#);
        assert_eq!(as_post(b" {\"id\":1}".to_vec(), 0), b" {\"id\":1}");
        assert_eq!(as_post(b"\xff".to_vec(), 0), b"\xff");
    }
}
