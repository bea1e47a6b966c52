//! The rights of somebody who asked for something that happens later: a scheduled run, or a run that waits for approval. They
//! are looked at again when it happens.

use super::{Actor, Service};
use crate::store::{Role, StoreError};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;

impl Service {
    /// The bearer of the token of this name, who may still start runs; or why they may not. Of several tokens of the same
    /// name, one that is valid is enough.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn standing(&self, name: &str) -> Result<Result<Actor, Refusal>, StoreError> {
        let now = Timestamp::now();
        let tokens = self.store().api_tokens()?;
        let named: Vec<_> = tokens.iter().filter(|token| token.name == name).collect();
        let is_valid = |token: &&&crate::store::ApiTokenRecord| {
            token.revoked.is_none() && token.expires.is_none_or(|expires| expires > now)
        };
        let best = named.iter().filter(is_valid).max_by_key(|token| token.role);
        let why = match best {
            Some(token) if token.role >= Role::Operator => {
                return Ok(Ok(Actor {
                    name: token.name.clone(),
                    role: token.role,
                }));
            }
            Some(_) => format!("token `{name}` has role `viewer`, and runs require `operator`"),
            None if named.iter().any(|token| token.revoked.is_some()) => {
                format!("token `{name}` was revoked")
            }
            None if !named.is_empty() => format!("token `{name}` has expired"),
            None => format!("there is no token `{name}`"),
        };
        Ok(Err(Refusal::new("token", why)))
    }
}
