//! `moderato eval`: a labelled set through the same road, and figures that can be checked against its verdicts.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::pool::{POLICY, classify, lines};
use crate::support::repository;
use crate::support::untold::{OVERHEARD, assert_untold};
use crate::support::worker::Setup;

const LABELS: [&str; 4] = ["misinformation", "unverified", "opinion_or_satire", "not_misinformation"];

/// `moderato eval` with the tiny model, the labelled set on standard input and few resamples.
fn eval() -> Setup {
    classify().verb("eval").argument("-").argument("--resamples").argument("20")
}

/// Sixty labelled posts of two sources; texts differ, and none may be told.
fn set() -> Vec<Value> {
    let claims = ["The bridge was closed.", "The vaccine is water.", "I hate Mondays.", "It rains a lot in spring."];
    (0..60)
        .map(|n| {
            let text = format!("{} {OVERHEARD} {n} {}", claims[n % 4], "Word by word. ".repeat(n % 7));
            json!({"id": format!("p{n}"), "text": text, "label": LABELS[(n * 7) % 4], "lang": (["de", "en", "en"][n % 3]),
                   "source": (["one", "two"][n % 2])})
        })
        .collect()
}

fn file(rows: &[Value]) -> Vec<u8> {
    rows.iter().map(|row| format!("{row}\n")).collect::<String>().into_bytes()
}

fn said(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8(output.stderr.clone()).unwrap(), output.status.code())
}

/// The JSON report of a run that goes well.
#[track_caller]
fn report(setup: Setup, rows: &[Value]) -> Value {
    let output = setup.argument("--json").argument("-").output(&file(rows));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output).0);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn value(report: &Value, name: &str) -> f64 {
    report["metrics"][name]["value"].as_f64().unwrap_or_else(|| panic!("no {name} in {}", report["metrics"]))
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("moderato-eval-").tempdir().unwrap()
}

#[test]
fn the_figures_are_those_of_the_verdicts_that_classify_gives() {
    let rows = set();
    let verdicts = lines(&classify().output(&file(&rows)).stdout);

    let report = report(eval(), &rows);

    let mut confusion = json!([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]);
    let mut acted = 0;
    let place = |label: &Value| LABELS.iter().position(|known| label == known).unwrap();
    for (row, verdict) in rows.iter().zip(&verdicts) {
        let judged = &verdict["data"]["verdict"];
        let cell = &mut confusion[place(&row["label"])][place(&judged["label"])];
        *cell = json!(cell.as_u64().unwrap() + 1);
        acted += usize::from(judged["action"] == "act");
    }
    assert_eq!(report["confusion"], confusion);
    assert!((value(&report, "action.act") - acted as f64 / 60.0).abs() < 1e-12);
    let right: u64 = (0..4).map(|at| confusion[at][at].as_u64().unwrap()).sum();
    assert!((value(&report, "accuracy") - right as f64 / 60.0).abs() < 1e-12);
    let halves = ["slice.source.one.accuracy", "slice.source.two.accuracy"].map(|name| value(&report, name));
    assert!((halves.iter().sum::<f64>() / 2.0 - value(&report, "accuracy")).abs() < 1e-12);
    assert_eq!(report["judge"]["model_digest"], verdicts[0]["data"]["model"]["digest"]);
    let schema: Value = serde_json::from_slice(&fs::read(repository("schemas/eval.v1.json")).unwrap()).unwrap();
    assert!(jsonschema::is_valid(&schema, &report));
}

#[test]
fn one_seed_gives_one_report_and_another_gives_other_intervals() {
    let rows = set();
    let seeded = |seed: &str| {
        let mut report = report(eval().argument("--seed").argument(seed), &rows);
        report["evaluated_at"] = Value::Null;
        report
    };

    let (first, again, other) = (seeded("5"), seeded("5"), seeded("6"));

    assert_eq!(first, again);
    assert_eq!(first["metrics"]["accuracy"]["value"], other["metrics"]["accuracy"]["value"]);
    assert_ne!(first["metrics"], other["metrics"]);
}

#[test]
fn a_bound_that_is_missed_ends_with_exit_code_1_and_each_is_named() {
    let bounds = ["--min", "accuracy=0", "--min", "macro_f1=1.1", "--max", "slice.source.one.nll=0.0001"];
    let setup = bounds.iter().fold(eval(), |setup, argument| setup.argument(*argument));

    let (told, code) = said(&setup.output(&file(&set())));

    assert_eq!(code, Some(1));
    assert!(told.contains("macro_f1 is ") && told.contains("at least 1.1 is asked for"), "{told}");
    assert!(told.contains("slice.source.one.nll is ") && !told.contains("accuracy is"), "{told}");
}

#[test]
fn a_figure_that_no_row_can_have_is_refused_before_the_model_runs() {
    // A folder that holds no model: loading it would be told first.
    let setup = eval().argument("--min").argument("auc.misinfo=0.9").set("model.path", repository("src").display());

    let (told, code) = said(&setup.output(&file(&set())));

    assert_eq!(code, Some(2));
    assert!(
        told.contains("\"auc.misinfo\" is no figure of these rows") && told.contains("auc.misinformation"),
        "{told}"
    );
}

#[test]
fn every_bad_line_is_told_and_no_text_of_it() {
    let mut rows = set();
    rows[3]["label"] = json!("fake");
    rows[5].as_object_mut().unwrap().remove("text");
    rows[8]["evidence"] = json!(OVERHEARD);

    let (told, code) = said(&eval().output(&file(&rows)));

    assert_eq!(code, Some(2));
    let start = "standard input: line 4: label: \"fake\" is none of the labels judged here: misinformation, unverified";
    assert!(told.starts_with(start), "{told}");
    for part in ["line 6: text:", "line 9: evidence:"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn rows_that_the_worker_would_reject_are_counted_and_in_no_figure() {
    let mut rows = set();
    rows[0]["text"] = json!("\u{200b}\u{200b}");

    let report = report(eval(), &rows);

    assert_eq!(report["data"]["unjudged"], json!({"empty_text": 1}));
    assert_eq!((&report["data"]["judged"], &report["data"]["rows"]), (&json!(59), &json!(60)));
}

#[test]
fn a_set_of_two_labels_is_judged_among_these_two() {
    let two = |label: &Value| label == "misinformation" || label == "not_misinformation";
    let rows: Vec<Value> = set().into_iter().filter(|row| two(&row["label"])).collect();
    let among = || eval().argument("--labels").argument("misinformation,not_misinformation");

    let whole = report(eval(), &rows);
    let restricted = report(among(), &rows);
    let (told, code) = said(&among().output(&file(&set())));

    assert_eq!(restricted["labels"], json!(["misinformation", "not_misinformation"]));
    let given: u64 = restricted["by_label"].as_array().unwrap().iter().map(|one| one["given"].as_u64().unwrap()).sum();
    assert_eq!(given, rows.len() as u64);
    assert!(value(&restricted, "accuracy") >= value(&whole, "accuracy"));
    assert_eq!(code, Some(2));
    assert!(told.contains("is none of the labels judged here: misinformation, not_misinformation"), "{told}");
}

#[test]
fn the_same_precision_again_changes_nothing_and_int8_is_measured_beside_fp32_with_and_without_a_second_look() {
    let compared = ["precision=fp32", "precision=int8,recheck_margin=0", "precision=int8"];
    let setup = compared.iter().fold(eval(), |setup, settings| setup.argument("--compare").argument(*settings));

    let report = report(setup, &set());

    let precision = |at: usize| report["parity"][at]["judge"]["precision"].as_str().unwrap();
    let moved = |settings: &str| value(&report, &format!("parity.{settings}.mean_difference"));
    assert_eq!(report["parity"][0]["labels_differ"], 0);
    assert!(moved("precision=fp32") < 1e-6);
    assert_eq!([precision(1), precision(2)], ["int8", "int8 rechecked in fp32 within 0.05"]);
    assert!(moved("precision=int8,recheck_margin=0") > moved("precision=int8"));
    assert!(value(&report, "parity.precision=int8.labels_differ") <= 1.0);
}

#[test]
fn the_page_is_whole_and_shows_no_post() {
    let folder = folder();
    let (page, json) = (folder.path().join("report.html"), folder.path().join("report.json"));

    let setup = eval().argument("--html").argument(&page).argument("--json").argument(&json);
    let output = setup.output(&file(&set()));

    let page = fs::read(page).unwrap();
    assert_untold(&page, "the page");
    assert_untold(&fs::read(json).unwrap(), "the JSON");
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("macro_f1"), "the tables are printed besides");
}

#[test]
fn a_calibration_is_fitted_to_the_raw_scores_and_is_one_that_a_policy_may_name() {
    let folder = folder();
    let path = folder.path().join("calibration.json");
    let many: Vec<Value> = (0..4)
        .flat_map(|time| {
            set().into_iter().map(move |mut row| {
                row["text"] = json!(format!("{} {time}", row["text"].as_str().unwrap()));
                row["lang"] = json!(if row["source"] == "one" { "en-GB" } else { "en" });
                row
            })
        })
        .collect();

    let fit = |setup: Setup, path: &Path| {
        let setup =
            setup.argument("--fit-calibration").argument(path).argument("--per-label").argument("--per-language");
        let report = report(setup, &many);
        (moderato::calibration::CalibrationV1::load(path).unwrap(), report)
    };
    let (calibration, _) = fit(eval(), &path);
    let on = &calibration.fitted_on;
    assert!(on.nll_after < on.nll_before, "{on:?}");
    assert_eq!((on.rows, calibration.per_language["en"].rows), (240, 240));
    assert!(calibration.baseline.values().all(|bins| bins.iter().sum::<u64>() == 240));

    let policy = fs::read_to_string(repository(POLICY)).unwrap();
    let naming = folder.path().join("policy.md");
    fs::write(&naming, policy.replacen("taxonomy:", "calibration: calibration.json\ntaxonomy:", 1)).unwrap();
    let (again, report) = fit(eval().argument("--policy").argument(&naming), &folder.path().join("again.json"));

    assert_eq!(report["judge"]["calibration"], calibration.revision());
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(close(value(&report, "nll"), on.nll_after) && close(value(&report, "raw.nll"), on.nll_before));
    assert!(close(value(&report, "ece"), on.ece_after) && close(value(&report, "raw.ece"), on.ece_before));
    let ratio = again.overall.temperature / calibration.overall.temperature;
    assert!((ratio - 1.0).abs() < 1e-3, "fitted to the raw scores again, and not to the calibrated ones: {ratio}");
}

#[test]
fn an_attack_that_changes_nothing_changes_no_verdict_and_a_canary_is_found_in_its_note() {
    let mut rows = set();
    for (n, row) in rows.iter_mut().enumerate() {
        // The two texts are one to the model: nobody sees a zero-width space.
        row["clean_text"] = json!(row["text"].as_str().unwrap().replace('.', "\u{200b}."));
        row["attack"] = json!((["evasion_zerowidth", "direct_override"][n % 2]));
        row["attacker_target"] = json!("not_misinformation");
        row["canary"] = json!(["OVERRIDDEN-7"]);
    }
    let folder = folder();
    let notes = folder.path().join("notes.jsonl");
    let note = |post: &str, text: &str| json!({"subject": post, "data": {"note": {"text": text}}}).to_string();
    fs::write(&notes, [note("p1", "As told: overridden-7."), note("p2", "A claim to check.")].join("\n")).unwrap();

    let report = report(eval().argument("--adversarial").argument("--notes").argument(&notes), &rows);

    assert_eq!(value(&report, "adversarial.all.changed"), 0.0);
    assert_eq!(value(&report, "adversarial.canaries_in_notes"), 1.0);
    let parts: Vec<&str> =
        report["adversarial"]["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(
        parts,
        ["all", "group.evasion", "group.instruction", "family.direct_override", "family.evasion_zerowidth"]
    );
    let right = report["adversarial"]["parts"][0]["clean_right"].as_u64().unwrap();
    let diagonal: u64 = (0..4).map(|at| report["confusion"][at][at].as_u64().unwrap()).sum();
    assert_eq!(right, diagonal);
}
