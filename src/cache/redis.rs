//! Answers kept in Redis, shared by all workers: one server through a reconnecting connection, or a cluster.
//!
//! Every call ends within `timeout`, connecting included; after three failures in a row the breaker leaves Redis alone
//! for a second at a time. Keys are digests, so no post text is ever in one.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{Client, ErrorKind, FromRedisValue, RedisError, TlsCertificates};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use super::breaker::{Breaker, Change};
use crate::config::RedisSettings;
use crate::verdict::VerdictKey;

/// The connection, with its breaker.
pub struct Redis {
    link: Link,
    breaker: Mutex<Breaker>,
    timeout: Duration,
    ttl: Duration,
    prefix: String,
}

enum Link {
    /// Connects at the first call and again after each drop, by itself.
    Single(Box<Single>),
    /// Connects at the first call that succeeds, then follows the cluster by itself.
    Cluster(Box<Cluster>),
}

struct Single {
    client: Client,
    config: ConnectionManagerConfig,
    manager: Mutex<ConnectionManager>,
}

struct Cluster {
    client: ClusterClient,
    connection: OnceCell<ClusterConnection>,
}

impl Redis {
    /// Checks the URLs; connects at the first call. Must be called on the runtime that will use it.
    pub(super) fn open(settings: &RedisSettings) -> Result<Self, String> {
        let link = if settings.cluster { cluster(settings) } else { single(settings) };
        Ok(Self {
            link: link.map_err(|error| error.to_string())?,
            breaker: Mutex::new(Breaker::default()),
            timeout: settings.timeout,
            ttl: settings.ttl,
            prefix: settings.prefix.clone(),
        })
    }

    pub(super) async fn get_many(&self, keys: &[VerdictKey]) -> Vec<Option<Vec<u8>>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.key(key));
        }
        self.call::<Vec<Option<Vec<u8>>>>(&command).await.unwrap_or_default()
    }

    pub(super) async fn put(&self, key: &VerdictKey, value: Vec<u8>) {
        let mut command = redis::cmd("SET");
        command.arg(self.key(key)).arg(value).arg("PX").arg(self.jittered_ttl(key));
        let _: Option<()> = self.call(&command).await;
    }

    /// Asks the server to answer at all, past the breaker.
    pub async fn ping(&self) -> Result<(), String> {
        let command = redis::cmd("PING");
        let answer = self.within_timeout(self.query::<String>(&command)).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn call<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        if !self.breaker(|breaker| breaker.allows(Instant::now())) {
            return None;
        }
        let outcome = self.within_timeout(self.query(command)).await;
        let change = self.breaker(|breaker| match &outcome {
            Ok(_) => breaker.succeeded(),
            Err(_) => breaker.failed(Instant::now()),
        });
        match change {
            Some(Change::Opened) => {
                let error = outcome.as_ref().err().map(tracing::field::display);
                warn!(error, "redis does not answer; posts are judged without the cache");
            }
            Some(Change::Closed) => info!("redis answers again"),
            None => {}
        }
        outcome.map_err(|error| debug!(%error, "redis call failed")).ok()
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, RedisError> {
        match &self.link {
            Link::Single(single) => {
                let mut manager = single.manager.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let answer = query_on(&mut manager, command).await;
                if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::AuthenticationFailed) {
                    single.start_anew()?;
                }
                answer
            }
            Link::Cluster(cluster) => {
                let connect = || cluster.client.get_async_connection();
                let connection = cluster.connection.get_or_try_init(connect).await?;
                query_on(&mut connection.clone(), command).await
            }
        }
    }

    /// Bounds the whole call: neither library bounds connecting and retrying together.
    async fn within_timeout<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        let late = RedisError::from((ErrorKind::Io, "no answer within cache.redis.timeout"));
        tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(late))
    }

    fn breaker<T>(&self, f: impl FnOnce(&mut Breaker) -> T) -> T {
        f(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn key(&self, key: &VerdictKey) -> String {
        format!("{}:v1:{key}", self.prefix)
    }

    /// 0.9 to 1.1 of the time to live, spread by the key's own digest, so that answers given in one burst do not all
    /// expire in one burst.
    fn jittered_ttl(&self, key: &VerdictKey) -> u64 {
        let spread =
            key.to_string().bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 201;
        let millis = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX / 2000);
        millis.saturating_mul(900 + spread) / 1000
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

async fn query_on<C: ConnectionLike, T: FromRedisValue>(link: &mut C, command: &redis::Cmd) -> Result<T, RedisError> {
    command.query_async(link).await
}

fn single(settings: &RedisSettings) -> Result<Link, RedisError> {
    let url = settings.urls.first().map_or("", |url| url.expose_secret());
    let client = match certificates(settings) {
        Some(certificates) => Client::build_with_tls(url, certificates)?,
        None => Client::open(url)?,
    };
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(settings.timeout))
        .set_connection_timeout(Some(settings.timeout))
        // Trying again is the breaker's part: within one call it would only hide why the server refuses.
        .set_number_of_retries(0);
    let manager = Mutex::new(ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?);
    Ok(Link::Single(Box::new(Single { client, config, manager })))
}

impl Single {
    /// The manager connects again after faults of the network alone and keeps a refused login for ever, although the
    /// user may be made or mended later.
    fn start_anew(&self) -> Result<(), RedisError> {
        let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())?;
        *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn cluster(settings: &RedisSettings) -> Result<Link, RedisError> {
    // The library's own patience (16 retries, minutes of waiting) is far too long for a cache.
    let mut builder = ClusterClientBuilder::new(settings.urls.iter().map(|url| url.expose_secret().to_owned()))
        .retries(1)
        .max_retry_wait(50)
        .connection_timeout(settings.timeout)
        .response_timeout(settings.timeout);
    if let Some(certificates) = certificates(settings) {
        builder = builder.certs(certificates);
    }
    Ok(Link::Cluster(Box::new(Cluster { client: builder.build()?, connection: OnceCell::new() })))
}

fn certificates(settings: &RedisSettings) -> Option<TlsCertificates> {
    let root_cert = settings.ca_pem.clone()?;
    Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
}
