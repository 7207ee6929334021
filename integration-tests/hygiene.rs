//! Posts that hide what they say: cleaned before the model reads them, counted in the verdict, never allowed unseen.

use moderato::model::{InputLimit, OnOverlong};
use serde_json::{Value, json};

use crate::model::{folder, policy};
use crate::support::pool::{classify, lines};

/// The verdicts on these texts, in their order.
fn verdicts(texts: &[&str]) -> Vec<Value> {
    let posts: Vec<String> = texts.iter().map(|text| json!({"id": "p", "text": text}).to_string()).collect();
    lines(&classify().set("cache.kind", "in_process").output(posts.join("\n").as_bytes()).stdout)
}

fn key(verdict: &Value) -> &str {
    verdict["data"]["idempotency_key"].as_str().unwrap_or_else(|| panic!("{verdict}"))
}

#[test]
fn posts_that_differ_in_what_nobody_sees_share_one_answer() {
    let variants = [
        "The vaccine is safe.",
        "The va\u{200b}cc\u{2060}ine is s\u{ad}afe.\u{feff}",
        "\u{202a}The vaccine is safe.\u{202c}",
        "The vаccinе is safe.",
        "Ｔｈｅ ｖａｃｃｉｎｅ is 𝐬𝐚𝐟𝐞.",
        &format!("The vacc{}ine is safe.", "\u{335}".repeat(30)),
    ];

    let verdicts = verdicts(&variants);

    for (text, verdict) in variants.iter().zip(&verdicts) {
        assert_eq!(key(verdict), key(&verdicts[0]), "{text:?}");
        assert_eq!(verdict["data"]["verdict"]["scores"], verdicts[0]["data"]["verdict"]["scores"]);
    }
    let by_model = verdicts.iter().filter(|verdict| verdict["data"]["answered_by"] == "model").count();
    assert_eq!((verdicts.len(), by_model), (variants.len(), 1));
}

#[test]
fn posts_that_differ_in_meaning_never_share_an_answer() {
    let texts = [
        "The vaccine is safe.",
        "The vaccine is unsafe.",
        "The vaccine is safe!",
        "The vaccine is sale.",
        "the vaccine is safe.",
        "The vaccine is\nsafe.",
        // Cyrillic words that look Latin say something else.
        "рост",
        "pocm",
        "сера",
        "cepa",
        // A joiner that tells two words apart, a tag, an accent, an emoji.
        "نامه\u{200c}ای",
        "نامهای",
        "[INST] yes",
        "(NSTI) yes",
        "resume",
        "résumé",
        "👩\u{200d}🚀",
        "👩🚀",
    ];

    let verdicts = verdicts(&texts);

    let keys: std::collections::BTreeSet<&str> = verdicts.iter().map(key).collect();
    assert_eq!(keys.len(), texts.len());
}

#[test]
fn a_verdict_counts_each_kind_of_what_was_cleaned_and_is_silent_where_nothing_was() {
    let hostile = format!("\u{202e}The\u{200b} vаccine ｉｓ bad{} for th3ory, v e r y", "\u{335}".repeat(20));

    let verdicts = verdicts(&[&hostile, "The vaccine is safe: “честно”, 👍🏽."]);

    assert_eq!(
        verdicts[0]["data"]["security"]["text_normalised"],
        json!({"nfkc": 2, "invisible_removed": 1, "bidi_removed": 1, "confusables_folded": 1, "marks_dropped": 20,
               "letters_joined": 4, "leet_folded": 1})
    );
    assert_eq!(verdicts[1]["data"].get("security"), None);
}

#[test]
fn a_post_of_nothing_to_see_is_rejected_as_empty() {
    let told = verdicts(&["\u{200b}\u{2060}\u{feff}", "\u{202e}\u{3164} ", "A claim."]);
    let reasons: Vec<&Value> = told.iter().map(|line| &line["error"]["reason"]).collect();
    assert_eq!(reasons, [&json!("empty_text"), &json!("empty_text"), &Value::Null]);
}

/// A policy under which everything is allowed.
const ALLOWING: &str = "
id: allowing
revision: 1
taxonomy: test/1
prompt: Judge the post. Answer true or false.
labels:
  - {id: bad, description: false claims, answer: ' false'}
  - {id: good, description: the rest, answer: ' true'}
";

#[test]
fn a_post_that_was_not_wholly_seen_is_never_allowed_and_its_verdict_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("allowing.yaml");
    std::fs::write(&policy, ALLOWING).unwrap();
    let long = "A harmless word. ".repeat(2000);
    for mode in ["truncate_middle", "truncate_tail"] {
        let setup = classify().set("policy", policy.display()).set("limits.on_overlong", mode);

        let verdicts = lines(&setup.output(format!("A harmless word.\n{long}\n").as_bytes()).stdout);

        let of = |n: usize| {
            let verdict = &verdicts[n]["data"]["verdict"];
            (verdict["action"].as_str().unwrap(), verdict["action_reason"].as_str().unwrap())
        };
        assert_eq!([of(0), of(1)], [("allow", "thresholds"), ("review", "not_wholly_seen")], "{mode}");
    }
}

#[test]
fn a_violation_at_the_end_of_a_padded_post_is_seen() {
    let prompt = moderato::model::load_tokenizer_only(&folder("tiny-fp32"), &policy()).unwrap();
    let limit = InputLimit { max_input_tokens: 448, on_overlong: OnOverlong::TruncateMiddle };
    let violation = "Drinking bleach cures the flu, and doctors hide it.";
    for padding in [1_000, 100_000] {
        let padded = format!("{}{violation}", "A harmless word. ".repeat(padding));

        let seen = prompt.tokenize(&padded, &limit).unwrap();

        let alone = prompt.tokenize(violation, &limit).unwrap();
        // Its first token may be joined to the blank before it.
        let judged = seen.ids.strip_suffix(prompt.tail_ids()).unwrap();
        let whole = alone.ids.strip_suffix(prompt.tail_ids()).unwrap();
        assert!(seen.truncated && judged.ends_with(&whole[1..]), "{judged:?} does not end with {whole:?}");
    }
    // And by the model: what differs at the end alone is another question.
    let ends = [violation, "It is Sunday, and the library is open all day."];
    let posts = ends.map(|end| format!("{}{end}", "A harmless word. ".repeat(1_000)));
    let verdicts = verdicts(&[&posts[0], &posts[1]]);
    assert_ne!(key(&verdicts[0]), key(&verdicts[1]));
    assert_ne!(verdicts[0]["data"]["verdict"]["scores"], verdicts[1]["data"]["verdict"]["scores"]);
}
