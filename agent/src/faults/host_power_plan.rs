//! What `host-reboot` and `host-shutdown` share: their plan.

use super::whole_host::{conducted_from_here, facts_of_whole_host, host_victim};
use super::{Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, HostPower, PowerDeed};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};

/// How long before the deed the agent announces it, so that the announcement reaches the controller.
const DEFAULT_NOTICE: HumanDuration = HumanDuration::seconds(2);
/// The longest notice. Nothing else can be injected on the host meanwhile.
const MAX_NOTICE: HumanDuration = HumanDuration::seconds(60);
/// The shortest notice, so that the announcement is sent before the deed.
const MIN_NOTICE: HumanDuration = HumanDuration::millis(100);

/// Plans to restart the host, or to switch it off.
pub(super) fn plan_power(
    fault: &str,
    deed: PowerDeed,
    after: Option<HumanDuration>,
    context: &PlanContext<'_>,
) -> Result<Plan, Refusal> {
    context.host_rules.permit(fault)?;
    if context.duration.is_some() {
        return Err(
            Refusal::new("arguments", format!("`{fault}` cannot be repeated"))
                .hint("leave out `every` and `duration`, or name it twice in the method"),
        );
    }
    let facts = facts_of_whole_host(
        context,
        "where the kernel would end that and not the host",
        "run the agent on the host itself; `container-kill` and `process-kill` hit containers",
    )?;
    if !facts.may_restart {
        return Err(Refusal::new(
            "not-permitted",
            "the agent lacks CAP_SYS_BOOT, which reboot(2) requires",
        )
        .hint("run the agent as root, with that capability in its unit"));
    }
    if let Some(why) = conducted_from_here(context, &facts.controllers) {
        return Err(Refusal::new(
            "controller-host",
            format!("`{fault}` would hit the run itself: {why}"),
        )
        .hint("choose a host on which no controller and no `backburn run` runs"));
    }
    let notice = after.unwrap_or(DEFAULT_NOTICE);
    let (what, so) = match deed {
        PowerDeed::Reboot => (
            "the host is restarted",
            "the agent comes back with another boot id, which is the evidence",
        ),
        PowerDeed::PowerOff => (
            "the host is switched off",
            "nobody here switches it on again, and that it is off cannot be seen from the agent",
        ),
    };
    Ok(Plan {
        victims: vec![host_victim(&facts)],
        changes: vec![Change::Helper(ProcessHelper {
            mark: context.mark(0),
            deadline: HumanDuration(HostPower::lifetime(notice)),
            spec: HelperSpec::from(HostPower {
                deed,
                fault: fault.into(),
                injection: context.injection.into(),
                notice,
                policy: context.host_rules.policy.clone(),
                state: context.host_rules.state.clone(),
                boot: facts.boot,
            }),
        })],
        notes: vec![
            format!("{what} {notice} after the injection; until then it can be called off"),
            so.into(),
            "before that, every other injection of this agent is reverted; the policy is asked again at the last moment".into(),
        ],
        warnings: vec![
            "services are not stopped first: file systems are written out, and then the kernel restarts at once, as after a panic"
                .replace("restarts", match deed {
                    PowerDeed::Reboot => "restarts",
                    PowerDeed::PowerOff => "switches off",
                }),
        ],
        ..Plan::default()
    })
}

/// What is wrong with a notice.
pub(super) fn notice_problem(after: Option<HumanDuration>) -> Option<Problem> {
    let after = after?;
    (after < MIN_NOTICE || after > MAX_NOTICE).then(|| {
        Problem::new("$.after", format!("{after} is out of range"))
            .hint(format!("from {MIN_NOTICE} to {MAX_NOTICE}"))
    })
}
