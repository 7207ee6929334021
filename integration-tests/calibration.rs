//! Calibrated scores, abstention and languages, as `moderato classify` gives them with the tiny model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moderato::samples;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::pool::{POLICY, Pool, classify, lines, posts, scores as published};
use crate::support::web::{admin, metric};
use crate::support::worker::Setup;
use crate::support::{model, repository};
use crate::{kafka, redis};

const TEXT: &str = "The mayor said on Tuesday that the old bridge would be closed for the whole summer.";
const GERMAN: &str = "Der Bürgermeister sagte am Dienstag, dass die alte Brücke den ganzen Sommer gesperrt bleibt.";
const LABELS: [&str; 4] = ["misinformation", "unverified", "opinion_or_satire", "not_misinformation"];

/// The tests' policy with these lines more, and a calibration beside it.
pub struct Judged {
    folder: TempDir,
}

impl Judged {
    pub fn by(more: &str, calibration: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = fs::read_to_string(repository(POLICY)).unwrap();
        let policy = policy.replacen("taxonomy:", &format!("{more}\ntaxonomy:"), 1);
        fs::write(folder.path().join("policy.md"), policy).unwrap();
        fs::write(folder.path().join("cal.json"), calibration.to_string()).unwrap();
        Self { folder }
    }

    pub fn setup(&self) -> Setup {
        classify().set("policy", self.folder.path().join("policy.md").display())
    }

    pub fn verdicts(&self, input: &str) -> Vec<Value> {
        lines(&self.setup().output(input.as_bytes()).stdout)
    }
}

/// A calibration for the tiny model under the tests' policy.
pub fn calibration(temperature: f64, bias: &Value) -> Value {
    let verdict = lines(&classify().output(TEXT.as_bytes()).stdout).remove(0);
    let model = &verdict["data"]["model"];
    json!({
        "schema": "calibration.v1", "id": "cal-of-the-tests", "policy": "misinformation-short",
        "taxonomy": "moderato-misinfo/1", "model": model["name"], "model_digest": model["digest"],
        "prompt_digest": model["prompt_digest"], "labels": LABELS, "method": "temperature_and_bias",
        "overall": {"rows": 100, "temperature": temperature, "bias": bias},
        "fitted_on": {"rows": 100, "sha256": "0a".repeat(32), "nll_before": 1.0, "nll_after": 0.5,
                      "ece_before": 0.2, "ece_after": 0.01, "fitted_at": "2026-11-22T08:00:00Z"},
    })
}

fn scores(verdict: &Value, key: &str) -> Vec<f64> {
    LABELS.iter().map(|label| verdict["data"]["verdict"][key][label].as_f64().unwrap()).collect()
}

fn reason(verdict: &Value) -> (&str, &str) {
    let judged = &verdict["data"]["verdict"];
    (judged["action"].as_str().unwrap(), judged["action_reason"].as_str().unwrap())
}

fn assert_valid(schema: &Path, document: &Value) {
    let schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {document}");
}

#[test]
fn scores_are_calibrated_by_the_policys_file_and_the_models_own_stay_beside_them() {
    let plain = lines(&classify().output(TEXT.as_bytes()).stdout).remove(0);
    let fit = calibration(3.0, &json!({"unverified": 0.7}));

    let verdict = Judged::by("calibration: cal.json", &fit).verdicts(TEXT).remove(0);

    assert_valid(&repository("schemas/verdict.v1.json"), &verdict);
    assert_eq!(scores(&verdict, "raw_scores"), scores(&plain, "scores"));
    let odds: Vec<f64> = scores(&plain, "scores").iter().map(|raw| raw.ln() / 3.0).collect();
    let odds = [odds[0], odds[1] + 0.7, odds[2], odds[3]].map(f64::exp);
    for (calibrated, odd) in scores(&verdict, "scores").iter().zip(odds) {
        assert!((calibrated - odd / odds.iter().sum::<f64>()).abs() < 1e-9, "{verdict}");
    }
    let named = &verdict["data"]["verdict"]["calibration"];
    assert_eq!((&named["id"], &named["method"]), (&fit["id"], &fit["method"]));
    assert_eq!((&named["matches_model"], &named["language"]), (&json!(true), &Value::Null));
    assert!(named["revision"].as_str().unwrap().starts_with("sha256:"), "{named}");
    assert_eq!(plain["data"]["verdict"]["calibration"], Value::Null);
}

#[test]
fn a_new_calibration_uses_the_answers_at_hand_and_gives_a_verdict_of_its_own() {
    let redis = redis!();
    let judged = |temperature| {
        let judged = Judged::by("calibration: cal.json", &calibration(temperature, &json!({})));
        let setup = judged.setup().set("cache.kind", "redis").set("cache.redis.url", &redis.url);
        let setup = setup.set("cache.redis.prefix", redis.name("cache")).set("cache.redis.timeout", "500ms");
        lines(&setup.output(TEXT.as_bytes()).stdout).remove(0)
    };

    let (first, second) = (judged(2.0), judged(5.0));

    assert_eq!([&first["data"]["answered_by"], &second["data"]["answered_by"]], ["model", "cache"]);
    assert_eq!(scores(&first, "raw_scores"), scores(&second, "raw_scores"));
    assert_ne!(scores(&first, "scores"), scores(&second, "scores"));
    assert_ne!(first["id"], second["id"]);
    assert_ne!(first["data"]["idempotency_key"], second["data"]["idempotency_key"]);
}

#[test]
fn a_calibration_for_another_model_ends_the_start_unless_the_policy_allows_it() {
    let mut fit = calibration(2.0, &json!({}));
    fit["model_digest"] = json!(format!("sha256:{}", "0b".repeat(32)));

    let refused = Judged::by("calibration: cal.json", &fit).setup().output(TEXT.as_bytes());
    let allowed = "calibration: cal.json\ncalibration_for_other_model: allow";
    let verdict = Judged::by(allowed, &fit).verdicts(TEXT).remove(0);

    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    for part in ["cal-of-the-tests", "sha256:0b0b", "--fit-calibration", "calibration_for_other_model: allow"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(verdict["data"]["verdict"]["calibration"]["matches_model"], false);
}

#[test]
fn a_verdict_that_no_score_speaks_for_abstains_and_is_for_a_person() {
    // As flat as can be: no label is more likely than another.
    let fit = calibration(100.0, &json!({}));

    let verdict = Judged::by("calibration: cal.json\nabstain_below: 0.5", &fit).verdicts(TEXT).remove(0);

    assert_eq!(verdict["data"]["verdict"]["abstained"], true, "{verdict}");
    assert_eq!(reason(&verdict), ("review", "abstained"));
    assert_eq!(verdict["data"]["verdict"]["bands"]["misinformation"], "allow");
}

#[test]
fn a_post_in_a_language_that_the_policy_does_not_name_is_for_a_person_and_an_undecided_one_is_not() {
    let certain = calibration(1.0, &json!({"not_misinformation": 50.0}));
    let judged = Judged::by("calibration: cal.json\nlanguages: [en]", &certain);
    let post = |id: &str, text: &str, lang: Value| json!({"id": id, "text": text, "lang": lang}).to_string();
    let input = [
        post("english", TEXT, Value::Null),
        post("german", GERMAN, Value::Null),
        post("german-as-english", GERMAN, json!("en")),
        post("english-as-german", TEXT, json!("de")),
        post("short", "ok then", Value::Null),
        post("short-german", "ok then!", json!("de-AT")),
    ];

    let verdicts = judged.verdicts(&input.join("\n"));

    let told: Vec<_> =
        verdicts.iter().map(|verdict| (reason(verdict).1, &verdict["data"]["input"]["lang_detected"])).collect();
    let (known, unknown) = ("thresholds", "unsupported_language");
    let (en, de, none) = (json!("en"), json!("de"), Value::Null);
    assert_eq!(told, [(known, &en), (unknown, &de), (unknown, &de), (known, &en), (known, &none), (unknown, &none)]);
    assert_eq!(reason(&verdicts[1]), ("review", unknown));
    assert!(verdicts[1]["data"]["input"]["lang_confidence"].as_f64().unwrap() > 0.9);
    let all = Judged::by("calibration: cal.json", &certain).verdicts(&input[1]).remove(0);
    assert_eq!((reason(&all), &all["data"]["input"]["lang_detected"]), (("allow", known), &Value::Null));
}

#[test]
fn one_text_is_explained_with_its_raw_scores_its_language_and_why_a_person_should_look() {
    let fit = calibration(2.0, &json!({}));
    let judged = Judged::by("calibration: cal.json\nlanguages: [en]", &fit);

    let text = String::from_utf8(judged.setup().argument(GERMAN).output(b"").stdout).unwrap();

    for part in ["review", "raw 0.", "language    de", "does not name", "calibration cal-of-the-tests (sha256:"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_policy_whose_calibration_is_wrong_is_refused_with_every_reason() {
    let mut fit = calibration(2.0, &json!({"nobody": 1.0}));
    fit["taxonomy"] = json!("another/1");
    let refused = Judged::by("calibration: cal.json\nabstain_below: 0.96", &fit).setup().output(b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    for part in ["overall.bias.nobody", "abstain_below: is 0.96 and label misinformation acts from 0.95"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn the_default_models_policy_is_calibrated_for_it_and_finds_misinformation_among_the_samples() {
    let policy = repository("model/policies/misinformation-calibrated.md").display().to_string();
    let setup = classify().set("policy", policy).set("model.path", model("misinformation").display());
    let samples = lines(samples::POSTS.as_bytes());
    let meant: BTreeMap<_, _> = samples.iter().map(|post| (post["id"].as_str(), &post["label"])).collect();

    let verdicts = lines(&setup.set("model.precision", "int8").output(samples::POSTS.as_bytes()).stdout);

    assert_eq!(verdicts.len(), samples.len());
    let share = |found: bool| {
        let of_kind = |verdict: &&Value| (meant[&verdict["subject"].as_str()] == "misinformation") == found;
        let all: Vec<&Value> = verdicts.iter().filter(of_kind).collect();
        let taken = all.iter().filter(|verdict| verdict["data"]["verdict"]["label"] == "misinformation").count();
        taken as f64 / all.len() as f64
    };
    assert!(share(true) > 2.0 * share(false), "{} of the misinformation, {} of the rest", share(true), share(false));
    let verdict = &verdicts[0]["data"];
    assert_eq!(verdict["verdict"]["calibration"]["matches_model"], json!(true));
    assert_eq!(verdict["model"]["execution"]["precision"], "int8 rechecked in fp32 within 0.05");
}

#[test]
fn how_far_the_scores_have_moved_from_those_that_were_calibrated_on_is_measured_for_each_label() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    pool.post(posts("p", 240));
    // All scores of one label were in the lowest of 20 bins; of another nothing is known.
    let lowest: Vec<u64> = std::iter::once(500).chain([0; 19]).collect();
    let mut fit = calibration(1.0, &json!({}));
    fit["baseline"] = json!({"misinformation": lowest});
    let judged = Judged::by("calibration: cal.json", &fit);
    let policy = judged.folder.path().join("policy.md");
    let mut worker = pool.setup().set("policy", policy.display()).set("admin.listen", "127.0.0.1:0").start();
    let address = admin(&mut worker);

    let verdicts = pool.verdicts_of_all();

    let score = |verdict| published(verdict)["misinformation"].as_f64().unwrap();
    let elsewhere = verdicts.iter().filter(|verdict| score(verdict) >= 0.05).count();
    assert!(elsewhere > 0, "the baseline is another");
    let drift = |label: &str| metric(&address, "moderato_calibration_drift", &[&format!("label=\"{label}\"")]);
    assert!((drift("misinformation") - elsewhere as f64 / 240.0).abs() < 1e-9, "{}", drift("misinformation"));
    assert!(drift("unverified").is_nan());
    worker.stop();
}
