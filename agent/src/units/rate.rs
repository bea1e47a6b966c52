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

/// The factor of a prefix of `bit`, in either case; `Ki` and so on are powers of 1024. None if it is not a prefix.
fn factor(prefix: &str) -> Option<f64> {
    let binary = prefix.strip_suffix(['i', 'I']).filter(|p| !p.is_empty());
    let letter = binary.unwrap_or(prefix);
    let place = BITS
        .iter()
        .position(|(unit, _)| unit.eq_ignore_ascii_case(letter))?;
    let power = i32::try_from(BITS.len() - 1 - place).ok()?;
    let base: f64 = if binary.is_some() { 1024.0 } else { 1000.0 };
    Some(base.powi(power))
}

impl FromStr for Rate {
    type Err = String;

    /// Reads bits (`10Mbit/s`, `10 Mbps`, `10Mb/s`) and bytes (`1MiB/s`, `1MBps`, `1M`). A small `b` is a bit and a large one a byte,
    /// as usual; the prefixes may be in either case. (`tc` alone means bytes by `bps`.)
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a rate: write `10Mbit/s`, `1MiB/s` or a number of bytes per second"
            )
        };
        let trimmed = text.trim();
        let per_second = ["/sec", "/s", "ps"]
            .iter()
            .find_map(|end| trimmed.strip_suffix(end));
        let amount = per_second.unwrap_or(trimmed).trim_end();
        let bits = ["bits", "bit", "Bit", "b"]
            .iter()
            .find_map(|unit| amount.strip_suffix(unit));
        let Some(digits) = bits else {
            return amount
                .parse()
                .map(|Size(bytes)| Rate(bytes))
                .map_err(|_| wrong());
        };
        let end = digits
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(digits.len());
        let (digits, prefix) = digits.split_at(end);
        let factor = factor(prefix.trim()).ok_or_else(wrong)?;
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

/// What can be a rate. The parser decides.
const RATE_PATTERN: &str =
    r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?[iI]?([bB]its?|b|[bB]|[bB]ytes?)?)\s*(/s|/sec|ps)?\s*$";

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "rate",
            "description": "A rate: `\"10Mbit/s\"`, `\"1MiB/s\"`, or a number of bytes per second",
            "type": ["string", "integer"],
            "pattern": RATE_PATTERN,
            "minimum": 0,
            "examples": ["10Mbit/s", "1MiB/s"]
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
            ("1Mbps", 125_000),
            ("1 mbps", 125_000),
            ("1mbit", 125_000),
            ("1 Mbit/s", 125_000),
            ("1Mb/s", 125_000),
            ("10 Mbits/sec", 1_250_000),
            ("8Kibit", 1024),
            ("1MBps", 1_000_000),
            ("1MB/s", 1_000_000),
            ("64k", 64 << 10),
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
