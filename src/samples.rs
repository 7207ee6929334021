//! The sample posts that ship with the project: written for it, on many subjects, with twins, edits, long ones and
//! attacks. The demo judges them, and precisions are compared on them.

use serde::Deserialize;

/// One `post.v1` a line.
pub const POSTS: &str = include_str!("samples.jsonl");

/// Their texts.
pub fn texts() -> impl Iterator<Item = String> {
    #[derive(Deserialize)]
    struct Sample {
        text: String,
    }
    POSTS.lines().filter_map(|line| serde_json::from_str::<Sample>(line).ok()).map(|sample| sample.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_text() {
        assert_eq!(texts().count(), POSTS.lines().count());
    }
}
