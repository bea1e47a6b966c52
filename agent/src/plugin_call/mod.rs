//! Calling plug-ins: one process with one verb, by the protocol `backburn-plugin/1` (`docs/plugins.md`). What a plug-in is, how its pinned
//! copy is started and restricted, and how its answer is read. What is planned, owed and undone is in other rooms.

mod allowed;
mod call;
mod capabilities;
mod declaration;
mod effect_look;
mod process;
mod program;
mod texts;

pub use allowed::AllowedPlugin;
pub use call::{PluginCall, PluginFailure};
pub use declaration::{PLUGIN_PROTOCOL, PluginDeclaration, PluginKind};
pub use effect_look::EffectLook;
pub use process::{Confinement, kill_plugin, spawn_plugin};
pub use program::PinnedPlugin;
pub use texts::PluginTexts;

pub(crate) use call::{retry_while_busy, shown};
pub(crate) use capabilities::capability_bits;
pub(crate) use program::{MAX_PROGRAM_BYTES, read_trusted, sha256};
