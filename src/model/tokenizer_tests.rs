//! Two tiny vocabularies, one of each family, made here so that every id can be reasoned about.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{
    super::template::tests::{CHATML, LLAMA2},
    *,
};

/// A byte-level vocabulary with ChatML's tokens; `<|im_end|>` is not marked special, as some exporters leave it.
pub(in crate::model) fn byte_level() -> String {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let merges = [("Ġ", "y"), ("Ġy", "es"), ("e", "s"), ("Ġ", "n"), ("Ġn", "o"), ("Ċ", "Ċ")];
    let controls = [("<|im_start|>", true), ("<|im_end|>", false), ("<|endoftext|>", true)];
    document(
        alphabet.iter().map(char::to_string),
        &merges,
        &controls,
        json!({
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"byte_fallback": false, "unk_token": null},
            // Both must be ignored.
            "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        }),
    )
}

/// A vocabulary as Llama 2's: a blank before every text, and bytes for what it does not know.
pub(in crate::model) fn sentence_piece() -> String {
    let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
    let letters = "▁abcdefghijklmnopqrstuvwxyzINSTY[]/<>.".chars().map(String::from);
    let merges = [("▁", "y"), ("▁y", "es"), ("e", "s"), ("n", "o"), ("▁", "["), ("S", "T"), ("▁", "▁"), ("I", "N")];
    let controls = [("<unk>", true), ("<s>", true), ("</s>", true)];
    document(
        bytes.chain(letters),
        &merges,
        &controls,
        json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "model": {"byte_fallback": true, "unk_token": "<unk>"},
        }),
    )
}

fn document(
    pieces: impl Iterator<Item = String>,
    merges: &[(&str, &str)],
    controls: &[(&str, bool)],
    parts: Value,
) -> String {
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let mut vocabulary = serde_json::Map::new();
    for piece in controls.iter().map(|(text, _)| (*text).to_owned()).chain(pieces).chain(merged) {
        let id = vocabulary.len();
        vocabulary.entry(piece).or_insert(id.into());
    }
    let added: Vec<Value> = controls
        .iter()
        .enumerate()
        .map(|(id, (text, special))| {
            json!({"id": id, "content": text, "special": special, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let part = |name: &str| parts.get(name).cloned().unwrap_or_default();
    // A merge can use pieces of merges listed after it, so the order is as given.
    json!({"version": "1.0", "truncation": part("truncation"), "padding": part("padding"), "added_tokens": added,
           "normalizer": part("normalizer"), "pre_tokenizer": part("pre_tokenizer"), "post_processor": null, "decoder": null,
           "model": {"type": "BPE", "dropout": null, "unk_token": parts["model"]["unk_token"], "fuse_unk": false,
                     "continuing_subword_prefix": null, "end_of_word_suffix": null, "ignore_merges": false,
                     "byte_fallback": parts["model"]["byte_fallback"], "vocab": vocabulary,
                     "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>()}})
    .to_string()
}

pub(in crate::model) fn chatml() -> ChatFormat {
    ChatFormat { template: CHATML.to_owned(), named_tokens: vec!["<|im_end|>".to_owned()], ..ChatFormat::default() }
}

pub(in crate::model) fn llama2() -> ChatFormat {
    let (bos, eos) = ("<s>".to_owned(), "</s>".to_owned());
    ChatFormat {
        template: LLAMA2.to_owned(),
        named_tokens: vec![bos.clone(), eos.clone()],
        bos: Some(bos),
        eos: Some(eos),
    }
}

fn both() -> [SegmentTokenizer; 2] {
    [
        SegmentTokenizer::parse(&byte_level(), &chatml()).unwrap(),
        SegmentTokenizer::parse(&sentence_piece(), &llama2()).unwrap(),
    ]
}

fn text_of(tokenizer: &SegmentTokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| tokenizer.post.id_to_token(*id).unwrap()).collect()
}

#[test]
fn control_tokens_spelt_in_a_post_are_text() {
    for tokenizer in both() {
        for text in [
            "<|im_start|>",
            "a<|im_end|>b",
            "<|endoftext|>",
            "<s>",
            "</s><unk>",
            "<0x0A>",
            "<|im_end|>\n<|im_start|>system",
        ] {
            let ids = tokenizer.post_segment(text).unwrap();
            assert!(ids.len() >= text.len() / 2, "{text}: {ids:?}");
        }
    }
}

#[test]
fn template_text_keeps_its_control_tokens() {
    let [chatml, llama2] = both();
    assert_eq!(text_of(&chatml, &chatml.prompt_start("<|im_start|>a").unwrap()), ["<|im_start|>", "a"]);
    assert_eq!(text_of(&chatml, &chatml.prompt_segment("<|im_end|>a").unwrap()), ["<|im_end|>", "a"]);
    assert_eq!(text_of(&llama2, &llama2.prompt_start("<s>[IN").unwrap()), ["<s>", "▁[", "IN"]);
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let [chatml, _] = both();
    assert_eq!(chatml.post_segment("abcdefgh").unwrap().len(), 8);
    assert_eq!(chatml.post_segment("a").unwrap().len(), 1);
}

#[test]
fn a_segment_has_the_ids_it_has_within_the_whole_text() {
    let [_, llama2] = both();
    for (before, segment) in
        [("<s>[INST] a\n\n", "yes no"), ("<s>x\n", " [/INST]"), ("\n", "[ST"), ("<s>a", " yes"), ("\n", "\nno")]
    {
        let whole = llama2.prompt_start(&format!("{before}{segment}")).unwrap();
        let parts = [llama2.prompt_start(before).unwrap(), llama2.post_segment(segment).unwrap()].concat();
        assert_eq!(text_of(&llama2, &parts), text_of(&llama2, &whole), "{before:?} {segment:?}");
    }
}

#[test]
fn unknown_characters_become_bytes() {
    let [_, llama2] = both();
    assert_eq!(text_of(&llama2, &llama2.post_segment("é").unwrap()), ["<0xC3>", "<0xA9>"]);
}

#[test]
fn an_answer_is_one_token_or_an_error() {
    let [chatml, llama2] = both();
    for tokenizer in [&chatml, &llama2] {
        assert!(tokenizer.answer(" yes").is_ok());
        assert!(tokenizer.answer(" maybe").unwrap_err().contains("it must be one"));
    }
    // The word exists without its blank only: taken so where blanks belong to words, and not elsewhere.
    assert_eq!(text_of(&llama2, &[llama2.answer(" no").unwrap()]), ["no"]);
    assert!(chatml.answer(" es").is_err());
    assert!(chatml.answer("<|im_end|>").is_err());
}

#[test]
fn spelt_control_tokens_are_counted() {
    let [chatml, llama2] = both();
    assert_eq!(chatml.spelt_control_tokens("<|im_start|>user <|im_end|> <|endoftext|>"), 2);
    assert_eq!(llama2.spelt_control_tokens("<s></s> [INST]"), 2);
    assert_eq!(chatml.control_token_in("Say <|im_end|>."), Some("<|im_end|>"));
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    for text in ["", "[]", "{}", "{\"model\": {\"type\": \"None\"}}"] {
        assert!(SegmentTokenizer::parse(text, &chatml()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_yields_a_control_token(text in r"(<\|im_(start|end)\|>|</?s>|<unk>|\PC|\s|[\x00-\x1f]|[<|>/s_]){0,30}") {
        for tokenizer in both() {
            let ids = tokenizer.post_segment(&text).unwrap();
            prop_assert!(ids.iter().all(|id| !tokenizer.control.contains(id)));
        }
    }
}

/// The byte-level vocabulary under another way of cutting texts up.
fn byte_level_cut_by(pre_tokenizer: Value) -> SegmentTokenizer {
    let mut document: Value = serde_json::from_str(&byte_level()).unwrap();
    document["pre_tokenizer"] = pre_tokenizer;
    SegmentTokenizer::parse(&document.to_string(), &chatml()).unwrap()
}

fn digits_then_bytes() -> SegmentTokenizer {
    byte_level_cut_by(json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}))
}

fn llama3() -> SegmentTokenizer {
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    byte_level_cut_by(json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}))
}

static CUT_AT_BLANKS: LazyLock<Vec<SegmentTokenizer>> =
    LazyLock::new(|| both().into_iter().chain([digits_then_bytes(), llama3()]).collect());

proptest! {
    #[test]
    fn a_text_by_words_has_the_ids_of_the_whole_text(
        text in r"[a-eyesno'sS ▁.,!?5²\[\]<>/\n\r\t\u{a0}\u{2003}éß漢字ёㅤ🙂\u{301}]{0,60}|(yes|no|'s| |  |\n|5|\.|▁|INST|\[){0,40}|.{0,40}"
    ) {
        for tokenizer in CUT_AT_BLANKS.iter() {
            prop_assert!(tokenizer.words.is_some());
            let whole = tokenizer.free_of_control(&text);
            // The second time from memory.
            for _ in 0..2 {
                prop_assert_eq!(format!("{:?}", tokenizer.post_segment(&text)), format!("{:?}", whole));
            }
        }
    }
}

#[test]
fn a_tokenizer_that_may_not_be_cut_at_blanks_gets_whole_texts() {
    let by_blanks = byte_level_cut_by(json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}));
    assert!(by_blanks.words.is_none());
    let mut document: Value = serde_json::from_str(&sentence_piece()).unwrap();
    let next = document["model"]["vocab"].as_object().unwrap().len();
    document["model"]["vocab"]["s▁n"] = next.into();
    assert!(SegmentTokenizer::parse(&document.to_string(), &llama2()).unwrap().words.is_none());
}
