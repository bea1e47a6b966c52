//! An agent that serves a controller which is a test, over a socket pair.

use crate::crash::Place;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::wire::{Command, Hello, ProbeOutcome, Report};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A controller, and its agent.
pub struct Served {
    /// The agent's guardian.
    pub agent: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
    request: u64,
}

impl Served {
    /// Starts an agent with this policy, and hears its first word.
    ///
    /// # Panics
    /// It does not start, or does not introduce itself.
    pub fn start(place: &Place, policy: &Value) -> (Self, Hello) {
        let file = place.state().with_extension("policy");
        std::fs::write(&file, policy.to_string()).expect("the policy can be written");
        let file = file.display().to_string();
        let (to, its) = UnixStream::pair().expect("a socket pair can be made");
        let agent = place
            .agent(&["serve", "--policy", &file], None)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .spawn()
            .expect("the agent starts");
        let from = to.try_clone().expect("a socket can be shared");
        from.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket waits so long");
        let mut served = Served {
            agent,
            to,
            from: BufReader::new(from),
            request: 0,
        };
        match served.hears() {
            Report::Hello(hello) => (served, hello),
            other => panic!("{other:?}"),
        }
    }

    /// Says something.
    ///
    /// # Panics
    /// The link is closed.
    pub fn says(&mut self, what: &Command) {
        let line = serde_json::to_string(what).expect("it can be written");
        writeln!(self.to, "{line}").expect("the link is there");
    }

    /// Renews the lease.
    pub fn beats(&mut self, lease: HumanDuration) {
        self.says(&Command::Heartbeat {
            lease,
            answer: false,
        });
    }

    /// The next thing that the agent says; it has a minute for it.
    ///
    /// # Panics
    /// It says nothing, or nothing that can be understood.
    pub fn hears(&mut self) -> Report {
        let mut line = String::new();
        // A guardian that speaks for a dead worker begins with the end of a line.
        while line.trim().is_empty() {
            line.clear();
            let read = self.from.read_line(&mut line);
            assert_ne!(read.expect("the agent says something"), 0, "it has left");
        }
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Asks for a probe, and gives the number of the request.
    ///
    /// # Panics
    /// That is no provider, or the link is closed.
    pub fn asks(&mut self, provider: &Value, timeout: Option<HumanDuration>) -> u64 {
        self.request += 1;
        let request = self.request;
        let provider: Provider = serde_json::from_value(provider.clone()).expect("a provider");
        self.says(&Command::Probe {
            request,
            provider,
            timeout,
        });
        request
    }

    /// Has something measured; whatever else the agent says meanwhile is left out.
    pub fn measures(&mut self, provider: &Value, timeout: Option<HumanDuration>) -> ProbeOutcome {
        let wanted = self.asks(provider, timeout);
        loop {
            if let Report::Probed { request, outcome } = self.hears()
                && request == wanted
            {
                return outcome;
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that is gone is what is wanted.
        self.to.shutdown(std::net::Shutdown::Both).ok();
        self.agent.wait().ok();
    }
}
