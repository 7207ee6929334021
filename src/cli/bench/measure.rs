//! One measurement: instances on threads of their own take runs out of what waits, as in the worker.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::mix::Random;
use crate::config::BatchLimits;
use crate::model::{Buckets, Instance, ModelError};
use crate::pipeline::waitlist::Waitlist;

/// How rows come, and how runs are made of them.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub limits: BatchLimits,
    /// The shapes of runs, where these are fixed.
    pub buckets: Option<Buckets>,
    /// Rows that wait at once if there is no rate: what the permits allow.
    pub window: usize,
    /// Rows a second, at random moments; as fast as they are taken otherwise.
    pub rate: Option<f64>,
    /// So many rows in arrival order instead of like lengths: what a naive batch does.
    pub arrival_order: Option<usize>,
    pub seconds: f64,
}

/// What was seen.
#[derive(Default)]
pub(super) struct Figures {
    pub rows: usize,
    pub tokens: usize,
    pub padded: usize,
    pub wall: f64,
    /// Of the process, all threads.
    pub cpu: f64,
    /// Taken by the hypervisor, all cores together.
    pub steal: f64,
    /// From arrival to answer, in milliseconds, sorted.
    pub latencies: Vec<f64>,
}

impl Figures {
    pub(super) fn waste(&self) -> f64 {
        1.0 - self.tokens as f64 / self.padded.max(1) as f64
    }

    pub(super) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

/// Judges all rows, over and over, until the time is up; without a rate, a pass once begun is finished, so that its
/// short and long rows count as often as they come.
pub(super) fn measure(instances: &mut [Instance], rows: &[Vec<u32>], load: Load) -> Result<Figures, ModelError> {
    let (started, cpu, steal) = (Instant::now(), cpu_seconds(), steal_seconds());
    let queue =
        Mutex::new(Queue { rows, load, started, waiting: Waitlist::default(), next: 0, due: 0.0, random: Random(11) });
    let parts: Vec<Result<Figures, ModelError>> = thread::scope(|scope| {
        let handles: Vec<_> = instances.iter_mut().map(|instance| scope.spawn(|| serve(instance, &queue))).collect();
        let panicked = |_| Err(ModelError::run("a measuring thread panicked"));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(panicked)).collect()
    });
    let mut all = Figures {
        wall: started.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
        steal: steal_seconds() - steal,
        ..Figures::default()
    };
    for part in parts {
        let part = part?;
        all.rows += part.rows;
        all.tokens += part.tokens;
        all.padded += part.padded;
        all.latencies.extend(part.latencies);
    }
    all.latencies.sort_by(f64::total_cmp);
    Ok(all)
}

fn serve(instance: &mut Instance, queue: &Mutex<Queue<'_>>) -> Result<Figures, ModelError> {
    let mut figures = Figures::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let run = match next {
            Next::Run(run) => run,
            Next::Wait(time) => {
                thread::sleep(time);
                continue;
            }
            Next::End => return Ok(figures),
        };
        let rows: Vec<&[u32]> = run.iter().map(|row| row.ids).collect();
        instance.classify(&rows)?;
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        figures.rows += rows.len();
        figures.tokens += lengths.iter().sum::<usize>();
        figures.padded += instance.run_tokens(&lengths);
        figures.latencies.extend(run.iter().map(|row| row.arrived.elapsed().as_secs_f64() * 1e3));
    }
}

/// What waits, and what comes.
struct Queue<'a> {
    rows: &'a [Vec<u32>],
    load: Load,
    started: Instant,
    waiting: Waitlist<Arrived<'a>>,
    next: usize,
    /// When the next row arrives, in seconds from the start.
    due: f64,
    random: Random,
}

struct Arrived<'a> {
    ids: &'a [u32],
    arrived: Instant,
}

enum Next<'a> {
    Run(Vec<Arrived<'a>>),
    Wait(Duration),
    End,
}

impl<'a> Queue<'a> {
    fn next(&mut self) -> Next<'a> {
        let now = self.started.elapsed().as_secs_f64();
        match self.load.rate {
            None => {
                let (pass, over) = (self.rows.len(), now > self.load.seconds);
                let ends = |next: usize| over && next > 0 && next.is_multiple_of(pass);
                while self.waiting.len() < self.load.window.min(pass) && !ends(self.next) {
                    self.arrive(Instant::now());
                }
                if self.waiting.is_empty() {
                    return Next::End;
                }
            }
            Some(_) if now > self.load.seconds => return Next::End,
            // Rows arrive when they are due, whether anybody looks or not.
            Some(rate) => {
                while self.due <= now {
                    self.arrive(self.started + Duration::from_secs_f64(self.due));
                    self.due -= self.random.uniform().ln() / rate;
                }
            }
        }
        if self.waiting.is_empty() {
            return Next::Wait(Duration::from_secs_f64((self.due - now).clamp(0.0, 0.1)));
        }
        Next::Run(match self.load.arrival_order {
            Some(count) => self.waiting.take_oldest(count),
            None => self.waiting.close_run(self.load.limits, self.load.buckets),
        })
    }

    fn arrive(&mut self, arrived: Instant) {
        let ids = &self.rows[self.next % self.rows.len()];
        self.waiting.push(ids.len(), Arrived { ids, arrived });
        self.next += 1;
    }
}

/// User and system time of this process.
pub(super) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Time that the hypervisor gave to others, all cores together; 0 where the system does not say.
pub(super) fn steal_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<f64>().ok());
    ticks.unwrap_or_default() / 100.0
}

/// Largest resident size of this process so far, in bytes, if the system says.
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
