//! The agents of a fleet that a run reserves. A run sees all agents and reserves those that it selects. No other run gets
//! them until that run is over, unless both runs share their agents.

use super::labels::all_labels;
use super::{Claim, Fleet, Holder, Member, TeamSet};
use crate::agent_connection::{AgentHandle, AgentSession, EventSender, Inventory};
use backburn_experiments::HumanDuration;
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::{Hello, Refusal, UnrevertedInjection};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lost agent may take to reconnect, in addition to its lease: it reverts everything first.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an agent is asked what other agents of its host still hold.
const HELD_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Decides whether a run may target these agents, among all that are connected. Both are given with the labels that are granted to them: what
/// agents say of themselves meets no condition.
pub type AdmissionPolicy =
    Box<dyn Fn(&BTreeMap<String, Labels>, &[(String, Labels)]) -> Result<(), Refusal> + Send>;

/// Keeps of what an agent says that it owes only what counts for a run.
pub type DebtFilter =
    Box<dyn Fn(&str, Vec<UnrevertedInjection>) -> Vec<UnrevertedInjection> + Send>;

/// The agents that one run has reserved. They are released when this is dropped.
pub struct Reservation {
    fleet: Arc<Fleet>,
    claim: Arc<Claim>,
    /// The reserved agents, and the connection that each was reserved over.
    names: BTreeMap<String, u64>,
    permit: AdmissionPolicy,
    debts: DebtFilter,
    /// The teams whose agents the run may target; none means all.
    teams: TeamSet,
}

impl Reservation {
    /// A reservation for this run, of no agents yet.
    pub fn new(fleet: Arc<Fleet>, run: impl Into<String>) -> Self {
        Reservation {
            fleet,
            claim: Arc::new(Claim {
                run: run.into(),
                by: String::new(),
                since: jiff::Timestamp::now(),
                shares: false,
            }),
            names: BTreeMap::new(),
            permit: Box::new(|_, _| Ok(())),
            debts: Box::new(|_, owed| owed),
            teams: TeamSet::new(),
        }
    }

    /// Knows only the agents of these teams, so that no other is selected; none means all.
    #[must_use]
    pub fn within(mut self, teams: &TeamSet) -> Self {
        self.teams.clone_from(teams);
        self
    }

    /// Reserves only agents that `permit` allows.
    #[must_use]
    pub fn permitted_by(mut self, permit: AdmissionPolicy) -> Self {
        self.permit = permit;
        self
    }

    /// Counts of what agents say that they owe only what `debts` keeps.
    #[must_use]
    pub fn owing_only(mut self, debts: DebtFilter) -> Self {
        self.debts = debts;
        self
    }

    /// Sets whether the run shares its agents with other runs that share theirs.
    #[must_use]
    pub fn sharing(mut self, shares: bool) -> Self {
        self.claim = Arc::new(Claim {
            run: self.claim.run.clone(),
            by: self.claim.by.clone(),
            since: self.claim.since,
            shares,
        });
        self
    }

    /// Sets who asked for the run, which other runs are told that want the same agents.
    #[must_use]
    pub fn asked_by(mut self, who: &str) -> Self {
        self.claim = Arc::new(Claim {
            run: self.claim.run.clone(),
            by: who.to_owned(),
            since: self.claim.since,
            shares: self.claim.shares,
        });
        self
    }

    /// Checks whether the run may target these agents.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub(crate) fn check_admission(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        let inventory = self.inventory()?;
        self.check_halts(names)?;
        (self.permit)(&inventory.granted_of(names), &inventory.granted)
    }

    /// All connected agents.
    ///
    /// # Errors
    /// No agent is connected, or a halt is in force.
    pub fn inventory(&self) -> Result<Inventory, Refusal> {
        self.may_start()?;
        let members = self.fleet.members();
        if members.is_empty() {
            return Err(Refusal::new("no-match", "no agent is connected").hint(
                "`backburn agent join` and `backburn agent connect` on a host add it to the fleet",
            ));
        }
        let of_teams = self.fleet.members_of(&self.teams);
        let draining = self.fleet.draining();
        let inventory = self.fleet.inventory(&members, |name| {
            !draining.contains(name) && of_teams.as_ref().is_none_or(|names| names.contains(name))
        });
        if inventory.selectable.is_empty() && of_teams.is_some() {
            let teams: Vec<&str> = self.teams.iter().map(String::as_str).collect();
            let what = format!("no agent of team {} is connected", teams.join(", "));
            return Err(Refusal::new("team", what).hint(
                "an admin gives an agent to a team with `backburn agents label NAME team=TEAM`",
            ));
        }
        Ok(inventory)
    }

    /// Checks that none of these agents belongs to a team that is halted.
    ///
    /// # Errors
    /// The halt that forbids it.
    pub(crate) fn check_halts(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        let refused = names
            .iter()
            .find_map(|name| self.fleet.team_halt_refusal(name));
        refused.map_or(Ok(()), Err)
    }

    fn may_start(&self) -> Result<(), Refusal> {
        match self.fleet.is_halted() {
            false => Ok(()),
            true => Err(Refusal::new("halt", "a halt is in force: no run may start")
                .hint("`backburn resume` lets runs start again")),
        }
    }

    /// Reserves all of these agents, or none, and sends their events to `events`.
    ///
    /// # Errors
    /// Another run has reserved one of them, one has gone, or a halt is in force.
    pub fn reserve(
        &mut self,
        names: &BTreeSet<String>,
        events: &EventSender,
    ) -> Result<Vec<AgentSession>, Refusal> {
        self.check_admission(names)?;
        let mut members = self.fleet.members();
        let mut runs = self.fleet.runs();
        // Checked under the lock: a halt that begins afterwards finds these agents reserved.
        self.may_start()?;
        self.check_halts(names)?;
        let of_teams = self.fleet.members_of(&self.teams);
        let draining = self.fleet.draining();
        for name in names {
            // Its label may have changed since it was selected.
            if of_teams
                .as_ref()
                .is_some_and(|theirs| !theirs.contains(name))
            {
                let what = format!("agent `{name}` does not belong to a team of this token");
                return Err(Refusal::new("team", what).hint("start the run again"));
            }
            if !members.contains_key(name) || draining.contains(name) {
                return Err(Refusal::new(
                    "agent",
                    format!("agent `{name}` has disconnected since it was selected"),
                )
                .hint("start the run again"));
            }
            let mut claims = runs.get(name).into_iter().flatten();
            if let Some(other) = claims.find(|claim| !self.may_stand_beside(claim)) {
                return Err(overlap(name, other));
            }
        }
        let mut sessions = Vec::new();
        for name in names {
            if let Some(member) = members.get_mut(name) {
                sessions.push(take(&self.fleet, &self.claim, name, member, events));
                claim(&mut runs, name, &self.claim);
                self.names.insert(name.clone(), member.connection);
            }
        }
        drop((members, runs, draining));
        for session in &mut sessions {
            let owed = std::mem::take(&mut session.hello.owed);
            session.hello.owed = (self.debts)(&session.hello.agent, owed);
        }
        Ok(sessions)
    }

    fn may_stand_beside(&self, other: &Claim) -> bool {
        other.run == self.claim.run || (other.shares && self.claim.shares)
    }

    /// Reserves an agent that may not be connected: it belongs to a run that a crash interrupted.
    pub(crate) fn claim(&mut self, name: &str) {
        claim(&mut self.fleet.runs(), name, &self.claim);
        self.names.insert(name.to_owned(), 0);
    }

    /// Handles to those of these agents that are connected.
    pub(crate) fn handles(&self, names: &BTreeSet<String>) -> BTreeMap<String, AgentHandle> {
        let members = self.fleet.members();
        let handles = names.iter().filter_map(|name| {
            let member = members.get(name)?;
            Some((name.clone(), member.handle.clone()))
        });
        handles.collect()
    }

    /// Waits until a lost agent reconnects over a newer connection, and reserves it. Only its ledger counts then, and nothing
    /// that it reported over the lost connection. Also waits until no other agent of its host holds anything of the run.
    ///
    /// The time runs from when the agent was lost, so that waiting for many agents one after the other takes no longer. An
    /// agent that was lost because it hung may take as long as `hung`, since it may never come back.
    pub(crate) async fn reconnect(
        &mut self,
        name: &str,
        since: Instant,
        hung: Option<Duration>,
        events: &EventSender,
    ) -> Result<AgentSession, String> {
        let within = hung.unwrap_or(self.fleet.lease.0 + RECONNECT_TIMEOUT);
        let deadline = tokio::time::Instant::from_std(since + within);
        let mut changes = self.fleet.changes();
        let lost = self.names.get(name).copied().unwrap_or_default();
        let come = async {
            loop {
                changes.borrow_and_update();
                if let Some(member) = self.fleet.members().get_mut(name)
                    && member.connection > lost
                {
                    return take(&self.fleet, &self.claim, name, member, events);
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let come = tokio::time::timeout_at(deadline, come).await;
        let mut session = come.map_err(|_| {
            format!(
                "agent `{name}` did not reconnect within {}",
                HumanDuration(within)
            )
        })?;
        self.names.insert(name.to_owned(), session.connection);
        let until = since + hung.unwrap_or(within + RECONNECT_TIMEOUT);
        while !session.hello.held.is_empty() && Instant::now() < until {
            tokio::time::sleep(HELD_POLL_INTERVAL).await;
            let Some((owed, held)) = session.handle.revert_run(&self.claim.run).await else {
                break;
            };
            (session.hello.owed, session.hello.held) = (owed, held);
        }
        let owed = std::mem::take(&mut session.hello.owed);
        session.hello.owed = (self.debts)(name, owed);
        Ok(session)
    }
}

/// Keeps an agent that is about to be revoked from being reserved, until this is dropped.
#[derive(Debug)]
pub struct DrainGuard {
    fleet: Arc<Fleet>,
    name: String,
    runs: Vec<String>,
}

impl DrainGuard {
    /// Guards this agent, whether or not it is connected.
    pub fn of(fleet: &Arc<Fleet>, name: &str) -> Self {
        // A reservation under way is complete once this lock is held, or finds the agent guarded.
        let _members = fleet.members();
        let claims = fleet.runs().get(name).cloned().unwrap_or_default();
        fleet.draining().insert(name.to_owned());
        DrainGuard {
            fleet: Arc::clone(fleet),
            name: name.to_owned(),
            runs: claims.iter().map(|claim| claim.run.clone()).collect(),
        }
    }

    /// The runs that have reserved it.
    pub fn runs(&self) -> &[String] {
        &self.runs
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.fleet.draining().remove(&self.name);
    }
}

/// The refusal of an agent that another run has reserved: whose run that is, and what would help.
fn overlap(agent: &str, other: &Claim) -> Refusal {
    let whose = match other.by.as_str() {
        "" => String::new(),
        by => format!(" of `{by}`"),
    };
    let what = format!(
        "agent `{agent}` takes part in run `{}`{whose} since {}",
        other.run,
        other.since.strftime("%F %T UTC")
    );
    let hint = format!(
        "wait until run `{}` is over, or select other agents; two runs may share an agent if both have `\"shared\": true` in their `blast-radius`",
        other.run
    );
    Refusal::new("overlap", what).hint(hint)
}

/// Records that a run has reserved an agent.
fn claim(runs: &mut BTreeMap<String, Vec<Arc<Claim>>>, name: &str, claim: &Arc<Claim>) {
    let claims = runs.entry(name.to_owned()).or_default();
    if !claims.iter().any(|known| known.run == claim.run) {
        claims.push(Arc::clone(claim));
    }
}

/// Gives an agent to the run: its events go there from now on.
fn take(
    fleet: &Fleet,
    claim: &Arc<Claim>,
    name: &str,
    member: &mut Member,
    events: &EventSender,
) -> AgentSession {
    member
        .holders
        .retain(|holder| holder.claim.run != claim.run);
    member.holders.push(Holder {
        claim: Arc::clone(claim),
        agent: name.into(),
        events: events.clone(),
    });
    let introduction = member.introduction.clone();
    let granted = fleet.granted().get(name).cloned().unwrap_or_default();
    let hello = Hello {
        agent: name.to_owned(),
        version: introduction.version,
        labels: all_labels(member, &granted),
        faults: introduction.faults.to_vec(),
        // What it recovered concerns the run that lost it, and that run sees what is no longer owed.
        recovered: Vec::new(),
        owed: introduction.owed,
        held: introduction.held,
        answers_heartbeats: introduction.answers_heartbeats,
        protocol: None,
        through_proxy: introduction.through_proxy,
        boot: introduction.boot,
    };
    AgentSession {
        hello,
        handle: member.handle.clone(),
        connection: member.connection,
        has_process: false,
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut members = self.fleet.members();
        let mut runs = self.fleet.runs();
        for name in self.names.keys() {
            if let Some(claims) = runs.get_mut(name) {
                claims.retain(|claim| claim.run != self.claim.run);
                if claims.is_empty() {
                    runs.remove(name);
                }
            }
            if let Some(member) = members.get_mut(name) {
                member
                    .holders
                    .retain(|holder| holder.claim.run != self.claim.run);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
