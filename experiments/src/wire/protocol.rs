//! Which versions of the messages between controller and agent ([`super`]) a program speaks, and which one the two agree on.
//!
//! Within a version, messages and fields may be added: whoever does not know a message skips or refuses it, and ignores a field that it does
//! not know. A version is new when something that was there means something else.

use super::Refusal;
use serde::{Deserialize, Serialize};

/// The versions that this program speaks. Version 1 is that of agents that do not say which they speak. Since version 2, an agent skips or
/// refuses what it does not know instead of closing its connection.
pub const PROTOCOL: ProtocolRange = ProtocolRange {
    oldest: 1,
    newest: 2,
};

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest version that the program speaks.
    pub oldest: u32,
    /// The newest version that the program speaks.
    pub newest: u32,
}

impl Default for ProtocolRange {
    /// The range of an agent that does not say it.
    fn default() -> Self {
        ProtocolRange {
            oldest: 1,
            newest: 1,
        }
    }
}

impl ProtocolRange {
    /// Whether this range has the version.
    pub fn has(&self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// The newest version that a controller with this range and an agent have in common.
    ///
    /// # Errors
    /// They have none; says which of the two is newer, and what to upgrade.
    pub fn agree(&self, agent: ProtocolRange) -> Result<u32, Refusal> {
        let newest = self.newest.min(agent.newest);
        if newest >= self.oldest.max(agent.oldest) && agent.oldest <= agent.newest {
            return Ok(newest);
        }
        let what = format!(
            "the agent speaks versions {agent} of the protocol, and the controller {self}",
        );
        let hint = match agent.oldest > self.newest {
            true => "the agent is newer: upgrade the controller, which always comes first",
            false => {
                "the controller is newer: upgrade the agent, in steps if it is several versions behind"
            }
        };
        Err(Refusal::new("protocol", what).hint(hint))
    }
}

impl std::fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "{}", self.oldest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

/// A message that this program cannot read, as far as it can be told what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableMessage {
    /// What kind of message it is.
    pub say: String,
    /// The number of the request, if an answer is awaited.
    pub request: Option<u64>,
    /// The run that it is about, if it is about one.
    pub run: Option<String>,
}

impl UnreadableMessage {
    /// What can be told of this line. None if it is not a message at all.
    pub fn of(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Loose {
            say: serde_json::Value,
            #[serde(default)]
            request: serde_json::Value,
            #[serde(default)]
            run: serde_json::Value,
        }
        let loose: Loose = serde_json::from_slice(line).ok()?;
        Some(UnreadableMessage {
            say: loose.say.as_str()?.chars().take(64).collect(),
            request: loose.request.as_u64(),
            run: loose.run.as_str().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u32, newest: u32) -> ProtocolRange {
        ProtocolRange { oldest, newest }
    }

    #[test]
    fn ranges_agree_on_the_newest_common_version() {
        for (controller, agent, agreed) in [
            (range(1, 2), range(1, 1), 1),
            (range(1, 2), range(1, 2), 2),
            (range(1, 2), range(2, 9), 2),
            (range(2, 3), range(1, 2), 2),
        ] {
            assert_eq!(controller.agree(agent), Ok(agreed), "{controller} {agent}");
        }
    }

    #[test]
    fn ranges_without_a_common_version_name_the_older_program() {
        let newer = range(1, 2).agree(range(3, 4)).unwrap_err().to_string();
        assert!(newer.contains("upgrade the controller"), "{newer}");
        let older = range(3, 4).agree(range(1, 2)).unwrap_err().to_string();
        assert!(older.contains("upgrade the agent"), "{older}");
        assert!(older.contains("1 to 2"), "{older}");
        range(1, 2).agree(range(2, 1)).unwrap_err();
    }

    #[test]
    fn unreadable_message_is_told_from_what_is_no_message() {
        let of = |text: &str| UnreadableMessage::of(text.as_bytes());
        let told = of(r#"{"say": "dance", "request": 7, "run": "r", "steps": [1]}"#).unwrap();
        assert_eq!((told.say.as_str(), told.request), ("dance", Some(7)));
        assert_eq!(
            of(r#"{"say": "dance", "request": "x"}"#).unwrap().request,
            None
        );
        for not in [
            "",
            "7",
            "[]",
            r#"{"says": "x"}"#,
            r#"{"say": 1}"#,
            r#"{"say": "x""#,
        ] {
            assert_eq!(of(not), None, "{not}");
        }
    }
}
