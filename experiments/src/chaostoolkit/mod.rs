//! The Chaos Toolkit's dialect: what its documents, tolerances and journals mean where they differ from Backburn's own.
//!
//! Everything here was compared with version 1.19 of the toolkit (chaoslib 1.44), which `tests/` runs side by side with Backburn.

mod controls;
mod differences;
pub(crate) mod env_var_type;
mod journal;
pub(crate) mod jsonpath;

pub(crate) use controls::check as check_controls;
pub use controls::without_controls;
pub use differences::toolkit_differences;
pub use env_var_type::convert;
pub use journal::{ToolkitHost, toolkit_journal};
