//! `moderato draft`: the road of notes without Kafka, from standard input to standard output.

use std::io;

use clap::Args;
use serde_json::{Map, Value, json};

use super::lines::{self, Line};
use super::{Common, VerbSettings, report};
use crate::app;
use crate::config::Needs;
use crate::error::Exit;
use crate::kafka::with_verdict;
use crate::pipeline::outlet::Lines;
use crate::receipt::Headers;

/// Drafts a note for each line of standard input, as JSON lines on standard output. A line is a `post.v1` with one field
/// more: `verdict`, a `verdict.v1`; or only `label`, its label. `evidence` may be a text.
#[derive(Debug, Args)]
pub(super) struct DraftArguments {
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(arguments: &DraftArguments) -> Result<Exit, Exit> {
    let fixed = [("task", "draft_note")];
    let config = arguments.common.start(&VerbSettings { defaults: &[], fixed: &fixed }, Needs::ModelOnly)?;
    let input = Box::new(io::BufReader::new(io::stdin()));
    lines::run(
        &config,
        || app::load_work(&config).map_err(|error| report(&error)),
        input,
        Lines::to(io::stdout()),
        flagged,
    )
}

/// A line as it would come from the topic of flagged posts. What is no object is left for decoding to reject.
pub(super) fn flagged(line: Vec<u8>, _: i64) -> Line {
    let Ok(mut post) = serde_json::from_slice::<Map<String, Value>>(&line) else {
        return Line { value: line, headers: Headers::default() };
    };
    let verdict = match (post.remove("verdict"), post.remove("label")) {
        (Some(verdict), _) => Some(verdict),
        (None, Some(label)) => Some(json!({ "data": { "verdict": { "label": label } } })),
        (None, None) => None,
    };
    if let Some(Value::String(quote)) = post.get("evidence") {
        let pieces = if quote.trim().is_empty() { json!([]) } else { json!([{ "id": "e1", "quote": quote }]) };
        post.insert("evidence".to_owned(), pieces);
    }
    let headers = verdict.map_or_else(Headers::default, |verdict| with_verdict(verdict.to_string().as_bytes()));
    Line { value: Value::Object(post).to_string().into_bytes(), headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::verdict_header;

    fn read(line: &str) -> (String, Option<String>) {
        let Line { value, headers } = flagged(line.as_bytes().to_vec(), 0);
        let header = verdict_header(&headers).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        (String::from_utf8(value).unwrap(), header)
    }

    #[test]
    fn a_label_or_a_verdict_becomes_the_header_and_evidence_may_be_a_text() {
        assert_eq!(
            read(r#"{"id":"a","text":"t","label":"unverified","evidence":"q"}"#),
            (
                r#"{"evidence":[{"id":"e1","quote":"q"}],"id":"a","text":"t"}"#.to_owned(),
                Some(r#"{"data":{"verdict":{"label":"unverified"}}}"#.to_owned())
            )
        );
        assert_eq!(
            read(r#"{"id":"a","verdict":{"id":1},"label":"x"}"#),
            (r#"{"id":"a"}"#.to_owned(), Some(r#"{"id":1}"#.to_owned()))
        );
        assert_eq!(read("no post"), ("no post".to_owned(), None));
    }
}
