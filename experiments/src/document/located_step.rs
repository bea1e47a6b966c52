//! The activities of a document that is not parsed yet, each with its JSON path.

use serde_json::Value;

/// The part of a document that an activity stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Hypothesis,
    Method,
    Rollbacks,
    AbortRule,
    Guard,
}

/// An activity, or a reference to one, as the document writes it.
pub(crate) struct LocatedStep<'d> {
    pub(crate) section: Section,
    pub(crate) at: String,
    pub(crate) value: &'d Value,
}

/// Every activity and reference of a document, in order.
pub(crate) fn located_steps(document: &Value) -> Vec<LocatedStep<'_>> {
    let lists = [
        (
            Section::Hypothesis,
            "$.steady-state-hypothesis.probes",
            document.pointer("/steady-state-hypothesis/probes"),
        ),
        (Section::Method, "$.method", document.get("method")),
        (Section::Rollbacks, "$.rollbacks", document.get("rollbacks")),
    ];
    let mut steps: Vec<LocatedStep<'_>> = Vec::new();
    for (section, at, value) in lists {
        for (index, value) in value
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            steps.push(LocatedStep {
                section,
                at: format!("{at}[{index}]"),
                value,
            });
        }
    }
    for (index, rule) in document
        .get("abort")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Some(value) = rule.get("probe").filter(|probe| probe.is_object()) {
            steps.push(LocatedStep {
                section: Section::AbortRule,
                at: format!("$.abort[{index}].probe"),
                value,
            });
        }
    }
    if let Some(value) = document
        .pointer("/schedule/guard")
        .filter(|guard| guard.is_object())
    {
        steps.push(LocatedStep {
            section: Section::Guard,
            at: "$.schedule.guard".into(),
            value,
        });
    }
    steps
}
