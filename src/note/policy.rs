//! The note policy: what the model is told about notes, in which languages it may write them, and how long.
//!
//! Markdown whose front matter holds everything but the prompt, which is the body. All problems of a file are reported
//! together, and the digest identifies the content, as with the policies that verdicts are given by.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::checks::{PromptWords, REVISION};
use super::v1::NotePolicyRef;
use crate::policy::{PolicyError, PolicyProblem};

/// Most tokens that a note may be given: several times what 280 characters take.
const MAX_NEW_TOKENS: u64 = 1024;
const KEYS: [&str; 4] = ["id", "revision", "max_new_tokens", "languages"];

/// A checked note policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotePolicy {
    /// Short name, snake_case.
    pub id: String,
    /// The author's own word for this state of it; [`NotePolicy::digest`] is what identifies it.
    pub revision: String,
    /// The system prompt, without blanks around it.
    pub prompt: String,
    /// Most tokens of a draft.
    pub max_new_tokens: usize,
    /// Primary subtags of the languages that the model may write; a post in another gets the fixed form.
    pub languages: Vec<String>,
    digest: String,
}

impl NotePolicy {
    /// Reads a note policy file.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = fs::read_to_string(path).map_err(|error| vec![problem("file", format!("cannot be read: {error}"))]);
        let named = |problems| PolicyError { file: path.display().to_string(), problems };
        text.and_then(|text| Self::parse(&text)).map_err(named)
    }

    /// Checks the text of a note policy.
    pub fn parse(text: &str) -> Result<Self, Vec<PolicyProblem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let split = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
        let Some((head, prompt)) = split else {
            return Err(vec![problem(
                "file",
                "begin with a line of ---, then id, revision, max_new_tokens and languages, then another ---",
            )]);
        };
        // Only true and false are booleans: Norwegian is `no`.
        let options = serde_saphyr::options! { strict_booleans: true };
        let head = match serde_saphyr::from_str_with_options::<Value>(head, options) {
            Ok(Value::Object(head)) => head,
            Ok(_) => {
                return Err(vec![problem(
                    "file",
                    "must be a map with the keys id, revision, max_new_tokens and languages",
                )]);
            }
            Err(error) => return Err(vec![problem("file", format!("is not valid YAML: {error}"))]),
        };
        let mut reader = Reader { head, problems: Vec::new() };
        let policy = reader.policy(prompt.trim());
        if reader.problems.is_empty() { Ok(policy) } else { Err(reader.problems) }
    }

    /// `sha256:` and the hexadecimal digest of the content; comments and layout of the file do not count.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The prompt's words, for the check that a note repeats none of them.
    pub fn words(&self) -> PromptWords {
        PromptWords::of(&self.prompt)
    }

    /// How notes name it.
    pub fn reference(&self) -> NotePolicyRef {
        let (id, revision, digest) = (self.id.clone(), self.revision.clone(), self.digest.clone());
        NotePolicyRef { id, revision, digest, checks: REVISION.to_owned() }
    }

    /// Whether the model may write in this language; one that is not known is taken for one of them.
    pub fn speaks(&self, lang: Option<&str>) -> bool {
        lang.is_none_or(|lang| self.languages.iter().any(|known| known == lang))
    }
}

fn problem(field: &str, message: impl Into<String>) -> PolicyProblem {
    PolicyProblem { field: field.to_owned(), message: message.into() }
}

/// Keeps every problem; values that are wrong are replaced so that the reading goes on.
struct Reader {
    head: Map<String, Value>,
    problems: Vec<PolicyProblem>,
}

impl Reader {
    fn policy(&mut self, prompt: &str) -> NotePolicy {
        let unknown: Vec<String> = self.head.keys().filter(|key| !KEYS.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            self.problems.push(problem(&key, format!("is not a known key; known here are {}", KEYS.join(", "))));
        }
        if prompt.is_empty() {
            self.problems.push(problem("prompt", "is missing: it is what stands below the second ---"));
        }
        let (id, revision) = (self.name(), self.revision());
        let (max_new_tokens, languages) = (self.max_new_tokens(), self.languages());
        let content = json!({"id": id, "revision": revision, "prompt": prompt, "max_new_tokens": max_new_tokens, "languages": languages});
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(content.to_string())));
        NotePolicy { id, revision, prompt: prompt.to_owned(), max_new_tokens, languages, digest }
    }

    fn name(&mut self) -> String {
        let name = self.head.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if !plain || !(1..=64).contains(&name.len()) {
            self.problems.push(problem("id", format!("is {name:?}; use 1 to 64 of a-z, 0-9, _ and -")));
        }
        name
    }

    /// Plain numbers are taken as written: `revision: 7`.
    fn revision(&mut self) -> String {
        match self.head.get("revision") {
            Some(Value::String(text)) if !text.trim().is_empty() => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => {
                self.problems
                    .push(problem("revision", "is missing or empty; write your own word for this state, in quotes"));
                String::new()
            }
        }
    }

    fn max_new_tokens(&mut self) -> usize {
        let number = self.head.get("max_new_tokens").and_then(Value::as_u64);
        match number.filter(|number| (1..=MAX_NEW_TOKENS).contains(number)) {
            Some(number) => number as usize,
            None => {
                self.problems.push(problem(
                    "max_new_tokens",
                    format!("must be a number from 1 to {MAX_NEW_TOKENS}, such as 96"),
                ));
                1
            }
        }
    }

    fn languages(&mut self) -> Vec<String> {
        let tag = |value: &Value| {
            let tag = value.as_str()?;
            let plain = (2..=3).contains(&tag.len()) && tag.bytes().all(|c| c.is_ascii_lowercase());
            plain.then(|| tag.to_owned())
        };
        let list = self.head.get("languages").and_then(Value::as_array);
        let tags = list.and_then(|list| list.iter().map(tag).collect::<Option<Vec<String>>>());
        match tags.filter(|tags| !tags.is_empty()) {
            Some(tags) => tags,
            None => {
                self.problems.push(problem(
                    "languages",
                    "must be a list of language tags of two or three letters, such as [en, de]",
                ));
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "---\nid: note\nrevision: \"1\"\nmax_new_tokens: 96\nlanguages: [en]\n---\n\nDraft a note.\n";

    fn problems(text: &str) -> Vec<String> {
        let problems = NotePolicy::parse(text).unwrap_err();
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    }

    #[test]
    fn a_note_policy_is_read_as_written() {
        let policy = NotePolicy::parse(&GOOD.replace('\n', "\r\n")).unwrap();
        assert_eq!(
            (&*policy.id, &*policy.revision, &*policy.prompt, policy.max_new_tokens),
            ("note", "1", "Draft a note.", 96)
        );
        assert_eq!([policy.speaks(Some("en")), policy.speaks(Some("de")), policy.speaks(None)], [true, false, true]);
        assert_eq!(policy, NotePolicy::parse(GOOD).unwrap());
    }

    #[test]
    fn every_mistake_is_told_with_its_field() {
        let bad = "---\nid: A B\nmax_new_tokens: 0\nlanguages: en\ncolour: red\n---\n\n";
        let starts = [
            "colour: is not a known key",
            "prompt: is missing",
            "id: is \"A B\"",
            "revision: is missing",
            "max_new_tokens: must be",
            "languages: must be",
        ];
        let found = problems(bad);
        assert_eq!(found.len(), starts.len(), "{found:?}");
        assert!(found.iter().zip(starts).all(|(found, start)| found.starts_with(start)), "{found:?}");
        assert!(problems("Draft a note.")[0].starts_with("file: begin with"));
        assert!(problems("---\n[\n---\nx")[0].starts_with("file: is not valid YAML"));
    }

    #[test]
    fn the_digest_follows_the_content_and_not_the_layout() {
        let digest = |text: &str| NotePolicy::parse(text).unwrap().digest().to_owned();
        assert_eq!(digest(GOOD), digest(&GOOD.replace("id: note", "id: note # a remark")));
        for (from, to) in [("96", "97"), ("[en]", "[en, de]"), ("\"1\"", "\"2\""), ("a note", "two notes")] {
            assert_ne!(digest(GOOD), digest(&GOOD.replace(from, to)), "{from}");
        }
    }

    #[test]
    fn the_policy_that_ships_is_sound_and_short() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/policies/note.md");
        let policy = NotePolicy::load(&path).unwrap();
        assert!(policy.prompt.split_whitespace().count() < 90, "{}", policy.prompt);
    }
}
