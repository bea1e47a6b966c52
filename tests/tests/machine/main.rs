//! Tests that take the whole machine: a virtual machine with a kernel of its own, and hundreds of agents. They run one at a time.

mod fleet_many;
mod host_clock;
mod host_power;
mod netem;
