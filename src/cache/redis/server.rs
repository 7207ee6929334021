//! The connection: to one server, or to a cluster. It mends itself as far as its library does; where that is not far
//! enough, it is made anew.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, TlsCertificates, Value};
use secrecy::ExposeSecret as _;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::config::RedisSettings;

/// Commands that belong together: they run in order, and in a cluster all their keys lie in one slot.
pub(super) type Group = Vec<Cmd>;

pub(super) enum Server {
    /// Connects at the first call and again after each drop, by itself.
    Single(Box<Single>),
    /// Connects at the first call that succeeds, then follows the cluster by itself.
    Cluster(Box<Cluster>),
}

pub(super) struct Single {
    client: Client,
    config: ConnectionManagerConfig,
    manager: Mutex<ConnectionManager>,
}

pub(super) struct Cluster {
    client: ClusterClient,
    connected: Mutex<Arc<Connected>>,
}

/// A connection to a cluster, and what drives it. When nodes go, it can wait for itself for ever (redis-rs 2418, and in
/// 1.8.1 still where a slot refresh follows a reconnect). Nothing of it ends then, so it has a runtime of its own, with
/// which its tasks and sockets are dropped.
#[derive(Default)]
struct Connected(OnceCell<(ClusterConnection, Driver)>);

/// Dropped whenever a call that connects is given up, so nothing may be done in its place that blocks.
struct Driver(Option<Runtime>);

impl Server {
    /// Checks the URLs; connects at the first call. Must be called on the runtime that will use it.
    pub(super) fn open(settings: &RedisSettings) -> RedisResult<Self> {
        if settings.cluster { cluster(settings) } else { single(settings) }
    }

    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Server::Single(single) => query_on(&mut single.manager(), command).await,
            Server::Cluster(cluster) => {
                let connected = cluster.connected();
                query_on(&mut connected.connection(&cluster.client).await?, command).await
            }
        }
    }

    pub(super) async fn query_groups(&self, groups: Vec<Group>) -> RedisResult<Vec<Vec<RedisResult<Value>>>> {
        match self {
            Server::Single(single) => {
                let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
                let whole = pipeline(groups.into_iter().flatten());
                let replies: Vec<_> = whole.query_async(&mut single.manager()).await?;
                let mut replies = replies.into_iter();
                Ok(lengths.into_iter().map(|length| replies.by_ref().take(length).collect()).collect())
            }
            Server::Cluster(cluster) => {
                let connected = cluster.connected();
                let connection = connected.connection(&cluster.client).await?;
                let send = |group: Group| {
                    let mut connection = connection.clone();
                    async move { pipeline(group.into_iter()).query_async(&mut connection).await }
                };
                try_join_all(groups.into_iter().map(send)).await
            }
        }
    }

    /// Leaves the connection behind; the next call makes another. The manager of a single server connects again after
    /// faults of the network alone, and keeps a refused login for ever, although the user may be made or mended later.
    pub(super) fn start_anew(&self) {
        match self {
            Server::Single(single) => {
                if let Ok(fresh) = ConnectionManager::new_lazy_with_config(single.client.clone(), single.config.clone())
                {
                    *single.manager.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                }
            }
            Server::Cluster(cluster) => {
                *cluster.connected.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            }
        }
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
    Ok(Server::Cluster(Box::new(Cluster { client: builder.build()?, connected: Mutex::default() })))
}

impl Cluster {
    /// Callers keep it for as long as they use its connection.
    fn connected(&self) -> Arc<Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Connected {
    async fn connection(&self, client: &ClusterClient) -> RedisResult<ClusterConnection> {
        let connect = || async {
            let driver = Driver::start()?;
            let client = client.clone();
            // On its runtime, so that whatever the library starts is started there.
            let connecting =
                driver.0.as_ref().map(|runtime| runtime.spawn(async move { client.get_async_connection().await }));
            let ended = || RedisError::from((ErrorKind::Client, "the connection's task ended"));
            let connection = connecting.ok_or_else(ended)?.await.map_err(|_| ended())??;
            Ok((connection, driver))
        };
        self.0.get_or_try_init(connect).await.map(|(connection, _)| connection.clone())
    }
}

impl Driver {
    fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("redis-cluster").enable_all().build().map(|runtime| Self(Some(runtime)))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn certificates(settings: &RedisSettings) -> Option<TlsCertificates> {
    let root_cert = settings.ca_pem.clone()?;
    Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
}
