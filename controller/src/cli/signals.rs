//! Signals to a command that drives or follows a run.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are received instead of ending the process at once.
pub(super) struct RunSignals {
    received: Vec<(Signal, RunSignal)>,
}

/// A signal, and what it means for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunSignal {
    /// It ends the run, or ends following it. The signal's name.
    End(&'static str),
    /// It means nothing: whoever sent it expects something else of the process, and no run may end by that.
    Ignored(&'static str),
}

impl RunSignals {
    /// Receives SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 from now on. SIGHUP stays ignored where it was ignored before.
    ///
    /// # Errors
    /// The signals cannot be received.
    pub(super) fn listen() -> std::io::Result<Self> {
        let mut kinds = vec![
            (SignalKind::interrupt(), RunSignal::End("SIGINT")),
            (SignalKind::terminate(), RunSignal::End("SIGTERM")),
            (SignalKind::user_defined1(), RunSignal::Ignored("SIGUSR1")),
            (SignalKind::user_defined2(), RunSignal::Ignored("SIGUSR2")),
        ];
        if !hangup_is_ignored() {
            kinds.push((SignalKind::hangup(), RunSignal::End("SIGHUP")));
        }
        let mut received = Vec::new();
        for (kind, meaning) in kinds {
            received.push((signal(kind)?, meaning));
        }
        Ok(RunSignals { received })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> RunSignal {
        std::future::poll_fn(|context| {
            for (signal, meaning) in &mut self.received {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*meaning);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// What people are told of a signal that is ignored.
pub(super) fn ignored(name: &str) -> String {
    format!("{name} is ignored: the run goes on; Ctrl-C or SIGTERM ends it")
}

/// Whether SIGHUP is ignored, so that the run goes on without its terminal, as after `nohup`. Source: proc(5), `SigIgn`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
