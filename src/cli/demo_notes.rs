//! The demo's last part: notes about samples that were flagged and came with evidence, as `task: draft_note` would write
//! them.

use std::io::Cursor;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use super::demo_table::{self, Row};
use super::lines::{self, Captured};
use super::{Common, VerbSettings, draft, problems, report};
use crate::app;
use crate::config::Needs;
use crate::error::Exit;
use crate::note::NoteV1;
use crate::pipeline::outlet::Lines;
use crate::samples;

/// Notes that the demo drafts.
const NOTES: usize = 2;

#[derive(Debug, Args)]
pub(super) struct NotesArguments {
    /// Also draft notes, with this model folder, about flagged samples that have evidence.
    #[arg(long, value_name = "FOLDER", requires = "notes_policy")]
    notes_model: Option<PathBuf>,
    /// The note policy that they are drafted under.
    #[arg(long, value_name = "FILE", requires = "notes_model")]
    notes_policy: Option<PathBuf>,
}

impl NotesArguments {
    /// Drafts and prints; does nothing where no model was given.
    pub(super) fn show(&self, common: &Common, verdicts: &[Row]) -> Result<(), Exit> {
        let (Some(model), Some(policy)) = (&self.notes_model, &self.notes_policy) else { return Ok(()) };
        let posts = flagged(verdicts);
        if posts.is_empty() {
            say!("\nno sample with evidence was flagged: no note to draft");
            return Ok(());
        }
        let (model, policy) = (model.to_string_lossy(), policy.to_string_lossy());
        let fixed = [("task", "draft_note"), ("model.path", &*model), ("policy", &*policy)];
        let loaded = common.load(&VerbSettings { defaults: &[], fixed: &fixed }, Needs::ModelOnly);
        let config = loaded.and_then(|loaded| loaded.checked).map_err(|error| problems(&error))?;
        let written = Captured::default();
        let input =
            Box::new(Cursor::new(posts.iter().map(|post| format!("{post}\n")).collect::<String>().into_bytes()));
        let load = || app::load_work(&config).map_err(|error| report(&error));
        lines::run(&config, load, input, Lines::to(written.clone()), draft::flagged)?;
        for (post, note) in posts.iter().zip(written.text().lines()) {
            say!("\n{}", shown(post, note));
        }
        Ok(())
    }
}

/// The first samples that have evidence and were not allowed, with the label that they were given.
fn flagged(verdicts: &[Row]) -> Vec<Value> {
    let sample = |line: &str| serde_json::from_str::<Map<String, Value>>(line).ok();
    let with_evidence = samples::POSTS.lines().filter_map(sample).filter(|post| post.contains_key("evidence"));
    let judged = with_evidence.filter_map(|mut post| {
        let row = verdicts.iter().find(|row| row.flagged() && post["id"] == *row.post)?;
        post.insert("label".to_owned(), row.label.trim_end_matches('?').into());
        Some(Value::Object(post))
    });
    judged.take(NOTES).collect()
}

fn shown(post: &Value, note: &str) -> String {
    let words = |value: &Value| demo_table::plain(value.as_str().unwrap_or_default());
    let (id, label) = (words(&post["id"]), words(&post["label"]));
    let mut lines = format!("{id}, {label}: {}\n", words(&post["text"]));
    for piece in post["evidence"].as_array().into_iter().flatten() {
        lines += &format!(
            "  evidence [{}], {}: {}\n",
            words(&piece["id"]),
            words(&piece["publisher"]),
            words(&piece["quote"])
        );
    }
    match serde_json::from_str::<NoteV1<'_>>(note) {
        Ok(note) => {
            let note = note.data.note;
            let how =
                if note.fixed_form { "the fixed form, for its drafts were refused" } else { "passed every check" };
            lines + &format!("  draft for a moderator ({how}): {}", demo_table::plain(&note.summary))
        }
        Err(_) => lines + &format!("  no note: {}", demo_table::plain(note)),
    }
}
