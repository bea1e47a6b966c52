//! Traces of runs for an OpenTelemetry collector: derived from the journal when a run is closed, and sent once. Nothing
//! waits for a collector, and a run does not depend on one.

use super::Service;
use crate::providers::{HostAccess, ProbeContext, measure};
use crate::store::StoreError;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::journal::{JournalEntry, trace};
use backburn_experiments::wire::ProbeOutcome;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How many events are read at a time.
const EVENTS_PER_PAGE: u32 = 1000;
/// How long a collector may take.
const COLLECTOR_TIMEOUT: HumanDuration = HumanDuration::seconds(10);
/// How long to wait before the second and the third attempt.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

impl Service {
    /// A run as a trace in OTLP's JSON encoding. None if its journal is empty.
    ///
    /// # Errors
    /// The store failed.
    pub fn trace(&self, run: &str) -> Result<Option<Value>, StoreError> {
        let mut entries: Vec<JournalEntry> = Vec::new();
        loop {
            let page = self
                .store
                .events(run, entries.len() as u64, EVENTS_PER_PAGE)?;
            if page.is_empty() {
                return Ok(trace(&entries));
            }
            entries.extend(page.into_iter().map(|numbered| numbered.entry));
        }
    }

    /// Sends the trace of a closed run to the collector, if there is one, on a thread of its own.
    pub(super) fn send_trace(self: &Arc<Self>, run: &str) {
        let Some(collector) = self.collector.clone() else {
            return;
        };
        let (service, run) = (Arc::clone(self), run.to_owned());
        let send = move || {
            let sent = service
                .trace(&run)
                .map_err(|error| error.to_string())
                .and_then(|trace| {
                    trace.map_or(Ok(()), |trace| {
                        post(&collector, &trace, service.policy().host_access())
                    })
                });
            if let Err(why) = sent {
                tracing::warn!(
                    run,
                    collector,
                    why,
                    "the collector did not accept the trace of a run"
                );
            }
        };
        let thread = std::thread::Builder::new().name("trace".to_owned());
        if let Err(error) = thread.spawn(send) {
            tracing::warn!(%error, "no thread could be started for a trace");
        }
    }
}

/// Posts a trace to a collector (OTLP over HTTP, JSON encoding).
fn post(collector: &str, trace: &Value, access: HostAccess) -> Result<(), String> {
    let provider: Provider = serde_json::from_value(json!({
        "type": "http",
        "url": format!("{}/v1/traces", collector.trim_end_matches('/')),
        "method": "POST",
        "headers": {"Content-Type": "application/json"},
        "arguments": trace,
        "timeout": COLLECTOR_TIMEOUT,
    }))
    .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let context = ProbeContext {
        access,
        ..ProbeContext::default()
    };
    let mut delays = RETRY_DELAYS.into_iter();
    loop {
        let why = match runtime.block_on(measure(&provider, Some(COLLECTOR_TIMEOUT), &context)) {
            ProbeOutcome::Output(answer) => match answer["status"].as_u64() {
                Some(200..=299) => return Ok(()),
                _ => format!("it answered with status {}", answer["status"]),
            },
            ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => why,
        };
        match delays.next() {
            Some(length) => std::thread::sleep(length),
            None => return Err(why),
        }
    }
}
