//! A broker that stops, loses its connections, or has no room left.

use std::time::Duration;

use crate::support::broker::Own;
use crate::support::oracle::Account;
use crate::support::pool::{Pool, posts};
use crate::support::proxy::{Proxy, Way};
use crate::support::worker::{Setup, Worker};
use crate::support::{PATIENCE, eventually};
use crate::test_name;

/// Work for each pool, and its first verdicts: more of it waits when this returns.
fn busy(pools: &[Pool<'_>]) {
    let before: Vec<usize> = pools.iter().map(|pool| pool.count(&pool.verdicts)).collect();
    for pool in pools {
        pool.post(posts(&format!("p-{}", pool.count(&pool.posts)), 500));
    }
    let count = || pools.iter().map(|pool| pool.count(&pool.verdicts)).collect::<Vec<_>>();
    let grown = |now: &Vec<usize>| now.iter().zip(&before).all(|(now, before)| now > before);
    eventually("verdicts go on", PATIENCE, count, grown);
}

/// They did all that was promised, without a restart.
fn are_whole(pools: &[Pool<'_>], workers: &mut [Worker]) {
    for pool in pools {
        Account::of(pool).is_whole();
    }
    for worker in workers {
        worker.sigterm();
        assert_eq!(worker.wait(), 0);
    }
}

/// Slow enough for something to happen in the middle, and with waits that a test can sit out.
fn slow(pool: &Pool<'_>) -> Setup {
    pool.mortal().with(&[
        ("limits.max_batch_posts", "1"),
        ("limits.max_in_flight", "64"),
        ("kafka.session_timeout", "6s"),
        ("kafka.options.socket.timeout.ms", "2000"),
        ("kafka.options.reconnect.backoff.max.ms", "500"),
    ])
}

/// The same, with the proxy between.
fn through(proxy: &Proxy, pool: &Pool<'_>) -> Setup {
    slow(pool).set("kafka.brokers", format!("127.0.0.1:{}", proxy.port))
}

#[test]
fn a_broker_that_is_stopped_and_started_again_costs_no_post_and_no_restart() {
    let Some(mut broker) = Own::start(test_name!(), "") else { return };
    let kafka = broker.kafka.clone();
    let pools = Pool::of_each_delivery(&kafka, 3);
    let mut workers = pools.each_ref().map(|pool| slow(pool).start());
    busy(&pools);

    broker.stop();
    broker.start_again();
    busy(&pools);
    broker.kill();
    broker.start_again();

    are_whole(&pools, &mut workers);
}

#[test]
fn connections_cut_again_and_again_cost_no_post_and_repeat_none() {
    let Some((broker, proxy)) = Own::behind_a_proxy(test_name!()) else { return };
    let pools = Pool::of_each_delivery(&broker.kafka, 3);
    let mut workers = pools.each_ref().map(|pool| through(&proxy, pool).start());

    for _ in 0..5 {
        let made = proxy.made();
        busy(&pools);
        proxy.cut();
        eventually("they connect again", PATIENCE, || proxy.made(), |now| *now > made);
    }

    are_whole(&pools, &mut workers);
    assert_eq!(Account::now(&pools[0]).is_whole(), 0, "idempotent producing repeats nothing");
}

/// A broker may still hold a request when its connection breaks, and take it up when the client has long sent it again.
#[test]
fn an_end_of_a_transaction_that_comes_late_ends_no_other_transaction() {
    const ADD_OFFSETS_TO_TXN: i16 = 25;
    const END_TXN: i16 = 26;
    let Some((broker, proxy)) = Own::behind_a_proxy(test_name!()) else { return };
    let [_, pool] = Pool::of_each_delivery(&broker.kafka, 1);
    let worker = through(&proxy, &pool).start();
    busy(std::slice::from_ref(&pool));
    proxy.keep_back(END_TXN, true);
    eventually("an end is on its way", PATIENCE, || proxy.kept(), |kept| *kept == 1);
    proxy.keep_back(ADD_OFFSETS_TO_TXN, false);
    eventually("the next transaction has its records", PATIENCE, || proxy.kept(), |kept| *kept == 2);

    proxy.release();
    eventually("the broker has answered", PATIENCE, || proxy.unheard(), |unheard| *unheard > 0);
    // Whatever is visible of that transaction now is not covered by an offset.
    drop(worker);

    let _successor = pool.mortal().start();
    Account::of(&pool).is_whole();
}

#[test]
fn a_network_that_is_slow_then_silent_then_closed_costs_no_post() {
    let Some((broker, proxy)) = Own::behind_a_proxy(test_name!()) else { return };
    let pools = Pool::of_each_delivery(&broker.kafka, 3);
    let mut workers = pools.each_ref().map(|pool| through(&proxy, pool).start());
    busy(&pools);

    proxy.turn(Way::Slow(Duration::from_millis(150)));
    busy(&pools);
    let made = proxy.made();
    // Until a client has given a connection up and tried another.
    proxy.turn(Way::Black);
    eventually("a silent connection is given up", PATIENCE, || proxy.made(), |now| *now > made);
    proxy.turn(Way::Refused);
    // The groups have given their members up by then.
    let members = || pools.each_ref().map(|pool| broker.kafka.members(&pool.group));
    eventually("the groups are empty", PATIENCE, members, |members| *members == [0, 0]);
    proxy.turn(Way::Open);

    are_whole(&pools, &mut workers);
}

#[test]
fn a_verdict_topic_that_is_deleted_ends_the_worker_and_no_post_is_passed_over() {
    let Some(broker) = Own::start(test_name!(), "") else { return };
    let kafka = &broker.kafka;
    let pool = Pool::new(kafka, 1);
    let refreshing = [
        ("kafka.options.topic.metadata.refresh.interval.ms", "500"),
        ("kafka.options.topic.metadata.propagation.max.ms", "1000"),
    ];
    let mut worker = slow(&pool).with(&refreshing).start();
    pool.post(posts("more", 3000));
    busy(std::slice::from_ref(&pool));

    kafka.delete_topic(&pool.verdicts);

    assert_eq!(worker.wait(), 1);
    assert_eq!(worker.last_word().0, "verdict_undeliverable");
    let committed = pool.committed().get(&0).copied().unwrap_or_default();
    let end = kafka.end_offsets(&pool.posts)[&0];
    assert!(committed < end);
    assert_eq!(kafka.topic("verdicts", 1), pool.verdicts);
    let _successor = pool.mortal().start();
    pool.wait_until_all_is_committed();
    // What was committed was in the topic that is gone; everything else is in the new one.
    let verdicts = kafka.read_all(&pool.verdicts);
    let offsets: Vec<i64> =
        verdicts.iter().map(|one| one.header("moderato.source.offset").unwrap().parse().unwrap()).collect();
    assert_eq!(offsets, (committed..end).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_may_no_longer_write_its_topic_ends_and_goes_on_where_it_was_once_it_may() {
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
";
    let Some(broker) = Own::start(test_name!(), authorizer) else { return };
    let kafka = &broker.kafka;
    let pool = Pool::new(kafka, 1);
    let mut worker = slow(&pool).start();
    pool.post(posts("more", 3000));
    busy(std::slice::from_ref(&pool));

    kafka.acl("deny", &pool.verdicts);

    assert_eq!(worker.wait(), 1);
    let (code, reason) = worker.last_word();
    assert_eq!(code, "verdict_undeliverable");
    assert!(reason.contains("may write to it"), "{reason}");
    kafka.acl("allow", &pool.verdicts);
    let _successor = pool.mortal().start();
    Account::of(&pool).is_whole();
}

#[test]
fn a_broker_whose_disk_is_full_costs_no_post() {
    let Some(mut broker) = Own::on_a_small_disk(test_name!(), 96) else { return };
    let kafka = broker.kafka.clone();
    let pool = Pool::new(&kafka, 1);
    let worker = slow(&pool).set("kafka.delivery_timeout", "5s").start();
    pool.post(posts("more", 3000));
    busy(std::slice::from_ref(&pool));

    broker.fill_the_disk();
    let mut worker = worker;
    assert_eq!(worker.wait(), 1);
    assert_eq!(worker.last_word().0, "verdict_undeliverable");
    broker.kill();
    broker.clear_the_disk();
    broker.start_again();

    let _successor = pool.mortal().start();
    Account::of(&pool).is_whole();
}
