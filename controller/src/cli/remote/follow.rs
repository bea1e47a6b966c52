//! Follows a run: reads its journal as server-sent events, and continues where the connection was lost.

use super::super::CommandFailure;
use super::client::Client;
use backburn::api::types::RunInfo;
use backburn_experiments::journal::JournalEntry;
use http_body_util::BodyExt;
use std::time::Duration;

/// How long to wait before a lost stream is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// How often that is tried without receiving an event.
const MAX_RECONNECTS: u32 = 60;

/// Passes each event of a run to `take`, in order and once, until the run is over. Returns the run.
pub(super) async fn follow(
    client: &Client,
    run: &str,
    mut take: impl FnMut(JournalEntry),
) -> Result<RunInfo, CommandFailure> {
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
) -> Result<Option<RunInfo>, CommandFailure> {
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
            // An empty line ends an event; a line that begins with a colon is a comment that keeps the connection alive (WHATWG HTML, 9.2).
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
                            let entry = serde_json::from_str(&data).map_err(not_understood)?;
                            *after = number;
                            take(entry);
                        }
                        "closed" => {
                            return serde_json::from_str(&data)
                                .map(Some)
                                .map_err(not_understood);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

fn not_understood(error: serde_json::Error) -> CommandFailure {
    CommandFailure::invalid(format!(
        "an event of the controller could not be read: {error}\nhint: is it the same version as this program?"
    ))
}
