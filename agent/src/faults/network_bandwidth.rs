//! `network-bandwidth`: flows get only so much of their link, as over a slow line.

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

/// Sends packets of flows no faster than a rate, which all of them share; each direction has it by itself. What comes faster waits, and
/// is lost where too much waits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkBandwidth {
    #[serde(flatten)]
    flows: FlowSelector,
    /// How fast, with the packets' headers.
    rate: Rate,
    /// How much is sent at once after a pause. What is sent in 10 ms where left out, and at least 10 kB and one and a half packets as
    /// long as the devices of the flows take (64 KiB on the loopback). Packets that are longer than the burst are lost, but for batches of TCP
    /// segments, which are cut into their segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Size>,
    /// How much may wait. Where left out, what is sent in 100 ms, and at least what TCP sends before it hears of a loss: 256 kB (or what
    /// is sent in two seconds, where that is less) and 16 packets as long as the devices of the flows take (or what is sent in ten seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Size>,
}

/// The slowest and the fastest, in bytes a second.
const MIN_RATE: Rate = Rate(125);
const MAX_RATE: Rate = Rate(125_000_000_000);
/// The least burst: a packet of Ethernet with its header.
const MIN_BURST: Size = Size(1514);
/// What the kernel takes for a burst and for a queue.
const MAX_QUEUE_BYTES: Size = Size(1 << 30);

impl FaultKind for NetworkBandwidth {
    const NAME: &'static str = "network-bandwidth";
    const SUMMARY: &'static str = "Chosen flows get only so much of their link";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "rate": "10Mbit/s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        if self.rate < MIN_RATE || self.rate > MAX_RATE {
            problems.push(
                Problem::new("$.rate", format!("{} is no rate for packets", self.rate)).hint(
                    format!(
                        "from {MIN_RATE} to {MAX_RATE}; `network-partition` lets nothing through"
                    ),
                ),
            );
        }
        for (key, size) in [("burst", self.burst), ("queue", self.queue)] {
            if size.is_some_and(|size| size < MIN_BURST || size > MAX_QUEUE_BYTES) {
                problems.push(
                    Problem::new(format!("$.{key}"), "that is no size for it").hint(format!(
                        "from {MIN_BURST}, one packet, to {MAX_QUEUE_BYTES}"
                    )),
                );
            }
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        // The kernel has the same room for any size: it is asked with these, and which devices there are decides about those.
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
            "backend tbf: on a device of ours that the packets are forwarded to; the interfaces keep their disciplines".into(),
        );
        if let Shaping::Bandwidth { burst, queue, .. } = shape {
            for (key, given, size) in [("burst", self.burst, burst), ("queue", self.queue, queue)] {
                if given.is_some() && u64::from(size) < longest {
                    plan.warnings.push(format!(
                        "packets of up to {longest} bytes go over the devices of these flows, and those of more than {size} bytes are lost: `{key}` is smaller than a packet"
                    ));
                }
            }
            if queue < burst {
                plan.warnings.push(format!(
                    "batches of TCP segments of more than {queue} bytes are lost: `queue` is smaller than `burst`"
                ));
            }
        }
        self.flows.refuse_warnings_if_strict(plan)
    }
}

impl NetworkBandwidth {
    /// The sizes that are meant where the longest packet, with its header, has this many bytes.
    fn shape(&self, longest: u64) -> Shaping {
        // All are below `MAX_QUEUE_BYTES`, but for a queue that was given.
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

    /// How much may wait where nothing is said, in bytes. What a TCP connection sends before it first hears that something was lost must
    /// fit: of much that is lost at once it sends some again only after a pause, and the rate is not reached. That is the first window of a
    /// receiver (128 kB with Linux, which grows), and the first ten packets of a sender. What waits is not to wait for minutes either.
    fn usual_queue(&self, longest: u64) -> u64 {
        let in_millis = |millis: u64| self.rate.0.saturating_mul(millis) / 1000;
        let window = in_millis(2000).min(256_000);
        let packets = in_millis(10_000).min(16 * longest);
        [30_000, 4 * longest, in_millis(100), window, packets]
            .into_iter()
            .fold(0, u64::max)
    }
}
