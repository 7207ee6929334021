//! What the road costs: `moderato run` against Apache Kafka and Redis, in seven tables; the tiny model in all but one.
//!
//! One: 1,000, 10,000 and 100,000 distinct posts, each through the model: the cost of a post does not grow with the
//! topic, nor does memory. Two: 10,000 of them in either delivery mode. Three: the same with telemetry exported to a real
//! OpenTelemetry Collector, and to one that hangs. Four: 1,000,000 posts of which nine in ten repeat another's text. Five:
//! every answer cached, so that the road alone is left, beside a bare loop that consumes the
//! same posts and produces values of a verdict's size with rdkafka, interleaved. Six: the default model in int8, Kafka to
//! Kafka, beside the same posts judged by `moderato bench`, where no road is. Seven: what linking and signing verdicts costs.
//!
//! `make bench` runs it, in about a quarter of an hour; `cargo bench --bench road -- linear engine` runs two of its
//! tables (`cached` reads what `linear` left). Wall time on a shared machine is noise, so CPU seconds and the
//! hypervisor's steal stand beside it, and the ratios are the figures to quote. The broker and Redis run on the same
//! cores; their share is not counted.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]

#[path = "road/passes.rs"]
mod passes;
#[path = "road/process.rs"]
mod process;
#[path = "../integration-tests/support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::time::Duration;

use passes::{finish, stop};
use process::{Clocks, Pass, median};
use support::kafka::{Kafka, used};
use support::records::Outgoing;
use support::redis::Redis;
use support::web::Collector;
use support::worker::Setup;

/// Distinct posts of the first table. The answers to the last one's are then in Redis.
const DISTINCT: [usize; 3] = [1_000, 10_000, 100_000];
/// Posts for the default model: forty milliseconds each.
const OF_DEFAULT_MODEL: usize = 400;
/// Posts before those that are counted.
const FIRST: usize = 1_000;
/// Posts and texts of the third table.
const CROWD: (usize, usize) = (1_000_000, 100_000);
/// Posts and texts of the fourth table's "every text met before".
const KNOWN: (usize, usize) = (200_000, 5_000);
/// Posts of the last table, all different.
const JUDGED: usize = 1_200;
const PARTITIONS: i32 = 6;
const ROUNDS: usize = 3;
const TELEMETRY_ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(900);
/// Posts produced at once: each has a future.
const SLICE: usize = 50_000;

fn main() {
    let bench = Bench {
        kafka: used("bench_road").expect("a broker"),
        redis: support::redis::used("bench_road").expect("a redis"),
    };
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let tables: [(&str, Table); 7] = [
        ("linear", Bench::linear),
        ("delivery", Bench::delivery),
        ("telemetry", Bench::telemetry),
        ("crowd", Bench::crowd),
        ("cached", Bench::cached),
        ("engine", Bench::engine),
        ("evidence", Bench::evidence),
    ];
    for (name, table) in tables {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            table(&bench);
        }
    }
}

/// Measures one table and prints it.
type Table = fn(&Bench);

struct Bench {
    kafka: Kafka,
    redis: Redis,
}

impl Bench {
    /// The cost of a post and the peak of memory, by how many there are; interleaved, since the machine's pace changes
    /// by the minute.
    fn linear(&self) {
        let mut passes: [Vec<Pass>; 3] = Default::default();
        for round in 0..ROUNDS {
            for (passes, count) in passes.iter_mut().zip(DISTINCT) {
                passes.push(self.distinct(count, &format!("distinct-{count}-{round}")));
            }
        }
        println!("\nDistinct posts, each through the model; medians of {ROUNDS} rounds, interleaved\n");
        println!("| posts | posts/s (wall) | posts per CPU-second | peak memory, MB | steal, s |");
        println!("|---|---|---|---|---|");
        for (passes, count) in passes.iter().zip(DISTINCT) {
            row(&count.to_string(), passes, &format!("{:.0}", median(passes, |pass| pass.peak_mb)));
        }
    }

    /// What exporting costs: to a collector that takes it, and to one that takes the connection and nothing more.
    fn telemetry(&self) {
        self.telemetry_of("tiny-fp32", "misinformation-short.md", DISTINCT[1]);
        self.telemetry_of("misinformation", "misinformation-calibrated.md", OF_DEFAULT_MODEL);
    }

    fn telemetry_of(&self, model: &str, policy: &str, posts: usize) {
        let collector = Collector::start();
        let hangs = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let hangs = format!("http://{}", hangs.local_addr().expect("an address"));
        let arms = [("nothing", ""), ("to a collector", &collector.endpoint), ("to one that hangs", &hangs)];
        let policy = support::repository(&format!("model/policies/{policy}"));
        let mut passes: [Vec<Pass>; 3] = Default::default();
        for round in 0..TELEMETRY_ROUNDS {
            for (passes, (name, endpoint)) in passes.iter_mut().zip(arms) {
                let exporting = |worker: Setup| {
                    let worker =
                        worker.set("model.path", support::model(model).display()).set("policy", policy.display());
                    match endpoint {
                        "" => worker,
                        endpoint => worker.environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                    }
                };
                let topic = format!("telemetry-{model}-{}-{round}", name.replace(' ', "-"));
                passes.push(self.distinct_with(posts, &topic, exporting));
            }
        }
        println!("\n{posts} distinct posts, each through the model {model}, traces, metrics and logs exported");
        println!("for every post; medians of {TELEMETRY_ROUNDS} rounds, interleaved\n");
        println!("| exported | posts/s (wall) | posts per CPU-second | of those with nothing exported | steal, s |");
        println!("|---|---|---|---|---|");
        let bare = median(&passes[0], Pass::per_cpu_second);
        for (passes, (name, _)) in passes.iter().zip(arms) {
            row(name, passes, &format!("{:.3}", median(passes, Pass::per_cpu_second) / bare));
        }
    }

    /// What exactly once costs beside at least once.
    fn delivery(&self) {
        let modes = ["at_least_once", "exactly_once"];
        let mut passes: [Vec<Pass>; 2] = Default::default();
        for round in 0..ROUNDS {
            for (passes, mode) in passes.iter_mut().zip(modes) {
                let set = |worker: Setup| worker.set("kafka.delivery", mode);
                passes.push(self.distinct_with(DISTINCT[1], &format!("{mode}-{round}"), set));
            }
        }
        println!(
            "\n{} distinct posts, each through the model, by `kafka.delivery`; medians of {ROUNDS} rounds, interleaved\n",
            DISTINCT[1]
        );
        println!("| delivery | posts/s (wall) | posts per CPU-second | ratio | steal, s |");
        println!("|---|---|---|---|---|");
        let first = median(&passes[0], Pass::per_cpu_second);
        for (passes, mode) in passes.iter().zip(modes) {
            row(mode, passes, &format!("{:.2}", median(passes, Pass::per_cpu_second) / first));
        }
    }

    fn distinct(&self, count: usize, name: &str) -> Pass {
        self.distinct_with(count, name, |worker| worker)
    }

    /// The posts come while the worker waits for them, so that joining the group is not counted.
    fn distinct_with(&self, count: usize, name: &str, set: impl Fn(Setup) -> Setup) -> Pass {
        let posts = self.kafka.topic(name, PARTITIONS);
        let verdicts = self.kafka.topic(&format!("{name}-verdicts"), PARTITIONS);
        let mut worker = set(self.worker(name, &posts, &verdicts, name)).start();
        worker.wait_for_log("partitions assigned");
        // The first posts meet cold caches and connections; they are not counted.
        self.produce(&posts, FIRST, |n| 2 * DISTINCT[2] + n);
        self.wait_for(&verdicts, FIRST);
        let clocks = Clocks::read(worker.pid());
        // Numbers of as many digits, and so texts of as many tokens, however many there are.
        self.produce(&posts, count, |n| DISTINCT[2] + n);
        self.wait_for(&verdicts, FIRST + count);
        finish(&clocks, worker, count)
    }

    /// Texts in random order, so that some twins meet in flight and most find an answer.
    fn crowd(&self) {
        let (count, texts) = CROWD;
        let posts = self.kafka.topic("crowd", PARTITIONS);
        self.produce(&posts, count, |n| (scattered(n) % texts as u64) as usize);
        let verdicts = self.kafka.topic("crowd-verdicts", PARTITIONS);
        let mut worker = self.worker("crowd", &posts, &verdicts, "crowd").set("limits.max_in_flight", 4096).start();
        worker.wait_for_log("consuming");
        let clocks = Clocks::read(worker.pid());
        self.wait_for(&verdicts, count);
        let pass = clocks.pass(count);
        worker.sigterm();
        assert_eq!(worker.wait(), 0);
        let line: serde_json::Value = serde_json::from_str(&worker.wait_for_log("\"stopped\"")).expect("JSON");
        let told = |key: &str| line[key].as_u64().unwrap_or_default();
        println!("\n{count} posts of {texts} texts in random order, nothing known before\n");
        println!(
            "| posts/s (wall) | posts per CPU-second | through the model | cached | twins in flight | peak memory, MB | steal, s |"
        );
        println!("|---|---|---|---|---|---|---|");
        println!(
            "| {:.0} | {:.0} | {} | {} | {} | {:.0} | {:.1} |",
            pass.per_second(),
            pass.per_cpu_second(),
            told("verdicts") - told("cached") - told("twins"),
            told("cached"),
            told("twins"),
            pass.peak_mb,
            pass.steal_seconds
        );
    }

    /// The road alone.
    fn cached(&self) {
        let (count, texts) = KNOWN;
        let known = self.kafka.topic("known", PARTITIONS);
        self.produce(&known, count, |n| n % texts);
        let filled = self.kafka.topic("filled", PARTITIONS);
        let worker = self.worker("fill", &known, &filled, "known").start();
        self.wait_for(&filled, count);
        stop(worker);
        let sample = self.kafka.read(&filled, 1000, PATIENCE);
        let bytes =
            sample.iter().filter_map(|record| record.value.as_ref().map(Vec::len)).sum::<usize>() / sample.len();

        // The last of the first table: its answers are in Redis, and no process has met its texts.
        let foreign = format!("distinct-{}-0", DISTINCT[2]);
        let (mut bare, mut met, mut unmet) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            bare.push(self.bare_loop(&known, &format!("bare-{round}"), bytes));
            met.push(self.road(&known, count, &format!("known-{round}"), "known"));
            unmet.push(self.road(&self.kafka.name(&foreign), DISTINCT[2], &format!("unmet-{round}"), &foreign));
        }
        println!(
            "\nEvery answer cached; verdicts of {bytes} bytes, {PARTITIONS} partitions, medians of {ROUNDS} rounds, interleaved\n"
        );
        println!("| | records/s (wall) | records per CPU-second of the process | ratio to the bare loop | steal, s |");
        println!("|---|---|---|---|---|");
        let floor = median(&bare, Pass::per_cpu_second);
        let ratio = |passes: &[Pass]| format!("{:.2}", median(passes, Pass::per_cpu_second) / floor);
        let road = "`moderato run`, every answer cached";
        for (name, passes) in [
            ("bare consume-produce loop", &bare),
            (&format!("{road}, {count} posts of {texts} texts"), &met),
            (&format!("{road} in Redis alone, {} posts, no two alike", DISTINCT[2]), &unmet),
        ] {
            row(name, passes, &ratio(passes));
        }
    }

    /// The engine alone, and the whole way with it.
    fn engine(&self) {
        let texts: Vec<String> = moderato::samples::texts().collect();
        let line = |n: usize| {
            serde_json::json!({"id": format!("post-{n}"), "text": format!("{n}: {}", texts[n % texts.len()])})
                .to_string()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posts.jsonl");
        std::fs::write(&file, (0..JUDGED).map(|n| line(n) + "\n").collect::<String>()).expect("a file");
        let posts = self.kafka.topic("judged", PARTITIONS);
        let record = |n: usize| Outgoing::new(line(n)).partition((n % PARTITIONS as usize) as i32);
        self.kafka.produce(&posts, (0..JUDGED).map(record));
        let (mut alone, mut whole) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let bench = self.judge(&format!("bench-{round}"), &posts, "none").argument("--posts").argument(&file);
            let bench = ["--json", "--seconds", "1", "--precisions", "int8"].into_iter().fold(bench, Setup::argument);
            let told = bench.verb("bench").output(b"");
            alone.push(serde_json::from_slice::<serde_json::Value>(&told.stdout).expect("a report"));
            let name = format!("judged-{round}");
            let verdicts = self.kafka.topic(&name, PARTITIONS);
            let mut worker = self.judge(&name, &posts, &verdicts).start();
            worker.wait_for_log("partitions assigned");
            let clocks = Clocks::read(worker.pid());
            // Rarely: what is asked of the broker is taken from the model's cores.
            while self.verdicts(&verdicts) < JUDGED {
                std::thread::sleep(Duration::from_millis(500));
            }
            whole.push(finish(&clocks, worker, JUDGED));
        }
        let figure = |key: &str| {
            let mut figures: Vec<f64> = alone.iter().map(|told| told[key].as_f64().expect("a number")).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (wall, cpu) = (figure("posts_per_second"), figure("posts_per_cpu_second"));
        println!("\nThe default model in int8, {JUDGED} posts; medians of {ROUNDS} rounds, interleaved\n");
        println!("| | posts/s (wall) | posts per CPU-second | ratio to the engine alone | steal, s |");
        println!("|---|---|---|---|---|");
        println!(
            "| the engine alone, `moderato bench` | {wall:.1} | {cpu:.2} | 1.00 | {:.1} |",
            figure("steal_seconds")
        );
        let (seconds, through) = (median(&whole, Pass::per_second), median(&whole, Pass::per_cpu_second));
        let steal = median(&whole, |pass| pass.steal_seconds);
        println!(
            "| Kafka to Kafka, `moderato run` | {seconds:.1} | {through:.2} | {:.2} | {steal:.1} |",
            through / cpu
        );
    }

    /// What a chain costs: where every text was met before, so that the road alone is left, and where the tiny model runs.
    fn evidence(&self) {
        let (count, texts) = KNOWN;
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, [7; 32]).expect("a file");
        let checkpoints = self.kafka.topic("checkpoints", 1);
        let linked = |worker: Setup| {
            let signing = [("evidence.signing_key_file", key.display().to_string())];
            let worker = worker.set("evidence.chain", true).set("kafka.topics.checkpoints", &checkpoints);
            signing.into_iter().fold(worker, |worker, (key, value)| worker.set(key, value))
        };
        let arms: [(&str, &dyn Fn(Setup) -> Setup); 2] =
            [("no evidence", &|worker| worker), ("linked, signed", &linked)];
        let known = self.kafka.topic("evident", PARTITIONS);
        self.produce(&known, count, |n| n % texts);
        let filled = self.kafka.topic("evident-filled", PARTITIONS);
        let worker = self.worker("evident-fill", &known, &filled, "evident").start();
        self.wait_for(&filled, count);
        stop(worker);
        let (mut road, mut model): ([Vec<Pass>; 2], [Vec<Pass>; 2]) = Default::default();
        for round in 0..TELEMETRY_ROUNDS {
            for (index, (_, set)) in arms.iter().enumerate() {
                let name = format!("evident-{index}-{round}");
                road[index].push(self.road_with(&known, count, &name, "evident", set));
                model[index].push(self.distinct_with(DISTINCT[1], &format!("{name}-distinct"), set));
            }
        }
        println!("\nA chain over every verdict; medians of {TELEMETRY_ROUNDS} rounds, interleaved\n");
        println!("| | posts/s (wall) | posts per CPU-second | of those without | steal, s |");
        println!("|---|---|---|---|---|");
        for (what, passes) in [("every answer cached", &road), ("each through the tiny model", &model)] {
            let bare = median(&passes[0], Pass::per_cpu_second);
            for (passes, (name, _)) in passes.iter().zip(&arms) {
                let share = format!("{:.3}", median(passes, Pass::per_cpu_second) / bare);
                row(&format!("{what}, {name}"), passes, &share);
            }
        }
    }
}

/// A number that looks like no other's.
fn scattered(n: usize) -> u64 {
    let mixed = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// A line of a table: both rates, one more column, the steal.
fn row(name: &str, passes: &[Pass], more: &str) {
    let (wall, cpu) = (median(passes, Pass::per_second), median(passes, Pass::per_cpu_second));
    let steal = median(passes, |pass| pass.steal_seconds);
    println!("| {name} | {wall:.0} | {cpu:.0} | {more} | {steal:.1} |");
}
