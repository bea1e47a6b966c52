//! Who belongs to the fleet: the certificate authority, the protocol by which agents join, the registry of known
//! agents, and the tokens that people and programs carry.

mod agent_certificate;
pub mod agent_registry;
pub mod ca;
mod ca_error;
pub(crate) mod controller_certificate;
pub mod enrolment;
mod key_files;
pub mod owner_certificate;
pub mod tokens;
