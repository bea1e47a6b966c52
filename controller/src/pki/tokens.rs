//! Creating tokens, and what the store keeps of them.

use super::ca::{CaError, CertificateAuthority, hexadecimal, random};
use crate::store::{ApiTokenRecord, Hash, Role, Store, StoreError};
use backburn_experiments::token::{ApiToken, Token, TokenKind};
use jiff::Timestamp;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The name of the first token's file in the data folder.
pub const FIRST_TOKEN_FILE: &str = "admin-token";

/// Creates a token with a random id and secret.
///
/// # Errors
/// The system has no random numbers.
pub fn create_token<K: TokenKind>(authority: &CertificateAuthority) -> Result<Token<K>, CaError> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    random(&mut id)?;
    random(&mut secret)?;
    let (id, secret) = (hexadecimal(&id), hexadecimal(&secret));
    Ok(Token::new(id, secret, authority.fingerprint()))
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
    // A file that a crash left may be readable by others.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    // The file comes first: a stored token that nobody has would keep this from being repeated.
    store.put_api_token(&ApiTokenRecord {
        id: token.id.clone(),
        hash: secret_hash(&token.secret),
        name: "admin".into(),
        role: Role::Admin,
        created: Timestamp::now(),
        expires: None,
        revoked: None,
    })?;
    Ok(true)
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
