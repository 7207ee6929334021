//! Posts onto the road of `moderato classify`, and the verdicts read back in memory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Progress;
use super::super::lines::judge_lines;
use crate::config::Config;
use crate::error::Exit;
use crate::eval::verdicts::Verdicts;
use crate::pipeline::outlet::Lines;

/// The verdicts on these lines of `post.v1`, in their order.
pub(super) fn all(config: &Config, posts: impl Iterator<Item = String>, labels: &[String]) -> Result<Verdicts, Exit> {
    let mut input = String::new();
    let mut count = 0;
    for post in posts {
        input += &post;
        input.push('\n');
        count += 1;
    }
    let gathered = Arc::new(Mutex::new(Verdicts::default()));
    let of = format!("a file of {count}");
    let progress = Progress::new("posts judged");
    let sink = Sink { gathered: gathered.clone(), labels: labels.to_vec(), line: Vec::new(), of, progress };
    judge_lines(config, Box::new(io::Cursor::new(input.into_bytes())), Lines::to(sink))?;
    let verdicts = std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
    if verdicts.outcomes.len() != count {
        eprintln!("{count} posts went in and {} verdicts came out: please report it", verdicts.outcomes.len());
        return Err(Exit::Failed);
    }
    Ok(verdicts)
}

/// Takes the road's lines one by one: a set may be larger than all its verdicts should be in memory.
struct Sink {
    gathered: Arc<Mutex<Verdicts>>,
    labels: Vec<String>,
    line: Vec<u8>,
    of: String,
    progress: Progress,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The road flushes after each line.
    fn flush(&mut self) -> io::Result<()> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        for line in self.line.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            gathered.take(line, &self.labels).map_err(io::Error::other)?;
            self.progress.tick(&self.of);
        }
        self.line.clear();
        Ok(())
    }
}
