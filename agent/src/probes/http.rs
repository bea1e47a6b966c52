//! An HTTP request over HTTP/1.1, a connection of its own each time. What is asked and what an
//! answer comes to is in `backburn_experiments::probes`, since the controller measures the same.

use super::tls;
use crate::children::MAX_ANSWER_BYTES;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::HttpProvider;
use backburn_experiments::probes::http::{
    Asked, MOST_REDIRECTS, limits, too_long, too_many_redirects, value,
};
use backburn_experiments::probes::{NoValue, late, plain};
use serde_json::Value;
use std::io;
use std::sync::Arc;
use ureq::http::{Method, Request, Response};
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};
use ureq::{Agent, Body};

/// `{status, headers, body}`; the body parsed where its type says JSON. How long all of it takes is the caller's to bound.
pub(super) fn measure(provider: &HttpProvider, longest: Option<HumanDuration>) -> Result<Value, NoValue> {
    let mut asked = Asked::from(provider).map_err(NoValue::Broken)?;
    let (connect, _) = limits(provider, longest);
    let verify = provider.verify_tls.unwrap_or(true);
    for _ in 0..=MOST_REDIRECTS {
        let mut tries = provider.max_retries.unwrap_or(0);
        let mut response = loop {
            match ask(&asked, verify, connect) {
                Err(Failed::ToConnect(_)) if tries > 0 => tries -= 1,
                Err(Failed::ToConnect(why) | Failed::Later(why)) => return Err(why),
                Ok(response) => break response,
            }
        };
        match asked.redirected(response.status(), response.headers())? {
            Some(next) => asked = next,
            None => {
                let body = response
                    .body_mut()
                    .with_config()
                    .limit(MAX_ANSWER_BYTES as u64)
                    .read_to_vec()
                    .map_err(|error| match no_value(error, &asked, connect) {
                        Failed::ToConnect(why) | Failed::Later(why) => why,
                    })?;
                return Ok(value(response.status(), response.headers(), &body));
            }
        }
    }
    Err(too_many_redirects())
}

/// Whether it failed before anything could have been sent.
enum Failed {
    ToConnect(NoValue),
    Later(NoValue),
}

fn ask(asked: &Asked, verify: bool, connect: HumanDuration) -> Result<Response<Body>, Failed> {
    let broken = |why: String| Failed::Later(NoValue::Broken(why));
    let config = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .timeout_connect(Some(connect.0))
        .max_idle_connections(0);
    let agent = match asked.uri.scheme_str() == Some("https") {
        true if verify => {
            let connector = ().chain(TcpConnector::default());
            let config_of_tls = tls::checked().map_err(broken)?;
            let connector = connector.chain(tls::TlsConnector(config_of_tls));
            Agent::with_parts(config.build(), connector, DefaultResolver::default())
        }
        true => {
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(ring)
                .disable_verification(true);
            Agent::new_with_config(config.tls_config(tls.build()).build())
        }
        false => Agent::new_with_config(config.build()),
    };
    let mut request = Request::builder()
        .method(&asked.method)
        .uri(&asked.uri)
        .body(asked.body.as_slice())
        .map_err(|error| broken(error.to_string()))?;
    request.headers_mut().clone_from(&asked.headers);
    let bare = matches!(asked.method, Method::GET | Method::HEAD) && asked.body.is_empty();
    let answer = match bare {
        true => agent.run(request.map(|_| ())),
        false => agent.run(request),
    };
    answer.map_err(|error| no_value(error, asked, connect))
}

fn no_value(error: ureq::Error, asked: &Asked, connect: HumanDuration) -> Failed {
    use io::ErrorKind as Kind;
    use ureq::{Error, Timeout};
    let host = asked.uri.host().unwrap_or_default();
    match error {
        // What TLS itself finds fault with arrives so.
        Error::Io(error) if error.kind() == Kind::InvalidData => {
            Failed::ToConnect(tls::no_value(&error, &format!("TLS with `{host}`")))
        }
        // The standard library has no kind for it; its words are held by a test.
        Error::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            Failed::ToConnect(NoValue::NoAnswer(format!(
                "`{host}` could not be resolved: {}",
                plain(&error)
            )))
        }
        Error::Io(error) => {
            let connecting = matches!(
                error.kind(),
                Kind::ConnectionRefused
                    | Kind::HostUnreachable
                    | Kind::NetworkUnreachable
                    | Kind::NetworkDown
                    | Kind::AddrNotAvailable
                    | Kind::PermissionDenied
            );
            match connecting {
                true => Failed::ToConnect(NoValue::from_network(
                    &error,
                    &format!("connecting to `{host}`"),
                )),
                false => Failed::Later(NoValue::from_network(&error, "waiting for the answer")),
            }
        }
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => Failed::ToConnect(late(connect)),
        Error::HostNotFound => {
            Failed::ToConnect(NoValue::NoAnswer(format!("`{host}` could not be resolved")))
        }
        Error::ConnectionFailed => Failed::ToConnect(NoValue::NoAnswer(format!(
            "`{host}` could not be connected to"
        ))),
        Error::Rustls(error) => {
            let error = io::Error::new(Kind::InvalidData, error);
            Failed::ToConnect(tls::no_value(&error, &format!("TLS with `{host}`")))
        }
        Error::BodyExceedsLimit(_) => Failed::Later(too_long(MAX_ANSWER_BYTES)),
        Error::Timeout(_) | Error::Protocol(_) | Error::LargeResponseHeader(..) => {
            Failed::Later(NoValue::NoAnswer(format!("no answer in HTTP: {error}")))
        }
        error => Failed::Later(NoValue::Broken(error.to_string())),
    }
}
