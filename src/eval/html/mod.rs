//! The report as one page. No post text.

mod charts;
mod tables;

use std::fmt::Write as _;

use super::report::{EvalV1, JudgeRef};
use crate::html::svg::escaped;
use crate::html::{Page, pair, tile};

/// The page.
pub fn page(report: &EvalV1) -> String {
    let title = format!("{} under {}", report.judge.model, report.judge.policy);
    let mut page = Page::begin(header(report, &title));
    let mut card = |title: &str, words: &str, inside: &str| page.card(title, words, inside);
    if !report.bounds.is_empty() {
        card("Bounds", "What --min and --max asked of the figures.", &tables::bounds(report));
    }
    card(
        "The labels",
        "Each label against the rest. Small figures are 95 % intervals, from drawing the posts again.",
        &tables::labels(report),
    );
    card(
        "What is taken for what",
        "A dark diagonal is good. Percentages are shares of a row: of the posts that truly have a label.",
        &(charts::confusion(report) + &as_table(&tables::confusion(report))),
    );
    card(
        "At any threshold",
        "How well the score alone puts a label's posts above the others, wherever a line is drawn.",
        &pair(&charts::roc(report), &charts::precision_recall(report)),
    );
    card(
        "Are the scores honest?",
        &calibration_words(report),
        &(pair(&charts::reliability(report), &charts::winning_scores(report))
            + &as_table(&tables::reliability(report))),
    );
    card(
        "Scores by true label",
        "Posts of the label itself should pile up on the right, all others on the left. Every row has its own height.",
        &histograms(report),
    );
    thresholds(report, &mut card);
    card(
        "The policy as it stands",
        "What the worker proposed, by true label.",
        &(ACTIONS.to_owned() + &tables::actions(report)),
    );
    if !report.slices.is_empty() {
        card("Slices", "The same figures where the posts differ. Bars run from 0 to 1.", &tables::slices(report));
    }
    if !report.parity.is_empty() {
        card(
            "With other settings",
            "The same posts judged again. A post is clear where its two highest scores lie more than 0.2 apart.",
            &tables::parity(report),
        );
    }
    if let Some(adversarial) = &report.adversarial {
        card("Under attack", &attack_words(report), &tables::adversarial(report, adversarial));
    }
    card("What was measured", "Enough to measure it again.", &identity(report));
    page.finish(&title, &format!("{} · {}", report.worker_version, report.evaluated_at))
}

const ACTIONS: &str = "<ul class=\"legend\" style=\"margin-bottom:12px\">\
    <li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><rect class=\"allow\" width=\"26\" height=\"10\" rx=\"2\"/></svg>allow</li>\
    <li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><rect class=\"review\" width=\"26\" height=\"10\" rx=\"2\"/></svg>review</li>\
    <li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><rect class=\"act\" width=\"26\" height=\"10\" rx=\"2\"/></svg>act</li></ul>";

fn header(report: &EvalV1, title: &str) -> String {
    let (data, judge) = (&report.data, &report.judge);
    let among = if report.restricted { format!(", among {} only", report.labels.join(" and ")) } else { String::new() };
    let mut header = format!(
        "<header><h1>{}</h1><p>{} labelled posts of {}, {} on {}{}.</p></header>",
        escaped(title),
        data.judged,
        escaped(file_name(&data.name)),
        escaped(&judge.precision),
        escaped(&judge.provider),
        escaped(&among),
    );
    if !data.unjudged.is_empty() {
        let reasons: Vec<_> = data.unjudged.iter().map(|(reason, rows)| format!("{rows} as {reason}")).collect();
        let words =
            format!("{} posts were not judged and are in no figure: {}.", data.rows - data.judged, reasons.join(", "));
        let _ = write!(header, "<section class=\"card warn\"><p>{}</p></section>", escaped(&words));
    }
    let first = report.labels.first().map_or("", String::as_str);
    let tiles = [
        ("macro-F1".to_owned(), "macro_f1".to_owned()),
        (format!("AUC, {first}"), format!("auc.{first}")),
        ("recall at 5 % false positives".to_owned(), format!("recall_at_fpr_5.{first}")),
        ("accuracy".to_owned(), "accuracy".to_owned()),
        ("calibration error".to_owned(), "ece".to_owned()),
        ("abstained".to_owned(), "abstained".to_owned()),
    ];
    header += "<div class=\"tiles\">";
    for (name, metric) in tiles {
        if let Some(estimate) = report.metrics.get(&metric) {
            header += &tile(&escaped(&name), &format!("{:.3}", estimate.value), &tables::range(estimate));
        }
    }
    header + "</div>"
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The figures of a chart, behind a click.
fn as_table(table: &str) -> String {
    format!("<details><summary>The figures as a table</summary>{table}</details>")
}

fn calibration_words(report: &EvalV1) -> String {
    let before = match report.metrics.get("raw.ece") {
        Some(raw) => format!(" Before calibration the error was {:.3}.", raw.value),
        None => " The policy names no calibration: these are raw scores.".to_owned(),
    };
    let ece = tables::figure(report, "ece");
    format!("On the dashed line, a score of 0.8 is right in 8 of 10 posts. Expected calibration error {ece}.{before}")
}

fn attack_words(report: &EvalV1) -> String {
    let mut words =
        "Attacked posts beside their clean twins; only twins that were judged right count. Flipped: to the label that \
                     the attacker wants. Intervals are Wilson's."
            .to_owned();
    if let Some(notes) = report.adversarial.as_ref().and_then(|adversarial| adversarial.notes.as_ref()) {
        let _ = write!(words, " Of {} notes on posts with a canary, {} repeat it.", notes.notes, notes.found);
    }
    words
}

fn histograms(report: &EvalV1) -> String {
    let charts = report.by_label.iter().enumerate().map(|(index, label)| charts::histogram(report, index, label));
    format!("<div class=\"pair\">{}</div>", charts.collect::<String>())
}

fn thresholds(report: &EvalV1, card: &mut impl FnMut(&str, &str, &str)) {
    let Some((first, others)) = report.by_label.split_first() else { return };
    let mut inside = charts::thresholds(first) + ACTIONS + &tables::thresholds(first);
    for label in others {
        let table = tables::thresholds(label);
        let _ = write!(inside, "<details><summary>The same for {}</summary>{table}</details>", escaped(&label.label));
    }
    let words = format!(
        "If the policy acted on {} from this score on, and reviewed from its review threshold as now.",
        first.label
    );
    card("What a threshold would do", &words, &inside);
}

fn identity(report: &EvalV1) -> String {
    let JudgeRef { model, model_digest, tokenizer_digest, prompt_digest, provider, precision, onnxruntime, .. } =
        &report.judge;
    let judge = &report.judge;
    let entries = [
        ("data", report.data.name.clone()),
        ("SHA-256 of the data", report.data.sha256.clone()),
        ("model", model.clone()),
        ("model digest", model_digest.clone()),
        ("tokenizer digest", tokenizer_digest.clone()),
        ("prompt digest", prompt_digest.clone()),
        ("ran as", format!("{precision} on {provider}, ONNX Runtime {onnxruntime}")),
        ("policy", format!("{} {} ({})", judge.policy, judge.policy_revision, judge.taxonomy)),
        ("policy digest", judge.policy_digest.clone()),
        ("calibration", judge.calibration.clone().unwrap_or_else(|| "none".to_owned())),
        ("intervals", format!("{} resamples, seed {}", report.bootstrap.resamples, report.bootstrap.seed)),
        ("measured", report.evaluated_at.clone()),
    ];
    crate::html::entries(entries)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
