//! The agents that the controller knows, by its store: which may join, which certificates are valid, and which labels are granted.

use super::ca::AgentIdentity;
use super::enrolment::{Admission, CertificateReason, EnrolmentPolicy};
use crate::fleet::{Fleet, GrantedLabels};
use crate::store::{
    AuditRecord, EnrolledAgent, Hash, JoinTokenRecord, Store, StoreError, StoreErrorKind,
};
use backburn_experiments::join::PresentedToken;
use backburn_experiments::labels::{self, Labels, MAX_GRANTED_LABELS};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many agents are read at a time.
const PAGE: u32 = 1000;
/// How many certificates of an agent are valid: the renewed one, and the one before it that a connection may still show.
const VALID_CERTIFICATES: usize = 2;

/// Admits agents, and knows which certificates are revoked.
pub struct AgentRegistry {
    store: Arc<dyn Store>,
    /// The serial numbers of each agent's valid certificates; none for a revoked agent. Every handshake reads this.
    known: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// Held while an agent in the store is changed.
    changing: Mutex<()>,
    fleet: Arc<Fleet>,
    /// The certificates that agents have shown since the start: when each expires, and whether an authority has signed it that
    /// is being replaced.
    shown: Mutex<BTreeMap<String, (Timestamp, bool)>>,
}

impl AgentRegistry {
    /// Loads the registry from this store, and tells the fleet which labels are granted.
    ///
    /// # Errors
    /// The store failed.
    pub fn load(store: Arc<dyn Store>, fleet: &Arc<Fleet>) -> Result<Arc<Self>, StoreError> {
        let mut known = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.agents(after.as_deref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            for agent in page {
                fleet.grant(&agent.name, granted(&agent));
                let serials = match agent.revoked {
                    None => agent.serials.into_iter().collect(),
                    Some(_) => BTreeSet::new(),
                };
                known.insert(agent.name, serials);
            }
        }
        Ok(Arc::new(AgentRegistry {
            store,
            known: Mutex::new(known),
            changing: Mutex::default(),
            fleet: Arc::clone(fleet),
            shown: Mutex::default(),
        }))
    }

    /// Records the certificate that an agent has shown.
    pub fn saw_certificate(&self, name: &str, expires: Option<Timestamp>, is_of_retiring: bool) {
        if let Some(expires) = expires {
            lock(&self.shown).insert(name.to_owned(), (expires, is_of_retiring));
        }
    }

    /// The number of agents that may connect.
    pub fn count(&self) -> usize {
        let known = lock(&self.known);
        known.values().filter(|serials| !serials.is_empty()).count()
    }

    /// The certificates that agents have shown since the start; revoked agents do not count.
    fn valid_shown(&self) -> Vec<(Timestamp, bool)> {
        let known = lock(&self.known);
        let shown = lock(&self.shown);
        let is_valid = |name: &String| known.get(name).is_some_and(|serials| !serials.is_empty());
        let of_valid = shown.iter().filter(|(name, _)| is_valid(name));
        of_valid.map(|(_, certificate)| *certificate).collect()
    }

    /// When the first certificate expires of those that agents have shown since the start.
    pub fn earliest_expiry(&self) -> Option<Timestamp> {
        let shown = self.valid_shown();
        shown.into_iter().map(|(expires, _)| expires).min()
    }

    /// How many agents have last shown a certificate of an authority that is being replaced.
    pub fn count_of_retiring(&self) -> usize {
        let shown = self.valid_shown();
        shown
            .into_iter()
            .filter(|(_, is_retiring)| *is_retiring)
            .count()
    }

    /// Whether this certificate is invalid: its agent is revoked, has joined again since, or is unknown.
    pub fn is_revoked(&self, client_identity: &AgentIdentity) -> bool {
        !lock(&self.known)
            .get(&client_identity.name)
            .is_some_and(|serials| serials.contains(&client_identity.serial))
    }

    /// Revokes an agent: none of its certificates is valid any more.
    ///
    /// # Errors
    /// There is no agent of this name, or the store failed.
    pub fn revoke(&self, name: &str) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.changing);
        self.store.revoke_agent(name, Timestamp::now())?;
        lock(&self.known).insert(name.to_owned(), BTreeSet::new());
        Ok(())
    }

    fn admitted(
        &self,
        token: &PresentedToken,
        name: &str,
        said: Labels,
    ) -> Result<Admission, Refusal> {
        let hash = Hash::of(token.secret.as_bytes());
        let now = Timestamp::now();
        let token = match self.store.take_join_token(&token.id, &hash, now) {
            Ok(token) => token,
            Err(error) if error.kind == StoreErrorKind::NotThere => {
                return Err(Refusal::new(
                    "token",
                    "the join token is not valid: it was used, has expired, or belongs to another controller",
                )
                .hint("`backburn join-token` creates a new one; each can be used once"));
            }
            Err(error) => return Err(store_refusal(&error)),
        };
        let name = token.agent.clone().unwrap_or_else(|| name.to_owned());
        let replaces = token.agent.is_some();
        // Only a token that was created for a name can replace the agent of that name.
        if self.is_taken(&name) && !replaces {
            self.restore_token(&token);
            return Err(name_taken(&name));
        }
        let (_, ignored) = labels::facts(said);
        let ignored: Vec<&String> = (ignored.iter())
            .filter(|name| !token.labels.contains_key(*name))
            .collect();
        if !ignored.is_empty() {
            tracing::warn!(
                agent = name,
                ?ignored,
                "an agent that joins gives itself labels, which are ignored"
            );
        }
        Ok(Admission {
            name,
            labels: token.labels,
            token: token.id,
            by: token.who,
            replaces,
        })
    }

    fn is_taken(&self, name: &str) -> bool {
        lock(&self.known)
            .get(name)
            .is_some_and(|serials| !serials.is_empty())
    }

    /// Restores a token that admitted no agent.
    fn restore_token(&self, token: &JoinTokenRecord) {
        if let Err(error) = self.store.put_join_token(token) {
            tracing::error!(%error, token = token.id, "a join token that was not used could not be restored");
        }
    }

    fn issued(
        &self,
        issued: &AgentIdentity,
        reason: CertificateReason<'_>,
        issuer: &str,
    ) -> Result<Labels, Refusal> {
        let _one_at_a_time = lock(&self.changing);
        let before = match self.store.agent(&issued.name) {
            Ok(agent) => Some(agent).filter(|agent| agent.revoked.is_none()),
            Err(error) if error.kind == StoreErrorKind::NotThere => None,
            Err(error) => return Err(store_refusal(&error)),
        };
        let is_late = matches!(reason, CertificateReason::LateRenewal(_));
        let (agent, record) = match (reason, before) {
            // Another agent of this name has joined meanwhile.
            (CertificateReason::Joining(admission), Some(_)) if !admission.replaces => {
                return Err(name_taken(&issued.name));
            }
            (CertificateReason::Joining(admission), before) => {
                // A replaced agent keeps its labels, which may be what a policy limits it by. A revoked one leaves nothing.
                let (mut granted, before_by) = match before {
                    Some(agent) => (agent.labels, agent.labels_by),
                    None => (Labels::new(), None),
                };
                // Labels that nobody has granted do not become granted by this.
                let is_said = |name: &String| !admission.labels.contains_key(name);
                let is_confirmed = before_by.is_some() || !granted.keys().any(is_said);
                granted.extend(admission.labels.clone());
                let detail = json!({"token": admission.token, "token-by": admission.by, "serial": issued.serial, "authority": issuer, "labels": granted});
                let agent = EnrolledAgent {
                    name: issued.name.clone(),
                    serials: vec![issued.serial.clone()],
                    labels: granted,
                    labels_by: is_confirmed.then(|| admission.by.clone()),
                    enrolled: Timestamp::now(),
                    revoked: None,
                    heard: None,
                };
                (agent, agent_record("join", &issued.name, detail))
            }
            (
                CertificateReason::Renewal(shown) | CertificateReason::LateRenewal(shown),
                Some(mut agent),
            ) if agent.serials.contains(&shown.serial) => {
                agent.serials.push(issued.serial.clone());
                let old = agent.serials.len().saturating_sub(VALID_CERTIFICATES);
                agent.serials.drain(..old);
                let detail = json!({"serial": issued.serial, "authority": issuer, "replaced": shown.serial, "expired": is_late});
                (agent, agent_record("renew", &issued.name, detail))
            }
            (CertificateReason::Renewal(_) | CertificateReason::LateRenewal(_), _) => {
                return Err(Refusal::new("revoked", "the certificate is revoked")
                    .hint("join again with a new token"));
            }
        };
        self.store
            .audit(&record)
            .and_then(|_| self.store.put_agent(&agent))
            .map_err(|error| store_refusal(&error))?;
        self.fleet.grant(&agent.name, granted(&agent));
        lock(&self.known).insert(agent.name.clone(), agent.serials.into_iter().collect());
        if let CertificateReason::Joining(_) = reason {
            // Whoever is connected under this name has a certificate that is not valid any more.
            self.fleet.disconnect(&agent.name);
        }
        Ok(agent.labels)
    }

    /// Changes the labels that an agent is granted, and confirms those that are left. Calls `audit` with the labels before and after, before
    /// anything is changed.
    ///
    /// # Errors
    /// There is no agent of this name, or it is revoked; the change is not allowed; the store failed.
    pub fn relabel(
        &self,
        name: &str,
        by: &str,
        change: &LabelChange,
        audit: impl FnOnce(&Labels, &Labels) -> Result<(), StoreError>,
    ) -> Result<EnrolledAgent, RelabelError> {
        let _one_at_a_time = lock(&self.changing);
        let mut agent = self.store.agent(name)?;
        if agent.revoked.is_some() {
            return Err(Refusal::new("revoked", format!("agent `{name}` is revoked"))
                .hint("it may join again with a new token that has the labels: `backburn join-token --label KEY=VALUE`")
                .into());
        }
        let before = agent.labels.clone();
        change.apply(&mut agent.labels)?;
        agent.labels_by = Some(by.to_owned());
        audit(&before, &agent.labels)?;
        self.store.put_agent(&agent)?;
        self.fleet.grant(name, granted(&agent));
        Ok(agent)
    }
}

/// A change of the labels that an agent is granted.
#[derive(Debug, Clone, Default)]
pub struct LabelChange {
    /// The labels to set.
    pub set: Labels,
    /// The names of the labels to remove. One that is not there is no error.
    pub remove: BTreeSet<String>,
}

impl LabelChange {
    fn apply(&self, labels: &mut Labels) -> Result<(), Refusal> {
        if let Some(problem) = problem_with_labels(&self.set) {
            return Err(Refusal::new("label", problem));
        }
        labels.retain(|name, _| !self.remove.contains(name));
        labels.extend(self.set.clone());
        match labels.len() {
            ..=MAX_GRANTED_LABELS => Ok(()),
            count => Err(
                Refusal::new("label", format!("the agent would have {count} labels")).hint(
                    format!("at most {MAX_GRANTED_LABELS} are allowed; `NAME-` removes one"),
                ),
            ),
        }
    }
}

/// What is wrong with labels that are to be granted. None if nothing is.
pub fn problem_with_labels(labels: &Labels) -> Option<String> {
    if labels.len() > MAX_GRANTED_LABELS {
        return Some(format!(
            "{} labels; at most {MAX_GRANTED_LABELS} are allowed",
            labels.len()
        ));
    }
    (labels.iter()).find_map(|(name, value)| labels::problem_with_label(name, value))
}

/// Why labels could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    /// The change is not allowed.
    #[error("{0}")]
    Refused(Refusal),
    /// The store failed, or knows no such agent.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Refusal> for RelabelError {
    fn from(refusal: Refusal) -> Self {
        RelabelError::Refused(refusal)
    }
}

/// The labels of an agent as the fleet knows them.
fn granted(agent: &EnrolledAgent) -> GrantedLabels {
    GrantedLabels {
        labels: agent.labels.clone(),
        is_confirmed: agent.labels_by.is_some(),
    }
}

/// An entry of the audit log about what an agent did itself.
fn agent_record(what: &str, agent: &str, detail: Value) -> AuditRecord {
    AuditRecord {
        at: Timestamp::now(),
        who: format!("agent {agent}"),
        role: None,
        what: what.to_owned(),
        about: agent.to_owned(),
        outcome: "done".to_owned(),
        detail,
    }
}

fn name_taken(name: &str) -> Refusal {
    Refusal::new("name", format!("there already is an agent `{name}`")).hint(
        "join with another `--name`, or with a token for this one: `backburn join-token --agent NAME`",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store_refusal(error: &StoreError) -> Refusal {
    tracing::error!(%error, "an agent could not join");
    Refusal::new("store", "the controller could not record the agent")
        .hint("try again; the controller's log has the reason")
}

/// Runs work of the store on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Refusal::new(
            "store",
            format!("the controller is ending: {error}"),
        ))
    })
}

impl EnrolmentPolicy for Arc<AgentRegistry> {
    async fn admit(
        &self,
        token: &PresentedToken,
        name: &str,
        labels: &Labels,
    ) -> Result<Admission, Refusal> {
        let (registry, token, name) = (Arc::clone(self), token.clone(), name.to_owned());
        let labels = labels.clone();
        blocking(move || registry.admitted(&token, &name, labels)).await
    }

    async fn issue(
        &self,
        issued: &AgentIdentity,
        reason: CertificateReason<'_>,
        issuer: &str,
    ) -> Result<Labels, Refusal> {
        let (registry, issued) = (Arc::clone(self), issued.clone());
        let issuer = issuer.to_owned();
        match reason {
            CertificateReason::Joining(admission) => {
                let admission = admission.clone();
                blocking(move || {
                    registry.issued(&issued, CertificateReason::Joining(&admission), &issuer)
                })
                .await
            }
            CertificateReason::Renewal(shown) => {
                let shown = shown.clone();
                blocking(move || {
                    registry.issued(&issued, CertificateReason::Renewal(&shown), &issuer)
                })
                .await
            }
            CertificateReason::LateRenewal(shown) => {
                let shown = shown.clone();
                blocking(move || {
                    registry.issued(&issued, CertificateReason::LateRenewal(&shown), &issuer)
                })
                .await
            }
        }
    }
}
