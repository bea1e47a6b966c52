//! OpenID Connect: what an identity provider says of a person, verified. Nothing here knows what a person may do then; that is in
//! [`OidcConfig`], which maps the provider's groups to roles and teams.

mod config;
mod id_token;
mod provider;

pub use config::{GroupGrant, OidcConfig, OidcConfigError, PersonGrant};
pub use id_token::to_base64url as base64url;
pub use id_token::{Claims, ExpectedClaims, InvalidIdToken, KeySet};
pub use provider::{DeviceStart, IdentityProvider, ProviderError, TokenAnswer};
