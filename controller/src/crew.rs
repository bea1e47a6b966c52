//! Who takes part in a run: the local agent, which is started for it, or agents of a fleet, which are held for it.

use crate::fleet::{Held, Lever};
use crate::link::{Caller, Ear, Link, Start};
use backburn_experiments::wire::{Hello, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Names and labels of everybody who could take part, in the order of the names.
pub type Roll = Vec<(String, BTreeMap<String, String>)>;

/// Who takes part in a run.
pub enum Crew {
    /// This host's agent, started when it is needed.
    Local(Local),
    /// Agents of a fleet.
    Fleet(Held),
}

/// A local agent.
pub struct Local {
    start: Start,
    started: Option<(Hello, Link)>,
    /// How many of them have taken part.
    count: u64,
}

/// An agent that takes part. Its words go to whoever held it.
pub struct Joined {
    /// Who it is.
    pub hello: Hello,
    /// How to speak to it.
    pub caller: Caller,
    /// Over which of its connections its words come.
    pub connection: u64,
    /// Whether it is a process of ours, whose end is told too.
    pub has_process: bool,
}

impl From<Start> for Crew {
    fn from(start: Start) -> Self {
        Crew::Local(Local {
            start,
            started: None,
            count: 0,
        })
    }
}

impl Crew {
    /// Whether these are agents of a fleet, which have to be chosen by name.
    pub fn is_fleet(&self) -> bool {
        matches!(self, Crew::Fleet(_))
    }

    /// Who is there. Starts a local agent.
    ///
    /// # Errors
    /// Nobody is, and what would do.
    pub async fn muster(&mut self) -> Result<Roll, Refusal> {
        match self {
            Crew::Local(local) => {
                let (hello, link) = local.begin().await.map_err(|why| {
                    Refusal::new("agent", format!("the local agent {why}"))
                        .hint("`backburn agent doctor` says what this host can do")
                })?;
                let roll = vec![(hello.agent.clone(), hello.labels.clone())];
                local.started = Some((hello, link));
                Ok(roll)
            }
            Crew::Fleet(held) => held.roll(),
        }
    }

    /// Holds these, so that nobody else uses them, and has what is heard of them told to `ear`. The local agent takes part
    /// whatever is named.
    ///
    /// # Errors
    /// Somebody else holds one, or it has gone.
    pub fn hold(&mut self, names: &BTreeSet<String>, ear: &Ear) -> Result<Vec<Joined>, Refusal> {
        match self {
            Crew::Local(local) => {
                let started = local.started.take();
                let joined = started.map(|(hello, link)| local.join(hello, link, ear));
                Ok(joined.into_iter().collect())
            }
            Crew::Fleet(held) => held.hold(names, ear),
        }
    }

    /// Whether these may be hit, as far as whoever gave us the crew says.
    pub(crate) fn permits(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        match self {
            Crew::Local(_) => Ok(()),
            Crew::Fleet(held) => held.permits(names),
        }
    }

    /// Whether somebody else has told everybody to put everything back.
    pub(crate) fn is_halted(&self) -> bool {
        match self {
            Crew::Local(_) => false,
            Crew::Fleet(held) => held.is_halted(),
        }
    }

    /// Who may be asked for plans, without being held.
    pub(crate) fn callers(&self, names: &BTreeSet<String>) -> BTreeMap<String, Caller> {
        match self {
            Crew::Local(local) => local
                .started
                .iter()
                .map(|(hello, link)| (hello.agent.clone(), link.caller()))
                .collect(),
            Crew::Fleet(held) => held.callers(names),
        }
    }

    /// The agent that comes after one that was lost, then. One of a fleet that hung may take this long.
    ///
    /// # Errors
    /// In words for people: none came.
    pub(crate) async fn again(
        &mut self,
        name: &str,
        lost: Instant,
        hung: Option<Duration>,
        ear: &Ear,
    ) -> Result<Joined, String> {
        match self {
            Crew::Local(local) => {
                let begun = local.begin().await;
                let (hello, link) = begun.map_err(|why| format!("the next agent {why}"))?;
                Ok(local.join(hello, link, ear))
            }
            Crew::Fleet(held) => held.again(name, lost, hung, ear).await,
        }
    }

    /// Where the lever is that ends everybody's faults, if there is one.
    pub(crate) fn lever(&self) -> Option<watch::Receiver<Lever>> {
        match self {
            Crew::Local(_) => None,
            Crew::Fleet(held) => Some(held.lever()),
        }
    }

    /// Ends a local agent that was only asked.
    pub(crate) async fn dismiss(self) {
        if let Crew::Local(Local {
            started: Some((_, link)),
            ..
        }) = self
        {
            link.goodbye(std::time::Duration::from_secs(10)).await;
        }
    }
}

impl Local {
    async fn begin(&mut self) -> Result<(Hello, Link), String> {
        let mut link = (self.start)().map_err(|error| format!("could not be started: {error}"))?;
        let hello = link
            .hello()
            .await
            .map_err(|why| format!("did not come up: {why}"))?;
        Ok((hello, link))
    }

    fn join(&mut self, hello: Hello, link: Link, ear: &Ear) -> Joined {
        self.count += 1;
        let joined = Joined {
            caller: link.caller(),
            connection: self.count,
            has_process: link.has_process(),
            hello,
        };
        link.tell(joined.hello.agent.as_str().into(), self.count, ear.clone());
        joined
    }
}
