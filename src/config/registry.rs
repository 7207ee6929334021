//! The schema registry: what the configuration may say about it, and what is known of it once checked.

use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::cache::without_credentials;
use super::check::Checker;
use super::raw::Secret;

/// Longest a post may be held up by a question to the registry.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// A schema registry with Confluent's REST interface (JSON Schema): verdicts and notes carry the id of their schema before
/// the value, and the ids before posts are looked up. None without `url`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSchemaRegistry {
    /// `http://host:8081` or `https://host:8081`, and a path if the interface has one. No password in it.
    #[serde(serialize_with = "without_credentials")]
    pub url: String,
    /// User, for HTTP's basic authentication.
    pub username: Option<String>,
    /// Password. Only from `MODERATO__KAFKA__SCHEMA_REGISTRY__PASSWORD`; in a file, use `password_file`.
    pub password: Option<Secret>,
    /// File that holds the password.
    pub password_file: Option<String>,
    /// PEM file of the certificate authorities that count, for `https://`; otherwise the system's trust store.
    pub ca_file: Option<String>,
    /// Whether the worker registers its schema under `TOPIC-value` when it starts. Otherwise it has to be there:
    /// `moderato schema verdict`, or with `kafka.cloudevents: binary` `verdict-data`; or those of notes.
    pub auto_register: bool,
    /// Longest time a call may take, at most `10s`.
    pub timeout: String,
}

impl Default for RawSchemaRegistry {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            auto_register: true,
            timeout: "2s".to_owned(),
        }
    }
}

/// How to reach the schema registry.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Its address.
    pub url: String,
    /// Name and password, if it wants them.
    pub user: Option<(String, SecretString)>,
    /// Certificate authorities, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether a schema that is not there is registered.
    pub auto_register: bool,
    /// Longest time a call may take.
    pub timeout: Duration,
}

impl Checker {
    pub(super) fn registry(&mut self, raw: &RawSchemaRegistry) -> Option<RegistrySettings> {
        if raw.url.is_empty() {
            return None;
        }
        let key = |name: &str| format!("kafka.schema_registry.{name}");
        let known = raw.url.starts_with("http://") || raw.url.starts_with("https://");
        self.require(known, &key("url"), || {
            "must begin with http:// or https://, such as http://localhost:8081".to_owned()
        });
        self.require(!raw.url.contains('@'), &key("url"), || {
            "holds a user or password; use kafka.schema_registry.username and kafka.schema_registry.password_file"
                .to_owned()
        });
        let timeout = self.duration(&key("timeout"), &raw.timeout);
        self.require(timeout <= MAX_TIMEOUT, &key("timeout"), || {
            format!("`{}` is longer than posts may wait; at most 10s, such as 2s", raw.timeout)
        });
        let password = self.secret(&key("password"), raw.password.as_ref(), raw.password_file.as_ref());
        self.require(raw.username.is_some() == password.is_some(), &key("username"), || {
            "and kafka.schema_registry.password_file go together: set both or neither".to_owned()
        });
        Some(RegistrySettings {
            url: raw.url.clone(),
            user: raw.username.clone().zip(password),
            ca_pem: self.pem(&key("ca_file"), raw.ca_file.as_ref()),
            auto_register: raw.auto_register,
            timeout,
        })
    }
}
