//! Creating tokens, and what the store keeps of them.

use super::ca::{CaError, CertificateAuthority, random};
use crate::files::create_private;
use crate::store::{ApiTokenRecord, AuditRecord, Hash, Role, Store, StoreError, TokenOrigin};
use backburn_experiments::hexadecimal;
use backburn_experiments::token::{ApiToken, Token, TokenKind};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;

/// The name of the first token's file in the data folder.
pub const FIRST_TOKEN_FILE: &str = "admin-token";

/// The name of the first token, and of the person that it belongs to.
const FIRST_TOKEN: &str = "admin";

/// Creates a token with a random id and secret.
///
/// # Errors
/// The system has no random numbers.
pub fn create_token<K: TokenKind>(authority: &CertificateAuthority) -> Result<Token<K>, CaError> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    random(&mut id)?;
    random(&mut secret)?;
    let (id, secret) = (hexadecimal(id), hexadecimal(secret));
    Ok(Token::new(id, secret, authority.fingerprint()))
}

/// An id that nobody can guess: 128 random bits in hexadecimal digits.
///
/// # Errors
/// The system has no random numbers.
pub fn random_id() -> Result<String, CaError> {
    let mut id = [0; 16];
    random(&mut id)?;
    Ok(hexadecimal(id))
}

/// The hash of a token's secret, which the store keeps in its place.
pub fn secret_hash(secret: &str) -> Hash {
    Hash::of(secret.as_bytes())
}

/// Creates the first token, an admin's, if the store has none, and writes it to a file in the data folder: without a token
/// nobody could create one. Returns whether it was created.
///
/// # Errors
/// The store failed, or the file cannot be written.
pub fn create_first_token(
    store: &dyn Store,
    authority: &CertificateAuthority,
    data: &Path,
) -> Result<bool, FirstTokenError> {
    if !store.api_tokens()?.is_empty() {
        return Ok(false);
    }
    let token: ApiToken = create_token(authority).map_err(io::Error::other)?;
    let path = data.join(FIRST_TOKEN_FILE);
    let mut file = create_private(&path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    // The file comes first: a stored token that nobody has would keep this from being repeated.
    let created = Timestamp::now();
    store.audit(&AuditRecord {
        at: created,
        who: "controller".into(),
        role: None,
        what: "make token".into(),
        about: token.id.clone(),
        outcome: "asked".into(),
        detail: json!({"name": FIRST_TOKEN, "of": FIRST_TOKEN, "role": Role::Admin, "file": path}),
    })?;
    store.put_api_token(&ApiTokenRecord {
        id: token.id.clone(),
        hash: secret_hash(&token.secret),
        name: FIRST_TOKEN.into(),
        person: FIRST_TOKEN.into(),
        teams: BTreeSet::new(),
        origin: TokenOrigin::Made,
        role: Role::Admin,
        is_blind: false,
        created,
        expires: None,
        revoked: None,
    })?;
    Ok(true)
}

/// The name of tokens that are made on the controller's host, without another token.
const BREAK_GLASS: &str = "break-glass";

/// Creates an admin's token without asking for one: whoever may write the controller's data could do so anyway. The audit log
/// says so before the token exists.
///
/// # Errors
/// The store failed, or the system has no random numbers.
pub fn break_glass(
    store: &dyn Store,
    authority: &CertificateAuthority,
    expires: Timestamp,
) -> Result<ApiToken, FirstTokenError> {
    let token: ApiToken = create_token(authority).map_err(io::Error::other)?;
    let created = Timestamp::now();
    store.audit(&AuditRecord {
        at: created,
        who: BREAK_GLASS.into(),
        role: None,
        what: BREAK_GLASS.into(),
        about: token.id.clone(),
        outcome: "asked".into(),
        detail: json!({"role": Role::Admin, "expires": expires, "user": nix::unistd::getuid().as_raw()}),
    })?;
    store.put_api_token(&ApiTokenRecord {
        id: token.id.clone(),
        hash: secret_hash(&token.secret),
        name: BREAK_GLASS.into(),
        person: BREAK_GLASS.into(),
        teams: BTreeSet::new(),
        origin: TokenOrigin::BreakGlass,
        role: Role::Admin,
        is_blind: false,
        created,
        expires: Some(expires),
        revoked: None,
    })?;
    Ok(token)
}

/// Why the first token could not be created.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be written.
    #[error("could not write the file of the first token: {0}")]
    File(#[from] io::Error),
}
