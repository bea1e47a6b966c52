//! What touches a host.
