//! Which processes a fault hits, as people write it.

use super::cgroup::cgroup_parts;
use crate::units::Port;
use backburn_experiments::Problem;
use backburn_experiments::document::Select;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shortest container id, in characters: as `docker ps` and its like show it.
const SHORT_CONTAINER_ID: usize = 12;

/// Selects processes. All criteria that are given must match, and at least one must be given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("title" = "process selector", "examples" = [{"name": "nginx"}]))]
pub struct ProcessSelector {
    /// The full name of the program, as `ps -o comm` shows it. A list means any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<OneOrMany<String>>,
    /// A regular expression that matches anywhere in the command line, whose arguments are joined by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// The process id. A list means any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<OneOrMany<i32>>,
    /// A file whose first line is the process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// The effective user of the process, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserOf>,
    /// A systemd unit, e.g. `nginx.service`. Default suffix: `.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// A control group and all groups below it: its path in `/proc/PID/cgroup`, or its folder under `/sys/fs/cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The id of a container, or at least its first 12 characters. Names of containers are not known to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// A TCP or UDP port that the process listens on, or a range of ports: `"8000-8010"`. A list means any of them. The port is one of the agent's own network, or, with
    /// `container`, `cgroup`, `unit`, `pid`, `pid-file`, `parent-of` or `children-of`, one of the network of the process.
    /// Every process that holds the listening socket matches, so workers match as well as their master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<OneOrMany<Port>>,
    /// The process is the parent of this one, given by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_of: Option<Relative>,
    /// The process is a child, but not a grandchild, of this one, given by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children_of: Option<Relative>,
    /// Processes to leave out: a selector without `select` and `order`, or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<OneOrMany<Box<ProcessSelector>>>,
    /// How many of the matching processes to select. Default: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Which of the matching processes come first. Default: random, from the run's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// One value, or a list of values any of which will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// Any of these values.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of the values.
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
    /// The user by its number.
    Id(u32),
    /// The user by its name.
    Name(String),
}

/// A process by which its parent or its children are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Relative {
    /// The process by its id.
    Pid(i32),
    /// The process by its name.
    Name(String),
}

/// The order in which processes are selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// In random order, from the run's seed.
    #[default]
    Random,
    /// Those that started first come first.
    Oldest,
    /// Those that started last come first.
    Newest,
}

impl ProcessSelector {
    /// Whether a criterion other than names and users tells where the processes are, so that they may be in any network.
    pub(super) fn says_where(&self) -> bool {
        self.pid.is_some()
            || self.pid_file.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || self.parent_of.is_some()
            || self.children_of.is_some()
    }

    /// All problems that show without a look at the host; `at` is the selector's own path, e.g. `$.process`.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        problems_of(self, at)
    }
}

/// All problems of a selector that show without a look at the host.
fn problems_of(selector: &ProcessSelector, at: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, what: String, hint: &str| {
        problems.push(Problem::new(format!("{at}{key}"), what).hint(hint));
    };
    let s = selector;
    let given = [
        s.name.is_some(),
        s.command_line.is_some(),
        s.pid.is_some(),
        s.pid_file.is_some(),
        s.user.is_some(),
        s.unit.is_some(),
        s.cgroup.is_some(),
        s.container.is_some(),
        s.listening.is_some(),
        s.parent_of.is_some(),
        s.children_of.is_some(),
    ];
    if !given.contains(&true) {
        let hint = "give at least one criterion, e.g. `name`; no selector means every process";
        wrong("", "the process selector is empty".into(), hint);
    }
    let names = s.name.iter().flat_map(OneOrMany::as_slice);
    if s.name
        .as_ref()
        .is_some_and(|names| names.as_slice().is_empty())
        || names.clone().any(String::is_empty)
    {
        wrong(
            ".name",
            "a name is empty".into(),
            "write the program's name, e.g. `nginx`",
        );
    }
    if let Some(name) = names.clone().find(|name| name.contains('/')) {
        wrong(
            ".name",
            format!("`{name}` is a path, not a name"),
            "write its last part, or use `command-line`",
        );
    }
    if let Some(Err(error)) = s.command_line.as_deref().map(Regex::new) {
        let error = error.to_string();
        let last = error
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        wrong(
            ".command-line",
            format!("not a regular expression: {last}"),
            "`\\` takes a character's meaning away",
        );
    }
    if s.command_line.as_deref() == Some("") {
        wrong(
            ".command-line",
            "it matches every process".into(),
            "write a part of the command line",
        );
    }
    let pids = s.pid.iter().flat_map(OneOrMany::as_slice);
    if s.pid
        .as_ref()
        .is_some_and(|pids| pids.as_slice().is_empty())
        || pids.into_iter().any(|pid| *pid < 1)
    {
        wrong(
            ".pid",
            "not a process id".into(),
            "a process id is 1 or more",
        );
    }
    if s.listening.as_ref().is_some_and(|ports| {
        let mut ports = ports.as_slice().iter();
        ports.len() == 0 || ports.any(|port| port.range().is_err())
    }) {
        let hint = "a port is 1 to 65535: for example `8080`, or `\"8000-8010\"`";
        wrong(".listening", "not a port".into(), hint);
    }
    if s.cgroup
        .as_deref()
        .is_some_and(|path| cgroup_parts(path).next().is_none())
    {
        wrong(
            ".cgroup",
            "this means every process".into(),
            "name a control group below the root",
        );
    }
    if s.unit.as_deref() == Some("") {
        wrong(
            ".unit",
            "a unit's name is empty".into(),
            "write e.g. `nginx.service`",
        );
    }
    if s.container
        .as_deref()
        .is_some_and(|id| id.len() < SHORT_CONTAINER_ID)
    {
        let hint = "write at least the first 12 characters of its id, as `docker ps` shows it";
        wrong(
            ".container",
            "too short to identify a container".into(),
            hint,
        );
    }
    match s.select {
        Some(Select::Count(0)) => wrong(
            ".select.count",
            "this selects no process".into(),
            "select 1 or more",
        ),
        Some(Select::Percent(percent)) if !(percent > 0.0 && percent <= 100.0) => {
            wrong(
                ".select.percent",
                format!("`{percent}` is not a percentage"),
                "give more than 0 and up to 100",
            );
        }
        Some(Select::RandomMaxPercent(percent)) if !(percent > 0.0 && percent <= 100.0) => {
            let what = format!("`{percent}` is not a percentage");
            wrong(
                ".select.random-max-percent",
                what,
                "give more than 0 and up to 100",
            );
        }
        _ => {}
    }
    for (path, except) in exceptions(selector, at) {
        if except.select.is_some() || except.order.is_some() {
            problems.push(
                Problem::new(&path, "`select` and `order` mean nothing here")
                    .hint("all processes that match are left out"),
            );
        }
        problems.extend(problems_of(except, &path));
    }
    problems
}

/// The selectors of `except`, each with its place.
pub(super) fn exceptions<'s>(
    selector: &'s ProcessSelector,
    at: &str,
) -> Vec<(String, &'s ProcessSelector)> {
    match &selector.except {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![(format!("{at}.except"), one)],
        Some(OneOrMany::Many(many)) => {
            let path = |index| format!("{at}.except[{index}]");
            many.iter()
                .enumerate()
                .map(|(index, one)| (path(index), &**one))
                .collect()
        }
    }
}
