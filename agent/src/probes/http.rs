//! The transport of HTTP: HTTP/1.1, over a new connection each time. What is sent and what an answer is worth stands in
//! `backburn_experiments::probes`, since the controller measures the same.

use super::tls;
use crate::children::MAX_ANSWER_BYTES;
use crate::client_tls::client_config;
use backburn_experiments::HumanDuration;
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::tls::connection_error;
use backburn_experiments::probes::{
    HttpError, HttpExchange, HttpProvider, HttpRequest, NextStep, ProbeError, ProbeResult,
    not_resolved,
};
use std::io;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::{Method, Request, Response};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout, TcpConnector};
use ureq::{Agent, Body};

/// Measures the provider. The caller bounds how long all of it may take.
pub(super) fn measure(
    provider: &HttpProvider,
    timeout: Option<HumanDuration>,
    destinations: &DestinationRules,
) -> ProbeResult {
    let mut exchange = HttpExchange::new(provider)?;
    let connect = provider.connect_limit(timeout);
    let verify = provider.verify_tls.unwrap_or(true);
    loop {
        let mut response = match send(exchange.request(), verify, connect, destinations) {
            Ok(response) => response,
            Err(error) => {
                exchange.next(Err(error))?;
                continue;
            }
        };
        let answer = Ok((response.status(), response.headers()));
        if exchange.next(answer)? == NextStep::Send {
            continue;
        }
        let reading = response.body_mut().with_config();
        let body = match reading.limit(MAX_ANSWER_BYTES as u64).read_to_vec() {
            Ok(body) => Some(body),
            Err(ureq::Error::BodyExceedsLimit(_)) => None,
            Err(error) => return Err(http_error(error, exchange.request(), connect).into()),
        };
        return Ok(HttpExchange::value(
            response.status(),
            response.headers(),
            body.as_deref(),
            MAX_ANSWER_BYTES,
        ));
    }
}

fn send(
    request: &HttpRequest,
    verify: bool,
    connect: HumanDuration,
    destinations: &DestinationRules,
) -> Result<Response<Body>, HttpError> {
    let broken = |why: String| HttpError::Exchange(ProbeError::Broken(why));
    let config = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .timeout_connect(Some(connect.0))
        .max_idle_connections(0)
        .build();
    let resolver = CheckedResolver {
        destinations: destinations.clone(),
        system: DefaultResolver::default(),
    };
    let agent = match request.uri.scheme_str() == Some("https") {
        true => {
            let tls = tls::TlsConnector(client_config(verify).map_err(broken)?);
            let connector = ().chain(TcpConnector::default()).chain(tls);
            Agent::with_parts(config, connector, resolver)
        }
        false => Agent::with_parts(config, ().chain(TcpConnector::default()), resolver),
    };
    let mut sent = Request::builder()
        .method(&request.method)
        .uri(&request.uri)
        .body(request.body.as_slice())
        .map_err(|error| broken(error.to_string()))?;
    sent.headers_mut().clone_from(&request.headers);
    let is_bare = matches!(request.method, Method::GET | Method::HEAD) && request.body.is_empty();
    let answer = match is_bare {
        true => agent.run(sent.map(|_| ())),
        false => agent.run(sent),
    };
    answer.map_err(|error| http_error(error, request, connect))
}

/// Finds the addresses of a host and leaves out those that a probe may not connect to. The others are connected to as they are: a name
/// that stands for another address a moment later does not matter.
#[derive(Debug)]
struct CheckedResolver {
    destinations: DestinationRules,
    system: DefaultResolver,
}

impl Resolver for CheckedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        let mut permitted = self.empty();
        let mut refused = None;
        for address in found.iter() {
            match self
                .destinations
                .check(uri.host().unwrap_or_default(), *address)
            {
                Ok(()) => permitted.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if permitted.is_empty() => Err(ureq::Error::Other(why.into())),
            _ => Ok(permitted),
        }
    }
}

fn http_error(error: ureq::Error, request: &HttpRequest, connect: HumanDuration) -> HttpError {
    use io::ErrorKind;
    use ureq::{Error, Timeout};
    let host = request.uri.host().unwrap_or_default();
    let no_answer = |why: String| ProbeError::NoAnswer(why);
    match error {
        // An error that TLS itself found arrives so.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            HttpError::Connect(connection_error(&error, &format!("TLS with `{host}`")))
        }
        // The standard library has no kind for it; a test holds its words.
        Error::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            HttpError::Connect(not_resolved(host, &error))
        }
        Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied => HttpError::Connect(ProbeError::from_network(
                &error,
                &format!("connecting to `{host}`"),
            )),
            _ => HttpError::Exchange(ProbeError::from_network(&error, "waiting for the answer")),
        },
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            HttpError::Connect(ProbeError::timed_out(connect))
        }
        // The resolver of this module says so of what the policy does not allow.
        Error::Other(why) => HttpError::Exchange(ProbeError::Broken(why.to_string())),
        Error::HostNotFound => {
            HttpError::Connect(no_answer(format!("`{host}` could not be resolved")))
        }
        Error::ConnectionFailed => {
            HttpError::Connect(no_answer(format!("connecting to `{host}` failed")))
        }
        Error::Rustls(error) => {
            let error = io::Error::new(ErrorKind::InvalidData, error);
            HttpError::Connect(connection_error(&error, &format!("TLS with `{host}`")))
        }
        Error::Timeout(_) | Error::Protocol(_) | Error::LargeResponseHeader(..) => {
            HttpError::Exchange(no_answer(format!("no answer in HTTP: {error}")))
        }
        error => HttpError::Exchange(ProbeError::Broken(error.to_string())),
    }
}
