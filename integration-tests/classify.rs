//! `moderato classify`: the same road without Kafka.

use serde_json::{Value, json};

use crate::support::pool::{classify, lines};

#[test]
fn one_text_is_judged_and_explained() {
    let output = classify().argument("The moon is made of cheese.").output(b"");

    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["misinformation", "unverified", "opinion_or_satire", "not_misinformation", "tokens", "time", "model"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn json_and_plain_lines_become_verdicts_in_their_order() {
    let input = [
        json!({"id": "a", "text": "The first claim. ".repeat(20)}).to_string(),
        "A plain line.".to_owned(),
        json!({"id": "b", "text": "The second claim."}).to_string(),
        "Plain to the end, without a line end".to_owned(),
    ];

    let output = classify().output(input.join("\n").as_bytes());

    let subjects: Vec<Value> = lines(&output.stdout).iter().map(|line| line["subject"].clone()).collect();
    assert_eq!(subjects, ["a", "line-2", "b", "line-4"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn lines_that_are_no_posts_become_error_lines_in_their_place() {
    let input = [
        b"{\"id\": \"a\"}".as_slice(),
        b"A plain line.",
        b"\xff\xfe",
        b"",
        b"{\"id\": \"b\", \"text\": \"The last claim.\"}",
    ];

    let output = classify().output(&input.join(&b'\n'));

    let told: Vec<Value> = lines(&output.stdout)
        .iter()
        .map(|line| {
            if line["error"].is_null() {
                line["subject"].clone()
            } else {
                json!([line["error"]["line"], line["error"]["reason"]])
            }
        })
        .collect();
    assert_eq!(
        told,
        [json!([1, "wrong_shape"]), json!("line-2"), json!([3, "not_utf8"]), json!([4, "empty_text"]), json!("b")]
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_same_text_gets_the_same_scores_alone_and_among_others() {
    let text = "The bridge was closed for good last night.";
    let crowd: String = (0..50).map(|n| format!("{}\n", "Another claim. ".repeat(1 + n % 9))).collect();

    let alone = lines(&classify().output(text.as_bytes()).stdout);
    let among = lines(&classify().output(format!("{crowd}{text}").as_bytes()).stdout);

    let scores = |line: &Value| line["data"]["verdict"]["scores"].as_object().unwrap().clone();
    let (alone, among) = (scores(&alone[0]), scores(&among[50]));
    for (label, score) in &alone {
        let difference = (score.as_f64().unwrap() - among[label].as_f64().unwrap()).abs();
        assert!(difference < 1e-4, "{label}: {score} alone, {} among others", among[label]);
    }
}

#[test]
fn the_log_goes_to_standard_error_and_holds_no_post_text() {
    let output = classify()
        .set("log.filter", "trace")
        .output(b"A claim about hedgehogs.\n{\"id\": \"hedgehogs\", \"text\": [\"hedgehogs\"]}\n");

    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("model loaded") && !log.contains("hedgehogs"), "{log}");
    assert_eq!(lines(&output.stdout).len(), 2);
}
