//! The rights of somebody who asked for something that happens later: a scheduled run, or a run that waits for approval. They
//! are looked at again when it happens.

use super::{Actor, Service};
use crate::store::{ApiTokenRecord, Role, StoreError};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;

impl Service {
    /// The bearer of this person's token of this name, who may still start runs; or why they may not. Of several tokens of
    /// the same name, one that is valid is enough.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn standing(
        &self,
        name: &str,
        person: &str,
    ) -> Result<Result<Actor, Refusal>, StoreError> {
        let now = Timestamp::now();
        let tokens = self.store().api_tokens()?;
        let named: Vec<&ApiTokenRecord> = (tokens.iter())
            .filter(|token| token.name == name && token.person == person)
            .collect();
        let valid = named.iter().filter(|token| token.is_valid(now));
        let why = match valid.max_by_key(|token| token.role) {
            Some(token) if token.role >= Role::Operator => return Ok(Ok(Actor::from(*token))),
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
