//! Topics and records as a test sees them: made, written, read back, and the offsets a group committed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::util::Timeout;

use super::kafka::Kafka;
use super::untold::assert_untold;
use super::{PATIENCE, block_on, eventually};

/// A record to be produced. `None` for the value is a tombstone.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
}

/// A record as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<i64>,
}

impl Outgoing {
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    pub fn tombstone() -> Self {
        Self::default()
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn timestamp(mut self, milliseconds: i64) -> Self {
        self.timestamp = Some(milliseconds);
        self
    }
}

impl Record {
    /// The value as JSON; a value that is not is the test's failure.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().unwrap_or_else(|| panic!("a value, not a tombstone: {self:?}"));
        serde_json::from_slice(value).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The last header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(header, _)| header == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let header = |header: Header<'_, &[u8]>| {
            if header.key.starts_with("moderato.") {
                assert_untold(header.value.unwrap_or_default(), header.key);
            }
            (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
        };
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map(|all| all.iter().map(header).collect()).unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
        }
    }
}

impl Kafka {
    /// Makes a topic of this test and run alone and hands back its name once every partition has a leader.
    pub fn topic(&self, purpose: &str, partitions: i32) -> String {
        self.topic_with(purpose, partitions, &[])
    }

    /// The same with settings such as `("max.message.bytes", "1000")`.
    pub fn topic_with(&self, purpose: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.name(purpose);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for made in block_on(admin.create_topics([&topic], &options)).expect("the broker answers") {
            made.unwrap_or_else(|(topic, error)| panic!("topic {topic} was not made: {error}"));
        }
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        eventually("every partition has a leader", PATIENCE, || leaders(&consumer, &name), |led| *led == partitions);
        name
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for deleted in block_on(admin.delete_topics(&[topic], &options)).expect("the broker answers") {
            deleted.unwrap_or_else(|(topic, error)| panic!("topic {topic} was not deleted: {error}"));
        }
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        eventually("the topic is gone", PATIENCE, || leaders(&consumer, topic), |led| *led == 0);
    }

    /// Gives a topic so many partitions in all.
    pub fn add_partitions(&self, topic: &str, count: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let wanted = NewPartitions::new(topic, usize::try_from(count).expect("a count"));
        for grown in block_on(admin.create_partitions([&wanted], &AdminOptions::new())).expect("the broker answers") {
            grown.unwrap_or_else(|(topic, error)| panic!("topic {topic} got no more partitions: {error}"));
        }
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        eventually("every partition has a leader", PATIENCE, || leaders(&consumer, topic), |led| *led == count);
    }

    /// Changes one setting of a topic, as an operator would who mends it.
    pub fn alter(&self, topic: &str, key: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        for altered in block_on(admin.alter_configs([&change], &AdminOptions::new())).expect("the broker answers") {
            altered.unwrap_or_else(|(_, error)| panic!("{topic}: {key} was not set: {error}"));
        }
    }

    /// Deletes what stands before this offset, as retention would.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        let deleted = block_on(admin.delete_records(&list, &AdminOptions::new())).expect("the broker answers");
        deleted.elements().iter().for_each(|one| one.error().expect("the records are deleted"));
    }

    /// Commits offsets for a group that has no members.
    pub fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("a valid offset");
        }
        consumer.commit(&list, CommitMode::Sync).expect("the commit is taken");
    }

    /// Produces in the order given and waits for every acknowledgement; hands back (partition, offset) of each.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Outgoing>) -> Vec<(i32, i64)> {
        self.produce_with(topic, records, &[])
    }

    /// The same with further options of the producer.
    pub fn produce_with(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = Outgoing>,
        options: &[(&str, &str)],
    ) -> Vec<(i32, i64)> {
        let mut client = self.client();
        client.set("enable.idempotence", "true").set("message.max.bytes", "33554432").set("linger.ms", "5");
        for (key, value) in options {
            client.set(*key, *value);
        }
        let producer: FutureProducer = client.create().expect("a producer");
        let sent: Vec<_> = records.into_iter().map(|record| send(&producer, topic, &record)).collect();
        block_on(async {
            let mut placed = Vec::with_capacity(sent.len());
            for report in sent {
                match report.await.expect("the producer outlives its records") {
                    Ok(delivery) => placed.push((delivery.partition, delivery.offset)),
                    Err((error, _)) => panic!("{topic} did not take a record: {error}"),
                }
            }
            placed
        })
    }

    /// Produces all of them in one transaction, which is then committed or aborted.
    pub fn produce_in_transaction(&self, topic: &str, records: impl IntoIterator<Item = Outgoing>, commit: bool) {
        let producer = self.open_transaction(topic, records);
        let ended = if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) };
        ended.expect("the transaction ends");
    }

    /// The same, with the transaction left open: it is whoever holds the producer that ends it.
    pub fn open_transaction(&self, topic: &str, records: impl IntoIterator<Item = Outgoing>) -> FutureProducer {
        let producer: FutureProducer = self
            .client()
            .set("transactional.id", self.name("transactions"))
            .create()
            .expect("a transactional producer");
        producer.init_transactions(PATIENCE).expect("the broker knows the producer");
        producer.begin_transaction().expect("a transaction begins");
        let sent: Vec<_> = records.into_iter().map(|record| send(&producer, topic, &record)).collect();
        // Flushed before an abort too: what was aborted has to lie in the topic.
        producer.flush(PATIENCE).expect("the broker takes the records");
        drop(sent);
        producer
    }

    /// Reads from the beginning until `count` records are there; panics with what it has when `within` is over first.
    /// Records beyond `count` may follow: [`Kafka::read_all`] sees those.
    pub fn read(&self, topic: &str, count: usize, within: Duration) -> Vec<Record> {
        let consumer = self.reader(topic);
        let (start, mut records) = (Instant::now(), Vec::new());
        while records.len() < count {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                records.push(Record::from(&message));
            }
            let late = start.elapsed() >= within && records.len() < count;
            assert!(
                !late,
                "{topic}: {} of {count} records within {within:?}; last: {:?}",
                records.len(),
                records.last()
            );
        }
        records
    }

    /// Everything the topic holds now, committed transactions only: reads each partition to its end.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let consumer = self.reader(topic);
        let mut open = self.partitions(&consumer, topic);
        let (start, mut records) = (Instant::now(), Vec::new());
        while !open.is_empty() {
            assert!(start.elapsed() < PATIENCE, "{topic}: the end of partitions {open:?} was not reached");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(Record::from(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|other| *other != partition),
                Some(Err(_)) | None => {}
            }
        }
        records
    }

    /// The offset a group committed for each partition; a partition without one is left out.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a consumer");
        let mut wanted = TopicPartitionList::new();
        for partition in self.partitions(&consumer, topic) {
            wanted.add_partition(topic, partition);
        }
        let found = consumer.committed_offsets(wanted, PATIENCE).expect("the group's coordinator answers");
        let elements = found.elements();
        elements.iter().filter_map(|at| Some((at.partition(), at.offset().to_raw().filter(|raw| *raw >= 0)?))).collect()
    }

    /// One past the last record of each partition.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let end = |partition| {
            let marks = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers");
            (partition, marks.1)
        };
        self.partitions(&consumer, topic).into_iter().map(end).collect()
    }

    /// Records in partition 0 of the topic, those of open transactions included.
    pub fn uncommitted(&self, topic: &str) -> i64 {
        let consumer: BaseConsumer =
            self.client().set("isolation.level", "read_uncommitted").create().expect("a consumer");
        consumer.fetch_watermarks(topic, 0, PATIENCE).expect("the broker answers").1
    }

    /// How many members the group has, once its assignment stands; 0 before.
    pub fn members(&self, group: &str) -> usize {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let list = consumer.fetch_group_list(Some(group), PATIENCE).expect("the broker answers");
        list.groups().iter().filter(|found| found.state() == "Stable").map(|found| found.members().len()).sum()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn reader(&self, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", self.name("reader"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer");
        let mut from = TopicPartitionList::new();
        for partition in self.partitions(&consumer, topic) {
            from.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        // Assigned, not subscribed: reading needs no group and leaves no trace in one.
        consumer.assign(&from).expect("an assignment");
        consumer
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
        metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect()
    }
}

fn leaders(consumer: &BaseConsumer, topic: &str) -> i32 {
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), PATIENCE) else {
        return 0;
    };
    let led = metadata.topics().iter().flat_map(|topic| topic.partitions()).filter(|one| one.leader() >= 0);
    i32::try_from(led.count()).unwrap_or_default()
}

fn send(producer: &FutureProducer, topic: &str, record: &Outgoing) -> DeliveryFuture {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic);
    outgoing.key = record.key.as_deref();
    outgoing.payload = record.value.as_deref();
    outgoing.partition = record.partition;
    outgoing.timestamp = record.timestamp;
    outgoing.headers = (!record.headers.is_empty()).then_some(headers);
    loop {
        match producer.send_result(outgoing) {
            Ok(sent) => return sent,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                outgoing = again;
                // Room is what is wanted: whether the flush got through all of it does not matter.
                let _ = producer.flush(Timeout::After(Duration::from_millis(100)));
            }
            Err((error, _)) => panic!("{topic} did not take a record: {error}"),
        }
    }
}
