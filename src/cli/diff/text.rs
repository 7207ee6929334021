//! The differences as plain tables, what matters most first.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};

use crate::diff::report::{Changes, DiffV1, Flip, Radius, SideReport};
use crate::diff::words::{cut, exceeded, grouped, headline, judged, percent, span, visible};
use crate::policy::Action;

const ACTIONS: [Action; 3] = [Action::Allow, Action::Review, Action::Act];
/// Characters of a post's text that are shown.
const SHOWN: usize = 100;

/// All of it.
pub(super) fn text(report: &DiffV1) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut part = |part: &str| {
        let _ = writeln!(text, "{part}\n");
    };
    part(&[headline(report), exceeded(report)].concat().join("\n"));
    part(&about(report));
    if report.all.pairs > 0 {
        part(&actions(report).to_string());
        part(&labels(report).to_string());
        part(&scores(report).to_string());
        part(&radius(report).to_string());
        part(&slices(report).to_string());
    }
    if report.flips.count > 0 {
        part(&flips(report));
    }
    text.trim_end().to_owned()
}

fn about(report: &DiffV1) -> String {
    let mut lines: Vec<String> =
        [("before", &report.a), ("after", &report.b)].map(|(when, side)| read(when, side)).into();
    lines.extend(report.judged.iter().flat_map(judged));
    lines.push(format!("joined by {}", report.joined_by));
    if report.other_posts > 0 {
        let count = grouped(report.other_posts);
        lines
            .push(format!("{count} records have verdicts on different posts: are these the same topic? Try --by post"));
    }
    lines.join("\n")
}

fn read(when: &str, side: &SideReport) -> String {
    let counts = [
        (side.only_here.count, "only here"),
        (side.repeats, "repeats"),
        (side.superseded, "superseded"),
        (side.outside, "outside of the range"),
        (side.without_verdict, "rejected or deleted posts"),
        (side.other_replays, "of other replays"),
        (side.unread.count, "NOT READ"),
    ];
    let counts: String = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {} {what}", grouped(*count)))
        .collect();
    let mut line = format!("{when:<7} {}: {} verdicts{counts}", side.name, grouped(side.verdicts));
    for one in side.judges.iter() {
        let judge = &one.judge;
        let calibration = judge.calibration.as_ref().map_or("no calibration", |_| "calibrated");
        let _ = write!(
            line,
            "\n        {} by {} {} on {}, policy {} {} ({}), {calibration}",
            grouped(one.verdicts),
            judge.model,
            judge.precision,
            judge.provider,
            judge.policy,
            judge.policy_revision,
            cut(&judge.policy_digest, 19)
        );
    }
    for at in &side.unread.first {
        let _ = write!(line, "\n        no verdict: {at}");
    }
    for post in &side.only_here.first {
        let place = format!("{}/{}/{}", post.topic, post.partition, post.offset);
        let _ = write!(line, "\n        only here: {} at {place}", visible(&post.post_id));
    }
    line
}

fn table<S: AsRef<str>>(header: impl IntoIterator<Item = S>) -> Table {
    let mut table = Table::new();
    let header = header.into_iter().enumerate().map(|(at, text)| aligned(at, text.as_ref().to_owned()));
    table.load_preset(NOTHING).set_header(header.collect::<Vec<_>>());
    table
}

/// Names to the left, numbers to the right.
fn aligned(column: usize, text: String) -> Cell {
    Cell::new(text).set_alignment(if column == 0 { CellAlignment::Left } else { CellAlignment::Right })
}

fn row(table: &mut Table, cells: impl IntoIterator<Item = String>) {
    table.add_row(cells.into_iter().enumerate().map(|(at, text)| aligned(at, text)));
}

fn matrix<'a>(corner: &str, names: &[&str], rows: impl IntoIterator<Item = &'a [u64]>) -> Table {
    let mut table = table(std::iter::once(corner).chain(names.iter().copied()));
    for (name, counts) in names.iter().zip(rows) {
        row(&mut table, std::iter::once((*name).to_owned()).chain(counts.iter().map(|count| grouped(*count))));
    }
    table
}

fn actions(report: &DiffV1) -> Table {
    let names = ACTIONS.map(Action::name);
    matrix("action before, then after", &names, report.action_matrix.iter().map(|row| &row[..]))
}

fn labels(report: &DiffV1) -> Table {
    let names: Vec<&str> = report.labels.iter().map(String::as_str).collect();
    matrix("label before, then after", &names, report.label_matrix.iter().map(|row| &row[..]))
}

fn scores(report: &DiffV1) -> Table {
    let mut table = table(["scores", "mean before", "after", "mean change", "drift of the histogram"]);
    for one in &report.by_label {
        let figures = [one.mean_score[0], one.mean_score[1], one.mean_change, one.drift];
        row(&mut table, std::iter::once(one.label.clone()).chain(figures.map(|figure| format!("{figure:.4}"))));
    }
    table
}

fn radius(report: &DiffV1) -> Table {
    let mut table =
        table(["acts called for", "before", "after", "window", "most before", "after", "quota", "held back", ""]);
    for Radius { label, acts, peak, window_ms, quota, held, exceeded, .. } in &report.blast_radius {
        let numbers = [acts[0], acts[1]].map(grouped).into_iter().chain([span(*window_ms)]);
        let numbers =
            numbers.chain(peak.map(grouped)).chain([quota.map_or("none".to_owned(), grouped), grouped(*held)]);
        let over = if *exceeded { "OVER ITS QUOTA" } else { "" };
        row(&mut table, std::iter::once(label.clone()).chain(numbers).chain([over.to_owned()]));
    }
    table
}

fn slices(report: &DiffV1) -> Table {
    let mut table = table(["slice", "posts", "other label", "other action", "newly acted on", "no longer"]);
    for slice in &report.slices {
        let Changes { pairs, labels, actions, acts_gained, acts_lost, .. } = slice.changes;
        let name = format!("{} {}", slice.field, visible(&slice.value));
        let shares = [labels, actions].map(|count| percent(count, pairs));
        let counts = [acts_gained, acts_lost].map(grouped);
        row(&mut table, [name, grouped(pairs)].into_iter().chain(shares).chain(counts));
    }
    table
}

fn flips(report: &DiffV1) -> String {
    let mut lines = vec![format!("{} flips, the worst first", grouped(report.flips.count))];
    lines.extend(report.flips.first.iter().map(flip));
    let more = report.flips.count - report.flips.first.len() as u64;
    if more > 0 {
        lines.push(format!("and {} more (--list, --csv)", grouped(more)));
    }
    lines.join("\n")
}

fn flip(flip: &Flip) -> String {
    let Flip { post, a, b, .. } = flip;
    let actions = format!("{} -> {}", a.action.name(), b.action.name());
    let text = flip.text.as_ref().map(|text| format!("\n    {}", cut(&visible(text), SHOWN))).unwrap_or_default();
    format!(
        "{actions:<18} {} {:.4} -> {} {:.4}  {} ({}/{}/{}){text}",
        a.label,
        a.score,
        b.label,
        b.score,
        visible(&post.post_id),
        post.topic,
        post.partition,
        post.offset
    )
}
