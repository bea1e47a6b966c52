//! The programs that an experiment would run on the controller's own host: those of every provider that agents do not
//! measure. Every place that can hold a provider is checked, because one that is missed would bypass the policy.

use super::policy::ProgramPermission;
use backburn_experiments::Problem;
use backburn_experiments::check::Experiment;
use backburn_experiments::document::Provider;
use backburn_experiments::program_environment;
use backburn_experiments::providers::{LocatedProvider, all_providers};

/// A problem for each program that the experiment would run on the controller's host and that the policy does not allow.
pub(super) fn problems(experiment: &Experiment, permission: &ProgramPermission) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for LocatedProvider {
        at,
        activity,
        provider,
        judges,
    } in all_providers(experiment)
    {
        let is_program = provider.probe().is_some_and(|probe| probe.runs_program());
        // Tolerances are evaluated here, whoever measured the value.
        let runs_here = judges || activity.from.is_none();
        let known = problems.last().is_some_and(|problem| problem.at == at);
        if is_program && runs_here && !known && !is_permitted(provider, judges, permission) {
            let what = format!(
                "`{}` would run a program on the controller's host, which the controller's policy does not allow",
                activity.name
            );
            problems.push(Problem::new(at, what).hint(
                "measure it on agents, with `from`, or name the program in `allow-programs` of the controller's policy",
            ));
        }
    }
    problems
}

/// Whether the policy allows this program with these arguments. A program that judges a value is given it as one more argument, so that it
/// is allowed with any arguments or not at all.
fn is_permitted(provider: &Provider, judges: bool, permission: &ProgramPermission) -> bool {
    match (permission, provider) {
        (ProgramPermission::All(all), _) => *all,
        (ProgramPermission::Only(programs), Provider::Process(process)) => {
            let Ok(arguments) = program_environment::arguments(process) else {
                return false;
            };
            let same = programs
                .iter()
                .filter(|allowed| allowed.program() == process.path);
            let mut same = same.filter(|allowed| !judges || allowed.takes_any_arguments());
            same.any(|allowed| allowed.permits_arguments(&arguments))
        }
        (ProgramPermission::Only(_), _) => false,
    }
}
