//! The tables of the page: the same figures as the charts, and those that have none.

use std::fmt::Write as _;

use crate::eval::report::{AdversarialReport, Estimate, EvalV1, LabelReport};
use crate::html::svg::{escaped, interval, stack};
use crate::html::tables::{row, share, table};

/// A figure's value, or a dash.
pub(super) fn figure(report: &EvalV1, name: &str) -> String {
    report.metrics.get(name).map_or_else(|| "–".to_owned(), |estimate| format!("{:.3}", estimate.value))
}

/// Its interval, in small letters.
pub(super) fn range(estimate: &Estimate) -> String {
    let ends = estimate.low.zip(estimate.high);
    ends.map_or_else(String::new, |(low, high)| {
        // A hyphen is no minus.
        format!("<span class=\"range\">{low:.3}–{high:.3}</span>").replace('-', "−")
    })
}

fn with_range(report: &EvalV1, name: &str) -> String {
    let Some(estimate) = report.metrics.get(name) else { return "–".to_owned() };
    format!("{:.3}<br>{}", estimate.value, range(estimate))
}

fn with_bar(report: &EvalV1, name: &str, series: usize) -> [String; 2] {
    match report.metrics.get(name) {
        Some(estimate) => [interval(estimate.value, estimate.low.zip(estimate.high), series), with_range(report, name)],
        None => [String::new(), "–".to_owned()],
    }
}

/// Precision, recall, F1 and AUC of each label.
pub(super) fn labels(report: &EvalV1) -> String {
    let mut rows = String::new();
    for one in &report.by_label {
        let figures = ["precision", "recall", "f1", "auc", "recall_at_fpr_1", "recall_at_fpr_5"];
        let figures = figures.map(|name| with_range(report, &format!("{name}.{}", one.label)));
        let counts = [one.support.to_string(), one.given.to_string()];
        rows += &row(&one.label, counts.into_iter().chain(figures));
    }
    let header =
        ["label", "posts", "got it", "precision", "recall", "F1", "AUC", "recall at 1 % FP", "recall at 5 % FP"];
    table(&header, &rows)
}

/// The confusion matrix in figures.
pub(super) fn confusion(report: &EvalV1) -> String {
    let mut rows = String::new();
    for (label, counts) in report.labels.iter().zip(&report.confusion) {
        rows += &row(label, counts.iter().map(ToString::to_string));
    }
    let header: Vec<&str> = std::iter::once("has, then got").chain(report.labels.iter().map(String::as_str)).collect();
    table(&header, &rows)
}

/// The reliability diagram in figures.
pub(super) fn reliability(report: &EvalV1) -> String {
    let mut rows = String::new();
    for bin in &report.reliability {
        let head = format!("{:.2} to {:.2}", bin.from, bin.to);
        rows += &row(&head, [bin.rows.to_string(), format!("{:.3}", bin.score), format!("{:.3}", bin.right)]);
    }
    table(&["winning score", "posts", "mean score", "share right"], &rows)
}

/// What each threshold on a label would do.
pub(super) fn thresholds(label: &LabelReport) -> String {
    let mut rows = String::new();
    let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), share);
    for at in &label.at {
        let bar = stack([at.allowed, at.reviewed, at.acted], 160.0);
        let figures = [share(at.allowed), share(at.reviewed), share(at.acted)];
        let worth = [at.precision, at.recall, at.false_positives].map(optional);
        rows += &row(&format!("{:.2}", at.threshold), std::iter::once(bar).chain(figures).chain(worth));
    }
    table(&["act from", "", "allowed", "reviewed", "acted on", "precision", "recall", "false positives"], &rows)
}

/// What the policy as it stands proposed.
pub(super) fn actions(report: &EvalV1) -> String {
    let mut rows = String::new();
    for one in report.actions.iter().filter(|one| one.rows > 0) {
        let part = |count: usize| count as f64 / one.rows as f64;
        let shares = [one.allow, one.review, one.act].map(part);
        let cells = [one.rows.to_string(), stack(shares, 220.0)];
        let abstained = share(part(one.abstained));
        rows += &row(&one.label, cells.into_iter().chain(shares.map(share)).chain([abstained]));
    }
    table(&["true label", "posts", "", "allow", "review", "act", "abstained"], &rows)
}

/// Accuracy, macro-F1 and the first label's AUC of each slice.
pub(super) fn slices(report: &EvalV1) -> String {
    let auc = format!("auc.{}", report.labels.first().map_or("", String::as_str));
    let (mut rows, mut field) = (String::new(), "");
    for slice in &report.slices {
        if field != slice.field {
            field = &slice.field;
            let _ =
                write!(rows, "<tr class=\"part\"><th colspan=\"8\" scope=\"colgroup\">by {}</th></tr>", escaped(field));
        }
        let figures = ["accuracy", "macro_f1", &auc].into_iter().enumerate();
        let figures = figures.flat_map(|(at, name)| with_bar(report, &format!("{}{name}", slice.prefix()), at));
        rows += &row(&slice.value, std::iter::once(slice.rows.to_string()).chain(figures));
    }
    let auc = format!("AUC of {}", report.labels.first().map_or("", String::as_str));
    table(&["slice", "posts", "", "accuracy", "", "macro-F1", "", &auc], &rows)
}

/// The same rows with other settings.
pub(super) fn parity(report: &EvalV1) -> String {
    let mut rows = String::new();
    for run in &report.parity {
        let named = |name: &str| with_range(report, &format!("{}{name}", run.prefix()));
        let auc = format!("auc_change.{}", report.labels.first().map_or("", String::as_str));
        let names =
            ["labels_differ", "clear_labels_differ", "mean_difference", "max_difference", "macro_f1_change", &auc];
        let counts = [run.rows.to_string(), run.clear_rows.to_string()];
        rows += &row(&run.setting, counts.into_iter().chain(names.map(named)));
    }
    let header = [
        "setting",
        "posts",
        "of them clear",
        "labels differ",
        "of the clear",
        "mean difference",
        "most",
        "macro-F1 moves",
        "AUC moves",
    ];
    table(&header, &rows)
}

/// How often attacks changed the verdict, by group and family.
pub(super) fn adversarial(report: &EvalV1, adversarial: &AdversarialReport) -> String {
    let mut rows = String::new();
    for part in &adversarial.parts {
        let figures = [("changed", 1), ("flipped", 3)].into_iter();
        let figures =
            figures.flat_map(|(name, series)| with_bar(report, &format!("adversarial.{}.{name}", part.name), series));
        let counts = [part.rows.to_string(), part.clean_right.to_string()];
        let name = part.name.replacen('.', " ", 1);
        let cells = row(&name, counts.into_iter().chain(figures));
        rows +=
            &if part.name.starts_with("family.") { cells } else { cells.replacen("<tr>", "<tr class=\"strong\">", 1) };
    }
    table(&["attack", "posts", "twin right", "", "verdict changed", "", "flipped to the target"], &rows)
}

/// What was asked of the figures.
pub(super) fn bounds(report: &EvalV1) -> String {
    let mut rows = String::new();
    for bound in &report.bounds {
        let (word, limit) = bound.min.map_or(("at most", bound.max), |min| ("at least", Some(min)));
        let met = if bound.met { "<span class=\"met\">met</span>" } else { "<span class=\"missed\">missed</span>" };
        let value = bound.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        rows += &row(&bound.metric, [format!("{word} {}", limit.unwrap_or_default()), value, met.to_owned()]);
    }
    table(&["figure", "asked", "is", ""], &rows)
}
