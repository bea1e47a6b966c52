//! What a device of the agent's does to the packets that go through it, as the kernel's queueing disciplines do it.

use super::delay::Delay;
use crate::netlink::{self, Netem, Qdisc};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use std::io;

/// What a device does to the packets that go through it.
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

impl Shaping {
    pub(super) fn discipline(&self) -> Qdisc {
        let chance = |percent: f64| (percent / 100.0 * f64::from(u32::MAX)).round() as u32;
        let netem = match self {
            Shaping::Bandwidth { rate, burst, queue } => {
                return Qdisc::tbf(*rate, *burst, *queue);
            }
            Shaping::Delay(delay) => {
                let nanos =
                    |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
                let Delay {
                    by,
                    jitter,
                    correlation,
                    distribution,
                    keep_order,
                    overtake,
                } = delay;
                Netem {
                    latency: nanos(by.0),
                    jitter: nanos(jitter.0),
                    correlation: chance(*correlation),
                    table: distribution.table(),
                    // Where delays are all alike, order is kept anyway.
                    keep_order: *keep_order && !jitter.0.is_zero(),
                    gap: overtake.map_or(0, |overtake| overtake.gap),
                    reorder: overtake.map_or((0, 0), |overtake| {
                        (chance(overtake.percent), chance(overtake.correlation))
                    }),
                    ..Netem::default()
                }
            }
            Shaping::Corrupt(percent) => Netem {
                corrupt: chance(*percent),
                ..Netem::default()
            },
            Shaping::Duplicate(percent) => Netem {
                duplicate: chance(*percent),
                ..Netem::default()
            },
        };
        Qdisc::netem(&netem)
    }

    /// Whether the kernel can do this: tried in a network namespace that nobody else is in and that ends with the look. A module that the
    /// kernel loads for it stays; the devices that it brings along do not.
    ///
    /// # Errors
    /// What the kernel can't, or that no such namespace can be made.
    pub fn try_on_kernel(&self) -> io::Result<()> {
        let discipline = self.discipline();
        let trial = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            netlink::make_shaper("backburn-try", "", &discipline).map(|_| ())
        };
        netlink::without_module_devices(|| {
            std::thread::scope(|threads| match threads.spawn(trial).join() {
                Ok(tried) => tried,
                Err(_) => Err(io::Error::other("the trial ended early")),
            })
        })
    }
}
