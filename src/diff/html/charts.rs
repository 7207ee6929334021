//! The charts, each with its words for those who do not see it.

use std::fmt::Write as _;

use super::super::report::{DiffV1, LabelDiff};
use super::super::words::{cut, grouped, visible};
use super::tables::ACTIONS;
use crate::html::svg::{Told, drawing, escaped};

/// From the actions before to those after, as bands.
pub(super) fn flow(matrix: &[[u64; 3]; 3]) -> String {
    const SIZE: (f64, f64) = (440.0, 270.0);
    const GAP: f64 = 26.0;
    const BAR: f64 = 14.0;
    const LEFT: f64 = 104.0;
    let right = SIZE.0 - LEFT - BAR;
    let all = matrix.iter().flatten().sum::<u64>().max(1) as f64;
    let scale = (SIZE.1 - 2.0 * GAP - 24.0) / all;
    let before = [0, 1, 2].map(|from: usize| matrix[from].iter().sum::<u64>());
    let after = [0, 1, 2].map(|to: usize| matrix.iter().map(|row| row[to]).sum::<u64>());
    let tops = |sums: [u64; 3]| {
        let mut top = 20.0;
        sums.map(|sum| {
            let here = top;
            top += sum as f64 * scale + GAP;
            here
        })
    };
    let (mut starts, mut ends) = (tops(before), tops(after));
    let mut inside = format!(
        "<text x=\"{LEFT}\" y=\"10\">before</text><text x=\"{:.0}\" y=\"10\" text-anchor=\"end\">after</text>",
        right + BAR
    );
    for (sums, tops, x, anchor, at) in
        [(before, starts, LEFT, "end", LEFT - 8.0), (after, ends, right, "start", right + BAR + 8.0)]
    {
        for ((sum, top), action) in sums.iter().zip(tops).zip(ACTIONS) {
            let (name, height) = (action.name(), (*sum as f64 * scale).max(1.0));
            let middle = top + height / 2.0 + 4.0;
            let _ = write!(
                inside,
                "<rect class=\"{name}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{height:.1}\" rx=\"2\"/>\
                 <text class=\"ink\" x=\"{at:.1}\" y=\"{middle:.1}\" text-anchor=\"{anchor}\">{name} {}</text>",
                grouped(*sum)
            );
        }
    }
    for (from, row) in matrix.iter().enumerate() {
        for (to, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = *count as f64 * scale;
            let (top, end) = (starts[from], ends[to]);
            (starts[from], ends[to]) = (top + height, end + height);
            // One post of a million is still to be seen.
            let (height, strength) = (height.max(1.0), if from == to { 0.18 } else { 0.6 });
            let (x, middle) = (LEFT + BAR, (LEFT + BAR + right) / 2.0);
            let _ = write!(
                inside,
                "<path class=\"{0}\" fill-opacity=\"{strength}\" d=\"M{x:.1} {top:.1}C{middle:.1} {top:.1} {middle:.1} {end:.1} {right:.1} {end:.1}\
                 V{1:.1}C{middle:.1} {1:.1} {middle:.1} {2:.1} {x:.1} {2:.1}Z\"/>",
                ACTIONS[to].name(),
                end + height,
                top + height
            );
        }
    }
    let told = Told {
        id: "flow",
        title: "Actions before and after",
        description: "Bands from the action before to the action after, as wide as the number of posts; the table beside has the figures.",
    };
    format!("<figure>{}</figure>", drawing(&told, SIZE, &inside))
}

/// Two bars a label: before and after.
pub(super) fn labels(report: &DiffV1) -> String {
    const WIDTH: f64 = 440.0;
    const ROW: f64 = 58.0;
    let most = report.by_label.iter().flat_map(|one| one.got).max().unwrap_or(0).max(1) as f64;
    let mut inside = String::new();
    for (at, one) in report.by_label.iter().enumerate() {
        let top = ROW * at as f64;
        let _ = write!(inside, "<text class=\"ink\" x=\"0\" y=\"{:.1}\">{}</text>", top + 12.0, name(&one.label));
        for (place, (count, class)) in one.got.into_iter().zip(["f5", "f0"]).enumerate() {
            let (y, width) = (top + 18.0 + 16.0 * place as f64, (WIDTH - 80.0) * count as f64 / most);
            let _ = write!(
                inside,
                "<rect class=\"{class}\" x=\"0\" y=\"{y:.1}\" width=\"{:.1}\" height=\"13\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                width.max(1.0),
                width + 6.0,
                y + 11.0,
                grouped(count)
            );
        }
    }
    let told = Told {
        id: "labels",
        title: "Posts by label, before and after",
        description: "Two bars for each label: the posts that get it before and after. The table beside has who moved where.",
    };
    let height = ROW * report.by_label.len() as f64;
    format!("<figure>{}{LEGEND}</figure>", drawing(&told, (WIDTH, height), &inside))
}

const LEGEND: &str = "<ul class=\"legend\">\
    <li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><rect class=\"f5\" width=\"26\" height=\"10\" rx=\"2\"/></svg>before</li>\
    <li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><rect class=\"f0\" width=\"26\" height=\"10\" rx=\"2\"/></svg>after</li></ul>";

/// One a label.
pub(super) fn histograms(report: &DiffV1) -> String {
    let charts: String = report.by_label.iter().enumerate().map(|(at, label)| histogram(at, label)).collect();
    format!("<div class=\"pair\">{charts}</div>{LEGEND}")
}

/// Scores before as an outline, those after as an area.
fn histogram(at: usize, label: &LabelDiff) -> String {
    const SIZE: (f64, f64) = (440.0, 150.0);
    const GROUND: f64 = 120.0;
    let bins = label.histogram[0].len() as f64;
    let most = label.histogram.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let path = |counts: &[u64]| {
        let mut path = format!("M0 {GROUND}");
        for (bin, count) in counts.iter().enumerate() {
            let y = GROUND - (GROUND - 8.0) * *count as f64 / most;
            let _ = write!(path, "V{y:.1}H{:.1}", SIZE.0 * (bin + 1) as f64 / bins);
        }
        path + &format!("V{GROUND}")
    };
    let [before, after] = [0, 1].map(|side: usize| path(&label.histogram[side]));
    let mut inside = format!(
        "<path class=\"area s0 f0\" d=\"{after}\"/><path class=\"curve s5\" stroke-dasharray=\"5 3\" d=\"{before}\"/>\
         <path class=\"axis\" d=\"M0 {GROUND}H{}\"/>",
        SIZE.0
    );
    for step in 0..=5 {
        let (at, anchor) =
            (f64::from(step) / 5.0, ["start", "middle", "middle", "middle", "middle", "end"][step as usize]);
        let _ = write!(
            inside,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{at:.1}</text>",
            at * SIZE.0,
            GROUND + 16.0
        );
    }
    let title = format!("Scores of {}", label.label);
    let description = format!(
        "Posts by their score in 20 bins; before dashed, after filled. Mean {:.3} before, {:.3} after; drift {:.3}.",
        label.mean_score[0], label.mean_score[1], label.drift
    );
    let told = Told { id: &format!("scores-{at}"), title: &title, description: &description };
    format!("<figure><figcaption>{}</figcaption>{}</figure>", name(&label.label), drawing(&told, SIZE, &inside))
}

fn name(label: &str) -> String {
    escaped(&visible(&cut(label, 48)))
}
