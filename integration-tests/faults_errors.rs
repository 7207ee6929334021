//! Errors that a broker answers with, placed by librdkafka's mock cluster: only there can each be had at will.

use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::kafka::Kafka;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, posts};
use crate::support::worker::Setup;
use crate::support::{PATIENCE, eventually};
use crate::test_name;

type Cluster = MockCluster<'static, DefaultProducerContext>;

use RDKafkaRespErr as Answer;

fn cluster(test: &'static str, brokers: i32) -> (Cluster, Kafka) {
    let cluster = MockCluster::new(brokers).unwrap();
    let kafka = Kafka { brokers: cluster.bootstrap_servers(), test };
    (cluster, kafka)
}

/// A pool on the mock cluster: topics of one partition, led by the first broker.
fn pool<'a>(cluster: &Cluster, kafka: &'a Kafka) -> Pool<'a> {
    let topic = |purpose: &str| {
        let name = kafka.name(purpose);
        cluster.create_topic(&name, 1, 1).unwrap();
        cluster.partition_leader(&name, 0, Some(1)).unwrap();
        name
    };
    Pool::of(kafka, topic, kafka.name("group"))
}

fn slow(pool: &Pool<'_>) -> Setup {
    // More patience than `mortal`: the mock cluster's first join takes three seconds.
    pool.setup().with(&[
        ("kafka.session_timeout", "6s"),
        ("kafka.drain_timeout", "2s"),
        ("kafka.options.heartbeat.interval.ms", "500"),
        ("kafka.options.retry.backoff.ms", "50"),
        ("limits.max_batch_posts", "1"),
    ])
}

fn verdicts_appear(pool: &Pool<'_>) {
    eventually("verdicts appear", PATIENCE, || pool.count(&pool.verdicts), |count| *count > 0);
}

#[test]
fn a_produce_answered_with_every_retriable_error_is_tried_again_and_nothing_comes_twice() {
    const RETRIABLE: [RDKafkaRespErr; 8] = [
        Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Answer::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        Answer::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    let (cluster, kafka) = cluster(test_name!(), 1);
    let pool = pool(&cluster, &kafka);
    pool.post(posts("p", 200));
    cluster.request_errors(RDKafkaApiKey::Produce, &RETRIABLE);

    let mut worker = slow(&pool).start();

    // Of the order nothing is to be learned here: the mock cluster checks sequence numbers of transactional producers
    // only, and takes a second batch that a broker would refuse until the first has come. That order is kept is proved on
    // a real broker, by connections_cut_again_and_again_cost_no_post_and_repeat_none.
    assert_eq!(Account::of(&pool).is_complete(), 0);
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_produce_answered_with_an_error_that_no_retry_mends_ends_the_worker_and_loses_nothing() {
    const FATAL: [RDKafkaRespErr; 6] = [
        Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        Answer::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD,
        Answer::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
    ];
    let (cluster, kafka) = cluster(test_name!(), 1);
    let pool = pool(&cluster, &kafka);
    for error in FATAL {
        pool.post(posts(&format!("{error:?}"), 20));
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        let mut worker = slow(&pool).start();
        assert_eq!(worker.wait(), 1, "{error:?}: {}", worker.log());
        let (code, reason) = worker.last_word();
        assert_eq!(code, "verdict_undeliverable", "{error:?}: {reason}");
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
    }
    let _successor = slow(&pool).start();
    // Not in order: what stood behind a refused record may have been taken.
    Account::of(&pool).is_complete();
}

#[test]
fn a_group_coordinator_that_moves_dies_and_answers_with_errors_costs_no_post() {
    let (cluster, kafka) = cluster(test_name!(), 3);
    let pool = pool(&cluster, &kafka);
    let coordinator = |broker| cluster.coordinator(MockCoordinator::Group(pool.group.clone()), broker).unwrap();
    coordinator(2);
    pool.post(posts("p", 1500));
    let mut worker = slow(&pool).start();
    verdicts_appear(&pool);

    cluster.broker_down(2).unwrap();
    coordinator(3);
    let commits = [
        Answer::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Answer::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &commits);
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &commits[..3]);
    worker.wait_for_log("cannot commit offsets now");

    Account::of(&pool).is_whole();
    worker.sigterm();
    assert_eq!(worker.wait(), 0);
}
