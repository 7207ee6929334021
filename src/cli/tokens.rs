//! `moderato tokens`: what the model would see of each post, as token ids, without running it. Training reads this, so that a
//! model learns from exactly what the worker will show it.

use std::io::{self, BufRead, Write};

use clap::Args;
use serde_json::{Value, json};

use super::{Common, VerbSettings, draft};
use crate::config::{Config, Needs, Task};
use crate::error::Exit;
use crate::kafka::verdict_header;
use crate::model::{self, Prompt};
use crate::note::{Checker, Form, Ground, NotePolicy, PromptWords, VerdictRef};
use crate::pipeline::ask;
use crate::policy::Policy;
use crate::post::{self, Post};

#[derive(Debug, Args)]
pub(super) struct TokensArguments {
    #[command(flatten)]
    common: Common,
}

/// First one line with the ids around every post, then one line a post read from standard input, in its order. With `task:
/// draft_note` the lines are those of `moderato draft`, and one with a `note` gets its ids and the checks that it fails.
pub(super) fn run(arguments: &TokensArguments) -> Result<Exit, Exit> {
    let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
    let config = arguments.common.start(&quiet, Needs::ModelOnly)?;
    let (prompt, words) = load(&config)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut faults = 0;
    let around = json!({"prefix": prompt.prefix_ids(), "tail": prompt.tail_ids(), "labels": prompt.label_ids(),
                        "prompt_digest": prompt.digest(), "tokenizer_digest": prompt.tokenizer_digest()});
    writeln!(out, "{around}").map_err(|error| lost(&error))?;
    for (number, line) in io::stdin().lock().split(b'\n').enumerate() {
        let line = line.map_err(|error| lost(&error))?;
        let row = match config.task {
            Task::Classify => seen(&prompt, &config, &line),
            Task::DraftNote => asked(&prompt, &words, &config, line),
        };
        match row {
            Ok(row) => writeln!(out, "{row}").map_err(|error| lost(&error))?,
            Err(message) => {
                eprintln!("line {}: {message}", number + 1);
                faults += 1;
            }
        }
    }
    out.flush().map_err(|error| lost(&error))?;
    Ok(if faults == 0 { Exit::Ok } else { Exit::Failed })
}

/// The prompt, and for notes its words.
fn load(config: &Config) -> Result<(Prompt, PromptWords), Exit> {
    let folder = &config.model.path;
    let (prompt, words) = match config.task {
        Task::Classify => {
            let policy = Policy::load(&config.policy).map_err(|error| wrong(&error))?;
            (model::load_tokenizer_only(folder, &policy), PromptWords::default())
        }
        Task::DraftNote => {
            let policy = NotePolicy::load(&config.policy).map_err(|error| wrong(&error))?;
            (model::load_notes_tokenizer_only(folder, &policy.prompt), policy.words())
        }
    };
    Ok((prompt.map_err(|error| wrong(&error))?, words))
}

fn seen(prompt: &Prompt, config: &Config, line: &[u8]) -> Result<Value, String> {
    let post = decode(config, line)?;
    let row =
        prompt.tokenize_with(&post.text, &post.evidence, &config.limits.input).map_err(|error| error.to_string())?;
    Ok(json!({"id": &*post.id.0, "ids": row.ids, "tokens_seen": row.tokens_seen, "tokens_total": row.tokens_total,
              "truncated": row.truncated, "evidence": row.evidence}))
}

fn asked(prompt: &Prompt, words: &PromptWords, config: &Config, line: Vec<u8>) -> Result<Value, String> {
    let note: Option<String> =
        serde_json::from_slice(&line).ok().and_then(|line: Value| Some(line["note"].as_str()?.to_owned()));
    let line = draft::flagged(line, 0);
    let post = decode(config, &line.value)?;
    let header = verdict_header(&line.headers).ok_or("the line has neither label nor verdict")?;
    let (verdict, _) = VerdictRef::read(header).map_err(|fault| fault.words().to_owned())?;
    let ground = Ground::new(&post, &verdict.label, config.limits.max_post_bytes);
    let row = ask::tokens(prompt, &config.limits.input, &ground, None).map_err(|rejected| rejected.message)?;
    let refused = note.as_deref().map(|note| Checker::new(&ground, words).run(note, Form::Drafted).failed());
    let note = note.map(|note| prompt.answer_ids(&note)).transpose().map_err(|error| error.to_string())?;
    Ok(json!({"id": &*post.id.0, "ids": row.ids, "note": note, "refused": refused, "truncated": row.truncated}))
}

fn decode(config: &Config, line: &[u8]) -> Result<Post, String> {
    post::decode(line, config.limits.max_post_bytes).map_err(|rejected| rejected.message)
}

fn wrong(error: &dyn std::error::Error) -> Exit {
    eprintln!("{error}");
    Exit::Config
}

fn lost(error: &io::Error) -> Exit {
    eprintln!("standard input or output: {error}");
    Exit::Failed
}
