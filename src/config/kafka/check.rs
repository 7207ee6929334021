//! Kafka's part of the configuration, raw to checked.

use std::time::Duration;

use super::{Delivery, RawKafka, RawTopics};
use crate::config::check::Checker;
use crate::config::{EvidenceSettings, KafkaSettings, Needs, Task};

/// librdkafka keys that `kafka.options` may not set, with the reason given to whoever tries.
const ESSENTIAL: [(&str, &str); 22] = [
    ("bootstrap.servers", "set kafka.brokers instead"),
    ("metadata.broker.list", "set kafka.brokers instead"),
    ("group.id", "set kafka.group instead"),
    ("enable.auto.commit", "an offset is committed only after its verdict was acknowledged"),
    ("auto.commit.interval.ms", "an offset is committed only after its verdict was acknowledged"),
    ("enable.auto.offset.store", "an offset is committed only after its verdict was acknowledged"),
    ("enable.idempotence", "verdicts are produced idempotently"),
    ("acks", "a verdict counts only when all in-sync replicas have it"),
    ("request.required.acks", "a verdict counts only when all in-sync replicas have it"),
    ("max.in.flight", "more than 5 would lose the order of verdicts"),
    ("max.in.flight.requests.per.connection", "more than 5 would lose the order of verdicts"),
    ("isolation.level", "posts of aborted transactions must not be judged"),
    ("transactional.id", "set kafka.delivery: exactly_once and kafka.worker_id instead"),
    ("transaction.timeout.ms", "set kafka.delivery_timeout instead"),
    ("session.timeout.ms", "set kafka.session_timeout instead"),
    ("delivery.timeout.ms", "set kafka.delivery_timeout instead"),
    ("message.timeout.ms", "set kafka.delivery_timeout instead"),
    ("partition.assignment.strategy", "draining on revoke rests on cooperative-sticky"),
    ("sasl.password", "set kafka.password_file or MODERATO__KAFKA__PASSWORD, so that it is never printed"),
    (
        "ssl.key.password",
        "set kafka.tls_key_password_file or MODERATO__KAFKA__TLS_KEY_PASSWORD, so that it is never printed",
    ),
    ("ssl.key.pem", "mount the key and name it in ssl.key.location, so that it is never printed"),
    ("ssl.keystore.password", "use ssl.key.location and kafka.tls_key_password_file, so that it is never printed"),
];

/// `transaction.max.timeout.ms` of a broker, unless its operator changed it.
const MAX_TRANSACTION: Duration = Duration::from_secs(15 * 60);
impl Checker {
    pub(in crate::config) fn kafka(&mut self, raw: &RawKafka, task: Task, shadow: Option<&String>) -> KafkaSettings {
        let brokers_ok = self.needs() == Needs::ModelOnly || raw.brokers.split(',').all(is_host_port);
        self.require(brokers_ok, "kafka.brokers", || {
            format!("`{}` is not a list of host:port, such as localhost:9092", raw.brokers)
        });
        self.require(!raw.group.is_empty(), "kafka.group", || "is empty; try `moderato`".to_owned());
        let output = match task {
            Task::Classify => ("kafka.topics.verdicts", &raw.topics.verdicts),
            Task::DraftNote => ("kafka.topics.notes", &raw.topics.notes),
        };
        let mut topics = vec![
            ("kafka.topics.posts", &raw.topics.posts),
            output,
            ("kafka.topics.dead_letters", &raw.topics.dead_letters),
        ];
        topics.extend(raw.topics.flagged.as_ref().map(|topic| ("kafka.topics.flagged", topic)));
        topics.extend(shadow.map(|topic| ("kafka.topics.shadow", topic)));
        topics.extend(raw.topics.checkpoints.as_ref().map(|topic| ("kafka.topics.checkpoints", topic)));
        for (i, (key, topic)) in topics.iter().enumerate() {
            self.require(is_topic(topic), key, || not_a_topic(topic));
            if let Some((other, _)) = topics[..i].iter().find(|(_, earlier)| earlier == topic) {
                self.require(false, key, || format!("`{topic}` is also {other}; each needs a topic of its own"));
            }
        }
        self.audit(&raw.topics);
        if task == Task::DraftNote {
            self.drafting(raw);
        }
        for (option, reason) in ESSENTIAL {
            let key = format!("kafka.options.{option}");
            self.require(!raw.options.contains_key(option), &key, || format!("cannot be set: {reason}"));
        }
        KafkaSettings {
            brokers: raw.brokers.clone(),
            group: raw.group.clone(),
            posts: raw.topics.posts.clone(),
            output: output.1.clone(),
            task,
            dead_letters: raw.topics.dead_letters.clone(),
            flagged: raw.topics.flagged.clone(),
            shadow: shadow.cloned(),
            checkpoints: raw.topics.checkpoints.clone(),
            evidence: EvidenceSettings::default(),
            audit: raw.topics.audit.clone(),
            replay: None,
            delivery: raw.delivery,
            worker_id: self.worker_id(raw),
            cloudevents: raw.cloudevents,
            schema_registry: self.registry(&raw.schema_registry),
            drain_timeout: self.duration("kafka.drain_timeout", &raw.drain_timeout),
            session_timeout: self.duration("kafka.session_timeout", &raw.session_timeout),
            commit_interval: match (raw.commit_interval.as_str(), raw.delivery) {
                ("auto", Delivery::AtLeastOnce) => Duration::from_secs(1),
                ("auto", Delivery::ExactlyOnce) => Duration::from_millis(100),
                (text, _) => self.duration("kafka.commit_interval", text),
            },
            delivery_timeout: self.delivery_timeout(raw),
            password: self.secret("kafka.password", raw.password.as_ref(), raw.password_file.as_ref()),
            tls_key_password: self.secret(
                "kafka.tls_key_password",
                raw.tls_key_password.as_ref(),
                raw.tls_key_password_file.as_ref(),
            ),
            options: raw.options.iter().map(|(key, value)| (key.clone(), value.to_string())).collect(),
        }
    }

    /// What is judged again must not reach anybody who acts on verdicts.
    fn audit(&mut self, topics: &RawTopics) {
        let Some(audit) = &topics.audit else { return };
        let RawTopics { posts, verdicts, notes, dead_letters, flagged, shadow, checkpoints, audit: _ } = topics;
        let live = [
            ("posts", Some(posts)),
            ("verdicts", Some(verdicts)),
            ("notes", Some(notes)),
            ("dead_letters", Some(dead_letters)),
            ("flagged", flagged.as_ref()),
            ("shadow", shadow.as_ref()),
            ("checkpoints", checkpoints.as_ref()),
        ];
        self.require(is_topic(audit), "kafka.topics.audit", || not_a_topic(audit));
        for (key, _) in live.into_iter().filter(|(_, name)| *name == Some(audit)) {
            self.require(false, "kafka.topics.audit", || {
                format!("`{audit}` is also kafka.topics.{key}, a live topic; name one that only replays write to")
            });
        }
    }

    /// A drafting pool stands behind a judging one, and must not be taken for it.
    fn drafting(&mut self, raw: &RawKafka) {
        let own = self.needs() == Needs::ModelOnly || raw.group != RawKafka::default().group;
        self.require(own, "kafka.group", || {
            format!("`{}` is the judging pool's; with task: draft_note set another, such as moderato-notes", raw.group)
        });
        self.require(raw.topics.flagged.is_none(), "kafka.topics.flagged", || {
            "is for task: classify; with draft_note name that topic in kafka.topics.posts".to_owned()
        });
    }

    /// With transactions it is their timeout too, which brokers bound.
    fn delivery_timeout(&mut self, raw: &RawKafka) -> Duration {
        let timeout = self.duration("kafka.delivery_timeout", &raw.delivery_timeout);
        let fits = raw.delivery == Delivery::AtLeastOnce || timeout <= MAX_TRANSACTION;
        self.require(fits, "kafka.delivery_timeout", || {
            format!("`{}` is longer than brokers let a transaction take (15m), such as 60s", raw.delivery_timeout)
        });
        timeout
    }

    fn worker_id(&mut self, raw: &RawKafka) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = raw.worker_id.clone().unwrap_or_else(host);
        self.require(!id.is_empty(), "kafka.worker_id", || "is empty; try the pod's name".to_owned());
        id
    }
}

fn is_host_port(text: &str) -> bool {
    let after_protocol = text.trim().rsplit("://").next().unwrap_or_default();
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    after_protocol.rsplit_once(':').is_some_and(|(host, number)| !host.is_empty() && port(number))
}

fn not_a_topic(name: &str) -> String {
    format!("`{name}` is not a topic name: 1 to 249 letters, digits, `.`, `_` and `-`")
}

/// Kafka's own rule for topic names.
fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::super::Scalar;
    use super::ESSENTIAL;
    use crate::config::Task;
    use crate::config::check::tests::problems;

    #[test]
    fn a_drafting_pool_needs_a_group_of_its_own_and_takes_flagged_posts_as_its_input() {
        let found = problems(|raw| {
            raw.task = Task::DraftNote;
            raw.kafka.topics.flagged = Some("flagged".to_owned());
            raw.kafka.topics.notes = "posts".to_owned();
        });
        let starts = [
            "kafka.topics.notes: `posts` is also kafka.topics.posts",
            "kafka.group: `moderato` is the judging pool's",
            "kafka.topics.flagged: is for task: classify",
        ];
        assert!(
            found.iter().zip(starts).all(|(found, start)| found.starts_with(start)) && found.len() == 3,
            "{found:#?}"
        );
        let right = problems(|raw| {
            raw.task = Task::DraftNote;
            raw.kafka.group = "notes".to_owned();
            // The judging pool's, and of no concern here.
            raw.kafka.topics.verdicts = "posts".to_owned();
        });
        assert_eq!(right, Vec::<String>::new());
    }

    #[test]
    fn no_option_that_a_promise_rests_on_can_be_overridden() {
        for (option, _) in ESSENTIAL {
            let found = problems(|raw| {
                raw.kafka.options.insert(option.to_owned(), Scalar::Text("x".to_owned()));
            });
            assert_eq!(found.len(), 1, "{option}");
            assert!(found[0].starts_with(&format!("kafka.options.{option}: cannot be set")), "{found:?}");
        }
    }
}
