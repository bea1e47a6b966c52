//! HTTP as strangers speak it to a probe: addresses in documents and in redirects, header fields, bodies.
#![no_main]

use backburn_experiments::probes::{HttpExchange, address};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first line is an address, the next ones are header fields, and what follows an empty line is the body.
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let first = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let rest = parts.next().unwrap_or_default();
    address::of_web(&first).ok();
    address::of_name_server(&first).ok();
    let end = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = rest.split_at(end.unwrap_or(rest.len()));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let status = StatusCode::from_u16(302).expect("it is a status");
    let provider = serde_json::from_value(serde_json::json!({"url": first}));
    let exchange = provider
        .ok()
        .and_then(|provider| HttpExchange::new(&provider).ok());
    if let Some(mut exchange) = exchange {
        for _ in 0..3 {
            exchange.next(Ok((status, &headers))).ok();
        }
    }
    let value = HttpExchange::value(status, &headers, Some(body.trim_ascii_start()), 1 << 20);
    assert_eq!(value["status"], 302);
});
