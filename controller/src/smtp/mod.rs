//! Sending e-mail (RFC 5321): one message to a server of the owner's, over TLS. There is no queue here: who sends says what is tried
//! again.

mod client;
mod message;

pub use client::{Delivery, MailError, MailSecurity, MailServer, send};
pub use message::{Mail, problem_with_address};
