//! Experiments that suit an agent of the fleet. The agent says which services it sees and nothing else: the documents are the controller's
//! own, and each is planned on the agent, within the rights of who asks, before it is shown.

use super::{Actor, RequestedDocument, RunSpec, RunStartError, Service};
use crate::store::Trigger;
use backburn_experiments::labels::Labels;
use backburn_experiments::suggest::{MAX_SUGGESTIONS, Suggestion, suggestions};
use backburn_experiments::wire::Refusal;
use serde_json::Map;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an agent may take to say which services it sees.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(12);
/// How long planning may take in all: a request to the API is answered within a minute.
const PLANNING_TIMEOUT: Duration = Duration::from_secs(40);
/// The first version of the protocol whose agents refuse a message that they do not know instead of closing the connection.
const FIRST_PROTOCOL: u32 = 2;
/// The fact that tells hosts from each other in most fleets.
const HOST: &str = "host";
/// The seed that plans are made with: they only show that a run would start.
const SEED: u64 = 1;

/// What is suggested for an agent.
#[derive(Debug, Default)]
pub struct AgentSuggestions {
    /// The experiments that the agent can plan and all policies allow.
    pub ready: Vec<Suggestion>,
    /// Why others are left out, with their names.
    pub left_out: BTreeMap<String, Vec<String>>,
}

/// What came of planning a suggestion.
enum Planned {
    Ready,
    LeftOut(String),
    /// Its labels select other agents, too.
    OtherAgents,
}

impl Service {
    /// Suggests experiments for a connected agent. Nothing is touched, stored or reserved.
    ///
    /// # Errors
    /// The agent is not connected, is too old or does not answer, or no labels tell it from others.
    pub async fn suggest(
        self: &Arc<Self>,
        who: &Actor,
        agent: &str,
    ) -> Result<AgentSuggestions, Refusal> {
        let handle = self.fleet.handle(agent).zip(self.fleet.get(agent));
        let Some((handle, connected)) = handle else {
            return Err(Refusal::new("not-there", "the agent is not connected"));
        };
        let too_old = || {
            let what = "the agent's version cannot say which services it sees";
            Refusal::new("protocol", what).hint("upgrade the agent")
        };
        if connected.protocol < FIRST_PROTOCOL {
            return Err(too_old());
        }
        let answer = tokio::time::timeout(SERVICES_TIMEOUT, handle.services());
        let services = match answer.await {
            Ok(services) => services.map_err(|why| Refusal::new("agent", why))?,
            Err(_) => return Err(Refusal::new("agent", "the agent does not answer in time")),
        };
        let believed = services.into_iter().filter(|one| one.is_plausible());
        let all = suggestions(believed.collect());
        let mut wider = connected.facts;
        wider.extend(self.fleet.granted_to(agent));
        let mut labels: Labels = wider
            .get(HOST)
            .map(|host| (HOST.to_owned(), host.clone()))
            .into_iter()
            .collect();
        if labels.is_empty() {
            labels.clone_from(&wider);
        }
        let until = Instant::now() + PLANNING_TIMEOUT;
        let mut found = AgentSuggestions::default();
        for suggestion in all.into_iter().take(MAX_SUGGESTIONS) {
            let name = suggestion.name.clone();
            let leave_out = |found: &mut AgentSuggestions, why: String| {
                found.left_out.entry(why).or_default().push(name)
            };
            if Instant::now() > until {
                leave_out(&mut found, "planning all took too long".into());
                continue;
            }
            let mut shown = suggestion.clone().for_agent(&labels);
            let mut planned = self.plan_suggestion(who, agent, &shown).await;
            if matches!(planned, Planned::OtherAgents) && labels != wider {
                labels.clone_from(&wider);
                shown = suggestion.for_agent(&labels);
                planned = self.plan_suggestion(who, agent, &shown).await;
            }
            match planned {
                Planned::Ready => found.ready.push(shown),
                Planned::LeftOut(why) => leave_out(&mut found, why),
                Planned::OtherAgents => {
                    let what = "other agents have all labels and facts of this one, so that no experiment can select it alone";
                    let hint = "an admin grants it a label of its own with `backburn agents label NAME KEY=VALUE`";
                    return Err(Refusal::new("no-match", what).hint(hint));
                }
            }
        }
        Ok(found)
    }

    /// Plans a suggestion on the agent that it is for.
    async fn plan_suggestion(
        self: &Arc<Self>,
        who: &Actor,
        agent: &str,
        suggestion: &Suggestion,
    ) -> Planned {
        let spec = RunSpec {
            document: RequestedDocument::Inline(suggestion.experiment.to_string()),
            reference: None,
            seed: Some(SEED),
            variables: Map::new(),
            who: who.name.clone(),
            person: who.person.clone(),
            teams: who.teams.clone(),
            because: Trigger::Asked,
            lock: None,
        };
        match self.plan(spec).await {
            Ok((_, preview)) if preview.agents.iter().any(|other| other != agent) => {
                Planned::OtherAgents
            }
            Ok((_, preview)) => {
                let mut injections = preview.injections.iter();
                let refused = injections.find_map(|injection| injection.refusal.as_ref());
                let missing = preview.missing.first();
                let why = refused
                    .map(|refusal| refusal.what.clone())
                    .or_else(|| missing.map(|problem| problem.what.clone()));
                why.map_or(Planned::Ready, Planned::LeftOut)
            }
            Err(RunStartError::Refusal(refusal) | RunStartError::NotStarted { refusal, .. }) => {
                Planned::LeftOut(refusal.what)
            }
            Err(RunStartError::Invalid(problems)) => {
                let what = problems.first().map(|problem| problem.what.clone());
                Planned::LeftOut(what.unwrap_or_default())
            }
            Err(RunStartError::Waits(_)) => Planned::LeftOut("it would wait for approval".into()),
            Err(RunStartError::Store(error)) => Planned::LeftOut(error.to_string()),
        }
    }
}
