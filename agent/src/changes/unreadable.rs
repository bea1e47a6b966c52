//! A change in the ledger that this program can't read in full: a newer program's, or one that an older program wrote and no newer one
//! would. It keeps what was written, as it was, and undoes what its readable parts are enough for; the rest stays owed.

use super::{Change, Observed, ProcessHelper, ReversibleChange, Stop};
use crate::helpers::{HelperSpec, field};
use crate::host::{Host, HostError};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;

/// The change as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnreadableChange(Value);

impl UnreadableChange {
    /// A change that undoes all that this one may have done; none where too much of it can't be read.
    fn substitute(&self) -> Option<Change> {
        match self.0.get("change")?.as_str()? {
            "stop" => Some(Change::Stop(Stop {
                victims: field(&self.0, "victims")?,
            })),
            "helper" => Some(Change::Helper(ProcessHelper {
                mark: self.mark()?.to_owned(),
                deadline: HumanDuration::MAX,
                spec: HelperSpec::substitute(self.0.get("role")?)?,
            })),
            _ => None,
        }
    }

    /// The helper's mark, if it is one that Backburn's programs make.
    fn mark(&self) -> Option<&str> {
        let mark = self.0.get("mark")?.as_str()?;
        let is_ours = mark
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (is_ours && !mark.is_empty()).then_some(mark)
    }

    fn kind(&self) -> &str {
        let kind = self.0.get("change").and_then(Value::as_str);
        kind.unwrap_or("nameless")
    }

    fn is_signal(&self) -> bool {
        self.kind() == "kill"
    }
}

impl ReversibleChange for UnreadableChange {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "unreadable".into(),
            apply: format!(
                "a change `{}` that this program can't read in full",
                self.kind()
            ),
            undo: "as far as it can be read".into(),
            if_agent_dies: "it stays owed".into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.substitute()
            .map(|change| change.holds())
            .unwrap_or_default()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        host.effect("apply a change that can't be read", || {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        })
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        match self.substitute() {
            Some(change) => change.observe(host),
            None if self.is_signal() => Ok(Observed::Absent),
            None => Ok(Observed::Present(format!(
                "a part of a change `{}` can't be read, so what it left is not known",
                self.kind()
            ))),
        }
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        if let Some(change) = self.substitute() {
            return change.undo(host);
        }
        // What it left may not be known; its helper is, by its mark, and takes most of it along.
        let Some(mark) = self.mark() else {
            return Ok(());
        };
        ProcessHelper {
            mark: mark.to_owned(),
            deadline: HumanDuration::MAX,
            spec: HelperSpec::leaves_nothing(),
        }
        .undo(host)
    }

    fn effect(&self, _: &Host) -> Effect {
        Effect::default()
    }

    fn is_done(&self, _: &Host) -> bool {
        true
    }
}
