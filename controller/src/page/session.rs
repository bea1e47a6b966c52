//! The session cookie of a browser. It names a token and is signed with a key of the controller's authority, so that nothing has to be
//! remembered: a session ends with its token, with the authority, or after [`SESSION_LIFETIME`]. The token itself is not in it.

use crate::oidc::base64url;
use crate::pki::ca::CertificateAuthority;
use crate::store::ApiTokenRecord;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use jiff::{SignedDuration, Timestamp};
use ring::hmac;

/// How long a browser stays signed in: a long game day and what comes before and after it.
pub const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(12);
/// The name of the cookie. Browsers accept this prefix only with `Secure`, for `/`, and from the host itself.
const COOKIE: &str = "__Host-backburn";
/// What the key is derived for.
const PURPOSE: &str = "backburn page session";
/// The header that the page sends with each request, and that no other site's page can send without being asked for permission.
const PAGE_HEADER: &str = "x-backburn-page";

/// The sessions of the browsers that are signed in.
pub struct PageSessions(hmac::Key);

/// What a browser shows in place of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownSession {
    /// The id of the token.
    pub token: String,
    expires: i64,
    signature: String,
}

impl PageSessions {
    /// Sessions that are signed by this authority.
    pub fn of(authority: &CertificateAuthority) -> Self {
        PageSessions(authority.derived_key(PURPOSE))
    }

    /// The value of a `Set-Cookie` header that signs a browser in with this token, and until when it is.
    pub fn cookie(&self, token: &ApiTokenRecord, now: Timestamp) -> (String, Timestamp) {
        let latest = now.checked_add(SESSION_LIFETIME).unwrap_or(now);
        let until = token.expires.map_or(latest, |expires| expires.min(latest));
        let tag = hmac::sign(&self.0, message(token, until.as_second()).as_bytes());
        let value = format!(
            "{}.{}.{}",
            token.id,
            until.as_second(),
            base64url(tag.as_ref())
        );
        let lasts = until.duration_since(now).as_secs().max(0);
        (set_cookie(&value, lasts), until)
    }

    /// Whether this is a session that was begun with this token, and is not over.
    pub fn is_valid(&self, shown: &ShownSession, token: &ApiTokenRecord, now: Timestamp) -> bool {
        let tag = hmac::sign(&self.0, message(token, shown.expires).as_bytes());
        let is_signed = subtle::ConstantTimeEq::ct_eq(
            base64url(tag.as_ref()).as_bytes(),
            shown.signature.as_bytes(),
        );
        bool::from(is_signed) && now.as_second() < shown.expires
    }
}

/// The value of a `Set-Cookie` header that signs a browser out.
pub fn no_cookie() -> String {
    set_cookie("", 0)
}

fn set_cookie(value: &str, lasts: i64) -> String {
    format!("{COOKIE}={value}; Path=/; Max-Age={lasts}; Secure; HttpOnly; SameSite=Strict")
}

/// What is signed. The hash of the token's secret is in it, so that a token that is made anew under an old id has no old sessions.
fn message(token: &ApiTokenRecord, expires: i64) -> String {
    format!("{}\n{expires}\n{}", token.id, token.hash)
}

/// The session that a request shows, if any.
pub fn shown(headers: &HeaderMap) -> Option<ShownSession> {
    let value = cookie_value(headers, COOKIE)?;
    let mut parts = value.splitn(3, '.');
    Some(ShownSession {
        token: parts.next()?.to_owned(),
        expires: parts.next()?.parse().ok()?,
        signature: parts.next()?.to_owned(),
    })
}

/// The value of the cookie with this name.
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    (headers.get_all(header::COOKIE).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Why a request with a cookie is not one of the page; none if it is. A browser sends cookies along with requests that other sites' pages
/// make: the cookie alone proves nothing.
pub fn foreign_request(parts: &Parts) -> Option<&'static str> {
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let is_reading = matches!(parts.method, Method::GET | Method::HEAD);
    if !is_reading && text(PAGE_HEADER) != Some("1") {
        return Some("a request with the page's cookie has no header `X-Backburn-Page: 1`");
    }
    match text("sec-fetch-site") {
        Some("same-origin") => return None,
        Some("none") if is_reading => return None,
        Some(_) => return Some("a request with the page's cookie comes from another site's page"),
        None => {}
    }
    // Browsers that do not say where a request comes from name its origin, at least when it changes something.
    let host = text("host").or_else(|| parts.uri.authority().map(|host| host.as_str()));
    match (text("origin"), host) {
        (None, _) => None,
        (Some(origin), Some(host))
            if origin.split_once("://").is_some_and(|(_, of)| of == host) =>
        {
            None
        }
        (Some(_), _) => Some("a request with the page's cookie comes from another origin"),
    }
}
