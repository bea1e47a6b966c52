//! Plug-ins: faults from outside the tree, in any language, by the protocol `backburn-plugin/1` (`docs/writing-a-fault.md`). A plug-in is
//! an executable that is called with one verb at a time. It plans, and for what it changes itself it undoes; the ledger, the protection,
//! the overlap and the evidence are the agent's.

mod call;
mod capabilities;
mod conform;
mod declaration;
mod effect_look;
mod fingerprint;
mod planning;
mod program;
mod registry;
mod strike;

pub use call::{PluginCall, PluginFailure};
pub use conform::{ConformCheck, ConformReport, ConformSubject, conform};
pub use declaration::{PLUGIN_PROTOCOL, PluginDeclaration, PluginKind};
pub use effect_look::EffectLook;
pub use planning::{PluginPlanning, PluginTexts};
pub use program::PinnedProgram;
pub use registry::{AllowedPlugin, InstalledPlugin, PluginRegistry, PluginState, UsablePlugin};
