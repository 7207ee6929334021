//! A line a flip, for spreadsheets. Post ids are strangers' words: none may become a formula there.

use std::fmt::Write as _;

use crate::diff::report::Side;
use crate::diff::{Books, Pair};

const HEADER: &str = "post_id,version,topic,partition,offset,language,label_a,label_b,score_a,score_b,action_a,action_b,\
                      reason_a,reason_b,action_label_a,action_label_b,score_change\n";

/// The whole file.
pub(super) fn lines(books: &Books, flips: &[Pair]) -> String {
    let mut text = HEADER.to_owned();
    for pair in flips {
        let flip = books.flip(pair);
        let version = flip.post.version.map(|version| version.to_string()).unwrap_or_default();
        let Side { label, score, action, reason, action_label } = &flip.a;
        let b = &flip.b;
        let cells = [
            cell(&flip.post.post_id),
            version,
            cell(&flip.post.topic),
            flip.post.partition.to_string(),
            flip.post.offset.to_string(),
            cell(&flip.language),
            cell(label),
            cell(&b.label),
            score.to_string(),
            b.score.to_string(),
            action.name().to_owned(),
            b.action.name().to_owned(),
            reason.name().to_owned(),
            b.reason.name().to_owned(),
            cell(action_label),
            cell(&b.action_label),
            flip.score_change.to_string(),
        ];
        let _ = writeln!(text, "{}", cells.join(","));
    }
    text
}

/// Quoted where need be; an apostrophe stands before what a spreadsheet would take for a formula.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{text}", if formula { "'" } else { "" });
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_breaks_its_line_or_becomes_a_formula() {
        assert_eq!(cell("p-1"), "p-1");
        assert_eq!(cell("=cmd|'/c calc'!A1"), "'=cmd|'/c calc'!A1");
        assert_eq!(cell("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(cell("@x,y"), "\"'@x,y\"");
    }
}
