//! What is judged: rows of token ids of stated lengths, made of the sample posts, or the posts of a file.

use crate::config::InputLimit;
use crate::model::Prompt;
use crate::samples;

/// A named set of rows.
pub(super) struct Mix {
    pub name: String,
    pub rows: Vec<Vec<u32>>,
}

impl Mix {
    /// Rows of one length, the prompt's end included.
    pub(super) fn fixed(prompt: &Prompt, limit: &InputLimit, tokens: usize) -> Result<Self, String> {
        let rows = cut(prompt, limit, &[tokens; 96])?;
        Ok(Self { name: format!("{tokens} tokens"), rows })
    }

    /// Lengths as posts have them: lognormal, median 47, 10 to 280.
    pub(super) fn lognormal(prompt: &Prompt, limit: &InputLimit) -> Result<Self, String> {
        let mut random = Random(7);
        let lengths: Vec<usize> =
            (0..192).map(|_| (47.0 * (0.85 * random.normal()).exp()).clamp(10.0, 280.0) as usize).collect();
        Ok(Self { name: "lognormal 10-280".to_owned(), rows: cut(prompt, limit, &lengths)? })
    }

    /// The texts of `post.v1` lines.
    pub(super) fn posts(prompt: &Prompt, limit: &InputLimit, lines: &str) -> Result<Self, String> {
        let mut rows = Vec::new();
        for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let post = crate::post::decode(line.as_bytes(), usize::MAX);
            let post = post.map_err(|rejected| format!("line {}: {}", number + 1, rejected.message))?;
            let tokens = prompt.tokenize(&post.text, limit).map_err(|error| format!("line {}: {error}", number + 1))?;
            rows.push(tokens.ids);
        }
        if rows.is_empty() { Err("it holds no post".to_owned()) } else { Ok(Self { name: "posts".to_owned(), rows }) }
    }

    pub(super) fn mean_tokens(&self) -> f64 {
        self.rows.iter().map(Vec::len).sum::<usize>() as f64 / self.rows.len() as f64
    }
}

/// Cuts the sample posts, one behind the other, into rows of the lengths asked for; each ends with the prompt's tail.
fn cut(prompt: &Prompt, limit: &InputLimit, lengths: &[usize]) -> Result<Vec<Vec<u32>>, String> {
    let tail = prompt.tail_ids();
    let mut ids = Vec::new();
    for text in samples::texts() {
        let tokens = prompt.tokenize(&text, limit).map_err(|error| error.to_string())?;
        ids.extend(&tokens.ids[..tokens.ids.len() - tail.len()]);
    }
    let mut endless = ids.iter().cycle().copied();
    let row = |length: &usize| {
        let post: Vec<u32> = endless.by_ref().take(length.saturating_sub(tail.len()).max(1)).collect();
        [&post, tail].concat()
    };
    Ok(lengths.iter().map(row).collect())
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers everywhere.
pub(super) struct Random(pub u64);

impl Random {
    /// Uniform in (0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
