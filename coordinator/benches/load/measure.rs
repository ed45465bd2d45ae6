//! Latencies, and what a process costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Failure;

/// Buckets of an octave: a quantile is at most a sixteenth too high.
const PER_OCTAVE: usize = 16;
const BUCKETS: usize = PER_OCTAVE * 32;

/// How long calls took. Many tasks add to it at once.
#[derive(Debug)]
pub(crate) struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    pub(crate) fn add(&self, latency: Duration) {
        let micros = latency.as_micros().clamp(1, 1 << 31) as f64;
        let bucket = (micros.log2() * PER_OCTAVE as f64).ceil() as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The latency that this share of all calls did not exceed, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut left = (self.count() as f64 * share).ceil() as u64;
        for (bucket, count) in self.0.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count >= left {
                return (bucket as f64 / PER_OCTAVE as f64).exp2() / 1000.0;
            }
            left -= count;
        }
        f64::INFINITY
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

/// How long each kind of call took, and how many trials were completed.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) lease: Latencies,
    pub(crate) report: Latencies,
    pub(crate) complete: Latencies,
    pub(crate) heartbeat: Latencies,
    pub(crate) watch: Latencies,
    pub(crate) trials: AtomicU64,
}

impl Measured {
    pub(crate) fn clear(&self) {
        let Self { lease, report, complete, heartbeat, watch, trials } = self;
        [lease, report, complete, heartbeat, watch].into_iter().for_each(Latencies::clear);
        trials.store(0, Ordering::Relaxed);
    }

    /// One line a kind of call.
    pub(crate) fn table(&self) -> String {
        let Self { lease, report, complete, heartbeat, watch, trials: _ } = self;
        let rows = [
            ("lease", lease),
            ("report", report),
            ("complete", complete),
            ("heartbeat", heartbeat),
            ("seen by a watcher", watch),
        ];
        let mut table =
            format!("  {:<20}{:>10}{:>12}{:>12}{:>12}", "", "calls", "p50 ms", "p99 ms", "max ms");
        for (name, latencies) in rows.into_iter().filter(|(_, it)| it.count() > 0) {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| latencies.quantile(share));
            table += &format!("\n  {name:<20}{:>10}{p50:>12.1}{p99:>12.1}{max:>12.1}", latencies.count());
        }
        table
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Time on a core, its own and the kernel's.
    pub(crate) cpu: Duration,
    /// Memory in use, in MiB.
    pub(crate) resident: f64,
    /// The most memory that was ever in use, in MiB.
    pub(crate) peak: f64,
}

/// What Linux says of a process.
pub(crate) fn usage(process: u32) -> Result<Usage, Failure> {
    /// The kernel counts processor time in hundredths of a second, on every platform that Rust knows.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').ok_or("no process name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).ok_or("too few fields")?.parse::<u32>().map_err(Failure::from);
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let mebibytes = |name: &str| -> Result<f64, Failure> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("a missing line")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    // Fields 14 and 15 of proc(5); the first two are before the name's end.
    let cpu = TICK * (ticks(11)? + ticks(12)?);
    Ok(Usage { cpu, resident: mebibytes("VmRSS:")?, peak: mebibytes("VmHWM:")? })
}
