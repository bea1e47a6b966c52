//! Which labels the fleet's agents have: those that are granted to them, and the facts that they say of their hosts.

use super::{Fleet, Member};
use crate::agent_connection::Inventory;
use backburn_experiments::labels::{ADDRESS, Labels, is_fact, problem_with_address};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{MutexGuard, PoisonError};

/// The labels that an agent is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantedLabels {
    /// The labels by name. A fact's name may be among them: the granted value counts then.
    pub labels: Labels,
    /// Whether a person has granted them. Otherwise they are what the agent said when it joined, before labels were granted: they select it
    /// and limit it, and entitle it to no secret.
    pub is_confirmed: bool,
}

impl Fleet {
    /// From now on the agent of this name has these labels, whether or not it is connected.
    pub fn grant(&self, name: &str, granted: GrantedLabels) {
        self.granted().insert(name.to_owned(), granted);
    }

    /// The labels that this agent is granted.
    pub fn granted_to(&self, name: &str) -> Labels {
        let granted = self.granted();
        granted
            .get(name)
            .map(|of| of.labels.clone())
            .unwrap_or_default()
    }

    /// Locked after the members if both are needed.
    pub(super) fn granted(&self) -> MutexGuard<'_, BTreeMap<String, GrantedLabels>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The labels of the agents that `includes` accepts.
    pub(super) fn inventory(
        &self,
        members: &BTreeMap<String, Member>,
        includes: impl Fn(&str) -> bool,
    ) -> Inventory {
        let all_granted = self.granted();
        let nothing = GrantedLabels::default();
        let mut inventory = Inventory::default();
        for (name, member) in members.iter().filter(|(name, _)| includes(name)) {
            let granted = all_granted.get(name).unwrap_or(&nothing);
            let labels = all_labels(member, granted);
            inventory.selectable.push((name.clone(), labels));
            (inventory.granted).push((name.clone(), granted.labels.clone()));
            if !granted.is_confirmed {
                inventory.unconfirmed.insert(name.clone());
            }
        }
        inventory
    }
}

/// Everything that an agent is selected by: what is granted takes precedence over what the agent says.
pub(super) fn all_labels(member: &Member, granted: &GrantedLabels) -> Labels {
    let mut labels = member.introduction.facts.clone();
    if let Some(address) = link_address(member) {
        labels.insert(ADDRESS.to_owned(), address.to_string());
    }
    labels.extend(granted.labels.clone());
    labels
}

/// The address that the agent connects from. None if that cannot be the address of its host.
fn link_address(member: &Member) -> Option<IpAddr> {
    if member.introduction.through_proxy {
        return None;
    }
    let address = member.peer.ip().to_canonical();
    // An agent on the controller's own host connects over the loopback device.
    let is_usable = address.is_loopback() || problem_with_address(&address.to_string()).is_none();
    is_usable.then_some(address)
}

/// The facts that are shown beside granted labels.
pub(super) fn shown_facts(labels: &Labels, granted: &Labels) -> Labels {
    let is_said = |name: &String| (is_fact(name) || name == ADDRESS) && !granted.contains_key(name);
    let facts = labels.iter().filter(|(name, _)| is_said(name));
    facts
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
