//! The processes that a selector finds: who matches, who of them is protected, and whom the seed picks.

use super::matcher::Matcher;
use super::protection::ProtectionCheck;
use super::selector::{Order, ProcessSelector};
use super::sockets::ListenerNetwork;
use super::{Process, ProcessTable, Protection};
use backburn_experiments::document::Select;
use backburn_experiments::problem::nearest;
use backburn_experiments::select;
use backburn_experiments::wire::Refusal;
use std::collections::{BTreeMap, BTreeSet};

/// The processes that a selector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The processes to hit.
    pub victims: Vec<Process>,
    /// Number of processes that matched and are not protected; the victims were selected from them.
    pub matched: usize,
    /// Processes that matched and are protected, each with the reason.
    pub spared: Vec<(Process, String)>,
    /// Notes for people on the networks in which processes listen on the ports of the selector.
    pub networks: Vec<String>,
}

impl Found {
    /// Notes for people on protected processes, with the reasons, and on networks. Of many processes, only some are named.
    pub fn notes(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (process, reason) in &self.spared {
            by_reason
                .entry(reason)
                .or_default()
                .push(process.to_string());
        }
        let spared = by_reason
            .into_iter()
            .map(|(reason, who)| format!("spared {}: {reason}", some(&who)));
        spared.chain(self.networks.iter().cloned()).collect()
    }
}

/// The names of these processes, or of some where there are many.
fn some(who: &[String]) -> String {
    match who.len() {
        0..=8 => who.join(", "),
        many => format!("{} and {} more", who[..3].join(", "), many - 3),
    }
}

impl ProcessSelector {
    /// Finds victims. Random selection depends on `seed` alone, so the same processes give the same victims.
    ///
    /// # Errors
    /// `arguments` where the selector itself is wrong (paths begin with `at`), `no-match` where
    /// no process matches, or fewer than are asked for, `protected` where all that match are protected, and
    /// `failed` where the process table cannot be read.
    pub fn find(
        &self,
        at: &str,
        table: &ProcessTable,
        protection: &Protection,
        seed: u64,
    ) -> Result<Found, Refusal> {
        let unreadable = |error: std::io::Error| {
            Refusal::new(
                "failed",
                format!("cannot read {}: {error}", table.root().display()),
            )
            .hint("mount `/proc`, and make sure that this user may read it")
        };
        let matcher = Matcher::new(self, at, table).map_err(|problems| {
            let what = "the process selector is wrong";
            Refusal {
                problems,
                ..Refusal::new("arguments", what)
            }
        })?;
        let all = table.pids().map_err(unreadable)?;
        let spare = ProtectionCheck::new(table, protection);
        let (mut free, mut spared) = (Vec::new(), Vec::new());
        // A process that has ended since it was listed is no victim.
        let look = ProcessTable::process_and_stat;
        for (process, stat) in table.survey(&matcher.matching(&all), look) {
            match spare.reason(&process, &stat) {
                Some(reason) => spared.push((process, reason)),
                None => free.push(process),
            }
        }
        if free.is_empty() {
            return Err(match spared.is_empty() {
                true => self.nobody(table, &matcher, &all),
                false => all_spared(spared),
            });
        }
        free.sort_by_key(|process| (process.id.start, process.id.pid));
        let matched = free.len();
        let select = self.select.unwrap_or(Select::Count(1));
        let order = self.order.unwrap_or_default();
        if order == Order::Newest {
            free.reverse();
        }
        let victims = if order == Order::Random {
            select::pick(seed, "process", free, select)?
        } else {
            free.truncate(select::how_many(seed, "process", matched, select)?);
            free
        };
        let networks = networks(table, &matcher, &victims);
        Ok(Found {
            victims,
            matched,
            spared,
            networks,
        })
    }

    /// The refusal where no process matches: says how many match each part of the selector, and what would match.
    fn nobody(&self, table: &ProcessTable, matcher: &Matcher, all: &[i32]) -> Refusal {
        let parts: Vec<(String, usize)> = self
            .parts()
            .into_iter()
            .filter_map(|(written, part)| {
                let matcher = Matcher::new(&part, "$", table).ok()?;
                Some((written, matcher.matching(all).len()))
            })
            .collect();
        let what = match parts.as_slice() {
            [(written, _)] => format!("no process matches {written}"),
            parts => {
                let counts: Vec<String> = parts
                    .iter()
                    .map(|(written, count)| format!("{written} matches {count}"))
                    .collect();
                format!("no process matches all criteria: {}", counts.join(", "))
            }
        };
        let refusal = Refusal::new("no-match", what);
        let elsewhere = listed(table, &matcher.elsewhere.borrow());
        if !elsewhere.is_empty() {
            return refusal.hint(format!(
                "`listening` means the agent's own network; {elsewhere} would match in another: add `container`, `cgroup`, `unit` or `pid` to select it there"
            ));
        }
        if let Some(names) = &self.name {
            let running: BTreeSet<String> = all.iter().filter_map(|pid| table.name(*pid)).collect();
            let near: Vec<String> = names
                .as_slice()
                .iter()
                .filter(|name| !running.contains(*name))
                .filter_map(|name| nearest(name, running.iter().map(String::as_str)))
                .map(|name| format!("`{name}`"))
                .collect();
            if !near.is_empty() {
                return refusal.hint(format!("did you mean {}?", near.join(", ")));
            }
        }
        match matcher.unreadable.get() {
            0 => refusal.hint("list running processes with `ps -eo pid,user,comm,args`, and start the process first"),
            count => refusal.hint(format!(
                "{count} processes could not be read for lack of privileges; run the agent as root, or select by `name`"
            )),
        }
    }

    /// Each criterion as a selector of its own, with the way it is written.
    fn parts(&self) -> Vec<(String, ProcessSelector)> {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else {
            return Vec::new();
        };
        fields
            .into_iter()
            .filter(|(key, _)| !matches!(key.as_str(), "except" | "select" | "order"))
            .filter_map(|(key, value)| {
                let written = format!(
                    "{key} `{}`",
                    value.as_str().map_or_else(|| value.to_string(), Into::into)
                );
                let part = serde_json::json!({ key: value });
                Some((written, serde_json::from_value(part).ok()?))
            })
            .collect()
    }
}

/// Notes for people on the networks in which the victims listen, and on processes that listen elsewhere.
fn networks(table: &ProcessTable, matcher: &Matcher, victims: &[Process]) -> Vec<String> {
    let is_in = |network: ListenerNetwork| move |process: &&Process| matches!(matcher.network(process.id.pid), Some(Ok(Some(seen))) if seen == network);
    let (mut lines, names) = (Vec::new(), |process: &Process| process.to_string());
    let own: Vec<String> = victims
        .iter()
        .filter(is_in(ListenerNetwork::Own))
        .map(names)
        .collect();
    let other: Vec<String> = victims
        .iter()
        .filter(is_in(ListenerNetwork::Other))
        .map(names)
        .collect();
    if !own.is_empty() {
        lines.push(format!(
            "listening in the agent's own network: {}",
            some(&own)
        ));
    }
    if !other.is_empty() {
        lines.push(format!(
            "listening in a network other than the agent's: {}",
            some(&other)
        ));
    }
    let elsewhere = listed(table, &matcher.elsewhere.borrow());
    if !elsewhere.is_empty() {
        lines.push(format!(
            "not selected, since they listen in a network other than the agent's: {elsewhere}"
        ));
    }
    lines
}

fn listed(table: &ProcessTable, pids: &BTreeSet<i32>) -> String {
    let named = |pid: &i32| table.process(*pid).map(|process| process.to_string());
    some(&pids.iter().filter_map(named).collect::<Vec<_>>())
}

fn all_spared(spared: Vec<(Process, String)>) -> Refusal {
    let found = Found {
        victims: Vec::new(),
        matched: 0,
        spared,
        networks: Vec::new(),
    };
    Refusal::new(
        "protected",
        format!(
            "all processes that match are protected: {}",
            found.notes().join("; ")
        ),
    )
    .hint("select other processes; the owner of this host may change `protect` in its policy")
}
