//! Who a fault hits: the process selector, as people write it, and what it finds.

use super::matcher::{self, Matcher};
use super::protection::ProtectionCheck;
use super::sockets::ListenerNetwork;
use super::{Process, ProcessTable, Protection};
use backburn_experiments::document::Select;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, select};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which processes. Everything that is given must match; something must be given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessSelector {
    /// The program's name as `ps -o comm` shows it, whole; a list means any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<OneOrMany<String>>,
    /// A regular expression that matches somewhere in the command line, its arguments joined by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// A process id; a list means any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<OneOrMany<i32>>,
    /// A file that holds the process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// The effective user, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserOf>,
    /// A systemd unit, e.g. `nginx.service`; without a suffix, `.service` is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// A control group and all below it: its path in `/proc/PID/cgroup`, or its folder under `/sys/fs/cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// A container's id, or its first 12 characters or more. Names are the container runtime's and not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// A port that the process listens on, TCP or UDP; a list means any of them. In the agent's own network, unless `container`,
    /// `cgroup`, `unit`, `pid`, `pid-file`, `parent-of` or `children-of` says where else: then in the network of the process.
    /// Every process that holds the listening socket matches, so workers match as their master does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<OneOrMany<u16>>,
    /// The parent of this process, given by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_of: Option<Relative>,
    /// The children of this process, given by id or name; not their children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children_of: Option<Relative>,
    /// Not these: a selector without `select` and `order`, or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<OneOrMany<Box<ProcessSelector>>>,
    /// How many of those that match. One where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Which of those that match come first. Random, from the run's seed, where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// One, or a list of which any will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Any of these.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// A user, by name or number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum UserOf {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// A process that another is found by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Relative {
    /// By process id.
    Pid(i32),
    /// By name.
    Name(String),
}

/// Which come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Drawn from the run's seed.
    #[default]
    Random,
    /// Those that started first.
    Oldest,
    /// Those that started last.
    Newest,
}

/// Whom a selector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Who is to be hit.
    pub victims: Vec<Process>,
    /// How many matched and may be hit, of which the victims were picked.
    pub matched: usize,
    /// Who matched and is never hit, each with the reason.
    pub spared: Vec<(Process, String)>,
    /// In which networks processes listen on the ports that were asked for, in lines for people.
    pub networks: Vec<String>,
}

impl Found {
    /// Who was spared and why, and whose ports are meant, in lines for people; of many, only some are named.
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

/// The names of these, or of some of them where they are many.
fn some(who: &[String]) -> String {
    match who.len() {
        0..=8 => who.join(", "),
        many => format!("{} and {} more", who[..3].join(", "), many - 3),
    }
}

impl ProcessSelector {
    /// Whether something besides names and users says which processes are meant, so that they may be in any network.
    pub(super) fn says_where(&self) -> bool {
        self.pid.is_some()
            || self.pid_file.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || self.parent_of.is_some()
            || self.children_of.is_some()
    }

    /// Every problem that shows without a look at the host; `at` is the selector's own path, e.g. `$.process`.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        matcher::problems(self, at)
    }

    /// Finds victims. What is random comes from `seed` alone, so the same processes give the same pick.
    ///
    /// # Errors
    /// `arguments` where the selector itself is wrong (paths begin with `at`), `no-match` where
    /// nobody matches, or fewer than are wanted, `protected` where all who match are spared, and
    /// `failed` where the process table can't be read.
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
                format!("{}: can't be read: {error}", table.root().display()),
            )
            .hint("mount `/proc`, and see that this user may read it")
        };
        let matcher = Matcher::new(self, at, table).map_err(|problems| {
            let what = "the process selector is not usable";
            Refusal {
                problems,
                ..Refusal::new("arguments", what)
            }
        })?;
        let all = table.pids().map_err(unreadable)?;
        let spare = ProtectionCheck::new(table, protection);
        let (mut free, mut spared) = (Vec::new(), Vec::new());
        for pid in matcher.candidates(&all) {
            if !matcher.matches(pid) {
                continue;
            }
            // Gone since it was listed: then it is nobody's victim.
            let Some((process, stat)) = table.process_and_stat(pid) else {
                continue;
            };
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

    /// Nobody matches: says which part of the selector that was, and who there is.
    fn nobody(&self, table: &ProcessTable, matcher: &Matcher, all: &[i32]) -> Refusal {
        let parts: Vec<(String, usize)> = self
            .parts()
            .into_iter()
            .filter_map(|(written, part)| {
                let matcher = Matcher::new(&part, "$", table).ok()?;
                let count = matcher
                    .candidates(all)
                    .into_iter()
                    .filter(|pid| matcher.matches(*pid))
                    .count();
                Some((written, count))
            })
            .collect();
        let what = match parts.as_slice() {
            [(written, _)] => format!("no process matches {written}"),
            parts => {
                let counts: Vec<String> = parts
                    .iter()
                    .map(|(written, count)| format!("{written} matches {count}"))
                    .collect();
                format!(
                    "no process matches everything that is given: {}",
                    counts.join(", ")
                )
            }
        };
        let refusal = Refusal::new("no-match", what);
        let elsewhere = listed(table, &matcher.elsewhere.borrow());
        if !elsewhere.is_empty() {
            return refusal.hint(format!(
                "`listening` means the agent's own network; in another, {elsewhere} would match: add `container`, `cgroup`, `unit` or `pid` to mean that"
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
                return refusal.hint(format!(
                    "{} is running; did you mean that?",
                    near.join(", ")
                ));
            }
        }
        match matcher.unreadable.get() {
            0 => refusal.hint("see who is running with `ps -eo pid,user,comm,args`, and start it first"),
            count => refusal.hint(format!(
                "{count} processes could not be looked into without more rights; run the agent as root, or name the process"
            )),
        }
    }

    /// Each criterion alone, with the way it is written.
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

/// In whose networks the victims listen, and who else listens in another, in lines for people.
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
            "not meant, since they listen in a network other than the agent's: {elsewhere}"
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
        format!("all who match are never hit: {}", found.notes().join("; ")),
    )
    .hint("choose another process; what the policy protects is for the owner of the host to change")
}
