//! The figures as plain tables.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};

use crate::eval::report::{Estimate, EvalV1};

/// Everything but the charts.
pub(super) fn text(report: &EvalV1) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut part = |part: &str| {
        let _ = writeln!(text, "{part}\n");
    };
    part(&about(report));
    part(&headline(report).to_string());
    part(&labels(report).to_string());
    part(&confusion(report).to_string());
    part(&actions(report).to_string());
    let parts = [slices(report), parity(report), adversarial(report)];
    parts.iter().filter(|table| table.row_count() > 0).for_each(|table| part(&table.to_string()));
    text.trim_end().to_owned()
}

fn about(report: &EvalV1) -> String {
    let (data, judge) = (&report.data, &report.judge);
    let unjudged: String =
        data.unjudged.iter().map(|(reason, rows)| format!("\nNOT JUDGED: {rows} rows as {reason}")).collect();
    let among = if report.restricted { format!("\namong {} only", report.labels.join(", ")) } else { String::new() };
    format!(
        "{}: {} rows judged (sha256 {})\nby {} {} on {}, policy {} {}, {}{among}{unjudged}",
        data.name,
        data.judged,
        &data.sha256[..12.min(data.sha256.len())],
        judge.model,
        judge.precision,
        judge.provider,
        judge.policy,
        judge.policy_revision,
        judge.calibration.as_ref().map_or("no calibration".to_owned(), |revision| format!("calibration {revision}")),
    )
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header.iter().enumerate().map(|(at, text)| aligned(at, (*text).to_owned())));
    table
}

/// Names to the left, numbers to the right.
fn aligned(column: usize, text: String) -> Cell {
    Cell::new(text).set_alignment(if column == 0 { CellAlignment::Left } else { CellAlignment::Right })
}

fn row(table: &mut Table, cells: impl IntoIterator<Item = String>) {
    table.add_row(cells.into_iter().enumerate().map(|(at, text)| aligned(at, text)));
}

/// `0.742 (0.731-0.753)`.
fn figure(report: &EvalV1, name: &str) -> String {
    match report.metrics.get(name) {
        Some(Estimate { value, low: Some(low), high: Some(high) }) => format!("{value:.3} ({low:.3}-{high:.3})"),
        Some(Estimate { value, .. }) => format!("{value:.3}"),
        None => String::new(),
    }
}

fn headline(report: &EvalV1) -> Table {
    let first = report.labels.first().map_or("", String::as_str);
    let mut names = vec!["accuracy".to_owned(), "macro_f1".to_owned()];
    names.extend(["auc", "recall_at_fpr_1", "recall_at_fpr_5"].map(|name| format!("{name}.{first}")));
    names.extend(["ece", "raw.ece", "brier", "nll", "abstained"].map(str::to_owned));
    let mut table = table(["figure", "value (95 %)"]);
    for name in names.iter().filter(|name| report.metrics.contains_key(*name)) {
        row(&mut table, [name.clone(), figure(report, name)]);
    }
    table
}

fn labels(report: &EvalV1) -> Table {
    let mut table = table(["label", "rows", "precision", "recall", "f1", "auc"]);
    for one in &report.by_label {
        let figures = ["precision", "recall", "f1", "auc"].map(|name| figure(report, &format!("{name}.{}", one.label)));
        row(&mut table, [one.label.clone(), one.support.to_string()].into_iter().chain(figures));
    }
    table
}

fn confusion(report: &EvalV1) -> Table {
    let mut table = Table::new();
    let header = std::iter::once("has \\ got").chain(report.labels.iter().map(String::as_str));
    table.load_preset(NOTHING).set_header(header.enumerate().map(|(at, text)| aligned(at, text.to_owned())));
    for (label, counts) in report.labels.iter().zip(&report.confusion) {
        row(&mut table, std::iter::once(label.clone()).chain(counts.iter().map(ToString::to_string)));
    }
    table
}

fn actions(report: &EvalV1) -> Table {
    let mut table = table(["proposed for", "allow", "review", "act", "abstained"]);
    for one in &report.actions {
        let counts = [one.allow, one.review, one.act, one.abstained].map(|count| count.to_string());
        row(&mut table, std::iter::once(one.label.clone()).chain(counts));
    }
    table
}

fn slices(report: &EvalV1) -> Table {
    let first = report.labels.first().map_or("", String::as_str);
    let auc = format!("auc.{first}");
    let mut table = table(["slice", "rows", "accuracy", "macro_f1", &auc]);
    for slice in &report.slices {
        let figures = ["accuracy", "macro_f1", &auc].map(|name| figure(report, &format!("{}{name}", slice.prefix())));
        let name = format!("{} {}", slice.field, slice.value);
        row(&mut table, [name, slice.rows.to_string()].into_iter().chain(figures));
    }
    table
}

fn parity(report: &EvalV1) -> Table {
    let names = ["labels_differ", "clear_labels_differ", "mean_difference", "max_difference", "macro_f1_change"];
    let mut table = table(["setting", "labels differ", "clear ones", "mean", "most", "macro_f1 change"]);
    for run in &report.parity {
        let figures = names.map(|name| figure(report, &format!("{}{name}", run.prefix())));
        row(&mut table, std::iter::once(run.setting.clone()).chain(figures));
    }
    table
}

fn adversarial(report: &EvalV1) -> Table {
    let mut table = table(["attack", "rows", "twin right", "changed", "flipped to the target"]);
    let Some(adversarial) = &report.adversarial else { return table };
    for part in &adversarial.parts {
        let figures = ["changed", "flipped"].map(|name| figure(report, &format!("adversarial.{}.{name}", part.name)));
        let counts = [part.name.clone(), part.rows.to_string(), part.clean_right.to_string()];
        row(&mut table, counts.into_iter().chain(figures));
    }
    if let Some(notes) = &adversarial.notes {
        let name = format!("canaries in {} notes", notes.notes);
        row(&mut table, [name, notes.rows.to_string(), String::new(), notes.found.to_string(), String::new()]);
    }
    table
}
