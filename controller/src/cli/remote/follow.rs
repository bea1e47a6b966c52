//! Follows a run: reads its journal as server-sent events, and continues where the connection was lost.

use super::super::CommandFailure;
use super::client::Client;
use super::event_stream::receive;
use backburn::api::types::RunInfo;
use backburn_experiments::journal::JournalEntry;
use std::time::Duration;

/// How long to wait before a lost stream is opened again.
pub(super) const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// How often that is tried without receiving an event.
pub(super) const MAX_RECONNECTS: u32 = 60;

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
    let mut closed = None;
    receive(client, &path, *after, |event| {
        match event.kind.as_str() {
            "entry" => {
                let entry = event.read()?;
                *after = event.number;
                take(entry);
            }
            "closed" => closed = Some(event.read()?),
            _ => {}
        }
        Ok(closed.is_some())
    })
    .await?;
    Ok(closed)
}
