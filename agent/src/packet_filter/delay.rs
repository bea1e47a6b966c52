//! How long packets are delayed: what the kernel's netem and the packet queue both do.

use backburn_experiments::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How long packets are held.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Delay {
    /// The delay, or its mean where it varies.
    pub by: HumanDuration,
    /// How much it varies: the most of it where uniform, else the standard deviation.
    pub jitter: HumanDuration,
    /// How much each delay is like the one before, in percent.
    pub correlation: f64,
    /// How it varies.
    pub distribution: Distribution,
    /// Whether packets wait for those before them, rather than overtake them.
    pub keep_order: bool,
    /// Which are not held at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtake: Option<Overtake>,
}

/// Which packets are not held, and so overtake those that are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Overtake {
    /// The chance, in percent.
    pub percent: f64,
    /// How much each chance is like the one before, in percent.
    pub correlation: f64,
    /// Only each packet of this number since the last one that did; 1 for any.
    pub gap: u32,
}

/// How delays vary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Any between `delay - jitter` and `delay + jitter` is as likely.
    #[default]
    Uniform,
    /// Most are near `delay`; `jitter` is the standard deviation.
    Normal,
    /// Most are a little below `delay`, few far above (of the shape 3); `jitter` is the standard deviation.
    Pareto,
    /// A quarter normal and three quarters Pareto; `jitter` is the standard deviation.
    Paretonormal,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold for {}", self.by)?;
        if !self.jitter.0.is_zero() {
            let distribution = match self.distribution {
                Distribution::Uniform => "uniform",
                Distribution::Normal => "normal",
                Distribution::Pareto => "Pareto",
                Distribution::Paretonormal => "Pareto-normal",
            };
            write!(f, " ± {} ({distribution}", self.jitter)?;
            if self.correlation > 0.0 {
                write!(f, ", correlation {} %", self.correlation)?;
            }
            f.write_str(if self.keep_order {
                ", in order)"
            } else {
                ", in any order)"
            })?;
        }
        if let Some(Overtake { percent, gap, .. }) = self.overtake {
            write!(f, ", but for {percent} %")?;
            if gap > 1 {
                write!(f, " of each {gap}th,")?;
            }
        }
        f.write_str(" each")
    }
}
