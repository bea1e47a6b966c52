//! `network-bandwidth`: limits the rate of selected flows, as a slow link does.

use super::{FaultKind, Plan, PlanContext};
use crate::network::{FlowSelector, plan_for_filter};
use crate::packet_filter::{PacketEffect, Shape, Shaping};
use crate::plan::kernel_refusal;
use crate::units::{Rate, Size};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Limits packets of flows to a rate that all of these flows share, separately for each direction. Packets beyond the rate wait in a queue,
/// and are dropped when it is full.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkBandwidth {
    #[serde(flatten)]
    flows: FlowSelector,
    /// The rate, counting the packets' headers.
    rate: Rate,
    /// How much may be sent at once after a pause. Default: what the rate sends in 10 ms, but at least 10 kB and one and a half of the
    /// longest packets that the flows' devices take (64 KiB on the loopback). Packets longer than the burst are dropped, except batches of TCP
    /// segments, which are split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Size>,
    /// How much may wait in the queue. Default: what the rate sends in 100 ms, but at least what TCP sends before it notices a loss: 256 kB (or what
    /// the rate sends in 2 s, if less) and 16 of the longest packets that the flows' devices take (or what the rate sends in 10 s, if less).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Size>,
}

/// Lowest rate, in bytes per second.
const MIN_RATE: Rate = Rate(125);
/// Highest rate, in bytes per second.
const MAX_RATE: Rate = Rate(125_000_000_000);
/// Smallest burst and queue: one Ethernet packet with its header.
const MIN_BURST: Size = Size(1514);
/// Largest burst and queue that the kernel accepts.
const MAX_QUEUE_BYTES: Size = Size(1 << 30);

impl FaultKind for NetworkBandwidth {
    const NAME: &'static str = "network-bandwidth";
    const SUMMARY: &'static str = "Limit the rate of selected flows";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "rate": "10Mbit/s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        if self.rate < MIN_RATE || self.rate > MAX_RATE {
            problems.push(
                Problem::new("$.rate", format!("{} is not a valid rate", self.rate)).hint(format!(
                    "give {MIN_RATE} to {MAX_RATE}; `network-partition` lets nothing through"
                )),
            );
        }
        for (key, size) in [("burst", self.burst), ("queue", self.queue)] {
            if size.is_some_and(|size| size < MIN_BURST || size > MAX_QUEUE_BYTES) {
                problems.push(
                    Problem::new(format!("$.{key}"), "the size is out of range").hint(format!(
                        "give {MIN_BURST}, one packet, to {MAX_QUEUE_BYTES}"
                    )),
                );
            }
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        // The kernel takes any size or none, so it is asked with the smallest; the real sizes depend on the devices.
        let trial = self.shape(MIN_BURST.0);
        let mut filter = self
            .flows
            .filter(PacketEffect::from(Shape { shape: trial }), context)?;
        let longest = context
            .host
            .longest_packet(&filter)
            .map_err(|error| kernel_refusal(&error))?
            .max(MIN_BURST.0);
        let shape = self.shape(longest);
        filter.effect = PacketEffect::from(Shape { shape });
        let mut plan = plan_for_filter(filter, context)?;
        plan.notes.push(
            "backend tbf: packets pass through a device that Backburn adds; the interfaces keep their queueing disciplines".into(),
        );
        if let Shaping::Bandwidth { burst, queue, .. } = shape {
            for (key, given, size) in [("burst", self.burst, burst), ("queue", self.queue, queue)] {
                if given.is_some() && u64::from(size) < longest {
                    plan.warnings.push(format!(
                        "the devices of these flows carry packets of up to {longest} bytes; those of more than {size} bytes are dropped: `{key}` is smaller than a packet"
                    ));
                }
            }
            if queue < burst {
                plan.warnings.push(format!(
                    "batches of TCP segments of more than {queue} bytes are dropped: `queue` is smaller than `burst`"
                ));
            }
        }
        self.flows.refuse_warnings_if_strict(plan)
    }
}

impl NetworkBandwidth {
    /// The shape with the sizes that are meant where the longest packet has this many bytes, header included.
    fn shape(&self, longest: u64) -> Shaping {
        // Only a queue that was given can be above the limit.
        let bytes = |size: u64| u32::try_from(size.min(MAX_QUEUE_BYTES.0)).unwrap_or(u32::MAX);
        let burst = self.burst.map_or_else(
            || {
                let burst = (self.rate.0 / 100).max(10_000);
                // What is sent in one piece must fit into the queue; only a single packet may need more.
                let most = self.queue.map_or(MAX_QUEUE_BYTES.0, |queue| queue.0);
                burst.min(most).max(longest + longest / 2)
            },
            |burst| burst.0,
        );
        let queue = self
            .queue
            .map_or_else(|| self.usual_queue(longest).max(burst), |queue| queue.0);
        Shaping::Bandwidth {
            rate: self.rate.0,
            burst: bytes(burst),
            queue: bytes(queue),
        }
    }

    /// The default queue, in bytes. What a TCP connection sends before it first notices a loss must
    /// fit: after many losses at once it repeats some packets only after a pause, and the rate is not reached. That is the first window of a
    /// receiver (128 kB with Linux, which grows), and the first ten packets of a sender. Packets should not wait for minutes either.
    fn usual_queue(&self, longest: u64) -> u64 {
        let in_millis = |millis: u64| self.rate.0.saturating_mul(millis) / 1000;
        let window = in_millis(2000).min(256_000);
        let packets = in_millis(10_000).min(16 * longest);
        [30_000, 4 * longest, in_millis(100), window, packets]
            .into_iter()
            .fold(0, u64::max)
    }
}
