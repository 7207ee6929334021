//! Texts that others collected because they break programs: JSONTestSuite and the Big List of Naughty Strings, through
//! `moderato classify`. `make test` fetches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use moderato::post;
use serde_json::{Value, json};

use crate::support::pool::classify;
use crate::support::provided;

/// Cases that JSONTestSuite leaves to the parser and that are not JSON here: other encodings than UTF-8, and a byte order
/// mark. Accepted are, where nobody reads them: huge numbers, lone halves of surrogate pairs, 500 lists in one another.
const NOT_JSON: [&str; 4] = [
    "i_string_UTF-16LE_with_BOM",
    "i_string_utf16BE_no_BOM",
    "i_string_utf16LE_no_BOM",
    "i_structure_UTF-8_BOM_empty_object",
];
/// Names of fields are read, and a lone half of a surrogate pair has no text in UTF-8.
const UNREADABLE_NAME: &str = "i_object_key_lone_2nd_surrogate";

/// Names and contents. The package holds each file as text: bytes that are no UTF-8 are U+FFFD in it.
fn json_test_suite() -> Vec<(String, String)> {
    let script =
        fs::read_to_string(provided("MODERATO_TEST_NAUGHTY", ".cache/naughty-texts").join("json-test-suite.js"));
    let script = script.unwrap_or_else(|error| panic!("JSONTestSuite: {error}; `make naughty-texts` fetches it"));
    let list = script.split_once("export default").unwrap().1.trim().trim_end_matches(';');
    let list: Vec<Value> = serde_json::from_str(list).unwrap();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    list.iter().map(|case| (text(case, "name").replace(".json", ""), text(case, "input"))).collect()
}

fn naughty_strings() -> Vec<String> {
    let list = fs::read(provided("MODERATO_TEST_NAUGHTY", ".cache/naughty-texts").join("blns.json"));
    let list = list.unwrap_or_else(|error| panic!("naughty strings: {error}; `make naughty-texts` fetches them"));
    serde_json::from_slice(&list).unwrap()
}

/// What became of each line: `verdict`, or the reason it was rejected for.
fn outcomes(input: &str) -> (Vec<String>, String) {
    // So many rejections would stop the worker, as they should.
    let setup = classify().set("limits.max_rejection_ratio", 1).set("log.filter", "trace");
    let output = setup.output(input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let reason = line["error"]["reason"].as_str().map(str::to_owned);
        reason.unwrap_or_else(|| {
            assert!(line["data"]["verdict"]["action"].is_string(), "{line}");
            "verdict".to_owned()
        })
    };
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(told).collect(), String::from_utf8(output.stderr).unwrap())
}

/// What is right for a case, as its name says, or as is told above where it leaves that open.
fn is_json(name: &str) -> bool {
    name.starts_with("y_") || (name.starts_with("i_") && !NOT_JSON.contains(&name))
}

#[test]
fn a_post_with_a_file_of_jsontestsuite_in_it_is_judged_if_the_file_is_json_and_rejected_if_it_is_not() {
    let cases = json_test_suite();
    // A line feed would end the record; to JSON, a carriage return is the same.
    let post = |(name, input): &(String, String)| {
        format!(r#"{{"id":"{name}","text":"A claim.","more":{}}}"#, input.trim_end_matches('\n').replace('\n', "\r"))
    };

    let (outcomes, _) = outcomes(&cases.iter().map(post).collect::<Vec<_>>().join("\n"));

    let expected = |name: &str| if is_json(name) { "verdict" } else { "not_json" };
    let wrong: BTreeMap<_, _> =
        cases.iter().zip(&outcomes).filter(|((name, _), told)| expected(name) != **told).collect();
    assert_eq!((cases.len(), outcomes.len()), (318, 318));
    assert!(wrong.is_empty(), "{:#?}", wrong.iter().map(|((name, _), told)| (name, told)).collect::<Vec<_>>());
}

/// Whether a whole object stands before what is wrong, or an `id` that is a number: then it is no post already.
fn is_no_post_before_its_fault(input: &str) -> bool {
    let first = serde_json::Deserializer::from_str(input).into_iter::<Value>().next();
    matches!(first, Some(Ok(Value::Object(_)))) || input.starts_with(r#"{"id":0"#)
}

#[test]
fn a_file_of_jsontestsuite_in_place_of_a_post_is_rejected_as_no_json_or_as_no_post() {
    let cases = json_test_suite();
    for (name, input) in &cases {
        let rejected = post::decode(input.as_bytes(), 1 << 20).unwrap_err();
        let readable = (is_json(name) && name != UNREADABLE_NAME) || is_no_post_before_its_fault(input);
        let expected = if readable { "wrong_shape" } else { "not_json" };
        assert_eq!(rejected.reason.code(), expected, "{name}");
        assert!(rejected.message.len() < 200, "{name}: {}", rejected.message);
    }
    let deep = cases.iter().find(|(name, _)| name == "n_structure_100000_opening_arrays").unwrap();
    assert_eq!(deep.1.trim(), "[".repeat(100_000));
}

#[test]
fn every_naughty_string_is_judged_or_is_blank_and_none_reaches_the_log() {
    let texts = naughty_strings();
    let posts: Vec<String> = texts.iter().map(|text| json!({"id": "naughty", "text": text}).to_string()).collect();

    let (outcomes, log) = outcomes(&posts.join("\n"));

    let blank = |text: &&String| moderato::hygiene::clean(text).0.trim().is_empty();
    let blanks: BTreeSet<&str> = texts.iter().filter(blank).map(String::as_str).collect();
    for (text, told) in texts.iter().zip(&outcomes) {
        let expected = if blanks.contains(text.as_str()) { "empty_text" } else { "verdict" };
        assert_eq!(told, expected, "{text:?}");
    }
    assert_eq!((texts.len(), outcomes.len()), (485, 485));
    assert!((3..10).contains(&blanks.len()), "{blanks:?}");
    // Short ones such as `null` are words of any log.
    for text in texts.iter().filter(|text| text.chars().count() > 15) {
        assert!(!log.contains(text), "the log repeats {text:?}");
    }
}
