//! The way to Redis.
//!
//! Every call ends within `timeout`, connecting included; after three failures in a row the breaker leaves Redis alone
//! for a second at a time.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Value};
use tracing::{debug, info, warn};

use super::server::{Group, Server};
use crate::cache::breaker::{Breaker, Change};
use crate::cache::counts::{Counts, Sparingly, add};
use crate::config::RedisSettings;

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

impl Link {
    /// Checks the URLs; connects at the first call. Must be called on the runtime that will use it.
    pub(super) fn open(settings: &RedisSettings, counts: Arc<Counts>) -> RedisResult<Self> {
        Ok(Self {
            server: Server::open(settings)?,
            breaker: Mutex::new(Breaker::default()),
            timeout: settings.timeout,
            counts,
            refusals: Sparingly::default(),
        })
    }

    /// Asks the server to answer at all, past the breaker.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let answer = self.within_timeout(self.server.query::<String>(&redis::cmd("PING"))).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }

    /// One command; `None` if it failed.
    pub(super) async fn one<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        self.call(self.server.query(command)).await
    }

    /// Many commands in one round trip, or in a cluster in as many at once as there are groups. `None` if Redis did not
    /// answer; a command that it refused, for want of memory or rights, is no failure of the others.
    pub(super) async fn groups(&self, groups: Vec<Group>) -> Option<Vec<Replies>> {
        if groups.is_empty() {
            return Some(Vec::new());
        }
        let answered = self.call(self.server.query_groups(groups)).await?;
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
        // Not at the first fault: most pass, and the connection mends itself.
        if outcome.is_err() && self.breaker(|breaker| breaker.is_open()) {
            self.server.start_anew();
        }
        if let Some(change) = &change {
            self.counts.breaker_open.store(*change == Change::Opened, Ordering::Relaxed);
        }
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

    /// Bounds the whole call: neither library bounds connecting and retrying together.
    async fn within_timeout<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let late = RedisError::from((ErrorKind::Io, "no answer within cache.redis.timeout"));
        tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(late))
    }

    fn breaker<T>(&self, f: impl FnOnce(&mut Breaker) -> T) -> T {
        f(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
