//! Plans of faults for the tests of what they do.
#![allow(dead_code, reason = "each test file uses its own part")]

use backburn_agent::changes::Change;
use backburn_agent::faults::{PlanContext, find};
use backburn_agent::helpers::HelperSpec;
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::plan::{HostView, Plan, ProtectedPaths, RequestLimits};
use backburn_agent::processes::Protection;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;
use serde_json::Value;
use std::path::Path;

/// What a fault would do on a host whose state folder is `/protected`.
pub fn plan(host: &dyn HostView, fault: &str, arguments: Value) -> Result<Plan, Refusal> {
    let Value::Object(arguments) = arguments else {
        panic!("{arguments} is no object")
    };
    let context = PlanContext {
        host,
        protection: &Protection::default(),
        protected_ports: &[22],
        protected_paths: &ProtectedPaths::new(Path::new("/protected"), Path::new("/none"), &[]),
        host_rules: &backburn_agent::plan::HostFaultRules::default(),
        request_limits: &RequestLimits::default(),
        control_connection: None,
        injection: "trial",
        first_mark: 0,
        held: &[],
        duration: Some(HumanDuration::seconds(10)),
        seed: 1,
    };
    find(fault).unwrap().plan(&arguments, &context)
}

/// The helper of a plan that has nothing else.
pub fn helper_of(plan: &Plan) -> HelperSpec {
    match plan.changes.as_slice() {
        [Change::Helper(helper)] => helper.spec.clone(),
        changes => panic!("{changes:?}"),
    }
}

/// The machine, for changes.
pub fn host() -> Host {
    Host::new(HostRole::Command, Invocation { prefix: Vec::new() })
}

/// Checks that a fault with these arguments and `more` is refused for one problem, which is at this place.
pub fn assert_refused_at(
    host: &dyn HostView,
    fault: &str,
    mut arguments: Value,
    more: &Value,
    at: &str,
) {
    arguments
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let refusal = plan(host, fault, arguments).unwrap_err();
    let places: Vec<&str> = refusal
        .problems
        .iter()
        .map(|problem| problem.at.as_str())
        .collect();
    assert_eq!(places, [at], "{more}: {refusal:?}");
}
