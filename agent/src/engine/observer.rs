//! The thread that looks at what acting faults do. A look that hangs delays evidence, and nothing else.

use super::completions::{Completion, CompletionSender};
use crate::changes::ReversibleChange as _;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use backburn_experiments::wire::Effect;
use std::io;
use std::sync::mpsc::{Sender, channel};

/// Starts the thread. What is sent is looked at, in turn; the thread ends when nobody can send any more.
///
/// # Errors
/// There are no threads left.
pub(super) fn start(
    host: Host,
    ledger: Ledger,
    completion_sender: CompletionSender,
) -> io::Result<Sender<LedgerEntry>> {
    let (sender, entries) = channel::<LedgerEntry>();
    let looks = move || {
        for entry in entries {
            let effect = effect_of(&host, &entry);
            let is_done = entry.changes.iter().all(|change| change.is_done(&host));
            completion_sender.send(Completion::Looked {
                effect,
                is_done,
                is_owed: ledger.owes(&entry.injection),
                injection: entry.injection,
            });
        }
    };
    std::thread::Builder::new()
        .name("observer".into())
        .spawn(looks)?;
    Ok(sender)
}

/// What an entry's changes are seen to do, all together.
pub(super) fn effect_of(host: &Host, entry: &LedgerEntry) -> Effect {
    let mut effect = Effect::default();
    for change in &entry.changes {
        super::active_injection::add(&mut effect, change.effect(host));
    }
    effect
}
