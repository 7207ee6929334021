//! The tables of the page: the same figures as the charts, and those that have none.

use std::fmt::Write as _;

use super::super::report::{Changes, DiffV1, Radius, TruthReport};
use super::super::words::{cut, grouped, percent, span, visible};
use crate::html::svg::{escaped, interval};
use crate::html::tables::{row, table};
use crate::policy::Action;

pub(super) const ACTIONS: [Action; 3] = [Action::Allow, Action::Review, Action::Act];

/// Who goes where: what stays is pale, what moves is marked.
fn matrix<'a>(corner: &str, names: &[&str], counts: impl IntoIterator<Item = &'a [u64]>) -> String {
    let counts: Vec<&[u64]> = counts.into_iter().collect();
    let moved = |from: usize, to: usize, count: u64| if from == to { 0 } else { count };
    let all = counts
        .iter()
        .enumerate()
        .flat_map(|(from, row)| row.iter().enumerate().map(move |(to, count)| moved(from, to, *count)));
    let most = all.max().unwrap_or(0).max(1) as f64;
    let mut rows = String::new();
    for (from, (name, row)) in names.iter().zip(&counts).enumerate() {
        let _ = write!(rows, "<tr><th scope=\"row\">{}</th>", escaped(name));
        for (to, count) in row.iter().enumerate() {
            let strength = 40.0 * moved(from, to, *count) as f64 / most;
            let class = if moved(from, to, *count) > 0 { "moves" } else { "stays" };
            let shade = format!("background:color-mix(in srgb, var(--review) {strength:.0}%, transparent)");
            let _ = write!(rows, "<td class=\"{class}\" style=\"{shade}\">{}</td>", grouped(*count));
        }
        rows += "</tr>";
    }
    let header: Vec<&str> = std::iter::once(corner).chain(names.iter().copied()).collect();
    table(&header, &rows)
}

/// Actions before and after.
pub(super) fn actions(report: &DiffV1) -> String {
    matrix("before, then after", &ACTIONS.map(Action::name), report.action_matrix.iter().map(|row| &row[..]))
}

/// Labels before and after.
pub(super) fn labels(report: &DiffV1) -> String {
    let names: Vec<String> = report.labels.iter().map(|label| visible(&cut(label, 48))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    matrix("before, then after", &names, report.label_matrix.iter().map(|row| &row[..]))
}

/// Acts of each label against its quota.
pub(super) fn radius(report: &DiffV1) -> String {
    let most = report.blast_radius.iter().flat_map(|one| one.peak.into_iter().chain(one.quota)).max().unwrap_or(0);
    let mut rows = String::new();
    for one in &report.blast_radius {
        let Radius { label, acts, peak, window_ms, quota, held, exceeded, .. } = one;
        let state = match (quota, exceeded) {
            (None, _) => "no quota".to_owned(),
            (Some(_), true) => "<span class=\"missed\">over its quota</span>".to_owned(),
            (Some(_), false) => "<span class=\"met\">within</span>".to_owned(),
        };
        let cells = [
            grouped(acts[0]),
            grouped(acts[1]),
            format!("{}<br><span class=\"range\">in {}</span>", grouped(peak[1]), span(*window_ms)),
            bar(*peak, *quota, most.max(1)),
            quota.map_or_else(|| "–".to_owned(), grouped),
            grouped(*held),
            state,
        ];
        rows += &row(&visible(label), cells);
    }
    let header = ["label", "acts before", "after", "fullest window after", "", "quota", "held back by it", ""];
    table(&header, &rows)
}

/// The fullest windows before and after, and where the quota stands.
fn bar(peak: [u64; 2], quota: Option<u64>, most: u64) -> String {
    let x = |count: u64| 4.0 + 150.0 * count as f64 / most as f64;
    let over = if quota.is_some_and(|quota| peak[1] > quota) { "act" } else { "f0" };
    let tick = quota.map_or_else(String::new, |quota| format!("<path class=\"mark\" d=\"M{0:.1} 0V24\"/>", x(quota)));
    format!(
        "<svg class=\"small\" width=\"160\" height=\"24\" viewBox=\"0 0 160 24\" aria-hidden=\"true\">\
         <rect class=\"f5\" x=\"4\" y=\"3\" width=\"{:.1}\" height=\"7\" rx=\"1\"/>\
         <rect class=\"{over}\" x=\"4\" y=\"12\" width=\"{:.1}\" height=\"9\" rx=\"1\"/>{tick}</svg>",
        x(peak[0]) - 4.0,
        x(peak[1]) - 4.0
    )
}

/// Mean, change and drift of each label's score.
pub(super) fn scores(report: &DiffV1) -> String {
    let mut rows = String::new();
    for one in &report.by_label {
        let figures = [one.mean_score[0], one.mean_score[1], one.mean_change, one.drift];
        rows += &row(&visible(&one.label), figures.map(|figure| format!("{figure:.3}")));
    }
    table(&["label", "mean before", "mean after", "mean change of a post", "drift"], &rows)
}

/// By language and field.
pub(super) fn slices(report: &DiffV1) -> String {
    let (mut rows, mut field) = (String::new(), "");
    for slice in &report.slices {
        if field != slice.field {
            field = &slice.field;
            let _ = write!(
                rows,
                "<tr class=\"part\"><th colspan=\"7\" scope=\"colgroup\">by {}</th></tr>",
                escaped(&visible(field))
            );
        }
        let Changes { pairs, labels, actions, acts_gained, acts_lost, .. } = slice.changes;
        let cells = [
            grouped(pairs),
            share_bar(actions, pairs),
            percent(actions, pairs),
            percent(labels, pairs),
            grouped(acts_gained),
            grouped(acts_lost),
        ];
        rows += &row(&visible(&cut(&slice.value, 64)), cells);
    }
    table(&["slice", "posts", "", "change action", "other label", "more acted on", "no longer"], &rows)
}

fn share_bar(part: u64, all: u64) -> String {
    let width = 120.0 * part as f64 / all.max(1) as f64;
    format!(
        "<svg class=\"small\" width=\"120\" height=\"12\" viewBox=\"0 0 120 12\" aria-hidden=\"true\">\
         <rect class=\"cell\" width=\"120\" height=\"12\" rx=\"2\"/><rect class=\"review\" width=\"{width:.1}\" height=\"12\" rx=\"2\"/></svg>"
    )
}

/// Accuracies, and where only one side is right.
pub(super) fn truth(truth: &TruthReport) -> String {
    let mut rows = String::new();
    for (name, estimate, series) in [("before", &truth.accuracy[0], 5), ("after", &truth.accuracy[1], 0)] {
        let ends = estimate.low.zip(estimate.high);
        let range = ends.map_or_else(String::new, |(low, high)| format!("{:.1}–{:.1} %", 100.0 * low, 100.0 * high));
        let cells = [interval(estimate.value, ends, series), format!("{:.1} %", 100.0 * estimate.value), range];
        rows += &row(name, cells);
    }
    let accuracy = table(&["", "", "right labels", "95 % interval"], &rows);
    let counts = [
        row("right before", [truth.both, truth.only_a].map(grouped)),
        row("wrong before", [truth.only_b, truth.neither].map(grouped)),
    ];
    accuracy + &table(&["", "right after", "wrong after"], &counts.concat())
}
