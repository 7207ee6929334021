//! Drafting against the real ONNX Runtime and real model folders.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use moderato::model::{
    DraftLimits, Drafted, Drafter, GraphChoice, InputLimit, LoadedDraft, ModelError, ModelSettings, OnOverlong,
    Precision, load_draft,
};
use moderato::samples;
use serde_json::json;

use crate::model::{folder, settings};
use crate::support::pool::lines;
use crate::support::repository;
use crate::support::worker::Setup;

const PROMPT: &str = "You are a helpful assistant. Answer in one short sentence.";
const LIMITS: DraftLimits = DraftLimits { max_rows: 3, max_input_tokens: 40, max_new_tokens: 24 };
const TEXTS: [&str; 7] = [
    "What is the capital of France?",
    "Say something about the moon, and then about the sea below it, in the plain words of a sailor.",
    "a",
    "Name three colours.",
    "Why is the sky blue? My neighbour says that it is paint.",
    "¿Qué es el agua?",
    "Count from one to five.",
];
/// Tokens for each, so that rows end at different steps.
const MOST: [usize; 7] = [24, 9, 1, 17, 2, 12, 24];

fn in_precision(name: &str, precision: Precision) -> ModelSettings {
    ModelSettings { precision, ..settings(folder(name), GraphChoice::Auto) }
}

fn loaded(settings: &ModelSettings) -> LoadedDraft {
    load_draft(settings, PROMPT, &LIMITS).unwrap()
}

fn refusal(settings: &ModelSettings, limits: DraftLimits) -> ModelError {
    load_draft(settings, PROMPT, &limits).expect_err("it should have been refused")
}

fn rows(loaded: &LoadedDraft) -> Vec<Vec<u32>> {
    let limit = InputLimit { max_input_tokens: LIMITS.max_input_tokens, on_overlong: OnOverlong::TruncateTail };
    TEXTS.iter().map(|text| loaded.prompt.tokenize(text, &limit).unwrap().ids).collect()
}

/// Every row by itself.
fn alone(drafter: &mut Drafter, rows: &[Vec<u32>]) -> BTreeMap<u64, Drafted> {
    rows.iter().enumerate().flat_map(|(tag, _)| in_order(drafter, rows, &[tag])).collect()
}

/// Rows join in this order as soon as there is room, so that they come and go at different steps.
fn in_order(drafter: &mut Drafter, rows: &[Vec<u32>], order: &[usize]) -> BTreeMap<u64, Drafted> {
    let mut waiting = order.iter();
    let mut done = BTreeMap::new();
    loop {
        // One a step, so that no two begin together.
        if drafter.room() > 0
            && let Some(tag) = waiting.next()
        {
            drafter.join(*tag as u64, &rows[*tag], MOST[*tag]).unwrap();
        }
        if drafter.rows() == 0 {
            return done;
        }
        let over = drafter.step().unwrap();
        done.extend(over.into_iter().map(|drafted| (drafted.tag, drafted)));
    }
}

fn writes_what_the_full_graph_writes(name: &str) {
    let full = ModelSettings { graph: GraphChoice::FullSharedPrompt, ..in_precision(name, Precision::Exported) };
    let mut full = loaded(&full);
    let mut draft = loaded(&in_precision(name, Precision::Fp32));
    assert!(draft.info.contract.starts_with("moderato/draft/1"), "{}", draft.info.contract);
    let rows = rows(&draft);
    let expected = alone(&mut full.drafters[0], &rows);
    for order in [[0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 5, 1, 3]] {
        assert_eq!(in_order(&mut draft.drafters[0], &rows, &order), expected);
    }
    assert_eq!(expected[&2].tokens, 1);
    assert!(expected[&0].tokens > 1 && !expected[&0].text.is_empty());
}

#[test]
fn the_tiny_model_writes_in_float_what_its_full_graph_writes_one_row_and_token_at_a_time() {
    writes_what_the_full_graph_writes("tiny-draft");
}

#[test]
fn the_default_model_writes_in_float_what_its_full_graph_writes_one_row_and_token_at_a_time() {
    writes_what_the_full_graph_writes("notes");
}

#[test]
fn what_is_written_in_int8_does_not_depend_on_who_comes_and_goes() {
    for name in ["tiny-draft", "notes"] {
        let mut loaded = loaded(&in_precision(name, Precision::Int8));
        assert_eq!(loaded.info.precision, "int8");
        let rows = rows(&loaded);
        let expected = alone(&mut loaded.drafters[0], &rows);
        for order in [[0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 5, 1, 3], [3, 3, 3, 2, 1, 0, 5]] {
            for (tag, drafted) in in_order(&mut loaded.drafters[0], &rows, &order) {
                assert_eq!(drafted, expected[&tag], "{name}");
            }
        }
    }
}

#[test]
fn the_default_model_writes_notes_that_end_by_themselves_and_pass_every_check_in_float_and_in_int8() {
    let with_evidence = samples::POSTS.lines().filter(|line| line.contains("\"evidence\"")).take(2);
    let posts: String = with_evidence.map(|line| format!("{line}\n")).collect();
    for precision in ["fp32", "int8"] {
        let config = format!(
            "model: {{path: '{}', precision: {precision}}}\npolicy: '{}'\n",
            folder("notes").display(),
            repository("model/policies/note.md").display()
        );

        let notes = lines(&Setup::new(config).verb("draft").output(posts.as_bytes()).stdout);

        assert_eq!(notes.len(), 2);
        for note in notes.iter().map(|line| &line["data"]["note"]) {
            assert_eq!(
                (&note["fixed_form"], &note["checks"]["ends_as_sentence"]),
                (&json!(false), &json!(true)),
                "{note}"
            );
            assert_eq!(note["citations"], json!(["e1"]));
        }
    }
}

#[test]
fn a_folder_without_a_draft_graph_writes_by_its_full_one() {
    let mut plain = loaded(&in_precision("tiny-fp32", Precision::Auto));
    assert!(plain.info.contract.starts_with("huggingface/past-key-values/1"), "{}", plain.info.contract);
    let mut made = loaded(&in_precision("tiny-draft", Precision::Fp32));
    let rows = rows(&plain);
    let order = [0, 1, 2, 3, 4, 5, 6];
    let written = in_order(&mut plain.drafters[0], &rows, &order);
    assert_eq!(written, in_order(&mut made.drafters[0], &rows, &order));
}

#[test]
fn a_row_beyond_the_limits_is_refused_and_the_others_go_on() {
    let mut loaded = loaded(&in_precision("tiny-draft", Precision::Int8));
    let rows = rows(&loaded);
    let expected = alone(&mut loaded.drafters[0], &rows);
    let drafter = &mut loaded.drafters[0];
    drafter.join(1, &rows[1], MOST[1]).unwrap();
    let refused = |drafter: &mut Drafter, ids: &[u32], most| drafter.join(9, ids, most).unwrap_err().to_string();
    let longest = LIMITS.max_input_tokens + loaded.prompt.tail_ids().len();
    assert!(refused(drafter, &vec![5; longest + 1], 1).contains(&format!("may have 1 to {longest}")));
    assert!(refused(drafter, &[], 1).contains("0 tokens"));
    assert!(refused(drafter, &rows[0], 0).contains("1 to 24"));
    assert!(refused(drafter, &rows[0], 25).contains("1 to 24"));
    drafter.join(3, &rows[3], MOST[3]).unwrap();
    drafter.join(5, &rows[5], MOST[5]).unwrap();
    assert!(refused(drafter, &rows[0], 1).contains("no room"));
    assert_eq!((drafter.rows(), drafter.room()), (3, 0));
    let mut done = Vec::new();
    while drafter.rows() > 0 {
        done.extend(drafter.step().unwrap());
    }
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|drafted| *drafted == expected[&drafted.tag]));
}

#[test]
fn limits_and_precisions_that_the_model_does_not_have_are_refused_at_start() {
    let tiny = in_precision("tiny-draft", Precision::Fp32);
    let long = refusal(&tiny, DraftLimits { max_new_tokens: 4096, ..LIMITS }).to_string();
    assert!(long.contains("knows 4096 positions"), "{long}");
    assert!(refusal(&tiny, DraftLimits { max_rows: 0, ..LIMITS }).to_string().contains("one row"));
    let half = refusal(&in_precision("tiny-draft", Precision::Fp16), LIMITS).to_string();
    assert!(half.contains("the folder drafts in fp32, int8"), "{half}");
}
