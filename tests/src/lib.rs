//! What proves it, end to end: real kernel, real software, `kill -9`. This is what the tests share.

pub mod api;
pub mod api_reference;
pub mod cgroups;
pub mod container;
pub mod controller;
pub mod crash;
pub mod crash_cases;
pub mod crash_random;
pub mod crash_slots;
pub mod crash_strike;
pub mod crash_world;
pub mod daemon;
pub mod datagrams;
pub mod fleet;
<<<<<<< HEAD
pub mod hung_files;
=======
pub mod freezer;
>>>>>>> 17e45f2 (agent, tests: end a worker that hangs at its start or at rest, and a guardian that hangs when its worker leaves; stop and freeze in crash trials)
pub mod machine;
pub mod name_server;
pub mod network;
pub mod network_fault;
pub mod nodes;
pub mod odd_web;
pub mod other_proxies;
pub mod pages;
pub mod paused_victim;
pub mod plain_http;
pub mod privately;
pub mod processes;
pub mod programs;
pub mod proxied;
pub mod reference;
pub mod runs;
pub mod served;
pub mod software;
pub mod swarm;
pub mod toolkit;
pub mod toolkit_cases;
pub mod values;
pub mod web;
