//! How many members of a set are selected, as people write it.

use crate::percent::{self, Percent};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;

/// How many members of a set are selected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// All of them.
    All,
    /// This number. A smaller set is an error.
    Count(u32),
    /// This share in percent, rounded down. A share that rounds down to none is an error.
    Percent(f64),
    /// A random share between 0 and this many percent, rounded down, but at least one member.
    RandomMaxPercent(f64),
}

/// The spelling with a key for each meaning.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KeyedSelect {
    Count(u32),
    #[serde(deserialize_with = "percent::number")]
    Percent(f64),
    #[serde(deserialize_with = "percent::number")]
    RandomMaxPercent(f64),
}

impl<'de> Deserialize<'de> for Select {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum SelectInput {
            Number(u32),
            Text(String),
            Keyed(KeyedSelect),
        }
        let unknown =
            || de::Error::custom("expected `all`, a number, or a percentage such as `50%`");
        Ok(match SelectInput::deserialize(deserializer) {
            Ok(SelectInput::Number(number)) => Select::Count(number),
            Ok(SelectInput::Keyed(KeyedSelect::Count(number))) => Select::Count(number),
            Ok(SelectInput::Keyed(KeyedSelect::Percent(percent))) => Select::Percent(percent),
            Ok(SelectInput::Keyed(KeyedSelect::RandomMaxPercent(percent))) => {
                Select::RandomMaxPercent(percent)
            }
            Ok(SelectInput::Text(text)) => {
                let text = text.trim();
                match (text.parse::<u32>(), text.parse::<Percent>()) {
                    _ if text.eq_ignore_ascii_case("all") => Select::All,
                    (Ok(number), _) => Select::Count(number),
                    (_, Ok(Percent(percent))) if text.ends_with('%') => Select::Percent(percent),
                    _ => return Err(unknown()),
                }
            }
            Err(_) => return Err(unknown()),
        })
    }
}

impl JsonSchema for Select {
    fn schema_name() -> Cow<'static, str> {
        "Select".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let percent = generator.subschema_for::<Percent>();
        let keyed = |key: &str, description: &str, value: &Schema| {
            json_schema!({
                "description": description,
                "type": "object",
                "properties": {key: value},
                "required": [key],
                "additionalProperties": false
            })
        };
        let count = json_schema!({"type": "integer", "format": "uint32", "minimum": 1});
        json_schema!({
            "title": "selection",
            "description": "How many members of a set are selected: `\"all\"`, a number, or a percentage such as `\"50%\"`.",
            "anyOf": [
                {
                    "description": "All of them, a number of them, or a share of them, rounded down.",
                    "type": "string",
                    "pattern": "^\\s*([aA][lL][lL]|[1-9][0-9]{0,8}|[0-9]+(\\.[0-9]+)?\\s*%)\\s*$"
                },
                {
                    "description": "This number. A smaller set is an error.",
                    "type": "integer",
                    "format": "uint32",
                    "minimum": 1
                },
                keyed("count", "This number. A smaller set is an error.", &count),
                keyed(
                    "percent",
                    "This share in percent, rounded down. A share that rounds down to none is an error.",
                    &percent,
                ),
                keyed(
                    "random-max-percent",
                    "A random share between 0 and this many percent, rounded down, but at least one member.",
                    &percent,
                )
            ],
            "examples": ["all", 2, "50%"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
    use serde_json::{Value, json};

    #[test]
    fn select_usual_spellings_are_read_and_fit_the_schema() {
        let schema = schema::of::<Select>();
        for (written, wanted) in [
            (json!("all"), Select::All),
            (json!("ALL"), Select::All),
            (json!(2), Select::Count(2)),
            (json!("2"), Select::Count(2)),
            (json!("50%"), Select::Percent(50.0)),
            (json!("12.5 %"), Select::Percent(12.5)),
            (json!({"count": 3}), Select::Count(3)),
            (json!({"percent": 50}), Select::Percent(50.0)),
            (json!({"percent": "50%"}), Select::Percent(50.0)),
            (
                json!({"random-max-percent": "25%"}),
                Select::RandomMaxPercent(25.0),
            ),
        ] {
            assert_eq!(schema::check(&schema, &written, "$"), [], "{written}");
            assert_eq!(
                serde_json::from_value::<Select>(written.clone()).ok(),
                Some(wanted),
                "{written}"
            );
            let again: Value = serde_json::to_value(wanted).unwrap();
            assert_eq!(
                serde_json::from_value::<Select>(again).ok(),
                Some(wanted),
                "{written}"
            );
        }
    }

    #[test]
    fn select_other_texts_are_refused_with_examples() {
        let schema = schema::of::<Select>();
        for written in [
            json!("half"),
            json!("-1"),
            json!(0),
            json!(1.5),
            json!(true),
            json!("0"),
        ] {
            let problems = schema::check(&schema, &written, "$.select");
            let [problem] = &problems[..] else {
                panic!("{written}: {problems:?}");
            };
            assert_eq!(
                problem.what,
                format!("expected a selection, got `{written}`")
            );
            assert_eq!(
                problem.hint.as_deref(),
                Some("for example `\"all\"`, `2` or `\"50%\"`")
            );
        }
        let many = schema::check(&schema, &json!({"percent": "150%"}), "$");
        assert_eq!(many[0].what, "`150 %` is more than 100", "{many:?}");
    }
}
