//! Tokens: what a person carries from the controller to a host or a program. A token has an id, a secret, and the fingerprint
//! of the certificate authority that proves the controller's identity.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// How many hexadecimal digits a SHA-256 hash or a secret of 256 bits has.
const DIGEST_DIGITS: usize = 64;

/// What a token is for.
pub trait TokenKind {
    /// The first part of a token of this kind.
    const PREFIX: &'static str;
    /// The name of its type.
    const NAME: &'static str;
}

/// Tokens with which one agent may join once.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinKind {}

/// Tokens with which a person or a program uses the controller's API.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiKind {}

impl TokenKind for JoinKind {
    const PREFIX: &'static str = "bbj1";
    const NAME: &'static str = "JoinToken";
}

impl TokenKind for ApiKind {
    const PREFIX: &'static str = "bbt1";
    const NAME: &'static str = "ApiToken";
}

/// A token, written `PREFIX.ID.SECRET.AUTHORITY` in lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<K> {
    /// The id of the token in the controller's store. It is not secret.
    pub id: String,
    /// The secret that proves possession of the token: 256 random bits.
    pub secret: String,
    /// The SHA-256 hash of the certificate authority's certificate in DER.
    pub authority: String,
    kind: PhantomData<K>,
}

/// A token with which one agent may join once.
pub type JoinToken = Token<JoinKind>;

/// A token with which a person or a program uses the controller's API.
pub type ApiToken = Token<ApiKind>;

/// A text that is not a token, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}\nhint: a token reads `{prefix}.ID.SECRET.AUTHORITY`; copy all of what the controller printed"
)]
pub struct InvalidToken {
    what: String,
    prefix: &'static str,
}

impl<K: TokenKind> Token<K> {
    /// A token of these parts.
    pub fn new(id: String, secret: String, authority: String) -> Self {
        Token {
            id,
            secret,
            authority,
            kind: PhantomData,
        }
    }
}

impl<K: TokenKind> fmt::Display for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token {
            id,
            secret,
            authority,
            ..
        } = self;
        write!(f, "{}.{id}.{secret}.{authority}", K::PREFIX)
    }
}

impl<K: TokenKind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(K::NAME)
            .field("id", &self.id)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl<K: TokenKind> FromStr for Token<K> {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let prefix = K::PREFIX;
        let invalid = |what: String| InvalidToken { what, prefix };
        let parts: Vec<&str> = text.trim().split('.').collect();
        let &[found, id, secret, authority] = parts.as_slice() else {
            let count = parts.len();
            return Err(invalid(format!(
                "expected a token of 4 parts with dots between, got {count} parts"
            )));
        };
        if found != prefix {
            return Err(invalid(format!("the token does not begin with `{prefix}`")));
        }
        // The message does not have the part itself, which may be the secret.
        let problem = |part: &str, lengths: std::ops::RangeInclusive<usize>, text: &str| {
            let digits = text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (!digits || !lengths.contains(&text.len())).then(|| {
                invalid(format!(
                    "the token's {part} has {} characters; expected {lengths:?} lower-case hexadecimal digits",
                    text.chars().count()
                ))
            })
        };
        let digest = DIGEST_DIGITS..=DIGEST_DIGITS;
        let problems = [
            problem("id", 1..=DIGEST_DIGITS, id),
            problem("secret", digest.clone(), secret),
            problem("authority", digest, authority),
        ];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(problem),
            None => Ok(Token::new(id.into(), secret.into(), authority.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token<K: TokenKind>() -> Token<K> {
        Token::new("0123abcd".into(), "5e".repeat(32), "ca".repeat(32))
    }

    #[test]
    fn token_parses_as_it_is_displayed() {
        let text = token::<JoinKind>().to_string();
        assert_eq!(text.parse(), Ok(token::<JoinKind>()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token::<JoinKind>()));
        let text = token::<ApiKind>().to_string();
        assert_eq!(text.parse(), Ok(token::<ApiKind>()));
    }

    #[test]
    fn token_secret_is_never_shown() {
        let secret = token::<JoinKind>().secret;
        assert!(!format!("{:?}", token::<JoinKind>()).contains(&secret));
        assert!(!format!("{:?}", token::<ApiKind>()).contains(&secret));
        let wrong = format!("bbj1.0123.{secret}zz.{}", "ca".repeat(32));
        let wrong = wrong.parse::<JoinToken>().unwrap_err().to_string();
        assert!(!wrong.contains(&secret), "{wrong}");
        assert!(wrong.contains("secret has 66 characters"), "{wrong}");
    }

    #[test]
    fn token_that_is_invalid_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "4 parts"),
            ("bbj1", "4 parts"),
            ("bbj1.a.b", "4 parts"),
            ("bbj1.a.b.c.d", "4 parts"),
            ("bbj2.a.b.c", "`bbj1`"),
            ("bbt1.a.b.c", "`bbj1`"),
            ("bbj1..b.c", "id"),
            ("bbj1...", "id"),
            ("bbj1.a.b.c", "secret"),
        ] {
            let said = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(
                said.contains(why) && said.contains("hint:"),
                "{text}: {said}"
            );
            let text = text.replacen("bbj1", "bbt1", 1);
            assert!(text.parse::<ApiToken>().is_err(), "{text}");
        }
    }
}
