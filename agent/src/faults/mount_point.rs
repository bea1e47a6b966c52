//! What faults on whole mounts check before all else: that the path is a mount, and that nothing that Backburn or the host's own
//! workings need lies there.

use crate::faults::PlanContext;
use crate::plan::FoundMount;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use std::path::Path;

/// Kinds of file systems that are the kernel's own: what is written there are orders to the kernel, by this program too.
const KERNEL_KINDS: [&str; 17] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devtmpfs",
    "devpts",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "nsfs",
    "configfs",
    "efivarfs",
    "mqueue",
    "pstore",
    "selinuxfs",
    "autofs",
];
/// How many processes or paths a message names.
const MAX_NAMED: usize = 5;

/// What is wrong with a path to a mount.
pub(super) fn path_problems(path: &Path) -> Vec<Problem> {
    let relative = (!path.is_absolute()).then(|| {
        Problem::new(
            "$.path",
            format!("`{}` is not an absolute path", path.display()),
        )
        .hint("begin with `/`")
    });
    relative.into_iter().collect()
}

/// The mount at a path.
///
/// # Errors
/// Nothing is mounted there, the mount is protected, or the agent may not alter mounts.
pub(super) fn find_mount(path: &Path, context: &PlanContext<'_>) -> Result<FoundMount, Refusal> {
    let found = context.host.mount(path).map_err(|error| {
        Refusal::new("no-match", format!("{}: {error}", path.display()))
            .hint("`path` must be a mount point; `findmnt` lists them")
    })?;
    let (at, point) = (found.path.display(), found.mount.path.display());
    if found.path != found.mount.path {
        return Err(Refusal::new(
            "no-match",
            format!("{at} is not a mount point: it lies on the mount at {point}"),
        )
        .hint(format!(
            "give `{point}`, or make a mount of the folder first: `mount --bind {at} {at}`"
        )));
    }
    let protected = |what: String| {
        Err(Refusal::new("protected", what)
            .hint("choose the mount of the data of a service; `findmnt` lists mounts"))
    };
    if found.mount.path == Path::new("/") {
        return protected("/ is protected: the whole host lives on it".into());
    }
    if KERNEL_KINDS.contains(&found.mount.kind.as_str()) {
        return protected(format!(
            "{at} is protected: `{}` is a file system of the kernel's own",
            found.mount.kind
        ));
    }
    context.protected_paths.check(&found.path)?;
    if let Some(own) = context
        .host
        .mount_users(&[&found.mount])
        .iter()
        .find(|user| user.is_own)
    {
        return protected(format!(
            "{at} is protected: {own} is a process of Backburn and has a file open there, or works or runs from there"
        ));
    }
    if !found.is_permitted {
        return Err(Refusal::new(
            "not-permitted",
            "faults on mounts require root or CAP_SYS_ADMIN, and this agent has neither",
        )
        .hint("run the agent as root"));
    }
    Ok(found)
}

/// Some names, and how many more there are.
pub(super) fn some<T: ToString>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(MAX_NAMED).map(T::to_string).collect();
    match all.len().saturating_sub(MAX_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
