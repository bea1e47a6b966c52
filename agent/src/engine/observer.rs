//! The thread that observes the effects of active injections. An observation that hangs delays evidence, and nothing else.

use super::completions::{Completion, CompletionSender};
use crate::changes::ReversibleChange as _;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use backburn_experiments::wire::Effect;
use std::io;
use std::sync::mpsc::{Sender, channel};

/// Starts the thread. It observes the entries that are sent to it in turn, and ends when every sender is dropped.
///
/// # Errors
/// No thread is left.
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

/// The observed effect of all changes of an entry together.
pub(super) fn effect_of(host: &Host, entry: &LedgerEntry) -> Effect {
    let mut effect = Effect::default();
    for change in &entry.changes {
        super::effect_sum::add(&mut effect, change.effect(host));
    }
    effect
}
