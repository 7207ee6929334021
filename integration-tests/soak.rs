//! The long run, `make soak`: three workers, their broker, network and Redis, one of which is hurt every few seconds.
//!
//! Half of the time in each delivery mode. Every draw comes from one seed, which is printed: `MODERATO_SOAK_SEED` repeats
//! the draws, `MODERATO_SOAK_SECONDS` and `MODERATO_SOAK_POSTS` make it shorter or longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fmt, thread};

use serde_json::Value;

use crate::support::broker::Own;
use crate::support::pool::{Pool, post};
use crate::support::proxy::{Proxy, Way};
use crate::support::records::Outgoing;
use crate::support::redis::{self, Private};
use crate::support::worker::{Setup, Worker};
use crate::support::{PATIENCE, eventually, run_id};
use crate::test_name;

const WORKERS: usize = 3;
const PARTITIONS: i32 = 6;
const BETWEEN: Duration = Duration::from_secs(5);
/// Posts produced at once.
const SLICE: usize = 500;
/// How often the rack is looked after.
const TURN: Duration = Duration::from_millis(100);

#[test]
#[ignore = "twenty minutes: `make soak` runs it"]
fn faults_drawn_at_random_lose_no_post_and_in_exactly_once_repeat_none() {
    let seconds = number("MODERATO_SOAK_SECONDS", 1200);
    let posts = number("MODERATO_SOAK_POSTS", 200_000);
    let seed = number("MODERATO_SOAK_SEED", u64::from_str_radix(run_id(), 16).unwrap());
    println!("seed {seed}: MODERATO_SOAK_SEED={seed} repeats the draws");
    for mode in ["at_least_once", "exactly_once"] {
        let plan = Plan { mode, time: Duration::from_secs(seconds / 2), posts: posts as usize / 2, seed };
        let outcome = plan.run();
        println!("{outcome}");
        assert!(outcome.whole(), "seed {seed}, {mode}: not whole: {}", outcome.report);
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

struct Plan {
    mode: &'static str,
    time: Duration,
    posts: usize,
    seed: u64,
}

/// What can be done to the rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillWorker,
    StopWorker,
    FreezeWorker,
    CutConnections,
    SlowNetwork,
    SilentNetwork,
    KillBroker,
    KillRedis,
    FreezeRedis,
}

const FAULTS: [Fault; 9] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::FreezeWorker,
    Fault::CutConnections,
    Fault::SlowNetwork,
    Fault::SilentNetwork,
    Fault::KillBroker,
    Fault::KillRedis,
    Fault::FreezeRedis,
];

/// What ends a fault.
enum Mend {
    Wake(usize),
    Network,
    Redis,
}

struct Rack<'a> {
    pool: &'a Pool<'a>,
    mode: &'static str,
    broker: Own,
    proxy: Proxy,
    redis: Private,
    workers: Vec<Worker>,
    /// Those that are not to be touched before they wake.
    frozen: [bool; WORKERS],
    mends: Vec<(Instant, Mend)>,
    faults: BTreeMap<Fault, usize>,
    ends: BTreeMap<String, usize>,
}

impl Plan {
    fn run(&self) -> Outcome {
        let (broker, proxy) = Own::behind_a_proxy(test_name!()).unwrap();
        let redis = redis::used(test_name!()).unwrap().private();
        let kafka = broker.kafka.clone();
        let pool = Pool::named(&kafka, self.mode, PARTITIONS);
        let mut rack = Rack {
            pool: &pool,
            mode: self.mode,
            broker,
            proxy,
            redis,
            workers: Vec::new(),
            frozen: [false; WORKERS],
            mends: Vec::new(),
            faults: BTreeMap::new(),
            ends: BTreeMap::new(),
        };
        rack.workers = (0..WORKERS).map(|n| rack.setup(n).start()).collect();
        let produced = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| self.produce(&pool, &produced));
            self.hurt(&mut rack);
        });
        rack.recover();
        let report = rack.reconcile();
        Outcome { mode: self.mode, posts: self.posts, faults: rack.faults, ends: rack.ends, report }
    }

    /// Spread over the time; one text in four comes again, one record in a hundred is a deletion, one in a hundred broken.
    fn produce(&self, pool: &Pool<'_>, produced: &AtomicUsize) {
        let started = Instant::now();
        let mut random = Random(self.seed ^ 1);
        while produced.load(Ordering::Relaxed) < self.posts {
            let done = produced.load(Ordering::Relaxed);
            let due = self.time.mul_f64(done as f64 / self.posts as f64);
            // Not in place of an event: it is the rate.
            thread::sleep(due.saturating_sub(started.elapsed()));
            let slice = done..self.posts.min(done + SLICE);
            pool.post(slice.clone().map(|n| record(n, &mut random)));
            produced.store(slice.end, Ordering::Relaxed);
        }
    }

    fn hurt(&self, rack: &mut Rack<'_>) {
        let mut random = Random(self.seed);
        let started = Instant::now();
        let mut next = started + BETWEEN;
        while started.elapsed() < self.time {
            rack.look_after();
            if Instant::now() >= next {
                next += BETWEEN;
                let fault = FAULTS[random.below(FAULTS.len())];
                let (worker, length) =
                    (random.below(WORKERS), Duration::from_millis(500 + 500 * random.below(20) as u64));
                rack.hurt(fault, worker, length);
            }
            thread::sleep(TURN);
        }
    }
}

fn record(n: usize, random: &mut Random) -> Outgoing {
    let id = format!("post-{n}");
    match random.below(100) {
        0 => Outgoing::tombstone().key(id),
        1 => Outgoing::new(format!("broken {n}")).key(id),
        draw => {
            post(&id, &format!("Claim {}: the bridge was closed.", if draw < 27 { random.below(n + 1) } else { n }))
        }
    }
}

impl Rack<'_> {
    fn setup(&self, worker: usize) -> Setup {
        self.pool.setup().with(&[
            ("kafka.brokers", &format!("127.0.0.1:{}", self.proxy.port)),
            ("kafka.delivery", self.mode),
            ("kafka.worker_id", &format!("worker-{worker}")),
            ("kafka.session_timeout", "6s"),
            ("kafka.drain_timeout", "4s"),
            ("kafka.delivery_timeout", "20s"),
            ("kafka.options.heartbeat.interval.ms", "1000"),
            ("kafka.options.socket.timeout.ms", "5000"),
            ("kafka.options.reconnect.backoff.max.ms", "1000"),
            ("cache.kind", "redis"),
            ("cache.redis.url", &self.redis.url),
        ])
    }

    /// What is due is mended, and who ended is started again, as a cluster would.
    fn look_after(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        for (_, mend) in due {
            self.mend(mend);
        }
        for n in 0..WORKERS {
            if let Some(code) = self.workers[n].ended() {
                let code = match code {
                    1 => self.workers[n].last_word().0,
                    other => other.to_string(),
                };
                *self.ends.entry(code).or_default() += 1;
                self.workers[n] = self.setup(n).start();
            }
        }
    }

    fn hurt(&mut self, fault: Fault, worker: usize, length: Duration) {
        let until = Instant::now() + length;
        match fault {
            Fault::KillWorker | Fault::StopWorker | Fault::FreezeWorker if self.frozen[worker] => return,
            Fault::KillWorker => self.workers[worker].signal("KILL"),
            Fault::StopWorker => self.workers[worker].sigterm(),
            Fault::FreezeWorker => {
                self.workers[worker].pause();
                self.frozen[worker] = true;
                self.mends.push((until, Mend::Wake(worker)));
            }
            Fault::CutConnections => self.proxy.cut(),
            Fault::SlowNetwork => {
                self.proxy.turn(Way::Slow(Duration::from_millis(100)));
                self.mends.push((until, Mend::Network));
            }
            Fault::SilentNetwork => {
                self.proxy.turn(Way::Black);
                self.mends.push((until, Mend::Network));
            }
            Fault::KillBroker => {
                self.broker.kill();
                self.broker.start_again();
            }
            Fault::KillRedis => {
                self.redis.kill();
                self.redis.restart();
            }
            Fault::FreezeRedis => {
                self.redis.pause();
                self.mends.push((until, Mend::Redis));
            }
        }
        *self.faults.entry(fault).or_default() += 1;
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Wake(worker) => {
                self.workers[worker].resume();
                self.frozen[worker] = false;
            }
            Mend::Network => self.proxy.turn(Way::Open),
            Mend::Redis => self.redis.resume(),
        }
    }

    /// Everything works again; waits until every offset is committed, and ends the workers.
    fn recover(&mut self) {
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(mend);
        }
        let ends = self.pool.kafka.end_offsets(&self.pool.posts);
        eventually(
            "every offset is committed",
            10 * PATIENCE,
            || {
                self.look_after();
                self.pool.committed()
            },
            |committed| *committed == ends,
        );
        for worker in &mut self.workers {
            worker.sigterm();
        }
        for worker in &mut self.workers {
            worker.wait();
        }
    }

    fn reconcile(&self) -> Value {
        let again = (self.mode == "at_least_once").then_some("--allow-repeats");
        let told = |setup: Setup| again.into_iter().fold(setup, Setup::argument);
        // A dead worker's open transaction hides what follows until the broker gives it up.
        let look = || {
            let output = told(self.pool.setup().verb("reconcile").argument("--to").argument("end").argument("--json"));
            serde_json::from_slice::<Value>(&output.output(b"").stdout).unwrap_or_default()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = look();
            if report["whole"] == true || Instant::now() > deadline {
                return report;
            }
        }
    }
}

/// What a half of the run came to.
struct Outcome {
    mode: &'static str,
    posts: usize,
    faults: BTreeMap<Fault, usize>,
    ends: BTreeMap<String, usize>,
    report: Value,
}

impl Outcome {
    fn whole(&self) -> bool {
        self.report["whole"] == true && self.report["expected"] == self.posts
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |key: &str| self.report[key].as_u64().unwrap_or_default();
        writeln!(f, "{}: {} posts in", self.mode, self.posts)?;
        writeln!(
            f,
            "  verdicts {}, tombstones {}, dead letters {}, missing {}, duplicates {}",
            count("verdicts"),
            count("tombstones"),
            count("dead_letters"),
            self.report["missing"]["count"],
            self.report["duplicates"]["count"]
        )?;
        writeln!(f, "  faults survived: {}, {:?}", self.faults.values().sum::<usize>(), self.faults)?;
        write!(f, "  workers that ended and were started again, by exit code or reason: {:?}", self.ends)
    }
}

/// SplitMix64: the same draws from the same seed, on any machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }
}
