//! What an experiment would do now, asked of the agents without a run.

use super::approval::PlanFingerprint;
use super::selection::{Selection, has_fault, select};
use crate::agent_pool::AgentPool;
use crate::providers::{self, HostAccess};
use backburn_experiments::check::Experiment;
use backburn_experiments::forecast::{ExpectedSamples, expected_samples, warnings};
use backburn_experiments::wire::{PlanView, Refusal};
use backburn_experiments::{HumanDuration, Problem};

/// What would be hit now.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Preview {
    /// The names of the agents that would take part; none where the method injects nothing.
    pub agents: Vec<String>,
    /// Each injection, in the method's order.
    pub injections: Vec<PreviewedInjection>,
    /// How often each probe of the hypothesis would be looked at, and what so many good looks would exclude.
    #[serde(default)]
    pub looks: Vec<ExpectedSamples>,
    /// Programs and Python functions that it would run where it is planned, and that are not there: it would not be started.
    #[serde(default)]
    pub missing: Vec<Problem>,
    /// What should be known before it is run, e.g. that nothing would be measured.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Identifies what would be done: the injections with their agents, arguments and victims. 64 hexadecimal digits.
    #[serde(default)]
    pub fingerprint: String,
}

/// What one injection would do, or why it would not be done.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct PreviewedInjection {
    /// The action's name.
    pub activity: String,
    /// On which agent.
    pub agent: String,
    /// The fault's name.
    pub fault: String,
    /// How long it would last; none for a one-shot fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// What would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Why it would not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Asks agents what the experiment would do now. Nothing is touched, and nobody is held.
///
/// # Errors
/// Why nothing would be: no agent, no match, the blast radius. An agent's refusals are in the preview.
pub async fn preview(
    experiment: &Experiment,
    seed: u64,
    frequency: HumanDuration,
    access: &HostAccess,
    mut agent_pool: AgentPool,
) -> Result<Preview, Refusal> {
    let mut injections = Vec::new();
    let mut looks = expected_samples(experiment, frequency);
    for expected in &mut looks {
        expected.probe = experiment.redactor.text(&expected.probe).into_owned();
    }
    let warnings = warnings(experiment);
    let missing = providers::missing(experiment, agent_pool.is_fleet(), &access.environment).await;
    if !has_fault(experiment) {
        return Ok(Preview {
            agents: Vec::new(),
            injections,
            looks,
            missing,
            warnings,
            fingerprint: PlanFingerprint::default().hash(),
        });
    }
    let inventory = agent_pool.discover().await?;
    let selection = select(experiment, &inventory, seed, "plan", agent_pool.is_fleet());
    let selection = selection.and_then(|selection| {
        agent_pool
            .check_admission(&selection.agents())
            .map(|()| selection)
    });
    let names = selection
        .as_ref()
        .map(Selection::agents)
        .unwrap_or_default();
    let handles = agent_pool.handles(&names);
    let asked = selection.iter().flat_map(|selection| &selection.planned);
    let mut answers = tokio::task::JoinSet::new();
    for (at, planned) in asked.enumerate() {
        let (handle, request) = (
            handles.get(&planned.agent).cloned(),
            planned.request.clone(),
        );
        answers.spawn(async move {
            let outcome = match handle {
                Some(handle) => handle.plan(request).await,
                None => Err(Refusal::new("agent", "the agent has gone")),
            };
            (at, outcome)
        });
    }
    let mut answers = answers.join_all().await;
    answers.sort_unstable_by_key(|(at, _)| *at);
    let asked = selection.iter().flat_map(|selection| &selection.planned);
    let mut fingerprint = PlanFingerprint::default();
    for (planned, (at, mut outcome)) in asked.zip(answers) {
        match &mut outcome {
            Ok(plan) => {
                fingerprint.add(at, planned, plan);
                experiment.redactor.redact_plan(plan);
            }
            Err(refusal) => experiment.redactor.redact_refusal(refusal),
        }
        let (plan, refusal) =
            outcome.map_or_else(|refusal| (None, Some(refusal)), |plan| (Some(plan), None));
        let (fault, duration) = (planned.request.fault.clone(), planned.request.duration);
        injections.push(PreviewedInjection {
            activity: (experiment.redactor.text(&planned.activity_name)).into_owned(),
            agent: planned.agent.clone(),
            fault,
            duration,
            plan,
            refusal,
        });
    }
    agent_pool.release().await;
    selection.map(|_| Preview {
        agents: names.into_iter().collect(),
        injections,
        looks,
        missing,
        warnings,
        fingerprint: fingerprint.hash(),
    })
}
