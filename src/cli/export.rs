//! `moderato export`: verdicts and notes in, drafts of what a platform may hand on out.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Exit;
use crate::export::case::{Case, NoteText};
use crate::export::settings::Settings;
use crate::export::{Exporter, Format};

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The form.
    #[arg(long)]
    format: Format,
    /// What the platform says of itself, YAML (`moderato schema export-settings`).
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What posts are about whose line says nothing of it, such as `health`.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// note.v1 lines; each is used with the verdict that it names.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// verdict.v1 or note.v1 lines, each with `platform` beside `data` if the platform has something to add
    /// (`moderato schema export-platform`); standard input without it.
    file: Option<PathBuf>,
}

pub(super) fn run(arguments: &ExportArguments) -> Result<Exit, Exit> {
    let mend = |error: &dyn std::fmt::Display| {
        eprintln!("{error}");
        Exit::Config
    };
    let mut settings = match &arguments.settings {
        Some(path) => Settings::load(path).map_err(|error| mend(&error))?,
        None => Settings::default(),
    };
    settings.topic = arguments.topic.clone().or(settings.topic);
    let exporter = Exporter::new(arguments.format, settings).map_err(|error| mend(&error))?;
    let mut account = Account::default();
    let notes = match &arguments.notes {
        Some(path) => notes(open(path)?, &mut account)?,
        None => HashMap::new(),
    };
    match &arguments.file {
        Some(path) => export(&exporter, &notes, open(path)?, &mut account)?,
        None => export(&exporter, &notes, Box::new(io::stdin().lock()), &mut account)?,
    }
    account.tell();
    Ok(if account.unread == 0 { Exit::Ok } else { Exit::Failed })
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Exit> {
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => {
            eprintln!("{} cannot be read: {error}", path.display());
            Err(Exit::Config)
        }
    }
}

/// What became of the lines.
#[derive(Default)]
struct Account {
    drafts: usize,
    unread: usize,
    withheld: BTreeMap<&'static str, usize>,
}

impl Account {
    fn tell(&self) {
        let withheld: Vec<String> = self.withheld.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let withheld = if withheld.is_empty() { "none".to_owned() } else { withheld.join(", ") };
        eprintln!("{} draft(s); withheld: {withheld}; not read: {}", self.drafts, self.unread);
    }
}

/// Every line that can be read, with its number; the others are told and counted.
fn cases(
    input: Box<dyn BufRead>,
    account: &mut Account,
    mut take: impl FnMut(usize, Case, &mut Account),
) -> Result<(), Exit> {
    for (index, line) in input.lines().enumerate() {
        let line = line.map_err(|error| {
            eprintln!("line {}: cannot be read: {error}", index + 1);
            Exit::Failed
        })?;
        if line.trim().is_empty() {
            continue;
        }
        match Case::parse(&line) {
            Ok(case) => take(index + 1, case, account),
            Err(problem) => {
                eprintln!("line {}: {problem}", index + 1);
                account.unread += 1;
            }
        }
    }
    Ok(())
}

/// The notes by the verdict that they name; of several the last one.
fn notes(input: Box<dyn BufRead>, account: &mut Account) -> Result<HashMap<String, NoteText>, Exit> {
    let mut notes = HashMap::new();
    cases(input, account, |_, case, _| {
        if let (Some(id), Some(note)) = (case.verdict_id, case.note) {
            notes.insert(id, note);
        }
    })?;
    Ok(notes)
}

fn export(
    exporter: &Exporter,
    notes: &HashMap<String, NoteText>,
    input: Box<dyn BufRead>,
    account: &mut Account,
) -> Result<(), Exit> {
    cases(input, account, |number, case, account| {
        let note = case.verdict_id.as_ref().and_then(|id| notes.get(id)).cloned();
        let case = case.with_note(note);
        match exporter.export(&case) {
            Ok(draft) => {
                account.drafts += 1;
                // Strings and numbers: this cannot fail.
                say!("{}", serde_json::to_string(&draft).unwrap_or_default());
            }
            Err(withheld) => {
                *account.withheld.entry(withheld.code()).or_default() += 1;
                eprintln!("line {number}: withheld ({}): {withheld}", withheld.code());
            }
        }
    })
}
