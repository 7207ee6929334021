//! What the demo prints: a row for each post, and the totals. Post text is shown as hostile data: nothing in it moves
//! the cursor or turns the line around.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Deserialize;

use crate::pipeline::tally::{Tally, read};
use crate::policy::Action;
use crate::verdict::{Source, VerdictV1};

/// Characters of a post that are shown.
const EXCERPT: usize = 48;

/// One post and what became of it.
pub(super) struct Row {
    pub(super) post: String,
    excerpt: String,
    pub(super) label: String,
    score: Option<f64>,
    action: Option<Action>,
    tokens: String,
    source: Option<Source>,
    pub(super) ms: f64,
    /// Whether whoever wrote the sample gave it the same label.
    as_meant: bool,
}

#[derive(Deserialize)]
struct Text {
    id: String,
    text: String,
    label: Option<String>,
}

impl Row {
    /// A verdict; the excerpt comes from the samples, since a verdict holds no text.
    pub(super) fn verdict(verdict: VerdictV1, samples: &str) -> Self {
        let (data, post) = (verdict.data, verdict.subject.into_owned());
        // The id in its JSON form cannot match inside another post's text: quotes are escaped there.
        let needle = format!("\"id\": \"{post}\"");
        let text = samples
            .lines()
            .find(|line| line.contains(&needle))
            .and_then(|line| serde_json::from_str::<Text>(line).ok());
        let (seen, total) = (data.input.tokens_seen, data.input.tokens_total);
        let meant = text.as_ref().and_then(|text| text.label.as_deref());
        Self {
            as_meant: meant == Some(&*data.verdict.label),
            excerpt: text.as_ref().map(|text| excerpt(&text.text)).unwrap_or_default(),
            post,
            label: if data.verdict.abstained {
                format!("{}?", data.verdict.label)
            } else {
                data.verdict.label.into_owned()
            },
            score: Some(data.verdict.score),
            action: Some(data.verdict.action),
            tokens: if seen == total { seen.to_string() } else { format!("{seen} of {total}") },
            source: Some(data.answered_by),
            ms: data.timing_ms.total,
        }
    }

    /// A post that could not be judged.
    pub(super) fn dead_letter(value: &[u8], reason: String) -> Self {
        let text: Option<Text> = serde_json::from_slice(value).ok();
        let (post, excerpt) = text.map_or_else(Default::default, |text| (text.id, excerpt(&text.text)));
        let label = format!("dead letter: {reason}");
        Self {
            post,
            excerpt,
            label,
            score: None,
            action: None,
            tokens: String::new(),
            source: None,
            ms: 0.0,
            as_meant: false,
        }
    }

    /// Whether a person should look at the post.
    pub(super) fn flagged(&self) -> bool {
        self.action.is_some_and(|action| action != Action::Allow)
    }

    fn cells(&self) -> [String; 8] {
        let word = |value: Option<String>| value.unwrap_or_default().to_lowercase();
        [
            excerpt(&self.post),
            self.excerpt.clone(),
            self.label.clone(),
            self.score.map(|score| format!("{score:.3}")).unwrap_or_default(),
            word(self.action.map(|action| format!("{action:?}"))),
            self.tokens.clone(),
            word(self.source.map(|source| format!("{source:?}"))),
            format!("{:.0}", self.ms),
        ]
    }
}

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    let line: String = plain(text).chars().take(EXCERPT).collect();
    if text.chars().nth(EXCERPT).is_some() { format!("{line}…") } else { line }
}

/// A text on one line: controls, line ends and characters that turn or hide text become blanks.
pub(super) fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect()
}

/// All rows.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["post", "text", "label", "score", "action", "tokens", "by", "ms"]);
    for row in rows {
        let right = |i: usize| matches!(i, 3 | 5 | 7);
        table.add_row(row.cells().into_iter().enumerate().map(|(i, text)| {
            let cell = Cell::new(text);
            if right(i) { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
    }
    table
}

/// One row, as it comes.
pub(super) fn line(row: &Row) -> String {
    row.cells().join("  ")
}

/// Counts and rates.
pub(super) fn totals(rows: &[Row], tally: &Tally, took: Duration) -> String {
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *labels.entry(&row.label).or_default() += 1;
    }
    let by = |source| rows.iter().filter(|row| row.source == Some(source)).count();
    let action = |action| rows.iter().filter(|row| row.action == Some(action)).count();
    let labels: Vec<String> = labels.iter().map(|(label, n)| format!("{n} {label}")).collect();
    let model_seconds = read(&tally.model_nanos) as f64 / 1e9;
    format!(
        "{} posts in {:.1} s: {:.1} posts/s ({:.1} s of it in {} runs of the model)\n\
         labels: {}; {} of them as the samples' author meant\n\
         actions: {} allow, {} review, {} act\n\
         answered by the model {}, by the cache {}, by a twin in flight {}\n\
         tokens: {} of posts run, {} of the prompt not run again because it is shared\n\
         padding: {:.1} % of the tokens given to the model",
        rows.len(),
        took.as_secs_f64(),
        rows.len() as f64 / took.as_secs_f64().max(1e-3),
        model_seconds,
        read(&tally.runs),
        labels.join(", "),
        rows.iter().filter(|row| row.as_meant).count(),
        action(Action::Allow),
        action(Action::Review),
        action(Action::Act),
        by(Source::Model),
        by(Source::Cache),
        by(Source::Twin),
        read(&tally.row_tokens),
        read(&tally.shared_tokens),
        100.0 * tally.padding_waste(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_post_moves_the_cursor_or_turns_the_line() {
        assert_eq!(excerpt("a\u{202e}b\u{1b}[2J\nc\u{200b}d"), "a b [2J c d");
    }

    #[test]
    fn the_samples_are_at_least_300_whole_posts_with_ids_of_their_own() {
        let samples = crate::samples::POSTS;
        let ids: std::collections::HashSet<String> =
            samples.lines().map(|line| serde_json::from_str::<Text>(line).unwrap().id).collect();
        assert!(ids.len() >= 300 && ids.len() == samples.lines().count());
    }
}
