//! The cache: what the configuration may say about it, and what is known of it once checked.

use std::time::Duration;

use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::check::Checker;
use super::raw::Secret;

/// Longest a call to Redis may be allowed to take: beyond it, judging again is cheaper than asking.
const MAX_REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Shortest key of a seal: a shorter one can be guessed by whoever reads a sealed value.
const MIN_HMAC_KEY: usize = 32;

/// Where answers are kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCache {
    /// Which cache.
    pub kind: RawCacheKind,
    /// How long an answer is kept.
    pub ttl: String,
    /// Most answers kept, for `in_process`.
    pub max_entries: u64,
    /// Redis, for `redis`.
    pub redis: RawRedis,
}

/// Kinds of cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawCacheKind {
    /// Shared between workers.
    Redis,
    /// This process only.
    #[default]
    InProcess,
    /// None.
    Off,
}

/// How to reach Redis.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRedis {
    /// `redis://host:6379/0`, or `rediss://` for TLS; a cluster's seed nodes separated by commas. No password in it.
    #[serde(serialize_with = "without_credentials")]
    pub url: String,
    /// Whether the servers form a cluster.
    pub cluster: bool,
    /// ACL user.
    pub username: Option<String>,
    /// Password. Only from `MODERATO__CACHE__REDIS__PASSWORD`; in a file, use `password_file`.
    pub password: Option<Secret>,
    /// File that holds the password.
    pub password_file: Option<String>,
    /// PEM file of the certificate authority, for `rediss://`; otherwise the system's trust store.
    pub ca_file: Option<String>,
    /// Longest time a call may take, at most `500ms`.
    pub timeout: String,
    /// Put before every key.
    pub prefix: String,
    /// Whether workers tell each other through Redis what they are judging, so that a text that several have at once is
    /// run by one of them and waited for by the others, for at most half of `shutdown.stall_timeout`. It costs one call
    /// for up to 64 posts of which any is unknown. A single worker needs none.
    pub claims: bool,
    /// Seals the answers, so that one which was made or altered by somebody else in Redis is a miss: 32 characters or
    /// more, the same for all workers. Only from `MODERATO__CACHE__REDIS__HMAC_KEY`; in a file, use `hmac_key_file`.
    pub hmac_key: Option<Secret>,
    /// File that holds the key of the seal.
    pub hmac_key_file: Option<String>,
}

/// An address that holds a user or password is refused, and printing what was refused must not show it either.
pub(super) fn without_credentials<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if url.contains('@') { "[redacted]" } else { url })
}

impl Default for RawCache {
    fn default() -> Self {
        Self { kind: RawCacheKind::default(), ttl: "7d".to_owned(), max_entries: 100_000, redis: RawRedis::default() }
    }
}

impl Default for RawRedis {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".to_owned(),
            cluster: false,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            timeout: "200ms".to_owned(),
            prefix: "moderato".to_owned(),
            claims: true,
            hmac_key: None,
            hmac_key_file: None,
        }
    }
}

/// Which cache.
#[derive(Debug, Clone)]
pub enum CacheSettings {
    /// Shared between workers.
    Redis(RedisSettings),
    /// This process only.
    InProcess {
        /// Most answers kept.
        max_entries: u64,
        /// How long an answer is kept.
        ttl: Duration,
    },
    /// None: every post runs.
    Off,
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://` URLs, with the password inside if there is one: one server, or a cluster's seed nodes.
    pub urls: Vec<SecretString>,
    /// Whether the servers form a cluster.
    pub cluster: bool,
    /// PEM of the certificate authority for `rediss://`; the system's trust store otherwise.
    pub ca_pem: Option<Vec<u8>>,
    /// Longest time any call may take.
    pub timeout: Duration,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// Put before every key.
    pub prefix: String,
    /// How long to wait for another worker's answer at most; `None` never waits, and claims nothing.
    pub claims: Option<Duration>,
    /// Seals the answers.
    pub hmac_key: Option<SecretString>,
}

impl Checker {
    pub(super) fn cache(&mut self, raw: &RawCache, stall_timeout: Duration) -> CacheSettings {
        let ttl = self.duration("cache.ttl", &raw.ttl);
        match raw.kind {
            RawCacheKind::Off => CacheSettings::Off,
            RawCacheKind::InProcess => {
                self.require(raw.max_entries > 0, "cache.max_entries", || {
                    "must be at least 1, such as 100000".to_owned()
                });
                CacheSettings::InProcess { max_entries: raw.max_entries, ttl }
            }
            // A post that has waited as long as that still has half of the time to be run here.
            RawCacheKind::Redis => CacheSettings::Redis(self.redis(&raw.redis, ttl, stall_timeout / 2)),
        }
    }

    fn redis(&mut self, raw: &RawRedis, ttl: Duration, patience: Duration) -> RedisSettings {
        let timeout = self.duration("cache.redis.timeout", &raw.timeout);
        self.require(timeout <= MAX_REDIS_TIMEOUT, "cache.redis.timeout", || {
            format!("`{}` is too long for a cache; at most 500ms, such as 200ms", raw.timeout)
        });
        let urls: Vec<&str> = raw.url.split(',').map(str::trim).collect();
        for url in &urls {
            let known = url.starts_with("redis://") || url.starts_with("rediss://");
            self.require(known, "cache.redis.url", || {
                "must begin with redis:// or rediss://, such as redis://localhost:6379/0".to_owned()
            });
            self.require(!url.contains('@'), "cache.redis.url", || {
                "holds a user or password; use cache.redis.username and cache.redis.password_file".to_owned()
            });
        }
        self.require(raw.cluster || urls.len() == 1, "cache.redis.url", || {
            "names several servers; set cache.redis.cluster: true, or name one".to_owned()
        });
        let password = self.secret("cache.redis.password", raw.password.as_ref(), raw.password_file.as_ref());
        let ca_pem = self.pem("cache.redis.ca_file", raw.ca_file.as_ref());
        let hmac_key = self.secret("cache.redis.hmac_key", raw.hmac_key.as_ref(), raw.hmac_key_file.as_ref());
        let length = hmac_key.as_ref().map(|key| key.expose_secret().len());
        self.require(length.is_none_or(|length| length >= MIN_HMAC_KEY), "cache.redis.hmac_key", || {
            format!("is too short: at least {MIN_HMAC_KEY} characters, such as those of `openssl rand -hex 32`")
        });
        let with_user = |url: &&str| with_credentials(url, raw.username.as_deref(), password.as_ref());
        RedisSettings {
            urls: urls.iter().map(with_user).collect(),
            cluster: raw.cluster,
            ca_pem,
            timeout,
            ttl,
            prefix: raw.prefix.clone(),
            claims: raw.claims.then_some(patience),
            hmac_key,
        }
    }
}

fn with_credentials(url: &str, username: Option<&str>, password: Option<&SecretString>) -> SecretString {
    let (Some((scheme, rest)), true) = (url.split_once("://"), username.is_some() || password.is_some()) else {
        return url.into();
    };
    let user = percent_encode(username.unwrap_or_default());
    let secret = percent_encode(password.map_or("", |password| password.expose_secret()));
    format!("{scheme}://{user}:{secret}@{rest}").into()
}

/// RFC 3986: everything but unreserved characters.
fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_password_is_encoded_into_the_url_and_never_printed() {
        let password: SecretString = "p@ss/word".into();
        let url = with_credentials("redis://host:1/0", Some("moderato"), Some(&password));
        assert_eq!(url.expose_secret(), "redis://moderato:p%40ss%2Fword@host:1/0");
        assert!(!format!("{url:?}").contains("p%40ss"));
    }
}
