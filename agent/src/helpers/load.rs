//! Sending requests at a rate, as long as the helper lives: the peak that nobody expected.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::event_counts::{EventCount, event_counts};
use super::evidence::{age, effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use super::proxy::open_files_unlimited;
use crate::client_tls::client_config;
use crate::load_io::HostLoadIo;
use crate::precise_timer::use_precise_timers;
use crate::processes::ProcessTable;
use backburn_experiments::probes::LoadProvider;
use backburn_experiments::probes::load::{LoadGenerator, LoadPlan, LoadSchedule, LoadTally};
use backburn_experiments::wire::Effect;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often the counts are brought up to date.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);
/// What of the load may still be under way when its effect is judged.
const EFFECT_LAG: Duration = Duration::from_secs(1);

/// Sends requests at a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RequestLoad {
    /// The request, its rate and its limits. It has no duration: the load ends with the helper.
    pub request: LoadProvider,
    /// The addresses that it is sent to: the first that accepts is taken.
    pub addresses: Vec<SocketAddr>,
}

impl RequestLoad {
    fn schedule(&self) -> LoadSchedule {
        LoadSchedule {
            duration: None,
            ..self.request.schedule()
        }
    }

    /// The target as `host:port`.
    fn target(&self) -> String {
        match LoadPlan::new(&self.request, None) {
            Ok(plan) => format!("{}:{}", plan.host, plan.port),
            Err(_) => "an unknown target".into(),
        }
    }
}

impl Helper for RequestLoad {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let schedule = self.schedule();
        let mut text = format!(
            "send {} requests per second to {}",
            schedule.rate,
            self.target()
        );
        if schedule.burst > 1 {
            text += &format!(", {} at once", schedule.burst);
        }
        if !schedule.ramp.0.is_zero() {
            text += &format!(", rising over {}", schedule.ramp);
        }
        text
    }

    fn describe_end(&self) -> &'static str {
        "no more requests are sent, and the kernel closes the connections"
    }

    fn holds(&self) -> Vec<String> {
        vec![format!("load:{}", self.target())]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let counts = event_counts(id, table)?;
            let [sent, answered, failed, unsent, p50, p99, longest] =
                counts.get(..7)?.try_into().ok()?;
            let counts: [u64; 4] = [sent, answered, failed, unsent];
            let age = Duration::try_from_secs_f64(age(id, table)?).ok()?;
            let due = self.schedule().expected(age.saturating_sub(EFFECT_LAG));
            let acts = sent > 0 && sent as f64 >= due / 2.0;
            let milliseconds =
                [p50, p99, longest].map(|microseconds: u64| microseconds as f64 / 1e3);
            let short = match sent as f64 >= due / 2.0 {
                true => "",
                false => ", less than half of what was due",
            };
            let seen = format!(
                "{sent} requests sent{short}, {answered} answered, {failed} failed, {unsent} never sent; latency p50 {} ms, p99 {} ms",
                milliseconds[0], milliseconds[1]
            );
            let [sent, answered, failed, unsent] = counts.map(|count| count as f64);
            let figures = [
                ("sent-requests", sent),
                ("answered-requests", answered),
                ("failed-requests", failed),
                ("unsent-requests", unsent),
                ("p50-milliseconds", milliseconds[0]),
                ("p99-milliseconds", milliseconds[1]),
                ("longest-milliseconds", milliseconds[2]),
            ];
            Some(effect(acts, seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    /// The kernel closes a dead process's connections before the process is gone.
    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = MemoryBallast;

    fn substitute(_: &Value) -> Option<MemoryBallast> {
        Some(MemoryBallast::NONE)
    }
}

/// What became of the requests, where others can read it. In this order in the helper's eventfds.
struct LoadCounts {
    ends: [EventCount; 4],
    latencies: [EventCount; 3],
}

impl LoadCounts {
    fn new() -> rustix::io::Result<Self> {
        let count = EventCount::new;
        Ok(LoadCounts {
            ends: [count()?, count()?, count()?, count()?],
            latencies: [count()?, count()?, count()?],
        })
    }

    fn show(&self, tally: &LoadTally) {
        let ends = [tally.sent, tally.answered, tally.failed, tally.unsent()];
        let latency = &tally.latency;
        let latencies = [
            latency.quantile(0.5),
            latency.quantile(0.99),
            latency.longest(),
        ];
        let latencies = latencies.map(|latency| {
            let latency = latency.unwrap_or_default();
            u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
        });
        let all = self.ends.iter().chain(&self.latencies);
        for (count, value) in all.zip(ends.into_iter().chain(latencies)) {
            count.set(value);
        }
    }
}

fn run(load: &RequestLoad, process: &HelperProcess) -> Result<(), HelperError> {
    let failed = |what: &str, error: io::Error| HelperError::new(format!("{what}: {error}"));
    // Before anything else that is an eventfd: they are found by their order.
    let counts = LoadCounts::new().map_err(|error| failed("counters", error.into()))?;
    process.first_to_be_killed()?;
    open_files_unlimited().map_err(|error| failed("the limit of open files", error))?;
    use_precise_timers().map_err(|error| failed("the timer's slack", error))?;
    let mut plan = LoadPlan::new(&load.request, None).map_err(HelperError::new)?;
    plan.schedule = load.schedule();
    let verify = load.request.verify_tls.unwrap_or(true);
    let tls = plan.is_tls.then(|| client_config(verify)).transpose();
    let tls = tls.map_err(HelperError::new)?;
    let generator = Arc::new(LoadGenerator::new(
        HostLoadIo::new(),
        load.addresses.clone(),
        plan,
        tls,
    ));
    let sending = Arc::clone(&generator);
    std::thread::Builder::new()
        .spawn(move || sending.run())
        .map_err(|error| failed("a thread", error))?;
    process.ready(format!("sending to {}", load.target()))?;
    loop {
        std::thread::sleep(COUNT_INTERVAL);
        counts.show(&generator.tally());
    }
}
