//! Load over HTTP/1.1 in an open loop: requests are due at times that are known beforehand, whether or not earlier ones were answered, and
//! latency counts from when a request was due. A slow server is so not spared the requests that it delays (coordinated omission).
//!
//! Nothing here connects or knows the time: [`LoadIo`] is what a host provides.

mod channel;
mod generator;
mod histogram;
mod plan;
mod provider;
mod response;
mod schedule;
mod tally;

pub use generator::{LoadGenerator, LoadIo};
pub use histogram::LatencyHistogram;
pub use plan::LoadPlan;
pub use provider::LoadProvider;
pub use schedule::LoadSchedule;
pub use tally::LoadTally;
