//! Status updates, which a team writes from templates.

use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a template may insert.
pub(super) const PLACEHOLDERS: [&str; 4] = ["title", "impact", "workaround", "next"];

/// The template of updates for the team and its company.
const INTERNAL: &str = "{title}: {impact} Workaround: {workaround} Next update: {next}";

/// The template of updates for customers.
const OUTWARD: &str = "{impact} Workaround: {workaround} Next update: {next}";

/// The templates of status updates, and how often one is due. A template may insert `{title}` (of the game day), `{impact}`,
/// `{workaround}` and `{next}` (the time of the next update).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UpdateTemplates {
    /// How often an update is due. A reminder is recorded when one is overdue. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// The template of internal updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<String>,
    /// The template of outward updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outward: Option<String>,
}

/// What an update inserts into its template.
#[derive(Debug, Clone, Copy)]
pub struct UpdateValues<'a> {
    /// The title of the game day or of the run.
    pub title: &'a str,
    /// What users notice of the problem.
    pub impact: &'a str,
    /// What users can do meanwhile, if that is known.
    pub workaround: Option<&'a str>,
    /// When the next update is due, if that is known.
    pub next: Option<&'a str>,
}

/// The text of an update. What is inserted is not searched for placeholders.
pub fn render_update(
    templates: Option<&UpdateTemplates>,
    is_outward: bool,
    values: &UpdateValues<'_>,
) -> String {
    let written = templates.and_then(|templates| match is_outward {
        true => templates.outward.as_deref(),
        false => templates.internal.as_deref(),
    });
    let mut rest = written.unwrap_or(match is_outward {
        true => OUTWARD,
        false => INTERNAL,
    });
    let mut text = String::new();
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let placeholder = from
            .find('}')
            .map(|end| (from.get(1..end).unwrap_or_default(), end + 1));
        let value = placeholder.and_then(|(name, end)| {
            let value = match name {
                "title" => values.title,
                "impact" => values.impact,
                "workaround" => values.workaround.unwrap_or("none known."),
                "next" => values.next.unwrap_or("when there is news"),
                _ => return None,
            };
            Some((value, end))
        });
        match value {
            Some((value, end)) => {
                text.push_str(value);
                rest = from.get(end..).unwrap_or_default();
            }
            None => {
                text.push('{');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    text.push_str(rest);
    text
}

/// The placeholders of a template that do not exist.
pub(super) fn unknown_placeholders(template: &str) -> Vec<&str> {
    let mut unknown = Vec::new();
    let mut rest = template;
    while let Some((_, from)) = rest.split_once('{') {
        match from.split_once('}') {
            Some((name, after)) => {
                if !PLACEHOLDERS.contains(&name) {
                    unknown.push(name);
                }
                rest = after;
            }
            None => return unknown,
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_inserts_values_once_and_keeps_other_braces() {
        let templates = UpdateTemplates {
            internal: Some("{title}! {impact} {workaround} ({next}) {x} {".into()),
            ..UpdateTemplates::default()
        };
        let values = UpdateValues {
            title: "Checkout",
            impact: "{next} payments fail.",
            workaround: None,
            next: Some("12:30"),
        };
        assert_eq!(
            render_update(Some(&templates), false, &values),
            "Checkout! {next} payments fail. none known. (12:30) {x} {"
        );
        assert_eq!(
            render_update(None, true, &values),
            "{next} payments fail. Workaround: none known. Next update: 12:30"
        );
        assert_eq!(unknown_placeholders("{title} {x} {y}{"), ["x", "y"]);
    }
}
