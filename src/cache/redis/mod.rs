//! Answers kept in Redis, shared by all workers.
//!
//! | Key | Value |
//! |---|---|
//! | `PREFIX:v1:VERDICT_KEY` | an answer |
//! | `PREFIX:claim:{PREFIX:v1:VERDICT_KEY}` | who is answering |
//! | `PREFIX:post:POST_KEY` | the set of verdict keys of the answers that were made for one post |
//!
//! Verdict keys and post keys are digests, so no post text is ever in a key. The braces put a claim into the cluster's
//! slot of its answer: both are read and written by one group of commands.

mod claims;
mod link;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, ToRedisArgs, Value};
use tracing::warn;

use self::claims::Claims;
use self::link::Link;
use self::server::Group;
use super::Question;
use super::counts::{Counts, Sparingly, add};
use super::post_key::PostKey;
use super::value::Values;
use crate::config::RedisSettings;
use crate::reply::{Kind as Expected, Reply};
use crate::verdict::VerdictKey;

/// The answers in Redis.
pub(super) struct Redis {
    link: Arc<Link>,
    claims: Option<Arc<Claims>>,
    patience: Duration,
    values: Values,
    ttl: Duration,
    prefix: String,
    counts: Arc<Counts>,
    damage: Sparingly,
}

impl Redis {
    /// Checks the URLs; connects at the first call. Must be called on the runtime that will use it.
    pub(super) fn open(settings: &RedisSettings, counts: Arc<Counts>) -> Result<Self, String> {
        let link = Arc::new(Link::open(settings, counts.clone()).map_err(|error| error.to_string())?);
        Ok(Self {
            claims: settings.claims.map(|_| Claims::open(link.clone())),
            patience: settings.claims.unwrap_or_default(),
            link,
            values: Values::new(settings.hmac_key.as_ref())?,
            ttl: settings.ttl,
            prefix: settings.prefix.clone(),
            counts,
            damage: Sparingly::default(),
        })
    }

    pub(super) async fn ping(&self) -> Result<(), String> {
        self.link.ping().await
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// One call for the answers, and one more for the claims on those that are missing: most often none is, and then a
    /// claim would have to be taken back.
    pub(super) async fn ask(&self, keys: &[VerdictKey], expected: Expected) -> Vec<Question> {
        let open = vec![Question::Open; keys.len()];
        if keys.is_empty() {
            return open;
        }
        let command = with("MGET", self.places(keys));
        // Without an answer to this call, another one would only be waited for.
        let Some(values) = self.link.one::<Vec<Option<Vec<u8>>>>(&command).await else { return open };
        let read = |(key, value): (&VerdictKey, Option<Vec<u8>>)| {
            let answer = value.and_then(|bytes| self.read(key, &bytes, expected));
            answer.map_or(Question::Open, |answer| Question::Answered(Arc::new(answer)))
        };
        let mut questions: Vec<Question> = keys.iter().zip(values).map(read).collect();
        let (places, missing) = super::open(&questions, keys);
        super::fill(&mut questions, places, self.claim(&missing, expected).await);
        questions
    }

    /// Claims each question and looks for its answer, in this order: whoever held the claim before wrote the answer
    /// before letting go, so that with the claim and without the answer nobody else has run it.
    pub(super) async fn claim(&self, keys: &[VerdictKey], expected: Expected) -> Vec<Question> {
        let open = vec![Question::Open; keys.len()];
        let Some(claims) = &self.claims else { return open };
        // MGET even for one: what is no string is no answer to it, and no error.
        let group = |key: &VerdictKey| vec![claims.claim(&self.claim_name(key)), with("MGET", self.place(key))];
        let Some(replies) = self.link.groups(keys.iter().map(group).collect()).await else { return open };
        let question = |(key, replies): (&VerdictKey, Vec<Option<Value>>)| {
            let mut replies = replies.into_iter();
            let (claim, value) = (replies.next().flatten(), replies.next().flatten());
            let value = value.and_then(only::<Vec<u8>>);
            match (value.and_then(|bytes| self.values.decode(&self.place(key), &bytes, key, expected)), claim) {
                // A claim beside an answer keeps nobody waiting; it lapses.
                (Some(answer), _) => Question::Answered(Arc::new(answer)),
                (None, Some(Value::Nil)) => Question::Elsewhere,
                (None, Some(_)) => {
                    claims.hold(self.claim_name(key));
                    Question::Open
                }
                (None, None) => Question::Open,
            }
        };
        keys.iter().zip(replies).map(question).collect()
    }

    /// Writes the answer, then lets go of the claim; and enters it among those made for the post.
    pub(super) async fn put(&self, key: &VerdictKey, answer: &Reply, post: Option<PostKey>) {
        let place = self.place(key);
        let value = self.values.encode(&place, key, answer);
        let mut set = with("SET", place);
        set.arg(value).arg("PX").arg(jittered(self.ttl, key));
        let mut groups = vec![std::iter::once(set).chain(self.release(key)).collect::<Group>()];
        groups.extend(post.map(|post| {
            let name = self.post_name(post);
            let (mut add, mut expire) = (with("SADD", &name), with("PEXPIRE", &name));
            add.arg(key.to_string());
            // As long as the longest-lived of its answers.
            expire.arg(millis(self.ttl).saturating_mul(11) / 10);
            vec![add, expire]
        }));
        let _ = self.link.groups(groups).await;
    }

    pub(super) async fn give_up(&self, key: &VerdictKey) {
        if let Some(release) = self.release(key) {
            let _ = self.link.groups(vec![vec![release]]).await;
        }
    }

    /// Removes the answers that were made for these posts, and hands back their keys.
    pub(super) async fn forget(&self, posts: &[PostKey]) -> Vec<VerdictKey> {
        let group = |post: &PostKey| {
            let name = self.post_name(*post);
            vec![with("SMEMBERS", &name), with("DEL", &name)]
        };
        let replies = self.link.groups(posts.iter().map(group).collect()).await.unwrap_or_default();
        let members = replies.into_iter().filter_map(|replies| replies.into_iter().next().flatten());
        let members = members.filter_map(|members| Vec::<Vec<u8>>::from_redis_value(members).ok()).flatten();
        let keys: Vec<VerdictKey> = members.filter_map(|member| VerdictKey::from_hex(&member)).collect();
        if !keys.is_empty() {
            let _ = self.link.one::<u64>(&with("DEL", self.places(&keys))).await;
        }
        keys
    }

    fn read(&self, key: &VerdictKey, bytes: &[u8], expected: Expected) -> Option<Reply> {
        let answer = self.values.decode(&self.place(key), bytes, key, expected);
        if answer.is_none() {
            add(&self.counts.damaged, 1);
            if self.damage.due(Instant::now()) {
                warn!(
                    "a value in redis is damaged, or under another seal than cache.redis.hmac_key's; its post is judged again"
                );
            }
        }
        answer
    }

    fn release(&self, key: &VerdictKey) -> Option<Cmd> {
        self.claims.as_ref()?.release(&self.claim_name(key))
    }

    fn place(&self, key: &VerdictKey) -> String {
        format!("{}:v1:{key}", self.prefix)
    }

    fn places(&self, keys: &[VerdictKey]) -> Vec<String> {
        keys.iter().map(|key| self.place(key)).collect()
    }

    fn claim_name(&self, key: &VerdictKey) -> String {
        format!("{}:claim:{{{}}}", self.prefix, self.place(key))
    }

    fn post_name(&self, post: PostKey) -> String {
        format!("{}:post:{post}", self.prefix)
    }
}

fn with(name: &str, keys: impl ToRedisArgs) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(keys);
    command
}

/// The only element of a reply.
fn only<T: FromRedisValue>(reply: Value) -> Option<T> {
    Vec::<Option<T>>::from_redis_value(reply).ok()?.pop().flatten()
}

/// 0.9 to 1.1 of the time to live in milliseconds, spread by the key's own digest, so that answers given in one burst
/// do not all expire in one burst.
fn jittered(ttl: Duration, key: &VerdictKey) -> u64 {
    let spread = key.to_string().bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 201;
    millis(ttl).saturating_mul(900 + spread) / 1000
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2000).min(u64::MAX / 2000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Keyring;

    #[test]
    fn answers_of_one_burst_expire_over_a_fifth_of_their_time_to_live() {
        let keyring = Keyring::new(&["m"]);
        let ttl = Duration::from_secs(1000);
        let times: Vec<u64> = (0..1000).map(|id| jittered(ttl, &keyring.key(&[id]))).collect();
        assert!(times.iter().all(|time| (900_000..=1_100_000).contains(time)));
        // A tenth of them in each tenth of the range, give or take what chance does.
        for tenth in 0..10 {
            let (from, to) = (900_000 + tenth * 20_000, 900_000 + (tenth + 1) * 20_000);
            let count = times.iter().filter(|time| (from..to).contains(*time)).count();
            assert!((60..160).contains(&count), "{count} of 1000 expire between {from} and {to} ms");
        }
        assert_eq!(jittered(ttl, &keyring.key(&[7])), jittered(ttl, &keyring.key(&[7])));
    }
}
