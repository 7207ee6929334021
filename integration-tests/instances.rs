//! Several instances, several precisions, and what `moderato bench` says of them.

use moderato::config::Cuda;
use moderato::model::{Device, GraphChoice, InputLimit, Loaded, ModelSettings, Precision, RowScores, load};
use moderato::{config, samples};
use serde_json::Value;

use crate::model::{LIMIT, classify, difference, folder, load_as, policy, refusal, settings};
use crate::support::repository;
use crate::support::worker::Setup;

fn tiny(precision: Precision) -> ModelSettings {
    ModelSettings { precision, ..settings(folder("tiny-fp32"), GraphChoice::Auto) }
}

fn loaded(settings: &ModelSettings) -> Loaded {
    load(settings, &policy()).unwrap()
}

/// 500 rows of many lengths, from the sample posts.
fn five_hundred(loaded: &Loaded) -> Vec<Vec<u32>> {
    let texts: Vec<String> = samples::texts().collect();
    (0..500).map(|n| loaded.prompt.tokenize(&format!("{n} {}", texts[n % texts.len()]), &LIMIT).unwrap().ids).collect()
}

/// A permutation that differs from seed to seed: indices in the order of a hash.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| {
        (*index as u64 ^ seed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    });
    order
}

fn batch_mates_change_nothing(precision: Precision, bound: f64) {
    let mut loaded = loaded(&tiny(precision));
    let rows = five_hundred(&loaded);
    let alone: Vec<RowScores> = rows.iter().flat_map(|row| classify(&mut loaded, std::slice::from_ref(row))).collect();
    for (seed, size) in [(1, 2), (2, 7), (3, 32)] {
        for run in shuffled(rows.len(), seed).chunks(size) {
            let together = classify(&mut loaded, &run.iter().map(|index| rows[*index].clone()).collect::<Vec<_>>());
            let apart: Vec<RowScores> = run.iter().map(|index| alone[*index].clone()).collect();
            let difference = difference(&apart, &together);
            assert!(difference <= bound, "{precision:?}: a score moved by {difference} in a run of {size}");
        }
    }
}

#[test]
fn five_hundred_posts_get_the_same_scores_alone_and_in_any_company_and_order() {
    batch_mates_change_nothing(Precision::Fp32, 1e-4);
    batch_mates_change_nothing(Precision::Int8, 1e-4);
}

#[test]
fn instances_share_one_session_and_run_at_the_same_time() {
    let mut one = loaded(&tiny(Precision::Exported));
    let mut four = loaded(&ModelSettings { instances: Some(4), ..tiny(Precision::Exported) });
    assert_eq!((four.instances.len(), four.info.instances), (4, 4));
    let rows = five_hundred(&one);
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let expected: Vec<RowScores> = rows.chunks(20).flat_map(|run| one.instances[0].classify(run).unwrap()).collect();

    let answers: Vec<Vec<RowScores>> = std::thread::scope(|scope| {
        let judge = |instance| scope.spawn(|| all_of(instance, &rows));
        let threads: Vec<_> = four.instances.iter_mut().map(judge).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    for answer in answers {
        assert!(difference(&expected, &answer) <= 1e-6);
    }
}

fn all_of(instance: &mut moderato::model::Instance, rows: &[&[u32]]) -> Vec<RowScores> {
    rows.chunks(20).flat_map(|run| instance.classify(run).unwrap()).collect()
}

#[test]
fn int8_says_nearly_what_fp32_says_and_the_answer_names_its_precision() {
    let mut fp32 = loaded(&tiny(Precision::Fp32));
    let mut int8 = loaded(&tiny(Precision::Int8));
    assert_eq!((fp32.info.precision.as_str(), int8.info.precision.as_str()), ("fp32", "int8"));
    let rows = five_hundred(&fp32);
    let moved = difference(&classify(&mut fp32, &rows[..40]), &classify(&mut int8, &rows[..40]));
    assert!(moved > 0.0 && moved < 0.1, "scores moved by {moved}");
}

#[test]
fn rows_that_int8_leaves_close_have_the_scores_of_fp32_and_the_others_those_of_int8() {
    let mut fp32 = loaded(&tiny(Precision::Fp32));
    let mut int8 = loaded(&tiny(Precision::Int8));
    let rows = &five_hundred(&fp32)[..40];
    let (exact, rough) = (classify(&mut fp32, rows), classify(&mut int8, rows));
    let mut leads: Vec<f64> = rough.iter().map(lead).collect();
    leads.sort_by(f64::total_cmp);
    let margin = (leads[19] + leads[20]) / 2.0;

    let mut both = loaded(&ModelSettings { recheck_margin: margin, ..tiny(Precision::Int8) });

    assert_eq!(both.info.precision, format!("int8 rechecked in fp32 within {margin}"));
    let settled = classify(&mut both, rows);
    for ((exact, rough), settled) in exact.iter().zip(&rough).zip(&settled) {
        let expected = if lead(rough) < margin { exact } else { rough };
        assert!(difference(std::slice::from_ref(expected), std::slice::from_ref(settled)) <= 1e-5);
    }
}

fn lead(scores: &RowScores) -> f64 {
    let mut scores = scores.scores();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores[0] - scores[1]
}

#[test]
fn a_precision_that_the_folder_lacks_is_refused_with_those_it_has() {
    let message = refusal(&tiny(Precision::Fp16)).to_string();
    assert!(message.contains("model.precision is fp16 and the folder has fp32, int8"), "{message}");
}

#[test]
fn auto_takes_a_precision_that_gives_fp32s_label_to_99_of_100_sample_posts() {
    let (mut chosen, mut exact) = (loaded(&tiny(Precision::Auto)), loaded(&tiny(Precision::Fp32)));
    // As long as at start, so that the rows are the same.
    let whole = InputLimit { max_input_tokens: 512 - exact.prompt.tail_ids().len(), ..LIMIT };
    let rows: Vec<Vec<u32>> = samples::texts().map(|text| exact.prompt.tokenize(&text, &whole).unwrap().ids).collect();
    let same = rows.iter().filter(|row| label(&mut chosen, row) == label(&mut exact, row)).count();
    assert!(same * 100 >= rows.len() * 99, "{}: {same} of {}", chosen.info.precision, rows.len());
}

fn label(loaded: &mut Loaded, row: &Vec<u32>) -> usize {
    let logits = classify(loaded, std::slice::from_ref(row)).remove(0).logits;
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[test]
fn int8_on_a_gpu_is_refused_with_the_precisions_that_run_there() {
    let cuda = Device::Cuda(Cuda { device_id: 0, memory_limit: None });
    let message = refusal(&ModelSettings { device: cuda, ..tiny(Precision::Int8) }).to_string();
    assert!(message.contains("classify.int8.onnx") && message.contains("fp16 or int8-plain"), "{message}");
}

#[test]
fn a_folder_of_others_runs_as_many_instances_as_told() {
    let mut full = settings(folder("tiny-fp32"), GraphChoice::FullSharedPrompt);
    full.instances = Some(2);
    let mut full = loaded(&full);
    let rows = five_hundred(&full);
    let first = classify(&mut full, &rows[..8]);
    full.instances.swap(0, 1);
    assert!(difference(&first, &classify(&mut full, &rows[..8])) <= 1e-6);
    let mut cascade = load_as(folder("tiny-fp32"), GraphChoice::Classify);
    assert!(difference(&first, &classify(&mut cascade, &rows[..8])) <= 1e-4);
}

fn bench(arguments: &[&str]) -> (Value, Option<i32>, String) {
    let mut setup = Setup::new(format!(
        "model: {{path: '{}', onnxruntime: '{}'}}\npolicy: '{}'\n",
        folder("tiny-fp32").display(),
        crate::model::variable("ORT_DYLIB_PATH").display(),
        repository("model/policies/misinformation-short.md").display(),
    ));
    for argument in [&["--json", "--seconds", "0.2"], arguments].concat() {
        setup = setup.argument(argument);
    }
    let output = setup.verb("bench").output(b"");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code(), errors)
}

#[test]
fn bench_measures_every_precision_and_mix_and_says_what_it_measured() {
    let (report, exit, errors) = bench(&["--prompt-tokens", "100", "--arrival-order", "32"]);
    assert_eq!(exit, Some(0), "{errors}");
    let rows = report["measurements"].as_array().unwrap();
    // Two precisions, two mixes, like lengths and arrival order.
    assert_eq!(rows.len(), 8);
    assert_eq!(report["model"]["prompt_tokens"], 100);
    for row in rows {
        for figure in ["posts_per_cpu_second", "tokens_per_cpu_second", "share_of_peak"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
        }
    }
    let waste = |batching: &str, mix: &str| {
        let row = rows.iter().find(|row| {
            row["batching"].as_str().unwrap().contains(batching) && row["mix"].as_str().unwrap().contains(mix)
        });
        row.unwrap()["padding_waste"].as_f64().unwrap()
    };
    assert!(waste("like lengths", "lognormal") < 0.1 && waste("arrival order", "lognormal") > 0.4);
    assert_eq!(waste("like lengths", "60 tokens"), 0.0);
}

#[test]
fn bench_ends_with_1_below_the_speed_that_was_asked_for() {
    let (_, exit, errors) = bench(&["--precisions", "fp32", "--min-posts-per-second", "1e9"]);
    assert_eq!(exit, Some(1), "{errors}");
    assert!(errors.contains("--min-posts-per-second asks for"), "{errors}");
}

#[test]
fn bench_writes_the_rows_and_their_scores_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, scores) = (folder.path().join("rows.json"), folder.path().join("scores.jsonl"));
    let (_, exit, errors) =
        bench(&["--precisions", "fp32", "--dump-rows", rows.to_str().unwrap(), "--scores", scores.to_str().unwrap()]);
    assert_eq!(exit, Some(0), "{errors}");
    let rows: Value = serde_json::from_str(&std::fs::read_to_string(rows).unwrap()).unwrap();
    let scores = std::fs::read_to_string(scores).unwrap();
    assert_eq!(rows["rows"].as_array().unwrap().len(), scores.lines().count());
    assert_eq!(rows["rows"][0].as_array().unwrap().len(), 60);
    let first: Value = serde_json::from_str(scores.lines().next().unwrap()).unwrap();
    assert_eq!(first["logits"].as_array().unwrap().len(), rows["labels"].as_array().unwrap().len());
}

#[test]
fn instances_and_threads_of_zero_are_refused_and_auto_is_understood() {
    let set = |value: &str| {
        let settings = [("model.instances", value), ("model.threads", value), ("limits.max_batch_tokens", value)];
        let settings: Vec<_> = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        config::load(None, &settings, config::Needs::ModelOnly).unwrap().checked.unwrap_err().to_string()
    };
    for (value, fault) in [("0", "0 is less than the minimum of 1"), ("many", "\"many\" does not match \"^auto$\"")] {
        let message = set(value);
        for key in ["model.instances", "model.threads", "limits.max_batch_tokens"] {
            assert!(message.contains(&format!("{key}: {fault}")), "{message}");
        }
    }
    assert!(!set("auto").contains("model.instances") && !set("512").contains("limits."));
}
