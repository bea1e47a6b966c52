//! Verifying an ID token: a JSON Web Signature (RFC 7515) by a key of the provider (RFC 7517), and claims for this controller, now
//! (OpenID Connect Core 1.0, section 3.1.3.7). RS256 and ES256 are accepted, and nothing else whatever the token says of itself.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// How far the provider's clock may differ from this one, in seconds.
const CLOCK_SKEW_SECONDS: i64 = 60;
/// How long ago a token may have been issued, in seconds: it is asked for and verified at once.
const MAX_AGE_SECONDS: i64 = 600;
/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// The most keys of a provider that are considered.
const MAX_KEYS: usize = 64;

/// What a verified token says of a person.
#[derive(Debug, Clone)]
pub struct Claims(Value);

/// Why a token is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdToken {
    /// No key of the provider has the id that the token names. It may be a new one.
    #[error("the token is signed by a key that the provider does not publish")]
    UnknownKey,
    /// Something else.
    #[error("{0}")]
    Invalid(String),
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedClaims<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The client that it must be for.
    pub client_id: &'a str,
    /// The nonce of the request, if it had one.
    pub nonce: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

/// The keys that a provider publishes.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct KeySet {
    keys: Vec<SigningKey>,
}

#[derive(Debug, Clone, Deserialize)]
struct SigningKey {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

fn invalid(what: impl Into<String>) -> InvalidIdToken {
    InvalidIdToken::Invalid(what.into())
}

impl Claims {
    /// Claims that were verified elsewhere.
    pub fn new(claims: Value) -> Self {
        Claims(claims)
    }

    /// The text of a claim.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Whether a claim is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    /// The texts of a claim that is a list; none if it is anything else.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let list = self.0.get(name).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        value
            .as_i64()
            .or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }
}

impl SigningKey {
    /// Whether this key may have made a signature with this algorithm.
    fn is_for(&self, algorithm: &str) -> bool {
        let kind = match algorithm {
            "RS256" => self.kty == "RSA",
            "ES256" => self.kty == "EC" && self.crv.as_deref() == Some("P-256"),
            _ => false,
        };
        kind && self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.alg.as_deref().is_none_or(|own| own == algorithm)
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let part = |part: &Option<String>| part.as_deref().and_then(from_base64url);
        match self.kty.as_str() {
            "RSA" => {
                let (Some(n), Some(e)) = (part(&self.n), part(&self.e)) else {
                    return false;
                };
                let start = n.iter().take_while(|byte| **byte == 0).count();
                let key = RsaPublicKeyComponents {
                    n: &n[start..],
                    e: &e[..],
                };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                    .is_ok()
            }
            _ => {
                let (Some(x), Some(y)) = (part(&self.x), part(&self.y)) else {
                    return false;
                };
                if x.len() != 32 || y.len() != 32 {
                    return false;
                }
                let point: Vec<u8> = [&[4][..], &x, &y].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
        }
    }
}

impl KeySet {
    /// Verifies a token, and returns what it says.
    ///
    /// # Errors
    /// It was not signed by one of these keys, or is not for this controller, or not any more.
    pub fn verify(
        &self,
        token: &str,
        expected: ExpectedClaims<'_>,
    ) -> Result<Claims, InvalidIdToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("the token is too long"));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(invalid("the token does not have three parts"));
        };
        let decoded = |part: &str| {
            from_base64url(part).ok_or_else(|| invalid("the token is not written in base64url"))
        };
        let head: TokenHeader = serde_json::from_slice(&decoded(header)?)
            .map_err(|error| invalid(format!("the token's header cannot be read: {error}")))?;
        if !matches!(head.alg.as_str(), "RS256" | "ES256") {
            return Err(invalid(format!(
                "the token is signed with `{}`; RS256 and ES256 are accepted",
                head.alg.escape_debug()
            )));
        }
        if head.crit.is_some() {
            return Err(invalid(
                "the token has critical extensions, which are not known",
            ));
        }
        let signature = decoded(signature)?;
        let message = token.rsplit_once('.').map_or("", |(message, _)| message);
        let mut keys = (self.keys.iter().take(MAX_KEYS))
            .filter(|key| key.is_for(&head.alg) && (head.kid.is_none() || key.kid == head.kid))
            .peekable();
        if keys.peek().is_none() {
            return Err(InvalidIdToken::UnknownKey);
        }
        if !keys.any(|key| key.has_signed(message.as_bytes(), &signature)) {
            return Err(invalid("the token's signature is not the provider's"));
        }
        let claims = serde_json::from_slice(&decoded(payload)?)
            .map_err(|error| invalid(format!("the token's claims cannot be read: {error}")))?;
        let claims = Claims(claims);
        check(&claims, expected)?;
        Ok(claims)
    }
}

/// Checks that a token with these claims is for this controller, and now.
fn check(claims: &Claims, expected: ExpectedClaims<'_>) -> Result<(), InvalidIdToken> {
    if claims.text("iss") != Some(expected.issuer) {
        return Err(invalid("the token is of another issuer"));
    }
    let audience = match claims.0.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        _ => claims.texts("aud"),
    };
    if !audience.iter().any(|client| client == expected.client_id) {
        return Err(invalid("the token is for another client"));
    }
    let party = claims.0.get("azp");
    if party.is_some_and(|party| party.as_str() != Some(expected.client_id))
        || (audience.len() > 1 && party.is_none())
    {
        return Err(invalid("the token was issued to another client"));
    }
    let now = expected.now.as_second();
    let Some(expires) = claims.seconds("exp") else {
        return Err(invalid("the token does not say when it expires"));
    };
    if expires + CLOCK_SKEW_SECONDS <= now {
        return Err(invalid("the token has expired"));
    }
    let is_early = claims
        .seconds("nbf")
        .is_some_and(|from| from - CLOCK_SKEW_SECONDS > now);
    let Some(issued) = claims.seconds("iat") else {
        return Err(invalid("the token does not say when it was issued"));
    };
    if is_early || issued - CLOCK_SKEW_SECONDS > now {
        return Err(invalid(
            "the token is not valid yet: compare the clocks of this host and of the provider",
        ));
    }
    if issued + MAX_AGE_SECONDS + CLOCK_SKEW_SECONDS < now {
        return Err(invalid("the token was issued too long ago"));
    }
    if let Some(nonce) = expected.nonce
        && claims.text("nonce") != Some(nonce)
    {
        return Err(invalid("the token is the answer to another request"));
    }
    match claims.text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= 255 => Ok(()),
        _ => Err(invalid("the token does not say who it is about")),
    }
}

/// Decodes base64url without padding (RFC 4648, section 5). None if the text is anything else.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// Encodes bytes in base64url without padding.
pub fn to_base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_read_as_it_is_written() {
        // RFC 4648's examples, without padding, and the digits that differ from plain base64.
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xef, 0xff], "--__"),
        ] {
            assert_eq!(to_base64url(bytes), text);
            assert_eq!(from_base64url(text).as_deref(), Some(bytes), "{text}");
        }
        for wrong in ["Zg==", "Z", "Zh", "Zm9", "a+b/", "Zm 8"] {
            assert_eq!(from_base64url(wrong), None, "{wrong}");
        }
    }
}
