//! What the posts themselves add: texts of the flips, and fields to slice by.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::mend;
use crate::cli::places::Source;
use crate::config::KafkaSettings;
use crate::diff::{Books, Compared, Fields, head};
use crate::error::Exit;

/// Most values that a field may have to be sliced by, as for `moderato eval`.
const MOST_SLICES: usize = 100;

/// Every post that is a JSON object with an id.
fn each(
    source: &Source,
    kafka: Option<&KafkaSettings>,
    mut take: impl FnMut(&str, &Map<String, Value>),
) -> Result<(), Exit> {
    source.each(kafka, "posts read", |entry| {
        let post = entry.value.and_then(|value| serde_json::from_slice(value).ok());
        if let Some(Value::Object(post)) = post
            && let Some(id) = post.get("id").and_then(Value::as_str)
        {
            take(id, &post);
        }
        Ok(())
    })
}

/// Puts texts to the listed flips: only the very texts that were judged.
pub(super) fn show(
    source: &Source,
    kafka: Option<&KafkaSettings>,
    books: &Books,
    compared: &mut Compared,
) -> Result<(), Exit> {
    let listed = compared.flips.iter().zip(&compared.report.flips.first);
    let wanted: HashMap<(String, u128), usize> = listed
        .enumerate()
        .map(|(place, ((a, _), flip))| ((flip.post.post_id.clone(), books.a.rows[*a].text), place))
        .collect();
    let ids: BTreeSet<&str> = wanted.keys().map(|(id, _)| id.as_str()).collect();
    let mut found = Vec::new();
    each(source, kafka, |id, post| {
        if let Some(text) = post.get("text").and_then(Value::as_str).filter(|_| ids.contains(id))
            && let Some(place) = wanted.get(&(id.to_owned(), head(&Sha256::digest(text))))
        {
            found.push((*place, text.to_owned()));
        }
    })?;
    for (place, text) in found {
        compared.report.flips.first[place].text = Some(text);
    }
    Ok(())
}

/// The fields that are asked for, of every post that has any.
pub(super) fn fields(source: &Source, kafka: Option<&KafkaSettings>, asked: &[String]) -> Result<Fields, Exit> {
    let mut fields = Fields { names: asked.to_vec(), values: HashMap::new() };
    let mut known = vec![BTreeSet::new(); asked.len()];
    each(source, kafka, |id, post| {
        let value = |field: &String| match post.get(field) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let values: Vec<Option<String>> = asked.iter().map(value).collect();
        for (known, value) in known.iter_mut().zip(&values) {
            if known.len() <= MOST_SLICES {
                known.extend(value.clone());
            }
        }
        let or_none = |value: Option<String>| value.unwrap_or_else(|| crate::eval::dataset::WITHOUT.to_owned());
        fields.values.insert(id.to_owned(), values.into_iter().map(or_none).collect());
    })?;
    for (field, known) in asked.iter().zip(&known) {
        if known.is_empty() || known.len() > MOST_SLICES {
            let what = if known.is_empty() {
                "no post has it".to_owned()
            } else {
                format!("it has more than {MOST_SLICES} values")
            };
            return Err(mend(&format!("--slice {field}: {what}; name a field that groups the posts")));
        }
    }
    Ok(fields)
}
