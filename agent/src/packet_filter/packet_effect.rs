//! What is done to packets, as data, and in words for people.

use backburn_experiments::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is done to packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "harm",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum PacketEffect {
    /// They are lost, and nobody is told.
    Lose {
        /// Which of them.
        share: Share,
    },
    /// They are lost in bursts, and nobody is told.
    LoseInBursts {
        /// When.
        bursts: BurstLoss,
        /// What random picks come from.
        seed: u64,
    },
    /// They are not let through, and whoever sent them is told.
    Reject {
        /// How.
        with: RejectWith,
        /// Whether live TCP connections are closed first, for good.
        #[serde(default)]
        close_established: bool,
    },
    /// Those that come back from the flows' end are read as they arrive, see [`crate::dns::Answers`].
    Answer {
        /// Whether those that are altered are lost.
        lost: bool,
    },
    /// They are sent twice as they leave.
    Duplicate {
        /// Which of them.
        share: Share,
    },
    /// A bit of them is turned as they arrive, by a packet queue.
    Corrupt {
        /// Which of them.
        share: Share,
        /// What random picks come from.
        seed: u64,
    },
    /// They are held back as they arrive, by a packet queue.
    Delay {
        /// How long, and which not.
        delay: Delay,
        /// What random picks come from.
        seed: u64,
    },
    /// They are sent through a device of ours, whose queueing discipline shapes them.
    Shape {
        /// How.
        shape: Shaping,
    },
}

/// Which of the chosen packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// All.
    All,
    /// Each with this chance, in percent.
    Percent(f64),
    /// Exactly each n-th of each direction.
    EveryNth(u32),
}

impl Share {
    /// A share in percent.
    pub fn percent(percent: f64) -> Self {
        if percent >= 100.0 {
            Share::All
        } else {
            Share::Percent(percent)
        }
    }
}

/// Losses in bursts, after Gilbert and Elliott: a path is good or bad, and changes from one to the other by chance. All in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BurstLoss {
    /// The chance, at each packet, that a good path becomes bad: `p`. Above 0.
    #[schemars(range(min = 0, max = 100))]
    pub p: f64,
    /// The chance, at each packet, that a bad path becomes good again: `r`. Bursts are `100 / r` packets long on average. Above 0.
    #[schemars(range(min = 0, max = 100))]
    pub r: f64,
    /// The chance of a packet to be lost on a bad path: `1-h`. 100 where left out.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub loss_when_bad: f64,
    /// The chance of a packet to be lost on a good path: `1-k`. 0 where left out.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub loss_when_good: f64,
}

fn all() -> f64 {
    100.0
}

/// How somebody is told that a packet was not let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectWith {
    /// A TCP reset; to what is not TCP, that the port is unreachable.
    #[default]
    Reset,
    /// The port is unreachable, by ICMP.
    PortUnreachable,
    /// The host is unreachable, by ICMP.
    HostUnreachable,
    /// It is prohibited by an administrator, by ICMP.
    Prohibited,
}

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

/// What a device of ours does to the packets that go through it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Shaping {
    /// It sends no faster than this (`tbf`).
    Bandwidth {
        /// In bytes a second.
        rate: u64,
        /// What may be sent at once after a pause, in bytes.
        burst: u32,
        /// What waits, in bytes; more is lost.
        queue: u32,
    },
    /// It holds packets (`netem`).
    Delay(Delay),
    /// It turns a bit of packets with this chance, in percent (`netem`).
    Corrupt(f64),
    /// It sends packets twice with this chance, in percent (`netem`).
    Duplicate(f64),
}

impl PacketEffect {
    /// Whether it is done in user space, by a packet queue.
    pub fn queues(&self) -> bool {
        matches!(
            self,
            PacketEffect::Delay { .. } | PacketEffect::Corrupt { .. } | PacketEffect::Answer { .. }
        )
    }

    /// Whether it is done by devices of ours.
    pub fn shapes(&self) -> bool {
        matches!(self, PacketEffect::Shape { .. })
    }

    /// Whether leaving packets are looked at by the devices that they leave by.
    pub fn leaves_by_devices(&self) -> bool {
        !matches!(
            self,
            PacketEffect::Reject { .. }
                | PacketEffect::Delay { .. }
                | PacketEffect::Corrupt { .. }
                | PacketEffect::Answer { .. }
        )
    }

    /// What was done to a packet that harm came to.
    pub fn done(&self) -> &'static str {
        match self {
            PacketEffect::Lose { .. } | PacketEffect::LoseInBursts { .. } => "lost",
            PacketEffect::Reject { .. } => "rejected",
            PacketEffect::Duplicate { .. } => "duplicated",
            PacketEffect::Corrupt { .. } => "corrupted",
            PacketEffect::Delay { .. } => "held",
            PacketEffect::Shape { .. } => "shaped",
            PacketEffect::Answer { .. } => "altered",
        }
    }
}

impl fmt::Display for PacketEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |f: &mut fmt::Formatter<'_>, verb: &str, share: &Share| match share {
            Share::All => write!(f, "{verb} all packets of"),
            Share::Percent(percent) => write!(f, "{verb} {percent} % of the packets of"),
            Share::EveryNth(nth) => write!(f, "{verb} each {nth}th packet of"),
        };
        match self {
            PacketEffect::Lose { share: which } => share(f, "lose", which),
            PacketEffect::Duplicate { share: which } => share(f, "send twice", which),
            PacketEffect::Corrupt { share: which, .. } => share(f, "turn a bit of", which),
            PacketEffect::LoseInBursts { bursts, .. } => write!(
                f,
                "lose in bursts (p {} %, r {} %, 1-h {} %, 1-k {} %) packets of",
                bursts.p, bursts.r, bursts.loss_when_bad, bursts.loss_when_good
            ),
            PacketEffect::Delay { delay, .. } => write!(f, "{delay} packet of"),
            PacketEffect::Answer { .. } => f.write_str("read what comes back from"),
            PacketEffect::Reject { with, .. } => f.write_str(match with {
                RejectWith::Reset => "reject with a reset, or with `port unreachable`,",
                RejectWith::PortUnreachable => "reject with `port unreachable`",
                RejectWith::HostUnreachable => "reject with `host unreachable`",
                RejectWith::Prohibited => "reject with `prohibited`",
            }),
            PacketEffect::Shape { shape } => match shape {
                Shaping::Bandwidth { rate, .. } => {
                    write!(f, "send at {rate} bytes a second at the most")
                }
                Shaping::Delay(delay) => write!(f, "{delay} packet of"),
                Shaping::Corrupt(percent) => write!(f, "turn a bit of {percent} % of the packets of"),
                Shaping::Duplicate(percent) => {
                    write!(f, "send twice {percent} % of the packets of")
                }
            },
        }
    }
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
