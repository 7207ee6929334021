//! Licences with conditions: whoever runs such weights has to have accepted them, and says so in the configuration.

use super::ModelError;

/// Words of a manifest's `license` that name one, and where its conditions stand.
const CONDITIONAL: [(&str, &str); 3] = [
    ("llama", "https://ai.meta.com/llama/license/ and https://ai.meta.com/llama/use-policy/"),
    ("gemma", "https://ai.google.dev/gemma/terms"),
    ("openrail", "the use restrictions in the licence's attachment"),
];

/// Refuses weights whose conditions nobody has accepted.
pub(super) fn check(license: Option<&str>, accepted: bool) -> Result<(), ModelError> {
    let Some(license) = license.filter(|_| !accepted) else { return Ok(()) };
    let lower = license.to_lowercase();
    match CONDITIONAL.iter().find(|(word, _)| lower.contains(word)) {
        None => Ok(()),
        Some((_, terms)) => Err(ModelError::License(format!(
            "the model folder's licence is `{license}`, which has conditions ({terms}): read them, then set \
             model.license_accepted: true"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_with_conditions_are_loaded_only_when_they_are_accepted() {
        for name in ["llama2", "Llama 2 Community License", "LLAMA3.1", "gemma", "bigscience-openrail-m"] {
            let refusal = check(Some(name), false).unwrap_err();
            assert_eq!(refusal.code(), "license_not_accepted");
            assert!(refusal.to_string().contains("model.license_accepted: true"), "{refusal}");
            assert!(check(Some(name), true).is_ok());
        }
        for name in [None, Some("apache-2.0"), Some("research only: see model/CARD.md")] {
            assert!(check(name, false).is_ok());
        }
    }
}
