//! Noxious' own engine behind one listener, as its server starts it: `noxious-proxy LISTEN UPSTREAM [LATENCY-MS]`.
//! The latency, if any, is on what comes from upstream.

fn main() {}
