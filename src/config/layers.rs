//! File, environment and flags laid over each other, then held against the schema, which names every unknown key and
//! every value of a wrong type at once.

use std::path::Path;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::raw::RawConfig;
use super::{ConfigError, Problem, Setting};

/// Secrets may not stand in a file that is rendered into a ConfigMap and printed in reviews.
const SECRETS: [(&str, &str); 5] = [
    ("/kafka/password", "put it in a file and name that in kafka.password_file, or set MODERATO__KAFKA__PASSWORD"),
    (
        "/kafka/tls_key_password",
        "put it in a file and name that in kafka.tls_key_password_file, or set MODERATO__KAFKA__TLS_KEY_PASSWORD",
    ),
    (
        "/kafka/schema_registry/password",
        "put it in a file and name that in kafka.schema_registry.password_file, or set MODERATO__KAFKA__SCHEMA_REGISTRY__PASSWORD",
    ),
    (
        "/cache/redis/password",
        "put it in a file and name that in cache.redis.password_file, or set MODERATO__CACHE__REDIS__PASSWORD",
    ),
    (
        "/cache/redis/hmac_key",
        "put it in a file and name that in cache.redis.hmac_key_file, or set MODERATO__CACHE__REDIS__HMAC_KEY",
    ),
];

pub(super) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<RawConfig>().to_value()
}

/// The layers as one, and what the schema says against it. What it refuses is left out, so that the rest can be checked
/// in the same go.
pub(super) fn merge(file: Option<&Path>, settings: &[Setting]) -> Result<(RawConfig, Vec<Problem>), ConfigError> {
    let schema = schema();
    let mut tree = match file {
        Some(path) => read(path)?,
        None => Value::Object(Map::new()),
    };
    let mut problems: Vec<Problem> = SECRETS
        .iter()
        .filter(|(pointer, _)| tree.pointer(pointer).is_some_and(|value| !value.is_null()))
        .map(|(pointer, mend)| problem(pointer, format!("a secret may not stand in the file; {mend}")))
        .collect();
    for (key, value) in settings {
        if let Err(message) = set(&mut tree, &schema, key, value) {
            problems.push(Problem { key: key.clone(), message });
        }
    }
    let validator = jsonschema::validator_for(&schema).map_err(|error| whole("schema", &error))?;
    let refused: Vec<(Vec<String>, Vec<Problem>)> =
        validator.iter_errors(&tree).map(|error| (refused(&error), describe(&error, &schema))).collect();
    for (pointers, found) in refused {
        pointers.iter().for_each(|pointer| prune(&mut tree, pointer));
        problems.extend(found);
    }
    let raw = serde_json::from_value(tree).map_err(|error| whole("configuration", &error))?;
    Ok((raw, problems))
}

/// Pointers to what an error is about: unknown keys, or the value itself.
fn refused(error: &jsonschema::ValidationError<'_>) -> Vec<String> {
    let at = error.instance_path();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().map(|key| format!("{at}/{key}")).collect()
        }
        _ => vec![at.to_string()],
    }
}

fn prune(tree: &mut Value, pointer: &str) {
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(Value::Object(map)) = tree.pointer_mut(parent)
    {
        map.remove(key);
    }
}

fn whole(key: &str, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError(vec![Problem { key: key.to_owned(), message: error.to_string() }])
}

fn read(path: &Path) -> Result<Value, ConfigError> {
    let key = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| whole(&key, &format!("cannot be read: {error}; name a readable YAML file with -c")))?;
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let tree: Value = serde_saphyr::from_str(&text).map_err(|error| whole(&key, &error))?;
    if !tree.is_object() {
        return Err(whole(&key, &"a mapping was expected, such as `kafka: {brokers: \"localhost:9092\"}`"));
    }
    Ok(tree)
}

/// Sets one dotted key. Below `kafka.options` the rest of the key, underscores as dots, is librdkafka's own name.
fn set(tree: &mut Value, schema: &Value, key: &str, text: &str) -> Result<(), String> {
    let mut path: Vec<String> = key.split('.').map(str::to_owned).collect();
    if path.len() > 2 && path[0] == "kafka" && path[1] == "options" {
        let option = path.split_off(2).join(".").replace('_', ".");
        path.push(option);
    }
    let (mut place, mut rule) = (tree, schema);
    for segment in &path {
        rule = rule
            .pointer(&format!("/properties/{segment}"))
            .or_else(|| rule.get("additionalProperties"))
            .unwrap_or(&Value::Null);
        let map = match place {
            Value::Object(map) => map,
            other => {
                *other = Value::Object(Map::new());
                other.as_object_mut().ok_or("not a mapping")?
            }
        };
        place = map.entry(segment.clone()).or_insert(Value::Null);
    }
    *place = scalar(rule, text);
    Ok(())
}

/// Text stays text unless the schema asks for a number or a truth value there; a wrong one is left to the schema.
fn scalar(rule: &Value, text: &str) -> Value {
    let is = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number" | "boolean"));
    let typed =
        rule.get("type").is_some_and(|kind| is(kind) || kind.as_array().is_some_and(|kinds| kinds.iter().any(is)));
    let parsed = typed.then(|| serde_json::from_str(text).ok()).flatten();
    parsed.unwrap_or_else(|| Value::from(text))
}

fn problem(pointer: &str, message: String) -> Problem {
    let key = pointer.trim_start_matches('/').replace('/', ".");
    Problem { key: if key.is_empty() { "configuration".to_owned() } else { key }, message }
}

fn describe(error: &jsonschema::ValidationError<'_>, schema: &Value) -> Vec<Problem> {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = known_keys(schema, &at);
            let unknown = |key: &String| problem(&format!("{at}/{key}"), format!("unknown key; known here: {known}"));
            unexpected.iter().map(unknown).collect()
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(many) => many.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or "),
            };
            vec![problem(&at, format!("{} was expected", article(&wanted)))]
        }
        _ => vec![problem(
            &at,
            match choices(schema, &at) {
                Some(choices) => format!("one of {choices} was expected"),
                None => format!("{error}; see `moderato schema config`"),
            },
        )],
    }
}

/// The words that a key may take, where it takes words.
fn choices(schema: &Value, at: &str) -> Option<String> {
    let alternatives = schema.pointer(&rule_pointer(at))?.get("oneOf")?.as_array()?;
    let words: Vec<&str> = alternatives.iter().filter_map(|one| one.get("const")?.as_str()).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn rule_pointer(at: &str) -> String {
    at.split('/').skip(1).map(|segment| format!("/properties/{segment}")).collect()
}

fn article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

fn known_keys(schema: &Value, at: &str) -> String {
    let properties = schema.pointer(&format!("{}/properties", rule_pointer(at))).and_then(Value::as_object);
    properties.map(|map| map.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        let settings: Vec<Setting> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        merge(None, &settings).unwrap().1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_unknown_key_and_wrong_type_is_named_at_once() {
        let found = problems(&[
            ("kafka.brokerz", "x"),
            ("limits.max_in_flight", "many"),
            ("model.device", "gpu"),
            ("speed", "fast"),
        ]);
        let has = |part: &str| assert!(found.iter().any(|p| p.contains(part)), "{part} is not in {found:#?}");
        has("kafka.brokerz: unknown key; known here: brokers");
        has("limits.max_in_flight: an integer was expected");
        has("model.device: one of cpu, openvino, cuda, tensorrt, tensorrt_rtx was expected");
        has("speed: unknown key");
    }

    #[test]
    fn numbers_stay_text_where_text_belongs() {
        let settings =
            [("kafka.group".to_owned(), "42".to_owned()), ("limits.max_in_flight".to_owned(), "7".to_owned())];
        let (raw, _) = merge(None, &settings).unwrap();
        assert_eq!((raw.kafka.group.as_str(), raw.limits.max_in_flight), ("42", 7));
    }

    #[test]
    fn an_environment_variable_reaches_a_librdkafka_option() {
        let variables = [("MODERATO__KAFKA__OPTIONS__SECURITY_PROTOCOL".to_owned(), "SASL_SSL".to_owned())];
        let (raw, _) = merge(None, &crate::config::from_environment(variables.into_iter())).unwrap();
        assert_eq!(raw.kafka.options["security.protocol"].to_string(), "SASL_SSL");
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "kafka: {password: hunter2}").unwrap();
        let error = ConfigError(merge(Some(file.path()), &[]).unwrap().1).to_string();
        assert!(error.contains("kafka.password_file") && !error.contains("hunter2"), "{error}");
    }
}
