//! The network namespace that flows are in, the control groups that they are of, and how names are found there.

use crate::dns::Viewpoint;
use crate::plan::{HostView, NameResolver, Namespace};
use crate::processes::Cgroup;
use core::net::IpAddr;

/// Where flows are, and whose they are.
#[derive(Debug, Default)]
pub(super) struct FlowLocation {
    /// The network namespace; none where it is the agent's own.
    pub namespace: Option<Namespace>,
    /// Only the flows of sockets made in these control groups; all flows where empty.
    pub cgroups: Vec<Cgroup>,
    /// Whose files tell how names are found; none for the agent's own.
    pub viewpoint: Option<Viewpoint>,
}

impl FlowLocation {
    pub(super) fn of(namespace: Namespace, host: &dyn HostView) -> Self {
        FlowLocation {
            viewpoint: host.viewpoint_in(&namespace),
            namespace: Some(namespace),
            cgroups: Vec::new(),
        }
    }

    /// Finds names there; none where it is not known how they are found.
    pub(super) fn resolver<'h>(&self, host: &'h dyn HostView) -> Option<NameResolver<'h>> {
        if self.namespace.is_some() && self.viewpoint.is_none() {
            return None;
        }
        Some(host.name_resolver(self.namespace.as_ref(), self.viewpoint.as_ref()))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// It has none; says where, and why.
    pub(super) fn resolve(
        &self,
        resolver: Option<&NameResolver<'_>>,
        name: &str,
    ) -> Result<Vec<IpAddr>, String> {
        let here = match (&self.viewpoint, &self.namespace) {
            (Some(Viewpoint::Process(id)), _) => format!("as process {} finds it", id.pid),
            (_, Some(namespace)) => format!("in network namespace {}", namespace.path.display()),
            (_, None) => "here".to_owned(),
        };
        match resolver {
            Some(resolver) => resolver(name).map_err(|error| format!("{here}: {error}")),
            None => Err(format!(
                "{here}: no process is in it, so it is not known how names are found there"
            )),
        }
    }
}
