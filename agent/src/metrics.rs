//! The metrics of a host that probes and abort rules ask for, read from the kernel.

use backburn_experiments::document::HostMetric;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A metric that is not available: where it was read from, what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {what}\nhint: {hint}")]
pub struct MetricUnavailable {
    /// The file or folder.
    pub at: String,
    /// What was wrong with the metric, for people.
    pub what: String,
    /// What makes the metric available.
    pub hint: String,
}

impl MetricUnavailable {
    fn new(at: &Path, what: impl ToString, hint: &str) -> Self {
        MetricUnavailable {
            at: at.display().to_string(),
            what: what.to_string(),
            hint: hint.into(),
        }
    }
}

/// Processor time since boot, in ticks: the busy part, and all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CpuTime {
    busy: u64,
    all: u64,
}

/// Measures a host. It remembers the last measurement, from which the busy share of the processors counts.
#[derive(Debug)]
pub struct Metrics {
    root: PathBuf,
    last: Option<CpuTime>,
    share: Option<f64>,
}

/// The host that the agent runs on.
impl Default for Metrics {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Metrics {
    /// Measures from another folder that looks like `/proc`. The busy share of the processors counts from now on.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let mut metrics = Metrics {
            root: root.into(),
            last: None,
            share: None,
        };
        metrics.last = metrics.cpu_time().ok();
        metrics
    }

    /// Measures a metric. `path` is for `disk-free-percent`; default: `/`.
    ///
    /// # Errors
    /// This host does not have the metric, or does not show it.
    pub fn measure(
        &mut self,
        metric: HostMetric,
        path: Option<&str>,
    ) -> Result<f64, MetricUnavailable> {
        match metric {
            HostMetric::CpuBusyPercent => self.cpu_busy(),
            HostMetric::Load1 => self.load(),
            HostMetric::MemoryAvailablePercent => {
                let total = meminfo(&self.root, "MemTotal:")?;
                Ok(percent(meminfo(&self.root, "MemAvailable:")?, total))
            }
            HostMetric::DiskFreePercent => disk_free(Path::new(path.unwrap_or("/"))),
            HostMetric::CpuPressurePercent => self.pressure("cpu"),
            HostMetric::MemoryPressurePercent => self.pressure("memory"),
            HostMetric::IoPressurePercent => self.pressure("io"),
            HostMetric::Processes => {
                let pids = crate::processes::ProcessTable::at(&self.root).pids();
                let count = pids
                    .map_err(|error| {
                        MetricUnavailable::new(&self.root, error, "is `/proc` mounted?")
                    })?
                    .len();
                Ok(count as f64)
            }
        }
    }

    fn cpu_busy(&mut self) -> Result<f64, MetricUnavailable> {
        // The kernel counts in ticks of 10 ms or so; two looks within one tick have no share
        // between them.
        for _ in 0..4 {
            let now = self.cpu_time()?;
            match self.last {
                Some(last) if now.all > last.all => {
                    let share = percent(now.busy.saturating_sub(last.busy), now.all - last.all);
                    self.last = Some(now);
                    self.share = Some(share);
                    return Ok(share);
                }
                Some(_) => {
                    if let Some(share) = self.share {
                        return Ok(share);
                    }
                }
                None => self.last = Some(now),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(MetricUnavailable::new(
            &self.root.join("stat"),
            "the processors' time stands still",
            "is this a real `/proc`?",
        ))
    }

    fn cpu_time(&self) -> Result<CpuTime, MetricUnavailable> {
        let path = self.root.join("stat");
        let text = read(&path, "is `/proc` mounted?")?;
        // proc(5): user nice system idle iowait irq softirq steal guest guest_nice; the last two
        // are in the first two already.
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
        let ticks: Vec<u64> = line
            .unwrap_or_default()
            .split_ascii_whitespace()
            .take(8)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        if ticks.len() < 4 {
            return Err(MetricUnavailable::new(
                &path,
                "no line of the processors' time",
                "is this a real `/proc`?",
            ));
        }
        let all = ticks.iter().sum();
        let idle = ticks[3] + ticks.get(4).copied().unwrap_or_default();
        Ok(CpuTime {
            busy: all - idle,
            all,
        })
    }

    fn load(&self) -> Result<f64, MetricUnavailable> {
        let path = self.root.join("loadavg");
        let text = read(&path, "is `/proc` mounted?")?;
        let first = text
            .split_ascii_whitespace()
            .next()
            .and_then(|load| load.parse().ok());
        first.ok_or_else(|| {
            MetricUnavailable::new(&path, "no load average in it", "is this a real `/proc`?")
        })
    }

    fn pressure(&self, of: &str) -> Result<f64, MetricUnavailable> {
        let hint = "pressure stall information requires Linux 4.20 with CONFIG_PSI, and `psi=1` on the kernel's command line where it is off by default";
        let path = self.root.join("pressure").join(of);
        let text = read(&path, hint)?;
        let line = text.lines().find_map(|line| line.strip_prefix("some "));
        let share = line.and_then(|line| {
            line.split_ascii_whitespace()
                .find_map(|part| part.strip_prefix("avg10="))
        });
        share
            .and_then(|share| share.parse().ok())
            .ok_or_else(|| MetricUnavailable::new(&path, "no share of the last 10 s in it", hint))
    }
}

/// Memory that is available without swapping, in bytes (`MemAvailable`).
///
/// # Errors
/// `/proc/meminfo` cannot be read or does not have it.
pub fn memory_available() -> Result<u64, MetricUnavailable> {
    meminfo(Path::new("/proc"), "MemAvailable:")
}

/// All memory, in bytes (`MemTotal`).
///
/// # Errors
/// `/proc/meminfo` cannot be read or does not have it.
pub fn memory_total() -> Result<u64, MetricUnavailable> {
    meminfo(Path::new("/proc"), "MemTotal:")
}

fn meminfo(root: &Path, key: &str) -> Result<u64, MetricUnavailable> {
    let path = root.join("meminfo");
    let text = read(&path, "is `/proc` mounted?")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib: Option<u64> =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| {
        MetricUnavailable::new(
            &path,
            format!("no `{key}` in it"),
            "Linux 3.14 or later has it",
        )
    })
}

fn disk_free(path: &Path) -> Result<f64, MetricUnavailable> {
    let hint = "`path` names a file or folder on the file system that is meant";
    let system =
        rustix::fs::statvfs(path).map_err(|error| MetricUnavailable::new(path, error, hint))?;
    if system.f_blocks == 0 {
        return Err(MetricUnavailable::new(
            path,
            "this file system has no blocks to count",
            hint,
        ));
    }
    Ok(percent(system.f_bavail, system.f_blocks))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        100.0 * part as f64 / whole as f64
    }
}

fn read(path: &Path, hint: &str) -> Result<String, MetricUnavailable> {
    std::fs::read_to_string(path).map_err(|error| MetricUnavailable::new(path, error, hint))
}
