//! The plug-ins of a host: those that its policy allows, by name and hash, and what became of each when the agent started.

use crate::host::{Host, HostError};
use crate::plugin_call::{
    AllowedPlugin, Confinement, PLUGIN_PROTOCOL, PinnedPlugin, PluginCall, PluginDeclaration,
    capability_bits, read_trusted, sha256,
};
use crate::policy::HostPolicy;
use backburn_experiments::wire::{FaultDescription, Refusal};
use backburn_programs::{PROGRAM_FORMS, has_program_head};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long `describe` may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A plug-in that can be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsablePlugin {
    /// What it says of itself.
    pub declaration: PluginDeclaration,
    /// The pinned copy of its file.
    pub program: PinnedPlugin,
    /// The capabilities that it asks for and that the policy grants, a bit for each.
    pub capabilities: u64,
}

/// What became of a plug-in.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    /// It can be used.
    Usable(Box<UsablePlugin>),
    /// It cannot be used; says why.
    Refused(String),
}

/// A plug-in that the policy names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstalledPlugin {
    /// The name of the plug-in.
    pub name: String,
    /// The path of its file.
    pub path: PathBuf,
    /// What became of it.
    pub state: PluginState,
}

impl InstalledPlugin {
    /// What it says of itself; none where it cannot be used.
    pub fn declaration(&self) -> Option<&PluginDeclaration> {
        match &self.state {
            PluginState::Usable(usable) => Some(&usable.declaration),
            PluginState::Refused(_) => None,
        }
    }

    /// Why it cannot be used; none where it can.
    pub fn refusal(&self) -> Option<Refusal> {
        match &self.state {
            PluginState::Usable(_) => None,
            PluginState::Refused(why) => {
                let what = format!("plug-in `{}` cannot be used: {why}", self.name);
                Some(
                    Refusal::new("plug-in", what).hint("`plugins` lists the plug-ins of this host"),
                )
            }
        }
    }
}

/// The plug-ins of a host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PluginRegistry {
    installed: Vec<InstalledPlugin>,
}

impl PluginRegistry {
    /// Pins the plug-ins that the policy allows, and has each describe itself. Takes at the most some 2 s: they are asked side by side.
    pub fn load(host: &Host, state: &Path, policy: &HostPolicy) -> Self {
        let installed = std::thread::scope(|scope| {
            let started: Vec<_> = (policy.plugins.iter())
                .map(|allowed| {
                    let host = host.for_thread();
                    (allowed, scope.spawn(move || load(&host, state, allowed)))
                })
                .collect();
            let ended = started
                .into_iter()
                .map(|(allowed, thread)| InstalledPlugin {
                    name: allowed.name.clone(),
                    path: allowed.path.clone(),
                    state: match thread.join() {
                        Ok(Ok(usable)) => PluginState::Usable(Box::new(usable)),
                        Ok(Err(why)) => PluginState::Refused(why),
                        Err(_) => {
                            PluginState::Refused("it could not be loaded: a thread failed".into())
                        }
                    },
                });
            ended.collect()
        });
        PluginRegistry { installed }
    }

    /// All plug-ins that the policy names, usable or not.
    pub fn installed(&self) -> &[InstalledPlugin] {
        &self.installed
    }

    /// The plug-ins that can be used.
    pub fn usable(&self) -> impl Iterator<Item = &UsablePlugin> {
        self.installed
            .iter()
            .filter_map(|plugin| match &plugin.state {
                PluginState::Usable(usable) => Some(&**usable),
                PluginState::Refused(_) => None,
            })
    }

    /// The plug-in that this fault is.
    pub fn find(&self, fault: &str) -> Option<&InstalledPlugin> {
        self.installed.iter().find(|plugin| plugin.name == fault)
    }

    /// The faults of the plug-ins that can be used.
    pub fn descriptions(&self) -> Vec<FaultDescription> {
        self.usable()
            .map(|plugin| plugin.declaration.describe())
            .collect()
    }
}

fn load(host: &Host, state: &Path, allowed: &AllowedPlugin) -> Result<UsablePlugin, String> {
    let content = read_trusted(&allowed.path)
        .map_err(|error| format!("{} cannot be used: {error}", allowed.path.display()))?;
    let found = sha256(&content);
    if !found.eq_ignore_ascii_case(&allowed.sha256) {
        return Err(format!(
            "{} was changed: its SHA-256 is {found}, and the policy allows {}",
            allowed.path.display(),
            allowed.sha256
        ));
    }
    let usable = UsablePlugin::pin(host, state, &allowed.name, &content)?;
    let granted = capability_bits(&allowed.capabilities)?;
    let missing: Vec<&str> = (usable.declaration.capabilities.iter())
        .filter(|name| !allowed.capabilities.contains(name))
        .map(String::as_str)
        .collect();
    match missing.is_empty() {
        true => Ok(UsablePlugin {
            capabilities: usable.capabilities & granted,
            ..usable
        }),
        false => Err(format!(
            "it needs {}, which the policy does not grant it: name them in its `capabilities`",
            missing.join(", ")
        )),
    }
}

impl UsablePlugin {
    /// Pins a plug-in's content and has it describe itself. It is granted what it asks for.
    ///
    /// # Errors
    /// It could not be pinned, or what it says of itself is wrong.
    pub(crate) fn pin(
        host: &Host,
        state: &Path,
        name: &str,
        content: &[u8],
    ) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err(
                "plug-ins require root: they run in process namespaces of their own".into(),
            );
        }
        if !has_program_head(content) {
            return Err(format!(
                "plug-in `{name}` is neither a script that names its interpreter nor an ELF program: {PROGRAM_FORMS}"
            ));
        }
        let program = pin(host, state, name, content).map_err(|error| error.to_string())?;
        let call = PluginCall {
            program: &program,
            request: json!({"verb": "describe", "protocol": PLUGIN_PROTOCOL}),
            timeout: DESCRIBE_TIMEOUT,
            confinement: Confinement {
                is_sealed: true,
                ..Confinement::default()
            },
        };
        let declaration: PluginDeclaration = call.run().map_err(|failure| failure.to_string())?;
        if crate::faults::find(name).is_some() {
            return Err(format!("plug-in `{name}` has the name of a built-in fault"));
        }
        if let Some(problem) = declaration.problem(name) {
            return Err(format!("plug-in `{name}` {problem}"));
        }
        Ok(UsablePlugin {
            capabilities: capability_bits(&declaration.capabilities)?,
            declaration,
            program,
        })
    }

    /// What its process may do outside of plans.
    pub fn confinement(&self) -> Confinement {
        Confinement {
            capabilities: self.capabilities,
            ..Confinement::default()
        }
    }
}

/// Copies a plug-in's content into the state folder, under its hash, synced.
fn pin(host: &Host, state: &Path, name: &str, content: &[u8]) -> Result<PinnedPlugin, HostError> {
    let folder = state.join("plugins");
    host.make_folder(&folder)?;
    let sha256 = sha256(content);
    let folder = folder.canonicalize().unwrap_or(folder);
    let pinned = PinnedPlugin {
        name: name.to_owned(),
        file: folder.join(&sha256),
        sha256,
    };
    if pinned.check().is_err() {
        host.write_program(&pinned.file, content)?;
    }
    Ok(pinned)
}
