//! Signed statements of how far each chain has come, to a topic of their own: at intervals, and when a partition goes or
//! the worker stops. Only what is committed is signed: after a crash the chain goes on from there, so that what is signed
//! is never left behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tracing::warn;

use super::ledger::Due;
use crate::config::{KafkaSettings, Signing};
use crate::error::Fatal;
use crate::evidence::checkpoint::CheckpointV1;
use crate::receipt::Partition;

/// How long the last checkpoints may take to be acknowledged.
const LAST: Duration = Duration::from_secs(5);

/// What is committed, and what of it is signed.
pub(super) struct Checkpoints {
    producer: ThreadedProducer<Told>,
    signing: Signing,
    posts: String,
    next: Instant,
    chains: BTreeMap<Partition, Chain>,
}

struct Chain {
    committed: Due,
    /// Links that are signed.
    signed: u64,
}

impl Checkpoints {
    /// Where checkpoints are asked for; connects by and by.
    pub(super) fn connect(settings: &KafkaSettings) -> Result<Option<Self>, Fatal> {
        let Some(signing) = settings.evidence.signing.clone() else { return Ok(None) };
        let producer = settings.producer().create_with_context(Told);
        let producer = producer.map_err(|error| Fatal::Kafka { cause: error.to_string() })?;
        let (next, posts) = (Instant::now() + signing.every, settings.posts.clone());
        Ok(Some(Self { producer, signing, posts, next, chains: BTreeMap::new() }))
    }

    /// The broker has acknowledged these offsets.
    pub(super) fn committed(&mut self, offsets: &[Due]) {
        for due in offsets.iter().filter(|due| due.head.is_some()) {
            let new = || Chain { committed: due.clone(), signed: 0 };
            self.chains.entry(due.partition).or_insert_with(new).committed = due.clone();
        }
        if Instant::now() >= self.next {
            self.next = Instant::now() + self.signing.every;
            let all: Vec<Partition> = self.chains.keys().copied().collect();
            self.sign(&all);
        }
    }

    /// These partitions go: what is committed of them is signed, and waited for.
    pub(super) fn close(&mut self, partitions: &[Partition]) {
        if self.sign(partitions) > 0
            && let Err(error) = self.producer.flush(LAST)
        {
            warn!(%error, "the last checkpoints are not acknowledged");
        }
        self.chains.retain(|partition, _| !partitions.contains(partition));
    }

    fn sign(&mut self, partitions: &[Partition]) -> usize {
        let mut sent = 0;
        for (partition, chain) in self.chains.iter_mut().filter(|(partition, _)| partitions.contains(partition)) {
            let Due { next, head: Some(head), .. } = &chain.committed else { continue };
            if head.links == chain.signed {
                continue;
            }
            chain.signed = head.links;
            let (at, time) = ((self.posts.as_str(), *partition), jiff::Timestamp::now().to_string());
            let checkpoint = CheckpointV1::sign(&self.signing.key, at, head, next.0, time);
            let Some(checkpoint) = checkpoint else { continue };
            let Ok(value) = serde_json::to_vec(&checkpoint) else { continue };
            let key = checkpoint.record_key();
            let record = BaseRecord::to(&self.signing.topic).key(&key).payload(&value);
            match self.producer.send(record) {
                Ok(()) => sent += 1,
                Err((error, _)) => warn!(%error, partition, "a checkpoint could not be sent"),
            }
        }
        sent
    }
}

/// Tells what does not arrive: the next checkpoint covers it.
struct Told;

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            warn!(%error, "a checkpoint did not arrive");
        }
    }
}
