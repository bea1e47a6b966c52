//! Durations as people write them: `"1m30s"`, ISO 8601 `"PT90S"`, or a number of seconds.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// A length of time, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A span of this many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        HumanDuration(Duration::from_secs(seconds))
    }

    /// A span of this many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        HumanDuration(Duration::from_millis(millis))
    }

    /// The longest: a hundred years, so that adding one to a clock's reading never overflows.
    pub const MAX: HumanDuration = HumanDuration::seconds(3_153_600_000);

    /// The longest that a fault may last or be repeated: a year of 365 days. Longer ones are mistakes.
    pub const MAX_FAULT_DURATION: HumanDuration = HumanDuration::seconds(31_536_000);

    fn from_seconds(seconds: f64) -> Result<Self, String> {
        let span = Duration::try_from_secs_f64(seconds)
            .map(HumanDuration)
            .map_err(|_| {
                format!(
                    "`{seconds}` is not a duration: a number of seconds, zero or more, is wanted"
                )
            })?;
        span.bounded()
    }

    fn bounded(self) -> Result<Self, String> {
        if self <= HumanDuration::MAX {
            // Nobody means a part of a microsecond of a day, and as a number of seconds it would not be read back the same.
            const EXACT: Duration = Duration::from_secs(86_400);
            let micros = (self.0.subsec_nanos() + 500) / 1_000;
            Ok(match self.0 > EXACT {
                true => HumanDuration(Duration::new(self.0.as_secs(), micros * 1_000)),
                false => self,
            })
        } else {
            Err("a duration of more than a hundred years is none".into())
        }
    }
}

impl From<HumanDuration> for Duration {
    fn from(span: HumanDuration) -> Self {
        span.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        HumanDuration(duration)
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.trim().parse::<f64>() {
            return HumanDuration::from_seconds(seconds);
        }
        // A day is 24 hours here; months and years have no length.
        text.parse::<jiff::Span>()
            .ok()
            .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok())
            .and_then(|signed| Duration::try_from(signed).ok())
            .map(HumanDuration)
            .ok_or_else(|| {
                format!("`{text}` is not a duration: write `1m30s`, `250ms`, `PT90S` or a number of seconds")
            })?
            .bounded()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (hours, minutes, seconds, rest) = (
            millis / 3_600_000,
            millis / 60_000 % 60,
            millis / 1_000 % 60,
            millis % 1_000,
        );
        let mut written = false;
        for (amount, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms")] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
                written = true;
            }
        }
        match self.0.as_micros() {
            _ if written => Ok(()),
            0 => f.write_str("0s"),
            // What took next to no time did not take none.
            micros => write!(f, "{micros}us"),
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole milliseconds read best as words; anything finer keeps its value as seconds.
        if self.0.subsec_nanos().is_multiple_of(1_000_000) {
            serializer.collect_str(self)
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum DurationInput {
            Number(f64),
            Text(String),
        }
        match DurationInput::deserialize(deserializer) {
            Ok(DurationInput::Number(seconds)) => {
                HumanDuration::from_seconds(seconds).map_err(de::Error::custom)
            }
            Ok(DurationInput::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom(
                "a duration is wanted: `1m30s`, `250ms`, `PT90S` or a number of seconds",
            )),
        }
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: `\"1m30s\"`, ISO 8601 `\"PT90S\"`, or a number of seconds",
            "type": ["string", "number"],
            "format": "duration",
            "minimum": 0,
            "maximum": HumanDuration::MAX.0.as_secs()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_ninety_seconds_is_the_same() {
        for text in [
            "\"1m30s\"",
            "\"PT90S\"",
            "90",
            "90.0",
            "\"90\"",
            "\"1m 30s\"",
            "\"PT1M30S\"",
        ] {
            let span: HumanDuration = serde_json::from_str(text).unwrap();
            assert_eq!(span, HumanDuration::seconds(90), "{text}");
        }
    }

    #[test]
    fn next_to_no_time_is_not_none() {
        let written = |micros| HumanDuration(Duration::from_micros(micros)).to_string();
        assert_eq!(written(0), "0s");
        assert_eq!(written(412), "412us");
        assert_eq!(written(1_412), "1ms");
        assert_eq!(
            "412us".parse(),
            Ok(HumanDuration(Duration::from_micros(412)))
        );
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_ways_to_write_one() {
        for text in [
            "-1",
            "\"-1s\"",
            "\"soon\"",
            "true",
            "\"\"",
            "[]",
            "\"5 apples\"",
        ] {
            let error = serde_json::from_str::<HumanDuration>(text)
                .unwrap_err()
                .to_string();
            assert!(error.contains("duration"), "{text}: {error}");
        }
    }

    #[test]
    fn a_day_is_24_hours() {
        for text in ["2d", "P2D", "48h", "1d 24h"] {
            assert_eq!(
                text.parse::<HumanDuration>(),
                Ok(HumanDuration::seconds(172_800)),
                "{text}"
            );
        }
        assert!("1mo".parse::<HumanDuration>().is_err() && "P1Y".parse::<HumanDuration>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn every_duration_reads_back(nanos in 0u64..4_000_000_000_000_000) {
            let span = HumanDuration(Duration::from_nanos(nanos));
            let read: HumanDuration = serde_json::from_str(&serde_json::to_string(&span).unwrap()).unwrap();
            let apart = read.0.abs_diff(span.0);
            // Whole milliseconds are exact; what is finer goes through a float of seconds.
            let allowed = if nanos % 1_000_000 == 0 { 0 } else { 1_000 };
            proptest::prop_assert!(apart <= Duration::from_nanos(allowed), "{} and {}", span, read);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,20}") {
            proptest::prop_assert!(text.parse::<HumanDuration>().is_ok_and(|span| span >= HumanDuration::default()) || text.parse::<HumanDuration>().is_err());
        }
    }

    #[test]
    fn a_duration_reads_back_as_it_was_written() {
        for span in [
            HumanDuration::seconds(0),
            HumanDuration::millis(250),
            HumanDuration::seconds(3_661),
            HumanDuration(Duration::from_nanos(1_500)),
        ] {
            let text = serde_json::to_string(&span).unwrap();
            assert_eq!(
                serde_json::from_str::<HumanDuration>(&text).unwrap(),
                span,
                "{text}"
            );
        }
    }
}
