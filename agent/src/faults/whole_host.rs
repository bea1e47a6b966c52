//! What plans share that hit the host as a whole.

use super::PlanContext;
use crate::plan::HostFacts;
use backburn_experiments::wire::{Refusal, Victim};

/// What is known of the host, where the agent can hit all of it.
///
/// # Errors
/// It is unknown, or the agent runs in a container: `so` says what that means for the fault, `hint` what would do.
pub(super) fn facts_of_whole_host(
    context: &PlanContext<'_>,
    so: &str,
    hint: &str,
) -> Result<HostFacts, Refusal> {
    let facts = context.host.facts().map_err(|error| {
        Refusal::new(
            "not-available",
            format!("what boot of the host this is cannot be read: {error}"),
        )
    })?;
    match facts.is_first_pid_namespace {
        true => Ok(facts),
        false => Err(Refusal::new(
            "not-available",
            format!("the agent runs in a container (a pid namespace of its own), {so}"),
        )
        .hint(hint)),
    }
}

/// The host as the victim.
pub(super) fn host_victim(facts: &HostFacts) -> Victim {
    Victim {
        kind: "host".into(),
        id: facts.boot.clone(),
        name: format!("this host, in boot {}", facts.boot),
    }
}

/// Why the run would be hit itself: it is conducted from this host.
pub(super) fn conducted_from_here(
    context: &PlanContext<'_>,
    controllers: &[String],
) -> Option<String> {
    if let Some(first) = controllers.first() {
        return Some(format!("{first} runs on this host"));
    }
    let link = context.control_connection?;
    let there = link.there.ip();
    (there.is_loopback() || there == link.here.ip())
        .then(|| format!("its controller {} is this host", link.there))
}
