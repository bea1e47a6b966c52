//! Reads server-sent events (WHATWG HTML, 9.2).

use super::super::CommandFailure;
use super::client::Client;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

/// An event that was received.
#[derive(Debug, Default)]
pub(super) struct ReceivedEvent {
    /// The type of the event.
    pub(super) kind: String,
    /// Its data, on one line.
    data: String,
    /// Its number; 0 if it has none.
    pub(super) number: u64,
}

impl ReceivedEvent {
    /// Reads the data of the event.
    ///
    /// # Errors
    /// It is not what was expected.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CommandFailure> {
        serde_json::from_str(&self.data).map_err(|error| {
            CommandFailure::invalid(format!(
                "an event of the controller could not be read: {error}\nhint: is it the same version as this program?"
            ))
        })
    }
}

/// Passes the events after this number to `take`, until that answers true or the stream ends. Returns whether `take` did.
pub(super) async fn receive(
    client: &Client,
    path: &str,
    after: u64,
    mut take: impl FnMut(ReceivedEvent) -> Result<bool, CommandFailure>,
) -> Result<bool, CommandFailure> {
    let headers = [("last-event-id", after.to_string())];
    let response = client.open("GET", path, None, &headers).await?;
    let mut body = response.into_body();
    let mut unread: Vec<u8> = Vec::new();
    let mut event = ReceivedEvent::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        unread.extend_from_slice(&data);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            // An empty line ends an event; a line that begins with a colon is a comment that keeps the connection alive.
            match line
                .split_once(':')
                .map(|(key, value)| (key, value.trim_start()))
            {
                Some(("event", value)) => event.kind = value.to_owned(),
                Some(("data", value)) => event.data.push_str(value),
                Some(("id", value)) => event.number = value.parse().unwrap_or(0),
                None if line.is_empty() => {
                    let is_last = take(std::mem::take(&mut event))?;
                    if is_last {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(false)
}
