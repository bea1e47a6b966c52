//! Durations with a sign, as people write them: `"-5m"`, `"+1h"`, or a number of seconds.

use backburn_experiments::HumanDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A duration forwards or backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedDuration {
    is_backwards: bool,
    length: HumanDuration,
}

impl SignedDuration {
    /// The duration in whole milliseconds, negative if it goes backwards.
    pub fn millis(self) -> i64 {
        let length = i64::try_from(self.length.0.as_millis()).unwrap_or(i64::MAX);
        if self.is_backwards { -length } else { length }
    }
}

impl FromStr for SignedDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an offset: write a sign and a duration, such as `+1h` or `-5m`"
            )
        };
        let trimmed = text.trim();
        let (is_backwards, length) = match trimmed.strip_prefix('-') {
            Some(length) => (true, length),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        // One sign is enough.
        if length.starts_with(['-', '+']) {
            return Err(wrong());
        }
        Ok(SignedDuration {
            is_backwards,
            length: length.trim().parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for SignedDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_backwards { '-' } else { '+' };
        write!(f, "{sign}{}", self.length)
    }
}

impl Serialize for SignedDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SignedDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum WrittenOffset {
            Number(f64),
            Text(String),
        }
        let text = match WrittenOffset::deserialize(deserializer) {
            Ok(WrittenOffset::Number(seconds)) => seconds.to_string(),
            Ok(WrittenOffset::Text(text)) => text,
            Err(_) => {
                return Err(de::Error::custom(
                    "expected an offset: `+1h`, `-5m` or a number of seconds",
                ));
            }
        };
        text.parse().map_err(de::Error::custom)
    }
}

/// What can be an offset. The parser decides.
const OFFSET_PATTERN: &str = r"^\s*[-+]?\s*(([0-9]+(\.[0-9]+)?\s*(ms|msecs?|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*,?\s*)+|[0-9]+(\.[0-9]+)?|[pP]([0-9]+[wWdD])*([tT]([0-9.]+[hHmMsS])+)?)\s*$";

impl JsonSchema for SignedDuration {
    fn schema_name() -> Cow<'static, str> {
        "SignedDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "offset",
            "description": "A duration with a sign: `\"+1h\"`, `\"-5m\"`, or a number of seconds",
            "type": ["string", "number"],
            "pattern": OFFSET_PATTERN,
            "minimum": -315_360_000,
            "maximum": 315_360_000,
            "examples": ["+1h", "-5m"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_usual_notations_are_parsed() {
        let pattern = regex::Regex::new(OFFSET_PATTERN).expect("it is one");
        for (text, millis) in [
            ("\"+1h\"", 3_600_000),
            ("\"1h\"", 3_600_000),
            ("\"-5m\"", -300_000),
            ("\" - 1h 30m \"", -5_400_000),
            ("\"+1 day\"", 86_400_000),
            ("\"-PT90S\"", -90_000),
            ("\"-1.5s\"", -1_500),
            ("\"250ms\"", 250),
            ("-300", -300_000),
            ("0.5", 500),
            ("\"-300\"", -300_000),
            ("\"0s\"", 0),
        ] {
            let offset: SignedDuration = serde_json::from_str(text).expect(text);
            assert_eq!(offset.millis(), millis, "{text}");
            if let Some(text) = text.strip_prefix('"') {
                assert!(pattern.is_match(text.trim_end_matches('"')), "{text}");
            }
            let written = serde_json::to_string(&offset).expect("it can be written");
            assert_eq!(
                serde_json::from_str::<SignedDuration>(&written).ok(),
                Some(offset)
            );
        }
        for text in [
            "\"\"",
            "\"-\"",
            "\"--5m\"",
            "\"-+5m\"",
            "\"soon\"",
            "\"5 apples\"",
            "true",
            "\"NaN\"",
            "\"-inf\"",
        ] {
            assert!(
                serde_json::from_str::<SignedDuration>(text).is_err(),
                "{text}"
            );
        }
    }
}
