//! `moderato tokens`: what the model would see of each post, as token ids, without running it. Training reads this, so that a
//! model learns from exactly what the worker will show it.

use std::io::{self, BufRead, Write};

use clap::Args;
use serde_json::json;

use super::{Common, VerbSettings};
use crate::config::{Config, Needs};
use crate::error::Exit;
use crate::model::{self, Prompt};
use crate::policy::Policy;
use crate::post;

#[derive(Debug, Args)]
pub(super) struct TokensArguments {
    #[command(flatten)]
    common: Common,
}

/// First one line with the ids around every post, then one line a post read from standard input, in its order.
pub(super) fn run(arguments: &TokensArguments) -> Result<Exit, Exit> {
    let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
    let config = arguments.common.start(&quiet, Needs::ModelOnly)?;
    let prompt = load(&config)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut faults = 0;
    let around = json!({"prefix": prompt.prefix_ids(), "tail": prompt.tail_ids(), "labels": prompt.label_ids(),
                        "prompt_digest": prompt.digest(), "tokenizer_digest": prompt.tokenizer_digest()});
    writeln!(out, "{around}").map_err(|error| lost(&error))?;
    for (number, line) in io::stdin().lock().split(b'\n').enumerate() {
        let line = line.map_err(|error| lost(&error))?;
        match seen(&prompt, &config, &line) {
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

fn load(config: &Config) -> Result<Prompt, Exit> {
    let policy = Policy::load(&config.policy).map_err(|error| wrong(&error))?;
    model::load_tokenizer_only(&config.model.path, &policy).map_err(|error| wrong(&error))
}

fn seen(prompt: &Prompt, config: &Config, line: &[u8]) -> Result<serde_json::Value, String> {
    let post = post::decode(line, config.limits.max_post_bytes).map_err(|rejected| rejected.message)?;
    let row =
        prompt.tokenize_with(&post.text, &post.evidence, &config.limits.input).map_err(|error| error.to_string())?;
    Ok(json!({"id": &*post.id.0, "ids": row.ids, "tokens_seen": row.tokens_seen, "tokens_total": row.tokens_total,
              "truncated": row.truncated, "evidence": row.evidence}))
}

fn wrong(error: &dyn std::error::Error) -> Exit {
    eprintln!("{error}");
    Exit::Config
}

fn lost(error: &io::Error) -> Exit {
    eprintln!("standard input or output: {error}");
    Exit::Failed
}
