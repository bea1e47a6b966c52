//! Who belongs to the fleet: the certificate authority, the protocol by which agents join, the registry of known
//! agents, and the tokens that people and programs carry.

pub mod agent_registry;
pub mod ca;
pub mod enrolment;
pub mod tokens;
