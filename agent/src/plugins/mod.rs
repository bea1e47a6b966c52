//! The plug-ins of this host: those that its policy allows, and the plans of their faults. How one is called is in `plugin_call`.

mod planning;
mod registry;

pub use planning::PluginPlanning;
pub use registry::{InstalledPlugin, PluginRegistry, PluginState, UsablePlugin};
