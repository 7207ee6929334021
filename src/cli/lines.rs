//! The road without Kafka: lines in, lines out. What `classify`, `eval` and `draft` share.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{report, runtime};
use crate::app;
use crate::app::feed::Feed;
use crate::config::Config;
use crate::error::{Exit, Fatal};
use crate::pipeline::outlet::{Lines, Outlet};
use crate::pipeline::tally::Tally;
use crate::pipeline::{Road, Work};
use crate::receipt::{Headers, Offset, Original};
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
        let max_bytes = config.limits.max_post_bytes;
        let records = Records { input, read, topic: "stdin".into(), max_bytes, number: 0 };
        let permits = config.limits.max_in_flight;
        let source = Feed { records, permits, pace: None, intake, settled, stop: stop.clone() }.spawn();
        let source = source.map_err(|fatal| report(&fatal.into()))?;
        let ended = app::supervise(source, stages, &stop, config.grace).await;
        ended.map_err(|fatal| report(&fatal.into()))?;
        Ok(Exit::Ok)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Lines as records, line number for offset.
struct Records {
    input: Box<dyn BufRead + Send>,
    read: Read,
    topic: Arc<str>,
    max_bytes: usize,
    number: i64,
}

impl Iterator for Records {
    type Item = Result<Original, Fatal>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match read_line(&mut *self.input, self.max_bytes).transpose()? {
            Ok(line) => line,
            Err(error) => return Some(Err(input_lost(&error))),
        };
        let number = self.number;
        self.number += 1;
        let Line { value, headers } = (self.read)(line, number);
        Some(Ok(Original {
            topic: self.topic.clone(),
            partition: 0,
            offset: Offset(number),
            timestamp_ms: None,
            key: None,
            value: Some(value),
            headers,
            span: PostSpan::default(),
        }))
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
