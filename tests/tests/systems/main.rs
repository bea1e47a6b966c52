//! Tests with real software and with fleets of several hosts: nginx, Redis, PostgreSQL, etcd, HAProxy, the Chaos Toolkit. They need
//! root and what `tests/run` installs.

mod action;
mod api_described;
mod api_hostile;
mod clocks;
mod fleet_agents;
mod fleet_aim;
mod fleet_crash;
mod fleet_given;
mod fleet_halt;
mod fleet_hung;
mod fleet_library;
mod fleet_lost;
mod fleet_rules;
mod fleet_run;
mod fleet_schedules;
mod fleet_shared;
mod library;
mod library_network;
mod page;
mod toolkit_differences;
mod toolkit_runs;
mod toolkit_values;
mod versions;
