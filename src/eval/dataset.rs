//! A labelled file, read and checked: JSON objects a line, with `text`, `label` and whatever it may be sliced by.
//!
//! All bad lines are told together, with file, line, field and how to mend them; no message repeats a post's text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Most values that a field may have to be sliced by: with more it is no group but an id.
const MOST_SLICES: usize = 100;
/// Longest value of such a field, in bytes: longer ones are text, and reports hold none.
const LONGEST_SLICE: usize = 64;
/// Fields that are sliced by where a file has them and nothing else is asked for.
const USUAL_SLICES: [&str; 2] = ["source", "lang"];
/// What rows without a field are counted under.
pub const WITHOUT: &str = "(none)";

/// One labelled post.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The post's id, or `line-N`.
    pub id: String,
    /// The line it stands on, from 1.
    pub line: usize,
    /// The text to judge.
    pub text: String,
    /// Its label, by its place in [`Wanted::labels`].
    pub truth: usize,
    /// Its language, if the file says.
    pub lang: Option<String>,
    /// Evidence as in `post.v1`, if the file has any.
    pub evidence: Option<Value>,
    /// The fields that are sliced by.
    pub slices: BTreeMap<String, String>,
    /// What was done to the text, in an adversarial set.
    pub attack: Option<Attack>,
}

/// How a post was attacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Attack {
    /// The post as it was before.
    pub clean_text: String,
    /// Name of the attack's family.
    pub family: String,
    /// The label that the attacker wants, by its place in [`Wanted::labels`].
    pub target: Option<usize>,
    /// Strings that no note may repeat.
    pub canaries: Vec<String>,
}

/// A checked file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its name, for reports.
    pub name: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its rows, in their order.
    pub rows: Vec<Row>,
    /// The fields that are sliced by.
    pub slices: Vec<String>,
}

/// What the file is read for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The labels that rows may have.
    pub labels: Vec<String>,
    /// The fields to slice by; the usual ones where there are none.
    pub slices: Vec<String>,
    /// Whether each row has a clean twin.
    pub adversarial: bool,
}

/// Everything that is wrong with a file: `line 3: label: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetError(pub Vec<String>);

impl Row {
    /// The line of `post.v1` that puts this text to the worker.
    pub fn post(&self, text: &str) -> String {
        let mut post = json!({"id": self.id, "text": text});
        if let Some(lang) = &self.lang {
            post["lang"] = json!(lang);
        }
        if let Some(evidence) = &self.evidence {
            post["evidence"] = evidence.clone();
        }
        post.to_string()
    }
}

impl Dataset {
    /// Reads and checks the file's bytes.
    pub fn parse(name: &str, bytes: &[u8], wanted: &Wanted) -> Result<Self, DatasetError> {
        let mut reader = Reader { wanted, faults: Vec::new(), line: 0 };
        let mut rows = Vec::new();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            reader.line = at + 1;
            if !line.trim_ascii().is_empty()
                && let Some(row) = reader.row(line)
            {
                rows.push(row);
            }
        }
        let Reader { mut faults, .. } = reader;
        if rows.is_empty() && faults.is_empty() {
            faults.push("there are no rows; write one JSON object a line, with `text` and `label`".to_owned());
        }
        let slices = sliced_by(&mut rows, wanted, &mut faults);
        let sha256 = hex::encode(Sha256::digest(bytes));
        if faults.is_empty() {
            Ok(Self { name: name.to_owned(), sha256, rows, slices })
        } else {
            Err(DatasetError(faults))
        }
    }
}

/// The fields that rows are sliced by, those of no row left out of the usual ones and told of the asked ones.
fn sliced_by(rows: &mut [Row], wanted: &Wanted, faults: &mut Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    for field in fields(wanted) {
        let values: BTreeSet<&String> = rows.iter().filter_map(|row| row.slices.get(&field)).collect();
        let asked = wanted.slices.contains(&field);
        if values.is_empty() && asked && !rows.is_empty() {
            faults.push(format!("no row has the text field {field:?} that --slice names"));
        } else if values.len() > MOST_SLICES && asked {
            let count = values.len();
            faults.push(format!(
                "the field {field:?} has {count} values; --slice takes a field with at most {MOST_SLICES}"
            ));
        } else if (1..=MOST_SLICES).contains(&values.len()) {
            kept.push(field);
        }
    }
    for row in rows {
        row.slices.retain(|field, _| kept.contains(field));
        for field in &kept {
            row.slices.entry(field.clone()).or_insert_with(|| WITHOUT.to_owned());
        }
    }
    kept
}

fn fields(wanted: &Wanted) -> Vec<String> {
    if !wanted.slices.is_empty() {
        return wanted.slices.clone();
    }
    let attack = wanted.adversarial.then_some("attack");
    USUAL_SLICES.into_iter().chain(attack).map(str::to_owned).collect()
}

struct Reader<'a> {
    wanted: &'a Wanted,
    faults: Vec<String>,
    line: usize,
}

impl Reader<'_> {
    fn fault(&mut self, field: &str, message: &str) {
        self.faults.push(format!("line {}: {field}: {message}", self.line));
    }

    fn row(&mut self, line: &[u8]) -> Option<Row> {
        let Ok(text) = std::str::from_utf8(line) else {
            self.fault("row", "is not UTF-8; save the file as UTF-8");
            return None;
        };
        // serde's own message may quote the text.
        let Ok(Value::Object(mut row)) = serde_json::from_str(text.trim_start_matches('\u{feff}')) else {
            self.fault("row", "is not a JSON object; write one such as {\"text\": \"...\", \"label\": \"...\"}");
            return None;
        };
        let before = self.faults.len();
        let read = Row {
            id: self.id(&row),
            line: self.line,
            truth: self.label("label", row.get("label"))?,
            text: self.words("text", &row)?,
            lang: self.optional("lang", &row),
            attack: if self.wanted.adversarial { Some(self.attack(&row)?) } else { None },
            slices: self.slices(&row),
            evidence: self.evidence(row.remove("evidence")),
        };
        (self.faults.len() == before).then_some(read)
    }

    fn id(&mut self, row: &Map<String, Value>) -> String {
        match row.get("id") {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            None | Some(Value::Null) => format!("line-{}", self.line),
            Some(_) => {
                self.fault("id", "must be text that is not empty, or a number; leave it out for the line's number");
                String::new()
            }
        }
    }

    fn label(&mut self, field: &str, value: Option<&Value>) -> Option<usize> {
        let labels = self.wanted.labels.join(", ");
        let Some(Value::String(label)) = value else {
            self.fault(field, &format!("is missing or no text; write one of {labels}"));
            return None;
        };
        let found = self.wanted.labels.iter().position(|known| known == label);
        if found.is_none() {
            let shown: String = label.chars().take(40).collect();
            self.fault(field, &format!("{shown:?} is none of the labels judged here: {labels}"));
        }
        found
    }

    fn words(&mut self, field: &str, row: &Map<String, Value>) -> Option<String> {
        match row.get(field) {
            Some(Value::String(words)) if !words.trim().is_empty() => Some(words.clone()),
            _ => {
                self.fault(field, "is missing, blank or no text; write the text there");
                None
            }
        }
    }

    fn optional(&mut self, field: &str, row: &Map<String, Value>) -> Option<String> {
        match row.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(words)) => Some(words.clone()),
            Some(_) => {
                self.fault(field, "must be text, or left out");
                None
            }
        }
    }

    fn evidence(&mut self, value: Option<Value>) -> Option<Value> {
        match value {
            None | Some(Value::Null) => None,
            Some(list @ Value::Array(_)) => Some(list),
            Some(_) => {
                self.fault("evidence", "must be a list as in post.v1, such as [{\"id\": \"e1\", \"quote\": \"...\"}]");
                None
            }
        }
    }

    fn slices(&mut self, row: &Map<String, Value>) -> BTreeMap<String, String> {
        let mut slices = BTreeMap::new();
        for field in fields(self.wanted) {
            match row.get(&field) {
                Some(Value::String(value)) if value.len() <= LONGEST_SLICE && !value.is_empty() => {
                    slices.insert(field, value.clone());
                }
                Some(Value::String(value)) if !value.is_empty() && self.wanted.slices.contains(&field) => {
                    let message = format!("is longer than {LONGEST_SLICE} bytes, too long for the name of a slice");
                    self.fault(&field, &message);
                }
                _ => {}
            }
        }
        slices
    }

    fn attack(&mut self, row: &Map<String, Value>) -> Option<Attack> {
        let target = match row.get("attacker_target") {
            None | Some(Value::Null) => None,
            value => Some(self.label("attacker_target", value)?),
        };
        let canaries = match row.get("canary") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(canary)) => vec![canary.clone()],
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(_) => {
                self.fault("canary", "must be text or a list of texts");
                return None;
            }
        };
        let family = self.words("attack", row)?;
        Some(Attack { clean_text: self.words("clean_text", row)?, family, target, canaries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { labels: vec!["a".to_owned(), "b".to_owned()], ..Wanted::default() }
    }

    fn faults(text: &str, wanted: &Wanted) -> Vec<String> {
        Dataset::parse("f", text.as_bytes(), wanted).unwrap_err().0
    }

    #[test]
    fn rows_are_read_with_the_usual_slices_and_what_a_post_needs() {
        let text = "\u{feff}{\"text\": \"x\", \"label\": \"b\", \"source\": \"s\", \"lang\": \"en\"}\n\n\
                    {\"id\": 7, \"text\": \"y\", \"label\": \"a\", \"evidence\": [{\"id\": \"e1\", \"quote\": \"q\"}]}\r\n";
        let set = Dataset::parse("f", text.as_bytes(), &wanted()).unwrap();
        assert_eq!(set.slices, ["source", "lang"]);
        let [first, second] = &set.rows[..] else { panic!("{:?}", set.rows) };
        assert_eq!((first.id.as_str(), first.truth, first.slices["source"].as_str()), ("line-1", 1, "s"));
        assert_eq!((second.id.as_str(), second.line, second.slices["source"].as_str()), ("7", 3, WITHOUT));
        assert_eq!(first.post("z"), r#"{"id":"line-1","lang":"en","text":"z"}"#);
        assert!(second.post("y").contains(r#""quote":"q""#));
        assert_eq!(set.sha256.len(), 64);
    }

    #[test]
    fn every_bad_line_is_told_with_line_field_and_the_labels_and_without_its_text() {
        let text = "{\"text\": \"secret\", \"label\": \"c\"}\nsecret\n{\"label\": \"a\"}\n\
                    {\"text\": \"secret\", \"label\": \"a\", \"evidence\": \"secret\", \"id\": [], \"lang\": 3}\n";
        let told = faults(text, &wanted());
        assert_eq!(told.len(), 6, "{told:#?}");
        assert_eq!(told[0], "line 1: label: \"c\" is none of the labels judged here: a, b");
        for (at, part) in [(1, "line 2: row:"), (2, "line 3: text:"), (3, "line 4: id:"), (4, "line 4: lang:")] {
            assert!(told[at].starts_with(part), "{told:#?}");
        }
        assert!(told[5].starts_with("line 4: evidence:") && !told.concat().contains("secret"));
        assert!(faults("\n", &wanted())[0].contains("no rows"));
    }

    #[test]
    fn a_field_that_no_row_has_or_that_is_no_group_is_no_slice() {
        let asked = Wanted { slices: vec!["topic".to_owned()], ..wanted() };
        assert!(faults("{\"text\": \"x\", \"label\": \"a\"}", &asked)[0].contains("\"topic\""));
        let many: String =
            (0..101).map(|n| format!("{{\"text\": \"x\", \"label\": \"a\", \"topic\": \"t{n}\"}}\n")).collect();
        assert!(faults(&many, &asked)[0].contains("101 values"));
        let long = format!("{{\"text\": \"x\", \"label\": \"a\", \"topic\": \"{}\"}}", "t".repeat(65));
        assert!(faults(&long, &asked)[0].starts_with("line 1: topic:"));
    }

    #[test]
    fn an_attacked_row_needs_its_clean_twin_and_a_known_target() {
        let wanted = Wanted { adversarial: true, ..wanted() };
        let told = faults("{\"text\": \"x\", \"label\": \"a\", \"attack\": \"f\"}", &wanted);
        assert!(told[0].starts_with("line 1: clean_text:"), "{told:#?}");
        let row = "{\"text\": \"x\", \"label\": \"a\", \"attack\": \"f\", \"clean_text\": \"y\", \"attacker_target\": ";
        assert!(faults(&format!("{row}\"c\"}}"), &wanted)[0].starts_with("line 1: attacker_target:"));
        let set = Dataset::parse("f", format!("{row}\"b\", \"canary\": [\"k\"]}}").as_bytes(), &wanted).unwrap();
        let attack = set.rows[0].attack.as_ref().unwrap();
        assert_eq!((attack.target, attack.canaries[0].as_str()), (Some(1), "k"));
    }
}
