//! The charts, each with its words for those who do not see it.

use super::tables::figure;
use crate::eval::bootstrap::wilson;
use crate::eval::report::{EvalV1, LabelReport};
use crate::html::svg::{Plot, Told, drawing, escaped, legend, stroke};
use crate::html::tables::share;

/// Two of them stand beside each other.
const SQUARE: (f64, f64) = (440.0, 380.0);

/// One curve a label: false positives and recall.
pub(super) fn roc(report: &EvalV1) -> String {
    let mut plot = Plot::new(SQUARE, 1.0, ["false positive rate", "recall"]);
    plot.path([[0.0, 0.0], [1.0, 1.0]], "class=\"guide\"");
    curves(&mut plot, report, |label| &label.roc);
    let told = Told {
        id: "roc",
        title: "ROC curves",
        description: "Recall over the false positive rate, one curve for each label against the rest.",
    };
    let items = named(report, "auc", "AUC");
    format!("<figure><figcaption>ROC</figcaption>{}{}</figure>", plot.drawing(&told), legend(&items))
}

/// One curve a label: recall and precision.
pub(super) fn precision_recall(report: &EvalV1) -> String {
    let mut plot = Plot::new(SQUARE, 1.0, ["recall", "precision"]);
    curves(&mut plot, report, |label| &label.precision_recall);
    let told = Told {
        id: "pr",
        title: "Precision-recall curves",
        description: "Precision over recall, one curve for each label against the rest.",
    };
    let items = named(report, "average_precision", "area");
    format!("<figure><figcaption>Precision and recall</figcaption>{}{}</figure>", plot.drawing(&told), legend(&items))
}

/// The first label is drawn last, on top.
fn curves(plot: &mut Plot, report: &EvalV1, of: impl Fn(&LabelReport) -> &Vec<[f64; 2]>) {
    for (index, label) in report.by_label.iter().enumerate().rev() {
        plot.path(of(label).iter().copied(), &stroke(index));
    }
}

fn named(report: &EvalV1, metric: &str, word: &str) -> Vec<(usize, String)> {
    let named = report.by_label.iter().enumerate().filter_map(|(index, one)| {
        let value = report.metrics.get(&format!("{metric}.{}", one.label))?.value;
        Some((index, format!("{} ({word} {value:.3})", one.label)))
    });
    named.collect()
}

/// How often a verdict of a given score was right.
pub(super) fn reliability(report: &EvalV1) -> String {
    let mut plot = Plot::new(SQUARE, 1.0, ["score of the winning label", "share that was right"]);
    plot.path([[0.0, 0.0], [1.0, 1.0]], "class=\"guide\"");
    for bin in &report.reliability {
        let hits = (bin.right * bin.rows as f64).round() as usize;
        if let Some((low, high)) = wilson(hits, bin.rows) {
            plot.path([[bin.score, low], [bin.score, high]], "class=\"whisker s0\" stroke-opacity=\"0.45\"");
        }
    }
    plot.path(report.reliability.iter().map(|bin| [bin.score, bin.right]), &stroke(0));
    for bin in &report.reliability {
        let (x, y) = (plot.x(bin.score), plot.y(bin.right));
        plot.add(&format!("<circle class=\"f0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"));
    }
    let description = format!(
        "Share of right verdicts over their score, in bins. On the dashed line a score of 0.8 is right in 8 of 10 posts. \
         Expected calibration error {}.",
        figure(report, "ece")
    );
    let told = Told { id: "reliability", title: "Reliability diagram", description: &description };
    format!("<figure><figcaption>Reliability</figcaption>{}</figure>", plot.drawing(&told))
}

/// How many verdicts have which winning score.
pub(super) fn winning_scores(report: &EvalV1) -> String {
    let all = report.data.judged.max(1) as f64;
    let most = report.reliability.iter().map(|bin| bin.rows as f64 / all).fold(0.0, f64::max);
    let top = [0.1, 0.2, 0.5].into_iter().find(|top| most < 0.93 * top).unwrap_or(1.0);
    let mut plot = Plot::new(SQUARE, top, ["score of the winning label", "share of posts"]);
    for bin in &report.reliability {
        let height = bin.rows as f64 / all;
        let (left, right, top, ground) = (plot.x(bin.from) + 1.0, plot.x(bin.to) - 1.0, plot.y(height), plot.y(0.0));
        plot.add(&format!(
            "<rect class=\"f0\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\"/>",
            right - left,
            ground - top
        ));
        plot.text(((left + right) / 2.0, top - 5.0), "middle", "", &format!("{}", bin.rows));
    }
    let told = Told {
        id: "winning",
        title: "Histogram of winning scores",
        description: "Share of posts over the score of the label they got, in 15 bins, with the number of posts above each.",
    };
    format!("<figure><figcaption>How sure the verdicts are</figcaption>{}</figure>", plot.drawing(&told))
}

/// Precision, recall and share acted on, over the threshold.
pub(super) fn thresholds(label: &LabelReport) -> String {
    let mut plot = Plot::new((900.0, 320.0), 1.0, [&format!("threshold on {}", label.label), "share"]);
    let marks = label.thresholds.map(|bands| [(Some(bands.review), "review"), (bands.act, "act")]);
    for (at, word) in marks.into_iter().flatten().filter_map(|(at, word)| Some((at?, word))) {
        plot.path([[at, 0.0], [at, 1.0]], "class=\"guide\"");
        let (x, y) = (plot.x(at) - 5.0, plot.y(1.0) + 12.0);
        plot.text((x, y), "end", "", word);
    }
    type Value = fn(&crate::eval::report::ThresholdRow) -> Option<f64>;
    let lines: [(&str, Value); 3] =
        [("precision", |row| row.precision), ("recall", |row| row.recall), ("share acted on", |row| Some(row.acted))];
    for (index, (_, value)) in lines.iter().enumerate() {
        let points = label.at.iter().filter_map(|row| Some([row.threshold, value(row)?]));
        plot.path(points.collect::<Vec<_>>(), &stroke(index));
    }
    let description = format!(
        "Precision, recall and the share of posts acted on, over the threshold on the score of {}; dashed upright lines are \
         the policy's own thresholds.",
        label.label
    );
    let told = Told { id: "thresholds", title: "What a threshold would do", description: &description };
    let items: Vec<_> = lines.iter().enumerate().map(|(index, (name, _))| (index, (*name).to_owned())).collect();
    format!("<figure>{}{}</figure>", plot.drawing(&told), legend(&items))
}

/// Scores of one label, a ridge for the posts of each true label.
pub(super) fn histogram(report: &EvalV1, index: usize, label: &LabelReport) -> String {
    const WIDTH: f64 = 440.0;
    const RIDGE: f64 = 54.0;
    const TOP: f64 = 2.0;
    let ridges: Vec<_> =
        report.labels.iter().enumerate().filter_map(|(at, name)| Some((at, name, label.scores.get(name)?))).collect();
    let height = TOP + RIDGE * ridges.len() as f64 + 40.0;
    let (left, right) = (150.0, WIDTH - 12.0);
    let mut inside = String::new();
    for (place, (at, name, bins)) in ridges.iter().enumerate() {
        let ground = TOP + RIDGE * (place + 1) as f64;
        let most = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
        let width = (right - left) / bins.len() as f64;
        let mut path = format!("M{left:.1} {ground:.1}");
        for (bin, count) in bins.iter().enumerate() {
            let (x, y) = (left + width * bin as f64, ground - (RIDGE - 12.0) * *count as f64 / most);
            path += &format!("V{y:.1}H{:.1}", x + width);
        }
        path += &format!("V{ground:.1}Z");
        let total: usize = bins.iter().sum();
        let bold = if *at == index { " style=\"font-weight:600\"" } else { "" };
        inside += &format!(
            "<path class=\"area s{0} f{0}\" d=\"{path}\"/><path class=\"axis\" d=\"M{left:.1} {ground:.1}H{right:.1}\"/>\
             <text class=\"ink\" x=\"0\" y=\"{1:.1}\"{bold}>{2}</text><text x=\"0\" y=\"{3:.1}\">{total} posts</text>",
            at % 6,
            ground - 18.0,
            escaped(name),
            ground - 3.0,
        );
    }
    for step in 0..=5 {
        let at = f64::from(step) / 5.0;
        let x = left + at * (right - left);
        inside += &format!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.1}</text>", height - 22.0);
    }
    inside += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">score of {}</text>",
        (left + right) / 2.0,
        height - 4.0,
        escaped(&label.label)
    );
    let description = format!(
        "Scores of {} in 20 bins, one row for the posts of each true label; each row has its own height.",
        label.label
    );
    let title = format!("Scores of {} by true label", label.label);
    let told = Told { id: &format!("scores-{index}"), title: &title, description: &description };
    format!(
        "<figure><figcaption>Score of {}</figcaption>{}</figure>",
        escaped(&label.label),
        drawing(&told, (WIDTH, height), &inside)
    )
}

/// Rows by true label, then by the label they got.
pub(super) fn confusion(report: &EvalV1) -> String {
    const CELL: (f64, f64) = (128.0, 56.0);
    const LEFT: f64 = 170.0;
    const TOP: f64 = 44.0;
    let count = report.labels.len() as f64;
    let (width, height) = (LEFT + CELL.0 * count + 4.0, TOP + CELL.1 * count + 4.0);
    let mut inside = format!(
        "<text x=\"0\" y=\"{:.1}\">true label</text><text x=\"{LEFT}\" y=\"12\">label it got</text>",
        TOP - 10.0
    );
    for (at, label) in report.labels.iter().enumerate() {
        let x = LEFT + CELL.0 * (at as f64 + 0.5);
        inside += &format!(
            "<text class=\"ink\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP - 10.0,
            escaped(label)
        );
    }
    for (truth, (label, counts)) in report.labels.iter().zip(&report.confusion).enumerate() {
        let top = TOP + CELL.1 * truth as f64;
        let all: u64 = counts.iter().sum();
        inside +=
            &format!("<text class=\"ink\" x=\"0\" y=\"{:.1}\">{}</text>", top + CELL.1 / 2.0 + 4.0, escaped(label));
        for (got, rows) in counts.iter().enumerate() {
            let part = if all == 0 { 0.0 } else { *rows as f64 / all as f64 };
            let (x, class) = (LEFT + CELL.0 * got as f64, if part > 0.7 { "on" } else { "ink" });
            inside += &format!(
                "<rect class=\"cell\" x=\"{0:.1}\" y=\"{1:.1}\" width=\"{2:.1}\" height=\"{3:.1}\" rx=\"6\"/>\
                 <rect class=\"heat\" fill-opacity=\"{4:.3}\" x=\"{0:.1}\" y=\"{1:.1}\" width=\"{2:.1}\" height=\"{3:.1}\" rx=\"6\"/>\
                 <text class=\"{class} big\" x=\"{5:.1}\" y=\"{6:.1}\" text-anchor=\"middle\">{rows}</text>\
                 <text class=\"{class}\" x=\"{5:.1}\" y=\"{7:.1}\" text-anchor=\"middle\">{8}</text>",
                x + 2.0,
                top + 2.0,
                CELL.0 - 4.0,
                CELL.1 - 4.0,
                part * 0.95,
                x + CELL.0 / 2.0,
                top + CELL.1 / 2.0 - 2.0,
                top + CELL.1 / 2.0 + 15.0,
                share(part),
            );
        }
    }
    let told = Told {
        id: "confusion",
        title: "Confusion matrix",
        description: "Posts by true label in rows and by the label they got in columns, with their share of the row.",
    };
    drawing(&told, (width, height), &inside)
}
