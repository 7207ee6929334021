//! The three calls, over HTTP.

use std::error::Error as _;
use std::io::Read as _;

use reqwest::blocking::{Client as Http, RequestBuilder};
use reqwest::{Certificate, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::config::RegistrySettings;
use crate::event::SchemaId;

const MEDIA: &str = "application/vnd.schemaregistry.v1+json";
/// Largest answer that is read: a schema is one.
const LARGEST: u64 = 4 << 20;
/// Longest part of the registry's own words that is repeated, in characters.
const WORDS: usize = 300;

/// What a schema is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A JSON schema.
    Json,
    /// Another one.
    Other(&'static str),
    /// None has that id.
    Missing,
}

/// Why the registry did not do what it was asked for.
#[derive(Debug, Error)]
pub enum Fault {
    /// It does not answer.
    #[error("{url} does not answer: {cause}")]
    Unreachable {
        /// The registry.
        url: String,
        /// What the client said.
        cause: String,
    },
    /// It answered with something else.
    #[error("{url}: {what}: {said}")]
    Refused {
        /// The registry.
        url: String,
        /// What was asked.
        what: String,
        /// Its own words.
        said: String,
    },
    /// The schema is not registered, and shall not be by this worker.
    #[error("{url}: subject `{subject}` does not hold this worker's schema")]
    Unregistered {
        /// The registry.
        url: String,
        /// The subject.
        subject: String,
    },
    /// The settings make no client.
    #[error("{0}")]
    Settings(String),
}

pub(super) struct Client {
    http: Http,
    url: String,
    user: Option<(String, SecretString)>,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Deserialize)]
struct Version {
    id: u32,
    schema: String,
}

#[derive(Deserialize)]
struct Found {
    /// Left out for Avro.
    #[serde(rename = "schemaType")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Client {
    pub(super) fn new(settings: &RegistrySettings) -> Result<Self, Fault> {
        let RegistrySettings { url, user, ca_pem, timeout, .. } = settings;
        // TLS asks for the program's choice; where one is made already, it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Http::builder()
            .timeout(*timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("moderato/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = ca_pem {
            let bundle = Certificate::from_pem_bundle(pem).map_err(|error| Fault::Settings(whole(&error)))?;
            http = http.tls_certs_only(bundle);
        }
        let http = http.build().map_err(|error| Fault::Settings(whole(&error)))?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), user: user.clone() })
    }

    /// Registers the schema under the subject, unless it is there already.
    pub(super) fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, Fault> {
        let what = format!("registering a schema under `{subject}`");
        let request = self.http.post(format!("{}/subjects/{subject}/versions", self.url)).body(body(schema));
        match self.send(request)? {
            (status, text) if status.is_success() => self.id(what, &text),
            (status, text) => Err(self.refused(what, status, &text)),
        }
    }

    /// The id of the schema that is registered under the subject; the latest one may be written in another way.
    pub(super) fn look_up(&self, subject: &str, schema: &str) -> Result<SchemaId, Fault> {
        let what = format!("looking a schema up under `{subject}`");
        let request = self.http.post(format!("{}/subjects/{subject}", self.url)).body(body(schema));
        match self.send(request)? {
            (status, text) if status.is_success() => self.id(what, &text),
            (StatusCode::NOT_FOUND, text) if serde_json::from_str::<Refusal>(&text).is_ok() => {
                let (_, latest) =
                    self.send(self.http.get(format!("{}/subjects/{subject}/versions/latest", self.url)))?;
                same(&latest, schema)
                    .ok_or_else(|| Fault::Unregistered { url: self.url.clone(), subject: subject.to_owned() })
            }
            (status, text) => Err(self.refused(what, status, &text)),
        }
    }

    /// What the schema of an id is of.
    pub(super) fn kind(&self, id: SchemaId) -> Result<Kind, Fault> {
        let what = format!("asking for schema {}", id.0);
        let (status, text) = self.send(self.http.get(format!("{}/schemas/ids/{}", self.url, id.0)))?;
        // Another server's page for what it has not is no word about a schema.
        if status == StatusCode::NOT_FOUND && serde_json::from_str::<Refusal>(&text).is_ok() {
            return Ok(Kind::Missing);
        }
        if !status.is_success() {
            return Err(self.refused(what, status, &text));
        }
        let found: Found = serde_json::from_str(&text).map_err(|_| self.refused(what, status, "no schema"))?;
        Ok(match found.kind.as_deref() {
            Some("JSON") => Kind::Json,
            None | Some("AVRO") => Kind::Other("Avro"),
            Some("PROTOBUF") => Kind::Other("Protobuf"),
            Some(_) => Kind::Other("no JSON schema"),
        })
    }

    fn send(&self, request: RequestBuilder) -> Result<(StatusCode, String), Fault> {
        let unreachable = |cause| Fault::Unreachable { url: self.url.clone(), cause };
        let request = request.header(header::ACCEPT, MEDIA).header(header::CONTENT_TYPE, MEDIA);
        let request = match &self.user {
            Some((name, password)) => request.basic_auth(name, Some(password.expose_secret())),
            None => request,
        };
        let answer = request.send().map_err(|error| unreachable(whole(&error.without_url())))?;
        let (status, mut text) = (answer.status(), String::new());
        answer.take(LARGEST).read_to_string(&mut text).map_err(|error| unreachable(error.to_string()))?;
        Ok((status, text))
    }

    fn id(&self, what: String, text: &str) -> Result<SchemaId, Fault> {
        let found: Result<Registered, _> = serde_json::from_str(text);
        found.map(|found| SchemaId(found.id)).map_err(|_| self.refused(what, StatusCode::OK, "an answer without an id"))
    }

    fn refused(&self, what: String, status: StatusCode, text: &str) -> Fault {
        let said = serde_json::from_str(text).map_or_else(|_| text.trim().to_owned(), |said: Refusal| said.message);
        let said = said.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        Fault::Refused { url: self.url.clone(), what, said: format!("{status}: {said}") }
    }
}

/// The id of the version that a registry told, if its schema is this one.
fn same(version: &str, schema: &str) -> Option<SchemaId> {
    let Version { id, schema: latest } = serde_json::from_str(version).ok()?;
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    (read(&latest)? == read(schema)?).then_some(SchemaId(id))
}

fn body(schema: &str) -> String {
    json!({ "schemaType": "JSON", "schema": schema }).to_string()
}

/// An error with what lies behind it.
fn whole(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
