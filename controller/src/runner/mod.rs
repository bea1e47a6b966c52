//! x
pub mod journal;
