//! The road without Kafka: lines in, lines out. What `classify`, `eval` and `draft` share.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{report, runtime};
use crate::app;
use crate::config::Config;
use crate::error::{Exit, Fatal};
use crate::kafka::ledger::Ledger;
use crate::pipeline::outlet::{Lines, Outlet};
use crate::pipeline::tally::Tally;
use crate::pipeline::{Road, Work};
use crate::receipt::{Envelope, Headers, Offset, Original, RawMessage};
use crate::telemetry::trace::PostSpan;

/// What the road wrote, kept for the verb to show.
#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// All of it.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as a record.
pub(super) struct Line {
    /// The record's value.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
}

/// Makes a record of a line and its number.
pub(super) type Read = fn(Vec<u8>, i64) -> Line;

/// Judges every line of `input` as `moderato run` would judge a record; `lines` gets one line for each, in their order.
pub(super) fn judge_lines(config: &Config, input: Box<dyn BufRead + Send>, lines: Lines) -> Result<Exit, Exit> {
    let read = |line, number| Line { value: as_post(line, number), headers: Headers::default() };
    run(config, || app::load(config).map_err(|error| report(&error)), input, lines, read)
}

/// Loads, then sends every line of `input` down the road and to its end.
pub(super) fn run<W: Into<Work>>(
    config: &Config,
    load: impl FnOnce() -> Result<W, Exit>,
    input: Box<dyn BufRead + Send>,
    lines: Lines,
    read: Read,
) -> Result<Exit, Exit> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let road = app::road(config, load()?, Outlet::Lines(lines), Arc::new(Tally::default()));
        let Road { intake, settled, stages, .. } = road.map_err(|error| report(&error))?;
        let limits = (config.limits.max_in_flight, config.limits.max_post_bytes);
        let source = Source { input, read, intake, settled, limits };
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
    read: Read,
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
            let Line { value, headers } = (self.read)(line, number);
            let Some(receipt) = ledger.deliver(0, Offset(number), received) else { break };
            let original = Original {
                topic: topic.clone(),
                partition: 0,
                offset: Offset(number),
                timestamp_ms: None,
                key: None,
                value: Some(value),
                headers,
                span: PostSpan::default(),
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
