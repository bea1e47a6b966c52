//! What a notification says, in the forms that destinations understand. Text from outside is never markup in any of them.

use super::Service;
use crate::store::{NewRun, Trigger, WaitingRun};
use backburn_experiments::journal::{Outcome, Verdict};
use backburn_experiments::terminal_text::escape;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest text of a notification, in bytes.
const MAX_TEXT_BYTES: usize = 2000;

/// What a destination understands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotificationFormat {
    /// A JSON object with `kind`, `text`, and what it is about.
    #[default]
    Json,
    /// An incoming webhook of Slack, or of what understands the same.
    Slack,
    /// A workflow's webhook of Microsoft Teams: an adaptive card.
    Teams,
    /// Grafana's annotations: the address ends in `/api/annotations`.
    Grafana,
}

/// What is told to people and programs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NotificationKind {
    /// A run has started.
    RunStarted,
    /// A run has ended, and its outcome is neither *deviated* nor *not clean*.
    RunEnded,
    /// A run has deviated.
    RunDeviated,
    /// A run has ended not clean.
    RunNotClean,
    /// A run waits for an approval.
    ApprovalWanted,
    /// Due times of a schedule passed without a run.
    ScheduleMissed,
    /// An agent is connected and does not answer.
    AgentUnresponsive,
    /// Somebody has written an internal status update.
    StatusUpdate,
    /// Somebody has written an outward status update.
    StatusUpdateOutward,
    /// The next status update of a game day is overdue.
    StatusUpdateDue,
}

/// Something that happened and is worth a notification.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notification {
    /// Its id, the same in every attempt.
    pub(super) id: String,
    pub(super) kind: NotificationKind,
    pub(super) at: Timestamp,
    /// The id of the run, or the name of the experiment or the agent.
    pub(super) about: String,
    pub(super) text: String,
    /// What else a program may want to know.
    pub(super) detail: Value,
}

impl Notification {
    pub(super) fn new(kind: NotificationKind, about: &str, text: String, detail: Value) -> Self {
        let at = Timestamp::now();
        let mut text = escape(&text).into_owned();
        if text.len() > MAX_TEXT_BYTES {
            let end = (0..=MAX_TEXT_BYTES)
                .rev()
                .find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        let word = json!(kind);
        Notification {
            id: format!(
                "{}-{about}-{}",
                word.as_str().unwrap_or_default(),
                at.as_millisecond()
            )
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .collect(),
            kind,
            at,
            about: about.to_owned(),
            text,
            detail,
        }
    }

    /// The body of the request in this form.
    pub(super) fn body(&self, format: NotificationFormat) -> Value {
        match format {
            NotificationFormat::Json => {
                let mut body = json!({
                    "version": 1,
                    "id": self.id,
                    "kind": self.kind,
                    "at": self.at.to_string(),
                    "about": self.about,
                    "text": self.text,
                });
                for (key, value) in self.detail.as_object().into_iter().flatten() {
                    body[key] = value.clone();
                }
                body
            }
            NotificationFormat::Slack => json!({"text": without_markup(&self.text)}),
            NotificationFormat::Teams => json!({
                "type": "message",
                "attachments": [{
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "content": {
                        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                        "type": "AdaptiveCard",
                        "version": "1.4",
                        "body": [{"type": "TextBlock", "wrap": true, "text": without_markdown(&self.text)}],
                    },
                }],
            }),
            NotificationFormat::Grafana => json!({
                "time": self.at.as_millisecond(),
                "tags": ["backburn", self.kind, self.about],
                "text": without_markup(&self.text),
            }),
        }
    }
}

/// The text as Slack and Grafana show it: nothing in it is a link, a mention or an element.
fn without_markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The text as Teams shows it: nothing in it is Markdown.
fn without_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '*' | '_' | '[' | ']' | '(' | ')' | '`' | '#' | '~' | '<' | '>' | '|'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Service {
    /// Tells that a run has started.
    pub(super) fn notify_start(&self, new: &NewRun) {
        // Participants of a game day who may not know what happens may read the destination.
        if new.because == Trigger::GameDay {
            return;
        }
        let text = format!(
            "Run {} has started: {} (requested by {})",
            new.id, new.title, new.who
        );
        let detail = json!({"run": new.id, "title": new.title, "who": new.who,
            "experiment": new.experiment.as_ref().map(|of| &of.name)});
        self.notify(Notification::new(
            NotificationKind::RunStarted,
            &new.id,
            text,
            detail,
        ));
    }

    /// Tells how a run has ended.
    pub(super) fn notify_end(&self, run: &str, verdict: &Verdict) {
        let kind = match verdict.outcome {
            Outcome::Deviated => NotificationKind::RunDeviated,
            Outcome::NotClean => NotificationKind::RunNotClean,
            _ => NotificationKind::RunEnded,
        };
        if !self.is_notified(kind) {
            return;
        }
        let record = self.store.run(run).ok();
        let is_game_day = record
            .as_ref()
            .is_some_and(|record| record.new.because == Trigger::GameDay);
        // That something is left on a host matters more than what participants of a game day may know.
        if is_game_day && kind != NotificationKind::RunNotClean {
            return;
        }
        let title = record.as_ref().map_or("", |record| &record.new.title);
        let reason = verdict.reasons.first().map(|reason| format!(": {reason}"));
        let text = format!(
            "Run {run} is {}: {title}{}",
            verdict.outcome,
            reason.unwrap_or_default()
        );
        let experiment = record
            .as_ref()
            .and_then(|record| record.new.experiment.as_ref());
        let detail = json!({"run": run, "title": title, "outcome": verdict.outcome,
            "experiment": experiment.map(|of| &of.name), "agents": verdict.owing_agents});
        self.notify(Notification::new(kind, run, text, detail));
    }

    /// Tells that a run waits for an approval.
    pub(super) fn notify_wait(&self, waiting: &WaitingRun) {
        let (new, approval) = (&waiting.run.new, &waiting.approval);
        let text = format!(
            "Run {} of {} waits for an approval until {}: {}",
            new.id, approval.person, approval.expires, new.title
        );
        let detail =
            json!({"run": new.id, "title": new.title, "who": new.who, "rule": approval.rule});
        self.notify(Notification::new(
            NotificationKind::ApprovalWanted,
            &new.id,
            text,
            detail,
        ));
    }

    /// Tells that due times of a schedule passed without a run.
    pub(super) fn notify_missed(&self, experiment: &str, due: Timestamp) {
        let text = format!("The run of experiment {experiment} that was due at {due} was missed");
        let detail = json!({"experiment": experiment, "due": due.to_string()});
        self.notify(Notification::new(
            NotificationKind::ScheduleMissed,
            experiment,
            text,
            detail,
        ));
    }

    /// Tells which agents have ceased to answer.
    pub(super) fn notify_unresponsive(&self) {
        if !self.is_notified(NotificationKind::AgentUnresponsive) {
            return;
        }
        for agent in self.fleet.unresponsive_names() {
            let text = format!("Agent {agent} is connected and does not answer");
            let detail = json!({"agent": agent});
            self.notify(Notification::new(
                NotificationKind::AgentUnresponsive,
                &agent,
                text,
                detail,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notification_text_from_outside_is_never_markup() {
        let text = "<!channel> *x* [a](javascript:b) \u{1b}[31m\nsecond".to_owned();
        let told = Notification::new(NotificationKind::RunStarted, "r", text, json!({"run": "r"}));
        let slack = told.body(NotificationFormat::Slack)["text"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            slack.starts_with("&lt;!channel&gt; *x*") && !slack.contains(['\n', '\u{1b}']),
            "{slack}"
        );
        let card = told.body(NotificationFormat::Teams);
        let card = card["attachments"][0]["content"]["body"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            card.contains("\\[a\\]\\(javascript:b\\)") && card.contains("\\*x\\*"),
            "{card}"
        );
        let body = told.body(NotificationFormat::Json);
        assert_eq!(
            (&body["kind"], &body["run"]),
            (&json!("run-started"), &json!("r"))
        );
        let annotation = told.body(NotificationFormat::Grafana);
        assert_eq!(annotation["tags"], json!(["backburn", "run-started", "r"]));
        let long = Notification::new(
            NotificationKind::RunStarted,
            "r",
            "é".repeat(5000),
            json!({}),
        );
        assert!(long.text.len() <= MAX_TEXT_BYTES + 3 && long.text.ends_with('…'));
    }
}
