//! A change that a plug-in makes and undoes. The ledger keeps what it needs for that, and which copy of it is to be run.

use super::{Observed, ReversibleChange};
use crate::boot::boot_id;
use crate::host::{Host, HostError};
use crate::plugin_call::{
    Confinement, EffectLook, PinnedPlugin, PluginCall, PluginFailure, PluginTexts,
};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{ChangeView, Effect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// How long `observe` may take.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A change by a plug-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginChange {
    /// The name of what is made for it, from the injection's id.
    pub mark: String,
    /// The copy of the plug-in that makes it and undoes it.
    pub program: PinnedPlugin,
    /// The capabilities that the plug-in keeps, a bit for each.
    pub capabilities: u64,
    /// How long `apply` and `undo` may take each.
    pub timeout: HumanDuration,
    /// Whether the change is still there after a reboot.
    pub survives_reboot: bool,
    /// The boot in which it was planned.
    pub boot: String,
    /// What the plug-in needs to make, observe and undo it.
    pub data: Value,
    /// What it holds alone.
    pub holds: Vec<String>,
    /// How the agent itself sees whether it acts.
    pub effect: EffectLook,
    /// The change in words for people.
    pub texts: PluginTexts,
}

/// The answer to `apply` and `undo`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum WorkAnswer {
    Done(String),
    Failed(String),
}

/// The answer to `observe`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ObserveAnswer {
    Absent(String),
    Present(String),
    Contested(String),
}

impl PluginChange {
    fn is_same_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// The call of a verb.
    pub(crate) fn call(&self, verb: &str, timeout: Duration) -> PluginCall<'_> {
        PluginCall {
            program: &self.program,
            request: json!({
                "verb": verb,
                "data": self.data,
                "mark": self.mark,
                "same-boot": self.is_same_boot(),
            }),
            timeout,
            confinement: Confinement {
                capabilities: self.capabilities,
                ..Confinement::default()
            },
        }
    }

    fn run<Answer: DeserializeOwned>(
        &self,
        verb: &str,
        timeout: Duration,
    ) -> Result<Answer, PluginFailure> {
        self.call(verb, timeout).run()
    }

    fn work(&self, host: &Host, verb: &str) -> Result<(), HostError> {
        let what = format!(
            "have plug-in `{}` {verb} `{}`",
            self.program.name, self.mark
        );
        host.effect(&what, || match self.run(verb, self.timeout.0) {
            Ok(WorkAnswer::Done(said)) => {
                tracing::debug!(
                    plugin = self.program.name,
                    verb,
                    said,
                    "the plug-in is done"
                );
                Ok(())
            }
            Ok(WorkAnswer::Failed(why)) => Err(io::Error::other(why)),
            Err(failure) => Err(io::Error::other(failure)),
        })
    }
}

impl ReversibleChange for PluginChange {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "plug-in".into(),
            apply: self.texts.apply.clone(),
            undo: self.texts.undo.clone(),
            if_agent_dies: self.texts.if_agent_dies.clone(),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.holds.clone()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        self.work(host, "apply")
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        let by_hand = |what: String| {
            io::Error::other(format!("{what}; to revert it by hand: {}", self.texts.undo))
        };
        let answer = self
            .run("observe", OBSERVE_TIMEOUT)
            .map_err(|failure| by_hand(failure.to_string()))?;
        let said = match answer {
            ObserveAnswer::Present(seen) => return Ok(Observed::Present(seen)),
            ObserveAnswer::Contested(seen) => return Ok(Observed::Contested(seen)),
            ObserveAnswer::Absent(said) => said,
        };
        // The plug-in's word is not enough.
        let (acts, seen) = (self.effect.take()).map_err(|error| by_hand(error.to_string()))?;
        Ok(match acts {
            true => Observed::Present(format!(
                "plug-in `{}` says `{said}`, but {seen}",
                self.program.name
            )),
            false => Observed::Absent,
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        match self.survives_reboot || self.is_same_boot() {
            true => self.work(host, "undo"),
            // The reboot has undone it; whether that is so, `observe` says.
            false => Ok(()),
        }
    }

    fn effect(&self, _: &Host) -> Effect {
        let (acts, seen) = self
            .effect
            .take()
            .unwrap_or_else(|error| (false, format!("it cannot be seen: {error}")));
        Effect {
            acts,
            seen,
            ..Effect::default()
        }
    }

    fn is_done(&self, _: &Host) -> bool {
        // What others have changed does not do what was asked for any more.
        matches!(self.effect.take(), Ok((false, _)))
    }
}
