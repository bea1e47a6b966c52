//! Names and name servers: how this host finds addresses, and what an alteration of answers does to a packet that has arrived. `packet` finds the message in it, `message` the question in that.

mod files;
mod message;
mod name;
mod packet;
mod query;
mod resolver;

pub use files::{ResolvConf, Viewpoint, hosts, read_own, sources};
pub use name::NamePattern;
pub use resolver::{MAX_TIME, Resolver};

use backburn_experiments::HumanDuration;
use message::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Reads a name server's answer to a question of the agent's own, for tests/fuzz.
#[cfg(fuzzing)]
pub fn fuzz_answer(message: &[u8], question: &[u8]) {
    query::answer(message, question);
}

/// What is done to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "alteration",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Alteration {
    /// It is held back.
    Hold {
        /// How long each answer is held back.
        by: HumanDuration,
    },
    /// It says that there is no answer, or does not come.
    Fail {
        /// How the answer fails.
        with: AnswerFailure,
    },
    /// It says other addresses.
    Spoof {
        /// The addresses that the answers are given instead.
        addresses: Vec<IpAddr>,
    },
}

/// How an answer fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerFailure {
    /// The server could not find out (`SERVFAIL`).
    #[default]
    Servfail,
    /// There is no such name (`NXDOMAIN`).
    Nxdomain,
    /// The server does not want to (`REFUSED`).
    Refused,
    /// No answer comes.
    Timeout,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes on as it came.
    Leave,
    /// It goes on as it came, later.
    Hold,
    /// The answer is lost on its way.
    Lose,
    /// It goes on as this one.
    Replace(Vec<u8>),
}

impl Alteration {
    /// Whether it is done to answers over TCP as well: whoever heard nothing by UDP may ask that way. An answer that
    /// is rewritten would not fit into its stream; but whoever has heard one by UDP does not ask again.
    pub fn has_tcp(&self) -> bool {
        match self {
            Alteration::Hold { .. } => true,
            Alteration::Fail { with } => *with == AnswerFailure::Timeout,
            Alteration::Spoof { .. } => false,
        }
    }

    /// Whether answers are lost.
    pub fn loses(&self) -> bool {
        *self
            == Alteration::Fail {
                with: AnswerFailure::Timeout,
            }
    }

    /// What was done to an answer, as one word.
    pub fn done(&self) -> &'static str {
        match self {
            Alteration::Hold { .. } => "slowed",
            Alteration::Fail { .. } => "failed",
            Alteration::Spoof { .. } => "spoofed",
        }
    }
}

impl Alteration {
    /// What becomes of a packet, if it is an answer for one of these names. `draw` is called once for each such answer.
    pub fn decide(
        &self,
        names: &[NamePattern],
        bytes: &[u8],
        draw: impl FnOnce() -> bool,
    ) -> Decision {
        self.altered(names, bytes, draw).unwrap_or(Decision::Leave)
    }

    fn altered(
        &self,
        names: &[NamePattern],
        bytes: &[u8],
        draw: impl FnOnce() -> bool,
    ) -> Option<Decision> {
        let packet = packet::parse(bytes)?;
        let found = match packet.is_udp {
            true => message::question(packet.payload).map(|question| (packet.payload, question)),
            // A message over TCP begins with its length, which may have come by itself before it.
            false if self.has_tcp() => [2, 0].into_iter().find_map(|start| {
                let message = packet.payload.get(start..)?;
                Some((message, message::question(message)?))
            }),
            false => None,
        };
        let (message, question) = found?;
        if !names.iter().any(|name| name.matches(&question.labels)) {
            return None;
        }
        let replaced = |code, addresses: &[IpAddr]| {
            let answer = message::rewritten(message, &question, code, addresses)?;
            packet.with(&answer).map(Decision::Replace)
        };
        let decision = match self {
            Alteration::Hold { .. } => Decision::Hold,
            Alteration::Fail { with } => match with {
                AnswerFailure::Servfail => replaced(Code::ServerFailure, &[])?,
                AnswerFailure::Nxdomain => replaced(Code::NoSuchName, &[])?,
                AnswerFailure::Refused => replaced(Code::Refused, &[])?,
                AnswerFailure::Timeout => Decision::Lose,
            },
            Alteration::Spoof { addresses } => {
                replaced(Code::NoError, &question.addresses(addresses)?)?
            }
        };
        draw().then_some(decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(name: &str, change: &Alteration, bytes: &[u8], draw: bool) -> Decision {
        change.decide(&[name.parse().expect("a name")], bytes, || draw)
    }

    #[test]
    fn dns_rules_change_only_selected_answers() {
        let bytes = packet::tests::datagram(true, &message::tests::answer(1));
        let hold = Alteration::Hold {
            by: HumanDuration::seconds(1),
        };
        let decide = |name: &str, change: &Alteration, draw| decide(name, change, &bytes, draw);
        assert_eq!(decide("www.example.org", &hold, true), Decision::Hold);
        assert_eq!(decide("www.example.org", &hold, false), Decision::Leave);
        assert_eq!(decide("example.org", &hold, true), Decision::Leave);
        let fail = |with| Alteration::Fail { with };
        let lose = fail(AnswerFailure::Timeout);
        assert_eq!(decide("*.example.org", &lose, true), Decision::Lose);
        let Decision::Replace(made) = decide("*", &fail(AnswerFailure::Refused), true) else {
            panic!("it is rewritten");
        };
        assert_eq!(made[28 + 3] & 0x0f, 5);
        let spoof = Alteration::Spoof {
            addresses: vec![[192, 0, 2, 9].into()],
        };
        assert!(matches!(decide("*", &spoof, true), Decision::Replace(_)));
        let text = packet::tests::datagram(true, &message::tests::answer(16));
        assert_eq!(
            super::tests::decide("*", &spoof, &text, true),
            Decision::Leave
        );
    }

    #[test]
    fn dns_answer_over_tcp_is_delayed_or_dropped_never_rewritten() {
        let message = message::tests::answer(1);
        let mut segment = packet::tests::datagram(false, &[])[..40].to_vec();
        segment[6] = 6;
        let mut header = [0; 20];
        header[12] = 5 << 4;
        segment.extend(header);
        let alone = [&segment[..], &message].concat();
        let counted = [
            &segment[..],
            &(message.len() as u16).to_be_bytes(),
            &message,
        ]
        .concat();
        let fail = |with, bytes: &[u8]| decide("*.org", &Alteration::Fail { with }, bytes, true);
        for bytes in [&alone, &counted] {
            let decide = |with| fail(with, bytes);
            assert_eq!(decide(AnswerFailure::Timeout), Decision::Lose);
            assert_eq!(decide(AnswerFailure::Servfail), Decision::Leave);
        }
        let nothing = fail(AnswerFailure::Timeout, &segment);
        assert_eq!(nothing, Decision::Leave);
    }
}
