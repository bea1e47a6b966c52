//! A run as it goes on: its journal over server-sent events, taken up again where it broke off.

use super::super::CommandError;
use super::client::Client;
use backburn_experiments::journal::JournalEntry;
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::Duration;

/// How long until a stream that broke is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// How often that is tried in a row.
const MAX_RECONNECTS: u32 = 60;

/// Hands each event of a run to `take`, in order, once, until the run is closed; returns the run.
pub(super) async fn follow(
    client: &Client,
    run: &str,
    mut take: impl FnMut(JournalEntry),
) -> Result<Value, CommandError> {
    let (mut after, mut failures) = (0_u64, 0);
    loop {
        let before = after;
        match once(client, run, &mut after, &mut take).await {
            Ok(Some(closed)) => return Ok(closed),
            Ok(None) => {}
            Err(failure) if failures >= MAX_RECONNECTS => return Err(failure),
            Err(_) => {}
        }
        failures = if after > before { 0 } else { failures + 1 };
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

async fn once(
    client: &Client,
    run: &str,
    after: &mut u64,
    take: &mut impl FnMut(JournalEntry),
) -> Result<Option<Value>, CommandError> {
    let path = format!("/api/v1/runs/{run}/stream");
    let headers = [("last-event-id", after.to_string())];
    let response = client.open("GET", &path, None, &headers).await?;
    let mut body = response.into_body();
    let mut unread: Vec<u8> = Vec::new();
    let mut event = (String::new(), String::new(), 0_u64);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        unread.extend_from_slice(&data);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            // An empty line ends an event; a line that begins with a colon only says that they live (WHATWG HTML, 9.2).
            match line
                .split_once(':')
                .map(|(key, value)| (key, value.trim_start()))
            {
                Some(("event", value)) => event.0 = value.to_owned(),
                Some(("data", value)) => event.1.push_str(value),
                Some(("id", value)) => event.2 = value.parse().unwrap_or(0),
                None if line.is_empty() => {
                    let (kind, data, number) = std::mem::take(&mut event);
                    match kind.as_str() {
                        "entry" => {
                            let entry = serde_json::from_str(&data).map_err(|error| {
                                CommandError::invalid(format!("the controller says events that this program does not know: {error}"))
                            })?;
                            *after = number;
                            take(entry);
                        }
                        "closed" => return Ok(serde_json::from_str(&data).ok()),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
    Ok(None)
}
