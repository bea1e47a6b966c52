//! Log-in with an identity provider.

use super::tokens::TokenInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A log-in on another device that has begun.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceLoginInfo {
    /// The id of the log-in. Whoever has it gets the token.
    pub login: String,
    /// The code that the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: String,
    /// The same address with the code in it; null if the provider has none.
    #[serde(default)]
    pub verification_uri_complete: Option<String>,
    /// How long the code is valid, in seconds.
    pub expires_in: u64,
    /// How often to ask for the token, in seconds.
    pub interval: u64,
}

/// What became of a log-in on another device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceLoginResult {
    /// The token; null as long as nobody has logged in.
    pub token: Option<TokenInfo>,
}

/// A request to log in in a browser.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageLoginRequest {
    /// The page that the browser comes back to. It must be one of the owner's `redirect-uris`.
    pub redirect_uri: String,
}

/// A log-in in a browser that has begun.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PageLoginInfo {
    /// Where the browser goes.
    pub url: String,
    /// What the browser must come back with.
    pub state: String,
}

/// What a browser came back with.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeLoginRequest {
    /// The state that the log-in began with.
    pub state: String,
    /// The code of the provider.
    pub code: String,
}
