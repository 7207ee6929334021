//! Checked settings turned into librdkafka's configuration. The keys that the promises rest on are set last, and
//! `config` refuses them among the options.

use std::time::Duration;

use rdkafka::ClientConfig;
use secrecy::ExposeSecret;

use crate::config::KafkaSettings;

impl KafkaSettings {
    /// What producer, consumer and `moderato check` share.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "moderato").set("socket.keepalive.enable", "true");
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        if let Some(password) = &self.password {
            config.set("sasl.password", password.expose_secret());
        }
        if let Some(password) = &self.tls_key_password {
            config.set("ssl.key.password", password.expose_secret());
        }
        config
    }

    /// The consumer's configuration.
    pub fn consumer(&self) -> ClientConfig {
        // Prefetch stays small: what is fetched and then paused is fetched again, and posts waiting in this process
        // cannot be judged by another. A missing offset starts at the earliest post, so no backlog is skipped.
        let mut config = self.with_defaults(&[
            ("auto.offset.reset", "earliest"),
            ("queued.min.messages", "4096"),
            ("queued.max.messages.kbytes", "16384"),
            // What a fetch brings is unpacked at once: 32 KiB of batches that unpack a thousandfold are 32 MiB. A batch
            // that is larger comes alone.
            ("fetch.message.max.bytes", "32768"),
            // A full queue is looked at again soon, not after a second: small fetches would leave it empty meanwhile.
            ("fetch.queue.backoff.ms", "10"),
            ("check.crcs", "true"),
            ("fetch.error.backoff.ms", "100"),
        ]);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(self.session_timeout));
        config
    }

    /// The producer's configuration.
    pub fn producer(&self) -> ClientConfig {
        // murmur2 is the Java clients' partitioner: a verdict lands in the partition number of its post when both
        // topics have as many partitions and the post was produced by them. Size limits belong to the topic. Verdicts
        // are much alike: zstd's first level makes them smaller than its third, in half the time.
        let mut config = self.with_defaults(&[
            ("partitioner", "murmur2_random"),
            ("linger.ms", "5"),
            ("message.max.bytes", "104857600"),
            ("compression.codec", "zstd"),
            ("compression.level", "1"),
        ]);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", millis(self.delivery_timeout));
        config
    }

    /// The producer's configuration for `delivery: exactly_once`.
    pub fn transactional_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("transactional.id", self.transactional_id())
            // What hangs longer than a record may take is given up, so that readers of committed records go on.
            .set("transaction.timeout.ms", millis(self.delivery_timeout));
        config
    }

    /// Unique among the live workers of the group and the same after a restart, so that a worker fences its older self.
    pub fn transactional_id(&self) -> String {
        format!("{}-{}", self.group, self.worker_id)
    }

    /// Our defaults where the operator set nothing.
    fn with_defaults(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client();
        for (key, value) in defaults {
            if !self.options.contains_key(*key) {
                config.set(*key, *value);
            }
        }
        config
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
