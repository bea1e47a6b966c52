//! What a run has of a fleet: it may look at everybody, and holds those that it picked. Who is held by one run is
//! nobody else's until that run is over, unless both say that they share.

use super::{Claim, Fleet, HaltState, Holder, Member};
use crate::agent_connection::{AgentHandle, EventSender};
use crate::agent_pool::{AgentSession, Inventory};
use backburn_experiments::Span;
use backburn_experiments::wire::{Hello, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a lost agent may take to come again, beyond its lease: it puts everything back first.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do about an agent that another run holds.
const OVERLAP_HINT: &str = "wait until that run is over, or pick other agents; two runs hold the same agent where both say `\"shared\": true` in their `blast-radius`";

/// How long until an agent is asked again what others of its host hold.
const HELD_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Says whether these agents, with their labels, may be hit, among all that are connected.
pub type AdmissionPolicy = Box<
    dyn Fn(&BTreeMap<String, BTreeMap<String, String>>, &Inventory) -> Result<(), Refusal> + Send,
>;

/// A fleet, as one run sees it. What it holds is let go when this is dropped.
pub struct Reservation {
    fleet: Arc<Fleet>,
    claim: Arc<Claim>,
    /// Whom it holds, and the connection over which it heard of them last.
    names: BTreeMap<String, u64>,
    permit: AdmissionPolicy,
}

impl Reservation {
    /// For this run, which holds nobody yet.
    pub fn new(fleet: Arc<Fleet>, run: impl Into<String>) -> Self {
        Reservation {
            fleet,
            claim: Arc::new(Claim {
                run: run.into(),
                shares: false,
            }),
            names: BTreeMap::new(),
            permit: Box::new(|_, _| Ok(())),
        }
    }

    /// The same, and nobody is held whom `permit` does not allow.
    #[must_use]
    pub fn permitted_by(mut self, permit: AdmissionPolicy) -> Self {
        self.permit = permit;
        self
    }

    /// The same, and whether it shares whom it holds with other runs that do, too.
    #[must_use]
    pub fn sharing(mut self, shares: bool) -> Self {
        let run = self.claim.run.clone();
        self.claim = Arc::new(Claim { run, shares });
        self
    }

    /// Whether these may be hit.
    ///
    /// # Errors
    /// They may not, and by which rule.
    pub(crate) fn check_admission(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        let inventory = self.inventory()?;
        let named = inventory.iter().filter(|(name, _)| names.contains(name));
        (self.permit)(&named.cloned().collect(), &inventory)
    }

    /// Everybody who is connected.
    ///
    /// # Errors
    /// Nobody is, or the lever is pulled.
    pub fn inventory(&self) -> Result<Inventory, Refusal> {
        self.may_start()?;
        let members = self.fleet.members();
        if members.is_empty() {
            return Err(Refusal::new("no-match", "no agent is connected").hint(
                "`backburn agent join` and `backburn agent connect` on a host make it one of the fleet",
            ));
        }
        let retiring = self.fleet.retiring();
        let inventory = members
            .iter()
            .filter(|(name, _)| !retiring.contains(*name))
            .map(|(name, member)| (name.clone(), member.introduction.labels.clone()));
        Ok(inventory.collect())
    }

    fn may_start(&self) -> Result<(), Refusal> {
        match self.fleet.is_halted() {
            false => Ok(()),
            true => Err(
                Refusal::new("halt", "the halt lever is pulled: nothing new starts")
                    .hint("`backburn resume` lets runs start again"),
            ),
        }
    }

    /// Where the lever is, from now on.
    pub(crate) fn halt_state(&self) -> watch::Receiver<HaltState> {
        self.fleet.halt_state.subscribe()
    }

    /// Holds all of these, or none, and has what is heard of them told to `events`.
    ///
    /// # Errors
    /// Another run holds one of them, one has gone, or the lever is pulled.
    pub fn reserve(
        &mut self,
        names: &BTreeSet<String>,
        events: &EventSender,
    ) -> Result<Vec<AgentSession>, Refusal> {
        self.check_admission(names)?;
        let mut members = self.fleet.members();
        let mut runs = self.fleet.runs();
        // Looked at under the lock: whoever pulls the lever afterwards finds these held.
        self.may_start()?;
        let retiring = self.fleet.retiring();
        for name in names {
            if !members.contains_key(name) || retiring.contains(name) {
                return Err(Refusal::new(
                    "agent",
                    format!("agent `{name}` has gone since it was picked"),
                )
                .hint("start the run again"));
            }
            let mut claims = runs.get(name).into_iter().flatten();
            if let Some(other) = claims.find(|claim| !self.may_stand_beside(claim)) {
                let what = format!("agent `{name}` takes part in run `{}`", other.run);
                return Err(Refusal::new("overlap", what).hint(OVERLAP_HINT));
            }
        }
        let mut sessions = Vec::new();
        for name in names {
            if let Some(member) = members.get_mut(name) {
                sessions.push(take(name, member, &self.claim, events));
                claim(&mut runs, name, &self.claim);
                self.names.insert(name.clone(), member.connection);
            }
        }
        Ok(sessions)
    }

    fn may_stand_beside(&self, other: &Claim) -> bool {
        other.run == self.claim.run || (other.shares && self.claim.shares)
    }

    /// Nobody else gets this agent, whenever it comes. Its run of before the crash has it.
    pub(crate) fn claim(&mut self, name: &str) {
        claim(&mut self.fleet.runs(), name, &self.claim);
        self.names.insert(name.to_owned(), 0);
    }

    /// Those of these that are connected, to be asked.
    pub(crate) fn handles(&self, names: &BTreeSet<String>) -> BTreeMap<String, AgentHandle> {
        let members = self.fleet.members();
        let handles = names.iter().filter_map(|name| {
            let member = members.get(name)?;
            Some((name.clone(), member.handle.clone()))
        });
        handles.collect()
    }

    /// Waits until a lost agent comes again, over another connection than the one that was lost, and holds it. What it
    /// said over the old one is of no use: it is its ledger after that which counts.
    /// What is still held by another agent of its host, which is about to put it back, is waited for, too.
    ///
    /// All who were lost at the same time have the same time to come: whoever waits for many of them, one after the other,
    /// does not wait for longer. One that was lost because it does not answer has only the time of `hung`: nobody knows whether it
    /// ever comes.
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
                    return take(name, member, &self.claim, events);
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let come = tokio::time::timeout_at(deadline, come).await;
        let mut come =
            come.map_err(|_| format!("agent `{name}` did not come again within {}", Span(within)))?;
        self.names.insert(name.to_owned(), come.connection);
        let until = since + hung.unwrap_or(within + RECONNECT_TIMEOUT);
        while !come.hello.held.is_empty() && Instant::now() < until {
            tokio::time::sleep(HELD_POLL_INTERVAL).await;
            let Some((owed, held)) = come.handle.revert(&self.claim.run).await else {
                break;
            };
            (come.hello.owed, come.hello.held) = (owed, held);
        }
        Ok(come)
    }
}

/// An agent that nobody else may hold any more, because it is about to go for good. It may be held again when this is dropped
/// and it has not gone.
#[derive(Debug)]
pub struct DrainGuard {
    fleet: Arc<Fleet>,
    name: String,
    runs: Vec<String>,
}

impl DrainGuard {
    /// This agent, whether or not it is there.
    pub fn of(fleet: &Arc<Fleet>, name: &str) -> Self {
        // Who is about to hold it has done so by then, or finds it retiring.
        let _members = fleet.members();
        let claims = fleet.runs().get(name).cloned().unwrap_or_default();
        fleet.retiring().insert(name.to_owned());
        DrainGuard {
            fleet: Arc::clone(fleet),
            name: name.to_owned(),
            runs: claims.iter().map(|claim| claim.run.clone()).collect(),
        }
    }

    /// The runs that hold it.
    pub fn runs(&self) -> &[String] {
        &self.runs
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.fleet.retiring().remove(&self.name);
    }
}

/// Writes down that a run holds an agent.
fn claim(runs: &mut BTreeMap<String, Vec<Arc<Claim>>>, name: &str, claim: &Arc<Claim>) {
    let claims = runs.entry(name.to_owned()).or_default();
    if !claims.iter().any(|known| known.run == claim.run) {
        claims.push(Arc::clone(claim));
    }
}

/// Gives an agent to a run.
fn take(name: &str, member: &mut Member, claim: &Arc<Claim>, events: &EventSender) -> AgentSession {
    member
        .holders
        .retain(|holder| holder.claim.run != claim.run);
    member.holders.push(Holder {
        claim: Arc::clone(claim),
        agent: name.into(),
        events: events.clone(),
    });
    let introduction = member.introduction.clone();
    let hello = Hello {
        agent: name.to_owned(),
        version: introduction.version,
        labels: introduction.labels,
        faults: introduction.faults.to_vec(),
        // What it put back when it came concerns the run that it was lost to, which knows it by what is not owed.
        recovered: Vec::new(),
        owed: introduction.owed,
        held: introduction.held,
        answers_beats: introduction.answers_beats,
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
mod tests {
    use super::*;
    use backburn_experiments::wire::Report;
    use tokio::io::AsyncWriteExt as _;

    /// An agent that has said its first word. It goes when the stream is dropped.
    async fn come(fleet: &Arc<Fleet>) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let serving = Arc::clone(fleet);
        tokio::spawn(async move { serving.serve("a", ([127, 0, 0, 1], 1).into(), ours).await });
        let mut changes = fleet.changes();
        changes.borrow_and_update();
        let hello = serde_json::to_string(&Report::Hello(Hello::default())).unwrap();
        theirs
            .write_all(format!("{hello}\n").as_bytes())
            .await
            .unwrap();
        changes.changed().await.unwrap();
        theirs
    }

    #[tokio::test]
    async fn an_agent_that_hangs_has_not_come_again() {
        let fleet = Arc::new(Fleet::new(Span::seconds(30)));
        let hangs = come(&fleet).await;
        let mut reservation = Reservation::new(Arc::clone(&fleet), "run");
        let (events, _heard) = tokio::sync::mpsc::unbounded_channel();
        reservation
            .reserve(&["a".to_owned()].into(), &events)
            .unwrap();
        // What it said before is not what it has to say of what it was asked for since.
        let soon = Duration::from_millis(100);
        assert!(
            tokio::time::timeout(
                soon,
                reservation.reconnect("a", Instant::now(), None, &events)
            )
            .await
            .is_err()
        );
        let _comes = come(&fleet).await;
        let patience = Duration::from_secs(30);
        let reconnect = tokio::time::timeout(
            patience,
            reservation.reconnect("a", Instant::now(), None, &events),
        )
        .await;
        assert!(reconnect.unwrap().is_ok());
        assert_eq!(fleet.list()[0].runs, ["run"]);
        drop((hangs, reservation));
        assert!(fleet.list()[0].runs.is_empty());
    }

    #[tokio::test]
    async fn who_is_about_to_go_for_good_is_not_held_over_another_link() {
        let fleet = Arc::new(Fleet::new(Span::seconds(30)));
        let _first = come(&fleet).await;
        let retired = DrainGuard::of(&fleet, "a");
        let _second = come(&fleet).await;
        let (events, _heard) = tokio::sync::mpsc::unbounded_channel();
        let mut reservation = Reservation::new(Arc::clone(&fleet), "run");
        assert!(reservation.inventory().unwrap().is_empty());
        let refused = reservation.reserve(&["a".to_owned()].into(), &events).err();
        assert_eq!(refused.unwrap().rule, "agent");
        drop(retired);
        assert_eq!(
            reservation
                .reserve(&["a".to_owned()].into(), &events)
                .unwrap()
                .len(),
            1
        );
    }
}
