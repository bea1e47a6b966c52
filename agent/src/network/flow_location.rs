//! Where flows are, whose they are, and how names are found there.

use crate::dns::{Resolver, Viewpoint};
use crate::netlink::Namespace;
use crate::plan::PlanContext;
use crate::processes::Cgroup;
use std::net::IpAddr;

/// Where flows are, and whose.
#[derive(Debug, Default)]
pub(crate) struct FlowLocation {
    /// The network namespace; none where it is the agent's own.
    pub namespace: Option<Namespace>,
    /// There, only the sockets of these; all where empty.
    pub cgroups: Vec<Cgroup>,
    /// Whose files tell how names are found; none for this host's own.
    pub viewpoint: Option<Viewpoint>,
}

impl FlowLocation {
    pub(crate) fn of(namespace: Namespace, context: &PlanContext<'_>) -> Self {
        FlowLocation {
            viewpoint: Viewpoint::of(&namespace, context.table),
            namespace: Some(namespace),
            cgroups: Vec::new(),
        }
    }

    /// Who finds names there; none where it is not known how they are found.
    pub(crate) fn resolver(&self, context: &PlanContext<'_>) -> Option<Resolver> {
        if self.namespace.is_some() && self.viewpoint.is_none() {
            return None;
        }
        Some(Resolver::new(
            self.namespace.as_ref(),
            self.viewpoint.as_ref(),
            context.table,
        ))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// Where it has none, and why.
    pub(crate) fn resolve(
        &self,
        resolver: &Option<Resolver>,
        name: &str,
    ) -> Result<Vec<IpAddr>, String> {
        let here = match (&self.viewpoint, &self.namespace) {
            (Some(Viewpoint::Process(id)), _) => format!("as process {} finds it", id.pid),
            (_, Some(namespace)) => format!("in network namespace {}", namespace.path.display()),
            (_, None) => "here".to_owned(),
        };
        match resolver {
            Some(resolver) => resolver
                .addresses(name)
                .map_err(|error| format!("{here}: {error}")),
            None => Err(format!(
                "{here}: no process is in it, so it is not known how names are found there"
            )),
        }
    }
}
