//! Raw to checked: every problem is found, named by its key, and told with a value that would work.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

use super::raw::{RawConfig, RawLimits, RawShadow, Secret};
use super::{
    BatchLimits, Config, ConfigError, Device, GraphChoice, InputLimit, KafkaSettings, Limits, ModelSettings, Needs,
    Problem, Shadow, Task,
};

/// Tokens that a run needs beside the post's: the prompt's end.
const TAIL_TOKENS: usize = 32;

/// Finds all problems, then returns the checked values or the problems.
pub(super) fn check(raw: &RawConfig, needs: Needs) -> Result<Config, ConfigError> {
    let mut checker = Checker { needs, problems: Vec::new() };
    let grace = checker.duration("shutdown.grace", &raw.shutdown.grace);
    let stall_timeout = checker.duration("shutdown.stall_timeout", &raw.shutdown.stall_timeout);
    let device = checker.device(&raw.model);
    // A CPU gains nothing past a few hundred; a GPU must read all weights for each run.
    let batch_tokens = raw.limits.max_batch_tokens.number().unwrap_or(if device.is_cpu() { 512 } else { 2048 });
    let shadow = raw.kafka.topics.shadow.as_ref().filter(|_| raw.shadow.share > 0.0);
    let evidence = checker.evidence(&raw.evidence, raw.kafka.topics.checkpoints.as_ref());
    let kafka = KafkaSettings { evidence, ..checker.kafka(&raw.kafka, raw.task, shadow) };
    let model = checker.model(raw, device, batch_tokens);
    let config = Config {
        task: raw.task,
        kafka,
        shadow: checker.shadow(raw, &model),
        model,
        policy: checker.file("policy", &raw.policy, policy_example(raw.task)),
        policy_reload: match raw.policy_reload.as_str() {
            "0s" => None,
            text => Some(checker.duration("policy_reload", text)),
        },
        limits: checker.limits(&raw.limits, batch_tokens),
        cache: checker.cache(&raw.cache, stall_timeout),
        grace,
        stall_timeout,
        state_dir: raw.state_dir.as_ref().map_or_else(|| std::env::temp_dir().join("moderato"), PathBuf::from),
        log_format: raw.log.format,
        log_filter: raw.log.filter.clone(),
        admin: checker.address("admin.listen", &raw.admin.listen),
    };
    checker.require(config.kafka.drain_timeout < config.kafka.session_timeout, "kafka.drain_timeout", || {
        format!("must be shorter than kafka.session_timeout ({}), such as 20s", raw.kafka.session_timeout)
    });
    checker.require(grace >= config.kafka.drain_timeout, "shutdown.grace", || {
        format!("must be at least kafka.drain_timeout ({}), such as 30s", raw.kafka.drain_timeout)
    });
    let filter = tracing_subscriber::EnvFilter::from_str(&raw.log.filter);
    checker.require(filter.is_ok(), "log.filter", || "is not a filter, such as `info,ort=warn`".to_owned());
    if checker.problems.is_empty() { Ok(config) } else { Err(ConfigError(checker.problems)) }
}

/// A duration such as 500ms, 20s, 5m or 7d; never zero.
pub fn duration(text: &str) -> Option<Duration> {
    let parsed = SignedDuration::from_str(text).ok().and_then(|d| Duration::try_from(d).ok());
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let parsed = parsed.or(days.and_then(|days| Some(Duration::from_secs(days.checked_mul(86_400)?))));
    parsed.filter(|duration| !duration.is_zero())
}

pub(super) struct Checker {
    needs: Needs,
    problems: Vec<Problem>,
}

impl Checker {
    pub(super) fn needs(&self) -> Needs {
        self.needs
    }

    pub(super) fn require(&mut self, holds: bool, key: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(Problem { key: key.to_owned(), message: message() });
        }
    }

    pub(super) fn duration(&mut self, key: &str, text: &str) -> Duration {
        let positive = duration(text);
        self.require(positive.is_some(), key, || format!("`{text}` is not a duration, such as 500ms, 20s, 5m or 7d"));
        // The value does not matter once there is a problem; one second keeps later comparisons quiet.
        positive.unwrap_or(Duration::from_secs(1))
    }

    fn shadow(&mut self, raw: &RawConfig, model: &ModelSettings) -> Option<Shadow> {
        let RawShadow { share, policy, model: path } = &raw.shadow;
        self.require((0.0..=1.0).contains(share), "shadow.share", || format!("is {share}; write 0 to 1, such as 0.05"));
        if *share == 0.0 {
            return None;
        }
        self.require(raw.task == Task::Classify, "shadow.share", || "only verdicts have a shadow: write 0".to_owned());
        let another = policy.is_some() || path.is_some();
        self.require(another, "shadow", || "shadow.policy or shadow.model has to name what judges beside".to_owned());
        let topic = raw.kafka.topics.shadow.clone().unwrap_or_default();
        self.require(!topic.is_empty(), "kafka.topics.shadow", || "is required for a shadow".to_owned());
        let policy = self.file("shadow.policy", policy.as_ref().unwrap_or(&raw.policy), policy_example(raw.task));
        let path = path.as_ref().map_or_else(|| model.path.clone(), PathBuf::from);
        // The live instances have the cores already: one thread shares them.
        let threads = model.threads.or(Some(1));
        let model = ModelSettings { path, instances: Some(1), threads, ..model.clone() };
        Some(Shadow { share: *share, policy, model, topic })
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        if text == "off" {
            return None;
        }
        let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
        self.require(found.is_some(), key, || format!("`{text}` is not HOST:PORT, such as 0.0.0.0:9464, or `off`"));
        found
    }

    fn file(&mut self, key: &str, text: &str, what: &str) -> PathBuf {
        let path = PathBuf::from(text);
        let message =
            if text.is_empty() { format!("is required: {what}") } else { format!("`{text}` is not a file: {what}") };
        self.require(self.needs == Needs::KafkaOnly || path.is_file(), key, || message);
        path
    }

    pub(super) fn secret(&mut self, key: &str, value: Option<&Secret>, file: Option<&String>) -> Option<SecretString> {
        if let (Some(_), Some(_)) = (value, file) {
            self.require(false, key, || format!("is given twice; keep {key}_file or the environment variable"));
        }
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => return Some(text.trim_end_matches(['\r', '\n']).into()),
                Err(error) => {
                    self.require(false, &format!("{key}_file"), || format!("`{path}` cannot be read: {error}"))
                }
            }
        }
        value.map(|secret| secret.0.as_str().into())
    }

    pub(super) fn pem(&mut self, key: &str, file: Option<&String>) -> Option<Vec<u8>> {
        let path = file?;
        let read = std::fs::read(path);
        if let Err(error) = &read {
            self.require(false, key, || format!("`{path}` cannot be read: {error}"));
        }
        read.ok()
    }

    fn model(&mut self, config: &RawConfig, device: Device, batch_tokens: usize) -> ModelSettings {
        let (raw, limits) = (&config.model, &config.limits);
        let threads = self.threads(config, &device);
        let path = PathBuf::from(&raw.path);
        let judges = self.needs != Needs::KafkaOnly;
        self.require(!judges || path.is_dir(), "model.path", || {
            if raw.path.is_empty() {
                "is required: a model folder, such as the one `make model` builds".to_owned()
            } else {
                format!("`{}` is not a folder; `python -m moderato_model export` makes one", raw.path)
            }
        });
        if let Some(library) = &raw.onnxruntime {
            self.require(!judges || Path::new(library).is_file(), "model.onnxruntime", || {
                format!("`{library}` is not a file: libonnxruntime.so.1.31.1 of the onnxruntime==1.31.1 wheel")
            });
        }
        let margin = raw.recheck_margin;
        self.require((0.0..=1.0).contains(&margin), "model.recheck_margin", || {
            format!("{margin} is no distance of two scores, 0 to 1, such as 0.05")
        });
        ModelSettings {
            path,
            onnxruntime: raw.onnxruntime.as_ref().map(PathBuf::from),
            device,
            strict: raw.strict,
            precision: raw.precision,
            recheck_margin: margin,
            instances: raw.instances.number(),
            determinism: config.determinism,
            threads,
            license_accepted: raw.license_accepted,
            require_manifest: raw.require_manifest,
            batch: BatchLimits { max_tokens: batch_tokens, max_posts: limits.max_batch_posts },
            max_input_tokens: limits.max_input_tokens,
            prompt_tokens: None,
            graph: GraphChoice::Auto,
        }
    }

    fn limits(&mut self, raw: &RawLimits, batch_tokens: usize) -> Limits {
        let counts = [
            ("limits.max_in_flight", raw.max_in_flight, "1024"),
            ("limits.max_post_bytes", raw.max_post_bytes, "1048576"),
            ("limits.max_input_tokens", raw.max_input_tokens, "448"),
            ("limits.max_batch_posts", raw.max_batch_posts, "64"),
            ("limits.max_draft_rows", raw.max_draft_rows, "8"),
            ("limits.max_consecutive_rejections", usize::from(raw.max_consecutive_rejections > 0), "1000"),
        ];
        for (key, value, example) in counts {
            self.require(value > 0, key, || format!("must be at least 1, such as {example}"));
        }
        let ratio = raw.max_rejection_ratio;
        self.require(ratio > 0.0 && ratio <= 1.0, "limits.max_rejection_ratio", || {
            format!("{ratio} is no share above 0 and up to 1, such as 0.5")
        });
        // One ended process makes all the posts of its runs suspects; only the next runs tell the guilty one.
        self.require(raw.max_attempts > 1, "limits.max_attempts", || "must be at least 2, such as 3".to_owned());
        let least = raw.max_input_tokens.saturating_add(TAIL_TOKENS);
        self.require(batch_tokens >= least, "limits.max_batch_tokens", || {
            format!(
                "{batch_tokens} cannot hold the longest post; at least {least} (limits.max_input_tokens + {TAIL_TOKENS})"
            )
        });
        Limits {
            max_in_flight: raw.max_in_flight,
            max_post_bytes: raw.max_post_bytes,
            input: InputLimit { max_input_tokens: raw.max_input_tokens, on_overlong: raw.on_overlong },
            batch: BatchLimits { max_tokens: batch_tokens, max_posts: raw.max_batch_posts },
            max_draft_rows: raw.max_draft_rows,
            max_consecutive_rejections: raw.max_consecutive_rejections,
            max_rejection_ratio: raw.max_rejection_ratio,
            max_attempts: raw.max_attempts,
        }
    }
}

fn policy_example(task: Task) -> &'static str {
    match task {
        Task::Classify => "the policy file, such as model/policies/misinformation.yaml",
        Task::DraftNote => "the note policy, such as model/policies/note.md",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::count::Count;
    use super::*;
    use crate::config::cache::RawCacheKind;

    pub(in crate::config) fn problems(change: impl FnOnce(&mut RawConfig)) -> Vec<String> {
        let mut raw = RawConfig::default();
        raw.kafka.brokers = "localhost:9092".to_owned();
        raw.policy = "Cargo.toml".to_owned();
        raw.model.path = "src".to_owned();
        change(&mut raw);
        check(&raw, Needs::Kafka).map_or_else(|error| error.0.iter().map(ToString::to_string).collect(), |_| Vec::new())
    }

    #[test]
    fn the_defaults_need_only_brokers_policy_and_model() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        let bare = check(&RawConfig::default(), Needs::Kafka).unwrap_err().0;
        let keys: Vec<&str> = bare.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["kafka.brokers", "model.path", "policy"]);
        let bare = check(&RawConfig::default(), Needs::KafkaOnly).unwrap_err().0;
        let keys: Vec<&str> = bare.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["kafka.brokers"]);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_key_and_a_value_that_works() {
        let found = problems(|raw| {
            raw.kafka.topics.verdicts = "posts".to_owned();
            raw.kafka.drain_timeout = "60s".to_owned();
            raw.kafka.commit_interval = "soon".to_owned();
            raw.limits.max_batch_tokens = Count::Number(8);
            raw.limits.max_in_flight = 0;
            raw.limits.max_rejection_ratio = 50.0;
            raw.limits.max_attempts = 1;
            raw.cache.kind = RawCacheKind::Redis;
            raw.cache.redis.timeout = "5s".to_owned();
            raw.cache.redis.url = "http://x".to_owned();
            raw.cache.redis.hmac_key = Some(Secret("rosebud".to_owned()));
        });
        for part in [
            "kafka.topics.verdicts: `posts` is also kafka.topics.posts",
            "kafka.drain_timeout: must be shorter than kafka.session_timeout (45s), such as 20s",
            "shutdown.grace: must be at least kafka.drain_timeout (60s), such as 30s",
            "kafka.commit_interval: `soon` is not a duration, such as 500ms",
            "limits.max_batch_tokens: 8 cannot hold",
            "limits.max_in_flight: must be at least 1, such as 1024",
            "limits.max_rejection_ratio: 50 is no share above 0 and up to 1, such as 0.5",
            "limits.max_attempts: must be at least 2, such as 3",
            "cache.redis.timeout: `5s` is too long",
            "cache.redis.url: must begin with redis://",
            "cache.redis.hmac_key: is too short: at least 32 characters",
        ] {
            assert!(found.iter().any(|problem| problem.starts_with(part)), "{part} is not in {found:#?}");
        }
        assert!(!found.concat().contains("rosebud"));
    }
}
