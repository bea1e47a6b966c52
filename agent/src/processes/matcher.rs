//! A selector that is ready to be matched against processes: what can be looked up once is, and the
//! cheapest criteria come first.

use super::cgroup::{cgroup_parts, cgroup_paths, whole_unit};
use super::selector::{ProcessSelector, Relative, UserOf, exceptions};
use super::sockets::{ListenerNetwork, ListeningSockets};
use super::users::uid_of;
use super::{OneOrMany, ProcessTable};
use backburn_experiments::Problem;
use regex::Regex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;

/// Longest name that the kernel keeps, in bytes.
const COMM_BYTES: usize = 15;

fn is_one_of(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|wanted| wanted.as_bytes() == name)
}

/// What a process itself must be, so that each can be asked on its own.
struct Criteria<'a> {
    names: Option<&'a [String]>,
    long_names: bool,
    command_line: Option<Regex>,
    pids: Option<BTreeSet<i32>>,
    parents: Option<BTreeSet<i32>>,
    uid: Option<u32>,
    unit: Option<String>,
    cgroup: Option<&'a str>,
    container: Option<&'a str>,
}

/// A selector that is ready to be matched against processes.
pub(super) struct Matcher<'a> {
    table: &'a ProcessTable,
    criteria: Criteria<'a>,
    listening: Option<ListeningSockets>,
    /// Whether `listening` means any network, since something else tells which processes are meant.
    any_network: bool,
    except: Vec<Matcher<'a>>,
    /// Processes that match except that they listen in another network than the agent's.
    pub(super) elsewhere: RefCell<BTreeSet<i32>>,
    /// Number of processes that could not be read for lack of privileges.
    pub(super) unreadable: Cell<usize>,
}

impl Criteria<'_> {
    /// Whether a process is what it must be, the cheapest first. One that cannot be read is not.
    fn fit(&self, table: &ProcessTable, pid: i32) -> bool {
        self.pids.as_ref().is_none_or(|pids| pids.contains(&pid))
            && self.names.is_none_or(|names| {
                table.is_named(pid, |name| is_one_of(names, name), self.long_names)
            })
            && self.parents.as_ref().is_none_or(|parents| {
                table
                    .stat(pid)
                    .is_some_and(|stat| parents.contains(&stat.parent))
            })
            && self.uid.is_none_or(|uid| table.uid(pid) == Some(uid))
            && self.command_line.as_ref().is_none_or(|wanted| {
                let arguments = table.arguments(pid);
                !arguments.is_empty() && wanted.is_match(&arguments.join(" "))
            })
            && self.in_groups(table, pid)
    }

    fn in_groups(&self, table: &ProcessTable, pid: i32) -> bool {
        if self.unit.is_none() && self.cgroup.is_none() && self.container.is_none() {
            return true;
        }
        let Some(paths) = cgroup_paths(table, pid) else {
            return false;
        };
        let any_part =
            |fits: &dyn Fn(&str) -> bool| paths.iter().any(|(_, path)| path.split('/').any(fits));
        self.unit
            .as_deref()
            .is_none_or(|unit| any_part(&|part| part == unit))
            && self
                .container
                .is_none_or(|id| any_part(&|part| is_container(part, id)))
            && self.cgroup.is_none_or(|wanted| {
                paths
                    .iter()
                    .any(|(kind, path)| is_below(path, kind, wanted))
            })
    }
}

impl<'a> Matcher<'a> {
    /// Looks up what can be looked up once: the number of a user, the id in a file, parents.
    ///
    /// # Errors
    /// The problems of the selector; their paths begin with `at`.
    pub(super) fn new(
        s: &'a ProcessSelector,
        at: &str,
        table: &'a ProcessTable,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = s.problems(at);
        let mut except = Vec::new();
        if problems.is_empty() {
            for (path, exception) in exceptions(s, at) {
                match Matcher::new(exception, &path, table) {
                    // An exception counts in any network.
                    Ok(matcher) => except.push(Matcher {
                        any_network: true,
                        ..matcher
                    }),
                    Err(more) => problems.extend(more),
                }
            }
        }
        let mut pids: Option<BTreeSet<i32>> = s
            .pid
            .as_ref()
            .map(|pids| pids.as_slice().iter().copied().collect());
        let mut narrow = |to: BTreeSet<i32>| {
            pids = Some(match pids.take() {
                Some(pids) => pids.intersection(&to).copied().collect(),
                None => to,
            });
        };
        match s.pid_file.as_deref().map(pid_in) {
            Some(Ok(pid)) => narrow(BTreeSet::from([pid])),
            Some(Err(what)) => {
                problems.push(Problem::new(format!("{at}.pid-file"), what).hint(
                    "the first line of the file must be a process id; is the service running?",
                ))
            }
            None => {}
        }
        if let Some(child) = &s.parent_of {
            let parents = relatives(table, child)
                .into_iter()
                .filter_map(|pid| Some(table.stat(pid)?.parent));
            narrow(parents.collect());
        }
        let uid = match &s.user {
            None => None,
            Some(UserOf::Id(uid)) => Some(*uid),
            Some(UserOf::Name(name)) => uid_of(name).or_else(|| {
                problems.push(
                    Problem::new(
                        format!("{at}.user"),
                        format!("there is no user `{name}` on this host"),
                    )
                    .hint("`getent passwd` lists the users"),
                );
                None
            }),
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let names = s.name.as_ref().map(OneOrMany::as_slice);
        let criteria = Criteria {
            names,
            long_names: names
                .unwrap_or_default()
                .iter()
                .any(|name| name.len() > COMM_BYTES),
            command_line: s
                .command_line
                .as_deref()
                .and_then(|text| Regex::new(text).ok()),
            pids,
            parents: s
                .children_of
                .as_ref()
                .map(|parent| relatives(table, parent)),
            uid,
            unit: s.unit.as_deref().map(whole_unit),
            cgroup: s.cgroup.as_deref(),
            container: s.container.as_deref(),
        };
        Ok(Matcher {
            table,
            criteria,
            listening: s.listening.as_ref().map(|ports| {
                let ranges = ports.as_slice().iter().filter_map(|port| port.range().ok());
                ListeningSockets::new(table, ranges.collect())
            }),
            any_network: s.says_where(),
            except,
            elsewhere: RefCell::default(),
            unreadable: Cell::new(0),
        })
    }

    /// Those of these processes that match.
    pub(super) fn matching(&self, all: &[i32]) -> Vec<i32> {
        let criteria = &self.criteria;
        let fits = |table: &ProcessTable, pid| criteria.fit(table, pid).then_some(pid);
        let mut found = self.table.survey(all, fits);
        found.retain(|pid| self.listens(*pid));
        found
    }

    /// Whether a process matches. A process that cannot be read does not.
    fn matches(&self, pid: i32) -> bool {
        self.criteria.fit(self.table, pid) && self.listens(pid)
    }

    /// Whether a process listens where it should, and is not excepted.
    fn listens(&self, pid: i32) -> bool {
        let network = match self.network(pid) {
            Some(Ok(network)) => network,
            Some(Err(error)) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.unreadable.set(self.unreadable.get() + 1);
                }
                None
            }
            None => Some(ListenerNetwork::Own),
        };
        if network.is_none() || self.except.iter().any(|except| except.matches(pid)) {
            return false;
        }
        let is_meant = self.any_network || network == Some(ListenerNetwork::Own);
        if !is_meant {
            self.elsewhere.borrow_mut().insert(pid);
        }
        is_meant
    }

    /// The network that a process listens in; none where the selector has no ports.
    pub(super) fn network(&self, pid: i32) -> Option<std::io::Result<Option<ListenerNetwork>>> {
        let listening = self.listening.as_ref()?;
        Some(listening.holds(self.table, pid))
    }
}

/// Whether `path`, in the hierarchy `kind`, is the wanted group or below it. A folder under
/// `/sys/fs/cgroup` names the hierarchy first, unless version 2 is mounted there alone.
fn is_below(path: &str, kind: &str, wanted: &str) -> bool {
    let begins = |wanted: Vec<&str>| {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        wanted.into_iter().all(|part| parts.next() == Some(part))
    };
    if begins(cgroup_parts(wanted).collect()) {
        return true;
    }
    let mut parts = cgroup_parts(wanted);
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let of_this_kind = first == kind
        || first
            .split(',')
            .any(|first| kind.split(',').any(|kind| kind == first));
    wanted.starts_with("/sys/fs/cgroup") && of_this_kind && !rest.is_empty() && begins(rest)
}

/// Whether a part of a control group's path is the container of this id: the id alone, or as
/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope` and `libpod-ID.scope` have it.
fn is_container(part: &str, id: &str) -> bool {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let last = part.rsplit(['-', ':']).next().unwrap_or(part);
    let is_long_id = last.len() == 64 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    part == id || (is_long_id && last.starts_with(id))
}

fn relatives(table: &ProcessTable, of: &Relative) -> BTreeSet<i32> {
    match of {
        Relative::Pid(pid) => BTreeSet::from([*pid]),
        Relative::Name(name) => {
            let named = |pid: &i32| {
                table.is_named(
                    *pid,
                    |comm| comm == name.as_bytes(),
                    name.len() > COMM_BYTES,
                )
            };
            table
                .pids()
                .unwrap_or_default()
                .into_iter()
                .filter(named)
                .collect()
        }
    }
}

/// Longest pid file, in bytes: a number and a few words beside it.
const MAX_PID_FILE_BYTES: u64 = 4096;

fn pid_in(path: &str) -> Result<i32, String> {
    let text = crate::files::read_regular(Path::new(path), MAX_PID_FILE_BYTES)
        .map_err(|error| format!("cannot read `{path}`: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().next().unwrap_or_default().trim();
    first
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| format!("`{path}` contains no process id"))
}
