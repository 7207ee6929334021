//! `moderato tokens`: what the model would see, for those who train it.

use serde_json::{Value, json};

use crate::support::pool::{classify, lines};
use crate::support::repository;
use crate::support::worker::Setup;

fn tokens() -> Setup {
    classify().verb("tokens")
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn every_post_gets_the_ids_that_stand_between_prefix_and_tail_of_its_prompt() {
    let evidence = json!([{"id": "e1", "quote": "The bridge is open."}]);
    let posts = [
        json!({"id": "a", "text": "The bridge was closed."}),
        json!({"id": "b", "text": "The b\u{200b}ridge was closed."}),
        json!({"id": "c", "text": "The bridge was closed.", "evidence": evidence}),
    ];
    let input: String = posts.iter().map(|post| format!("{post}\n")).collect();

    let output = tokens().output(input.as_bytes());

    let told = lines(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.len(), 4);
    assert!(!ids(&told[0]["prefix"]).is_empty() && ids(&told[0]["labels"]).len() == 4);
    let tail = ids(&told[0]["tail"]);
    assert!(told[1..].iter().all(|row| ids(&row["ids"]).ends_with(&tail)));
    assert_eq!(told[1]["ids"], told[2]["ids"]);
    let (plain, more) = (ids(&told[1]["ids"]), ids(&told[3]["ids"]));
    assert!(more.len() > plain.len() && more.starts_with(&plain[..plain.len() - tail.len()]));
    assert_eq!(told[3]["evidence"]["pieces"], 1);
}

#[test]
fn a_line_that_is_no_post_is_told_with_its_number_and_the_others_get_their_ids() {
    let output = tokens()
        .output(b"{\"id\": \"a\", \"text\": \"One.\"}\n{\"id\": \"secret\"}\n{\"id\": \"b\", \"text\": \"Two.\"}\n");

    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("line 2: missing field `text`") && !told.contains("secret"), "{told}");
    assert_eq!(lines(&output.stdout).len(), 3);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_note_gets_its_ids_and_the_checks_that_refuse_it() {
    let line = |note: &str| {
        let evidence = "The bridge is open, says the council.";
        let row = json!({"id": "a", "text": "The bridge is closed.", "label": "misinformation", "evidence": evidence, "note": note});
        format!("{row}\n")
    };
    let input = line("The council says that the bridge is open [e1].") + &line("The council paid 700 euros [e1].");
    let policy = repository("model/policies/note.md");

    let output = tokens().set("task", "draft_note").set("policy", policy.display()).output(input.as_bytes());

    let told = lines(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(ids(&told[1]["note"]).len() > 3);
    assert_eq!(told[1]["ids"], told[2]["ids"]);
    assert_eq!(told[1]["refused"], json!([]));
    assert_eq!(told[2]["refused"], json!(["number"]));
}
