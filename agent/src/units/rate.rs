//! Rates as people write them: `"10Mbit/s"`, `"1MiB/s"`, or a number of bytes per second.

use super::Size;
use super::size::number_or_text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A rate in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// The prefixes of `bit`, each with its factor.
const BITS: [(&str, f64); 5] = [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a rate: write `10Mbit/s`, `1MiB/s` or a number of bytes per second"
            )
        };
        let trimmed = text.trim();
        let trimmed = trimmed.strip_suffix("/s").unwrap_or(trimmed);
        let Some(digits) = trimmed.strip_suffix("bit") else {
            return trimmed
                .parse()
                .map(|Size(bytes)| Rate(bytes))
                .map_err(|_| wrong());
        };
        let (digits, factor) = BITS
            .iter()
            .find_map(|(unit, factor)| {
                let rest = digits
                    .strip_suffix(unit)
                    .or_else(|| digits.strip_suffix(&unit.to_lowercase()))
                    .or_else(|| digits.strip_suffix(&unit.to_uppercase()))?;
                Some((rest, *factor))
            })
            .ok_or_else(wrong)?;
        let amount: f64 = digits.trim().parse().map_err(|_| wrong())?;
        let bytes = amount * factor / 8.0;
        // An `f64` counts exactly up to here.
        const MAX_BYTES_PER_SECOND: f64 = 9e15;
        (0.0..MAX_BYTES_PER_SECOND)
            .contains(&bytes)
            .then_some(Rate(bytes.round() as u64))
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64 * 8.0;
        let (unit, factor) = BITS
            .iter()
            .find(|(_, factor)| bits >= *factor)
            .unwrap_or(&("", 1.0));
        write!(f, "{}{unit}bit/s", bits / factor)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(
            deserializer,
            Rate,
            "expected a rate: `10Mbit/s`, `1MiB/s` or a number of bytes per second",
        )
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A rate: `\"10Mbit/s\"`, `\"1MiB/s\"`, or a number of bytes per second",
            "type": ["string", "integer"],
            "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*([kKmMgGtT]?bit|[KMGT]i?B|kB|[KMG]|B)?(/s)?\\s*$",
            "minimum": 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_usual_notations_are_parsed() {
        for (text, bytes) in [
            ("10Mbit/s", 1_250_000),
            ("10mbit", 1_250_000),
            ("512 kbit/s", 64_000),
            ("512Kbit", 64_000),
            ("1.5Gbit/s", 187_500_000),
            ("8bit/s", 1),
            ("1MiB/s", 1 << 20),
            ("2MB", 2_000_000),
            ("1000", 1000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
        for text in [
            "",
            "bit",
            "-1Mbit/s",
            "fast",
            "10Mbit/h",
            "NaNbit",
            "infbit",
            "99999Tbit/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate(1_250_000).to_string(), "10Mbit/s");
        assert_eq!(Rate(187_500_000).to_string(), "1.5Gbit/s");
        assert_eq!(Rate(0).to_string(), "0bit/s");
    }
}
