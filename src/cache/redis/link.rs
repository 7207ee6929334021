//! The way to Redis: one server through a reconnecting connection, or a cluster.
//!
//! Every call ends within `timeout`, connecting included; after three failures in a row the breaker leaves Redis alone
//! for a second at a time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, TlsCertificates, Value};
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use crate::cache::breaker::{Breaker, Change};
use crate::cache::counts::{Counts, Sparingly, add};
use crate::config::RedisSettings;

/// Commands that belong together: they run in order, and in a cluster all their keys lie in one slot.
pub(super) type Group = Vec<Cmd>;

/// What the commands of a group were answered; `None` for those that were refused.
pub(super) type Replies = Vec<Option<Value>>;

/// The connection, with its breaker.
pub(super) struct Link {
    server: Server,
    breaker: Mutex<Breaker>,
    timeout: Duration,
    counts: Arc<Counts>,
    refusals: Sparingly,
}

enum Server {
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

impl Link {
    /// Checks the URLs; connects at the first call. Must be called on the runtime that will use it.
    pub(super) fn open(settings: &RedisSettings, counts: Arc<Counts>) -> RedisResult<Self> {
        Ok(Self {
            server: if settings.cluster { cluster(settings) } else { single(settings) }?,
            breaker: Mutex::new(Breaker::default()),
            timeout: settings.timeout,
            counts,
            refusals: Sparingly::default(),
        })
    }

    /// Asks the server to answer at all, past the breaker.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let answer = self.within_timeout(self.query::<String>(&redis::cmd("PING"))).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }

    /// One command; `None` if it failed.
    pub(super) async fn one<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        self.call(self.query(command)).await
    }

    /// Many commands in one round trip, or in a cluster in as many at once as there are groups. `None` if Redis did not
    /// answer; a command that it refused, for want of memory or rights, is no failure of the others.
    pub(super) async fn groups(&self, groups: Vec<Group>) -> Option<Vec<Replies>> {
        if groups.is_empty() {
            return Some(Vec::new());
        }
        let answered = self.call(self.query_groups(groups)).await?;
        Some(
            answered
                .into_iter()
                .map(|group| group.into_iter().map(|reply| self.unless_refused(reply)).collect())
                .collect(),
        )
    }

    fn unless_refused(&self, reply: RedisResult<Value>) -> Option<Value> {
        reply
            .inspect_err(|error| {
                add(&self.counts.refused, 1);
                if self.refusals.due(Instant::now()) {
                    warn!(%error, "redis refuses a command; posts are judged all the same");
                }
            })
            .ok()
    }

    async fn call<T>(&self, query: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if !self.breaker(|breaker| breaker.allows(Instant::now())) {
            add(&self.counts.unreachable, 1);
            return None;
        }
        let outcome = self.within_timeout(query).await;
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
        outcome
            .inspect_err(|error| {
                add(&self.counts.unreachable, 1);
                debug!(%error, "redis call failed");
            })
            .ok()
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match &self.server {
            Server::Single(single) => {
                let mut manager = single.manager();
                single.unless_locked_out(query_on(&mut manager, command).await)
            }
            Server::Cluster(cluster) => query_on(&mut cluster.connection().await?, command).await,
        }
    }

    async fn query_groups(&self, groups: Vec<Group>) -> RedisResult<Vec<Vec<RedisResult<Value>>>> {
        match &self.server {
            Server::Single(single) => {
                let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
                let whole = pipeline(groups.into_iter().flatten());
                let mut manager = single.manager();
                let replies: Vec<_> = single.unless_locked_out(whole.query_async(&mut manager).await)?;
                let mut replies = replies.into_iter();
                Ok(lengths.into_iter().map(|length| replies.by_ref().take(length).collect()).collect())
            }
            Server::Cluster(cluster) => {
                let connection = cluster.connection().await?;
                let send = |group: Group| {
                    let mut connection = connection.clone();
                    async move { pipeline(group.into_iter()).query_async(&mut connection).await }
                };
                try_join_all(groups.into_iter().map(send)).await
            }
        }
    }

    /// Bounds the whole call: neither library bounds connecting and retrying together.
    async fn within_timeout<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let late = RedisError::from((ErrorKind::Io, "no answer within cache.redis.timeout"));
        tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(late))
    }

    fn breaker<T>(&self, f: impl FnOnce(&mut Breaker) -> T) -> T {
        f(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn query_on<C: ConnectionLike, T: FromRedisValue>(link: &mut C, command: &Cmd) -> RedisResult<T> {
    command.query_async(link).await
}

/// Each command with its own outcome.
fn pipeline(commands: impl Iterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.ignore_errors();
    pipeline
}

fn single(settings: &RedisSettings) -> RedisResult<Server> {
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
    Ok(Server::Single(Box::new(Single { client, config, manager })))
}

impl Single {
    fn manager(&self) -> ConnectionManager {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The manager connects again after faults of the network alone and keeps a refused login for ever, although the
    /// user may be made or mended later.
    fn unless_locked_out<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::AuthenticationFailed) {
            let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())?;
            *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        answer
    }
}

fn cluster(settings: &RedisSettings) -> RedisResult<Server> {
    // The library's own patience (16 retries, minutes of waiting) is far too long for a cache.
    let mut builder = ClusterClientBuilder::new(settings.urls.iter().map(|url| url.expose_secret().to_owned()))
        .retries(1)
        .max_retry_wait(50)
        .connection_timeout(settings.timeout)
        .response_timeout(settings.timeout);
    if let Some(certificates) = certificates(settings) {
        builder = builder.certs(certificates);
    }
    Ok(Server::Cluster(Box::new(Cluster { client: builder.build()?, connection: OnceCell::new() })))
}

impl Cluster {
    async fn connection(&self) -> RedisResult<ClusterConnection> {
        self.connection.get_or_try_init(|| self.client.get_async_connection()).await.cloned()
    }
}

fn certificates(settings: &RedisSettings) -> Option<TlsCertificates> {
    let root_cert = settings.ca_pem.clone()?;
    Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
}
