//! Sizes as people write them: `"100MiB"`, `"2GB"`, or a number of bytes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The units, largest first; the first four are those in which sizes are shown. They are read in either case.
const UNITS: [(&str, u64); 18] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("bytes", 1),
    ("B", 1),
];

/// The text without this unit at its end, in whatever case.
fn without_unit<'t>(text: &'t str, unit: &str) -> Option<&'t str> {
    let start = text.len().checked_sub(unit.len())?;
    let end = text.get(start..)?;
    end.eq_ignore_ascii_case(unit).then(|| &text[..start])
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size: write `100MiB`, `2GB` or a number of bytes");
        let trimmed = text.trim();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, factor)| Some((without_unit(trimmed, name)?, *factor)))
            .unwrap_or((trimmed, 1));
        let digits = digits.trim();
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(unit).map(Size).ok_or_else(wrong);
        }
        let amount: f64 = digits.parse().map_err(|_| wrong())?;
        let bytes = amount * unit as f64;
        if bytes.is_finite() && (0.0..=u64::MAX as f64).contains(&bytes) {
            Ok(Size(bytes as u64))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS.iter().take(4) {
            if self.0 >= *factor {
                let amount = self.0 as f64 / *factor as f64;
                return if self.0.is_multiple_of(*factor) {
                    write!(f, "{amount}{name}")
                } else {
                    write!(f, "{amount:.1}{name}")
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(
            deserializer,
            Size,
            "expected a size: `100MiB`, `2GB` or a number of bytes",
        )
    }
}

/// Reads what people write as a number of bytes, or as text with a unit; `wanted` is the error where it is neither.
pub(crate) fn number_or_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
    of_number: fn(u64) -> T,
    wanted: &str,
) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText {
        Number(u64),
        Text(String),
    }
    match NumberOrText::deserialize(deserializer) {
        Ok(NumberOrText::Number(number)) => Ok(of_number(number)),
        Ok(NumberOrText::Text(text)) => text.parse().map_err(de::Error::custom),
        Err(_) => Err(de::Error::custom(wanted)),
    }
}

/// What can be a size. The parser decides.
const SIZE_PATTERN: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT][iI]?[bB]?|[bB]|[bB]ytes)?\s*$";

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size",
            "description": "A size: `\"100MiB\"`, `\"2GB\"`, or a number of bytes",
            "type": ["string", "integer"],
            "pattern": SIZE_PATTERN,
            "minimum": 0,
            "examples": ["100MiB", "2GB"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_usual_notations_are_parsed() {
        for (text, bytes) in [
            ("100MiB", 100 << 20),
            ("1.5 GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("512", 512),
            ("10M", 10 << 20),
            ("1kB", 1_000),
            ("100m", 100 << 20),
            ("100mb", 100_000_000),
            ("1g", 1 << 30),
            ("1Gi", 1 << 30),
            ("512 kib", 512 << 10),
            ("2T", 2 << 40),
            ("100 bytes", 100),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1 apple", "99999999999TiB", "NaN", "inf"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
