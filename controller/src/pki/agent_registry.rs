//! The agents that the controller knows, by its store: which may join, and which certificates are valid.

use super::ca::AgentIdentity;
use super::enrolment::EnrolmentPolicy;
use crate::store::{EnrolledAgent, Hash, JoinTokenRecord, Store, StoreError, StoreErrorKind};
use backburn_experiments::join::PresentedToken;
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many agents are read at a time.
const PAGE: u32 = 1000;
/// How many certificates of an agent are valid: the renewed one, and the one before it that a connection may still show.
const VALID_CERTIFICATES: usize = 2;

/// Admits agents, and knows which certificates are revoked.
pub struct AgentRegistry {
    store: Arc<dyn Store>,
    /// The serial numbers of each agent's valid certificates; none for a revoked agent. Every handshake reads this.
    known: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// The labels of agents that were admitted, until their certificates are issued.
    labels: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

impl AgentRegistry {
    /// Loads the registry from this store.
    ///
    /// # Errors
    /// The store failed.
    pub fn load(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let mut known = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.agents(after.as_deref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            for agent in page {
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
            labels: Mutex::default(),
        }))
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
        self.store.revoke_agent(name, Timestamp::now())?;
        lock(&self.known).insert(name.to_owned(), BTreeSet::new());
        Ok(())
    }

    fn admitted(&self, token: &PresentedToken, name: &str) -> Result<String, Refusal> {
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
        let is_taken = lock(&self.known)
            .get(&name)
            .is_some_and(|serials| !serials.is_empty());
        // Only a token that was created for a name can replace the agent of that name.
        if is_taken && token.agent.is_none() {
            self.restore_token(&token);
            return Err(
                Refusal::new("name", format!("there already is an agent `{name}`")).hint(
                    "join with another `--name`, or with a token for this one: `backburn join-token --agent NAME`",
                ),
            );
        }
        Ok(name)
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
        replaced: Option<&AgentIdentity>,
    ) -> Result<(), Refusal> {
        let labels = lock(&self.labels).remove(&issued.name).unwrap_or_default();
        let agent = match replaced {
            None => EnrolledAgent {
                name: issued.name.clone(),
                serials: vec![issued.serial.clone()],
                labels,
                enrolled: Timestamp::now(),
                revoked: None,
            },
            Some(replaced) => {
                let mut agent = (self.store.agent(&issued.name)).map_err(|e| store_refusal(&e))?;
                if agent.revoked.is_some() || !agent.serials.contains(&replaced.serial) {
                    return Err(Refusal::new("revoked", "the certificate is revoked")
                        .hint("join again with a new token"));
                }
                agent.serials.push(issued.serial.clone());
                let old = agent.serials.len().saturating_sub(VALID_CERTIFICATES);
                agent.serials.drain(..old);
                agent
            }
        };
        self.store
            .put_agent(&agent)
            .map_err(|e| store_refusal(&e))?;
        lock(&self.known).insert(agent.name, agent.serials.into_iter().collect());
        Ok(())
    }
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
        labels: &BTreeMap<String, String>,
    ) -> Result<String, Refusal> {
        let (registry, token, name) = (Arc::clone(self), token.clone(), name.to_owned());
        let name = blocking(move || registry.admitted(&token, &name)).await?;
        lock(&self.labels).insert(name.clone(), labels.clone());
        Ok(name)
    }

    async fn issue(
        &self,
        issued: &AgentIdentity,
        replaced: Option<&AgentIdentity>,
        _lasts: Duration,
    ) -> Result<(), Refusal> {
        let (registry, issued, replaced) = (Arc::clone(self), issued.clone(), replaced.cloned());
        blocking(move || registry.issued(&issued, replaced.as_ref())).await
    }
}
