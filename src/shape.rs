//! A document against a schema, every breach told at once.

use jsonschema::Validator;
use serde_json::Value;

/// `place: what is wrong`, for each thing that is.
pub fn breaches(validator: &Validator, document: &Value) -> Vec<String> {
    let told = |error: jsonschema::ValidationError<'_>| {
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { "file".to_owned() } else { place[1..].replace('/', ".") };
        format!("{place}: {error}")
    };
    validator.iter_errors(document).map(told).collect()
}

/// The same with a schema that is used once.
pub fn breaches_of(schema: &Value, document: &Value) -> Vec<String> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => breaches(&validator, document),
        Err(error) => vec![format!("schema: {error}")],
    }
}
