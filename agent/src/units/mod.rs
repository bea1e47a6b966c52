//! Sizes and rates as people write them.

mod rate;
mod size;
mod size_or_percent;

pub use rate::Rate;
pub use size::Size;
pub(crate) use size_or_percent::{bytes_of, check_size_or_percent};
