//! The posts themselves. Nothing that a stranger wrote gets out of its cell: it is escaped, cut, isolated and clipped.

use std::fmt::Write as _;

use super::super::report::{Flip, Side};
use super::super::words::{cut, visible};
use crate::html::svg::escaped;
use crate::verdict::ActionReason;

/// Characters of an id, and of a text, that are shown.
const LONGEST: (usize, usize) = (80, 600);

/// Two rows a post: what changes, and below it the text where there is one.
pub(super) fn table(flips: &[Flip]) -> String {
    let rows: String = flips.iter().map(flip).collect();
    format!(
        "<div class=\"scroll\"><table class=\"flips\"><thead><tr><th scope=\"col\">post</th><th scope=\"col\">before</th>\
         <th scope=\"col\">after</th><th scope=\"col\">score moves by</th></tr></thead>{rows}</table></div>"
    )
}

fn flip(flip: &Flip) -> String {
    let Flip { post, language, a, b, score_change, text } = flip;
    let version = post.version.map(|version| format!(", version {version}")).unwrap_or_default();
    let place = format!("{}/{}/{}{version}, {language}", post.topic, post.partition, post.offset);
    let mut rows = format!(
        "<tbody><tr><th scope=\"row\"><bdi class=\"id\">{}</bdi><span class=\"range\">{}</span></th>{}{}<td>{score_change:.3}</td></tr>",
        shown(&post.post_id, LONGEST.0),
        shown(&place, LONGEST.0),
        side(a),
        side(b),
    );
    if let Some(text) = text {
        let _ = write!(
            rows,
            "<tr class=\"text\"><td colspan=\"4\"><div class=\"said\" dir=\"auto\">{}</div></td></tr>",
            shown(text, LONGEST.1)
        );
    }
    rows + "</tbody>"
}

fn side(side: &Side) -> String {
    let Side { label, score, action, reason, action_label } = side;
    let why = match reason {
        ActionReason::Thresholds if action_label == label => String::new(),
        ActionReason::Thresholds => format!("for {action_label}"),
        reason => reason.name().replace('_', " "),
    };
    format!(
        "<td><span class=\"chip {0}\">{0}</span> {1} {score:.3}<br><span class=\"range\">{2}&nbsp;</span></td>",
        action.name(),
        shown(label, LONGEST.0),
        shown(&why, LONGEST.0)
    )
}

fn shown(text: &str, most: usize) -> String {
    escaped(&visible(&cut(text, most)))
}
