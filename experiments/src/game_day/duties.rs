//! Who does what at a game day.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A duty at a game day.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// Decides while something is broken.
    IncidentCommander,
    /// Writes down what happens.
    Scribe,
    /// Writes the status updates of the team.
    Communications,
    /// Leads the game day and knows what is going to happen.
    Facilitator,
    /// Watch what happens, and note it.
    Observers,
}

/// Who holds each duty, by the names of persons. An empty list means that it is filled when the game day is prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Duties {
    /// Decides while something is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_commander: Option<DutyHolders>,
    /// Writes down what happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scribe: Option<DutyHolders>,
    /// Writes the status updates of the team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communications: Option<DutyHolders>,
    /// Leads the game day and knows what is going to happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facilitator: Option<DutyHolders>,
    /// Watch what happens, and note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observers: Option<DutyHolders>,
}

/// The persons who hold a duty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DutyHolders {
    /// One person, by name.
    One(String),
    /// Several persons; none means that it is filled later.
    Several(Vec<String>),
}

impl DutyHolders {
    /// The names of the persons.
    pub fn names(&self) -> &[String] {
        match self {
            DutyHolders::One(name) => std::slice::from_ref(name),
            DutyHolders::Several(names) => names,
        }
    }
}

impl Duty {
    /// All duties, in the order in which they are listed.
    pub const ALL: [Duty; 5] = [
        Duty::IncidentCommander,
        Duty::Scribe,
        Duty::Communications,
        Duty::Facilitator,
        Duty::Observers,
    ];

    /// The duty as documents write it.
    pub fn word(self) -> &'static str {
        match self {
            Duty::IncidentCommander => "incident-commander",
            Duty::Scribe => "scribe",
            Duty::Communications => "communications",
            Duty::Facilitator => "facilitator",
            Duty::Observers => "observers",
        }
    }

    /// The duty of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Duty::ALL.into_iter().find(|duty| duty.word() == word)
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Duties {
    /// The holders of a duty. None if the document does not list the duty.
    pub fn holders(&self, duty: Duty) -> Option<&[String]> {
        let holders = match duty {
            Duty::IncidentCommander => &self.incident_commander,
            Duty::Scribe => &self.scribe,
            Duty::Communications => &self.communications,
            Duty::Facilitator => &self.facilitator,
            Duty::Observers => &self.observers,
        };
        holders.as_ref().map(DutyHolders::names)
    }

    /// The duties that are listed, with their holders.
    pub fn listed(&self) -> impl Iterator<Item = (Duty, &[String])> {
        Duty::ALL
            .into_iter()
            .filter_map(|duty| Some((duty, self.holders(duty)?)))
    }
}
