//! What proves it, end to end: real kernel, real software, `kill -9`. This is what the tests share.

pub mod api;
pub mod api_reference;
pub mod cgroups;
pub mod controller;
pub mod crash;
pub mod crash_world;
pub mod datagrams;
pub mod machine;
pub mod name_server;
pub mod network;
pub mod network_fault;
pub mod nodes;
pub mod odd_web;
pub mod pages;
pub mod privately;
pub mod processes;
pub mod programs;
pub mod proxied;
pub mod reference;
pub mod runs;
pub mod served;
pub mod software;
pub mod toolkit;
pub mod toolkit_cases;
pub mod values;
pub mod web;
