//! What the kernel counts for a process and for the machine.

use std::fs;
use std::time::{Duration, Instant};

/// Where the clocks stood.
pub struct Clocks {
    pid: u32,
    at: Instant,
    cpu_seconds: f64,
    steal_seconds: f64,
}

/// One measured pass.
pub struct Pass {
    pub records: usize,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub steal_seconds: f64,
    /// Most memory that the process ever had, in MB.
    pub peak_mb: f64,
}

impl Clocks {
    pub fn read(pid: u32) -> Self {
        Self { pid, at: Instant::now(), cpu_seconds: cpu_seconds(pid), steal_seconds: steal_seconds() }
    }

    /// The pass from then to now.
    pub fn pass(&self, records: usize) -> Pass {
        Pass {
            records,
            seconds: self.at.elapsed().max(Duration::from_nanos(1)).as_secs_f64(),
            cpu_seconds: cpu_seconds(self.pid) - self.cpu_seconds,
            steal_seconds: steal_seconds() - self.steal_seconds,
            peak_mb: peak_mb(self.pid),
        }
    }
}

impl Pass {
    pub fn per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu_seconds
    }
}

/// The middle one of a figure over several passes.
pub fn median(passes: &[Pass], figure: impl Fn(&Pass) -> f64) -> f64 {
    let mut figures: Vec<f64> = passes.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// User and system time of a process, from /proc (fields 14 and 15 of stat; a tick is 10 ms on Linux).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = stat.rsplit(") ").next().expect("a name in parentheses");
    let fields: Vec<f64> = after_name.split(' ').filter_map(|field| field.parse().ok()).collect();
    // State, the third field, is no number, so the fourth is the first here.
    (fields[10] + fields[11]) / 100.0
}

/// Time that the hypervisor gave to others, all cores together.
fn steal_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let ticks =
        stat.lines().next().and_then(|line| line.split_whitespace().nth(8)).and_then(|field| field.parse::<f64>().ok());
    ticks.unwrap_or_default() / 100.0
}

fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
