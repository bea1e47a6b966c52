//! Percentages as people write them: `25`, or `"25%"`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::str::FromStr;

/// A share in percent, from 0 to 100. Fields that hold one as an `f64` are read by [`number`] or [`optional`], and have this type's
/// schema.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = String;

    /// Reads `25%`, `25 %`, `25 percent` and `25`.
    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let digits = trimmed
            .strip_suffix('%')
            .or_else(|| trimmed.strip_suffix("percent"))
            .unwrap_or(trimmed)
            .trim_end();
        let is_number = digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        (digits.parse().ok().filter(|_| is_number))
            .map(Percent)
            .ok_or_else(|| format!("expected a percentage such as `25%`, got `{text}`"))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum PercentInput {
            Number(f64),
            Text(String),
        }
        match PercentInput::deserialize(deserializer) {
            Ok(PercentInput::Number(number)) => Ok(Percent(number)),
            Ok(PercentInput::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom("expected a percentage such as `25%`")),
        }
    }
}

/// Reads a percentage as its number.
///
/// # Errors
/// It is neither a number nor a text such as `25%`.
pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Percent::deserialize(deserializer).map(|percent| percent.0)
}

/// Reads a percentage that may be left out as its number.
///
/// # Errors
/// It is neither a number nor a text such as `25%`.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let percent = Option::<Percent>::deserialize(deserializer)?;
    Ok(percent.map(|percent| percent.0))
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "percentage",
            "description": "A percentage: `25`, or `\"25%\"`",
            "type": ["number", "string"],
            "format": "percent",
            "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*(%|percent)?\\s*$",
            "minimum": 0,
            "maximum": 100,
            "examples": [25, "25%"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_usual_spellings_are_read() {
        for (json, wanted) in [
            ("25", 25.0),
            ("0.5", 0.5),
            ("\"25%\"", 25.0),
            ("\"25 %\"", 25.0),
            ("\" 2.5%\"", 2.5),
            ("\"25\"", 25.0),
            ("\"25 percent\"", 25.0),
        ] {
            assert_eq!(
                serde_json::from_str(json).ok(),
                Some(Percent(wanted)),
                "{json}"
            );
        }
        for json in [
            "\"-1%\"", "\"half\"", "\"%\"", "\"inf%\"", "\"\"", "[]", "true",
        ] {
            assert!(serde_json::from_str::<Percent>(json).is_err(), "{json}");
        }
    }
}
