//! An amount of something whose whole is known: a size, or a percentage of the whole.

use super::Size;
use backburn_experiments::percent::Percent;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A size, or a percentage of a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// This size.
    Size(Size),
    /// This percentage of the whole.
    Percent(f64),
}

impl Amount {
    /// The number of bytes that it comes to.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Amount::Size(Size(bytes)) => bytes,
            Amount::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }

    /// Whether it is nothing, or more than a whole.
    pub fn is_out_of_range(self) -> bool {
        match self {
            Amount::Size(Size(bytes)) => bytes == 0,
            Amount::Percent(percent) => percent <= 0.0 || percent > 100.0,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Size(size) => size.fmt(f),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim_end().ends_with('%') {
            true => (text.parse()).map(|Percent(percent)| Amount::Percent(percent)),
            false => text.parse().map(Amount::Size),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Amount::Size(size) => size.serialize(serializer),
            Amount::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::size::number_or_text(
            deserializer,
            |bytes| Amount::Size(Size(bytes)),
            "expected an amount: `100MiB`, `10%` or a number of bytes",
        )
        .map_err(de::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size or percentage",
            "description": "A size such as `\"100MiB\"`, a percentage such as `\"10%\"`, or a number of bytes",
            "type": ["string", "integer"],
            "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT][iI]?[bB]?|[bB]|[bB]ytes|%)?\s*$",
            "minimum": 0,
            "examples": ["100MiB", "10%"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amount_of_a_whole_is_a_size_or_a_share() {
        for (text, bytes) in [("10%", 20), ("12.5 %", 25), ("150", 150), ("1k", 1024)] {
            let amount: Amount = text.parse().expect(text);
            assert_eq!(amount.of(200), bytes, "{text}");
        }
        for text in ["", "%", "ten", "-5%", "10 percent of all"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }
}
