//! From the text of a game day to the game day, or to everything that is wrong with it.

use super::update::{PLACEHOLDERS, unknown_placeholders};
use super::{DiscussionLength, Duty, GameDay, GameDayFile, GameDayPrompt, GameDayStep};
use crate::problem::{MAX_PROBLEMS, at_index, list_words};
use crate::timetable::Timetable;
use crate::{HumanDuration, Problem, json, schema};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The longest document of a game day, in bytes.
pub const MAX_GAME_DAY_BYTES: usize = 256 << 10;

/// The most steps of a game day.
const MAX_STEPS: usize = 100;

/// The longest name of a person, in bytes, as for tokens.
const MAX_PERSON_BYTES: usize = 128;

static SCHEMA: LazyLock<Value> = LazyLock::new(super::game_day_schema);

/// Reads a game day. The error is everything that is wrong with it.
///
/// # Errors
/// All problems of the document, each with its JSON path.
pub fn load_game_day(text: &str) -> Result<GameDay, Vec<Problem>> {
    if text.len() > MAX_GAME_DAY_BYTES {
        let what = format!(
            "the game day is longer than {} KiB",
            MAX_GAME_DAY_BYTES >> 10
        );
        return Err(vec![
            Problem::new("$", what).hint("link to long texts instead of including them"),
        ]);
    }
    let value = json::read(text)?;
    let mut problems = schema::check(&SCHEMA, &value, "$");
    if problems.is_empty() {
        match serde_json::from_value::<GameDayFile>(value) {
            Ok(GameDayFile { game_day }) => {
                rules(&game_day, &mut problems);
                if problems.is_empty() {
                    return Ok(game_day);
                }
            }
            Err(error) => problems.push(Problem::new(
                "$",
                format!("the game day cannot be read: {error}"),
            )),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    Err(problems)
}

/// What is wrong with the dates of a game day at this time.
pub fn check_dates(day: &GameDay, now: Timestamp) -> Vec<Problem> {
    let at = day
        .schedule
        .as_ref()
        .and_then(|schedule| schedule.at.as_ref());
    let past = at.filter(|at| at.parse::<Timestamp>().is_ok_and(|at| at <= now));
    let past = past.map(|at| {
        Problem::new(
            "$.game-day.schedule.at",
            format!("`{at}` is in the past: the game day would never begin"),
        )
        .hint(format!(
            "give a later time than {}",
            now.strftime("%Y-%m-%dT%H:%M:%SZ")
        ))
    });
    past.into_iter().collect()
}

/// What no schema can say.
fn rules(day: &GameDay, problems: &mut Vec<Problem>) {
    let root = "$.game-day";
    if day.steps.len() > MAX_STEPS {
        let what = format!(
            "a game day has at most {MAX_STEPS} steps, and this one has {}",
            day.steps.len()
        );
        problems.push(
            Problem::new(format!("{root}.steps"), what).hint("divide it into several game days"),
        );
    }
    duties(day, problems);
    objectives(day, problems);
    for (index, runbook) in day.runbooks.iter().enumerate() {
        let at = at_index(&format!("{root}.runbooks"), index);
        if let Some(problem) = wrong_link(&format!("{at}.url"), &runbook.url) {
            problems.push(problem);
        }
    }
    let mut names = BTreeSet::new();
    for (index, step) in day.steps.iter().enumerate() {
        let at = at_index(&format!("{root}.steps"), index);
        self::step(day, step, &at, &mut names, problems);
    }
    positive(
        &format!("{root}.discuss"),
        day.discuss.and_then(timed),
        problems,
    );
    if let Some(updates) = &day.updates {
        positive(&format!("{root}.updates.every"), updates.every, problems);
        for (key, template) in [
            ("internal", &updates.internal),
            ("outward", &updates.outward),
        ] {
            for name in template.iter().flat_map(|text| unknown_placeholders(text)) {
                problems.push(
                    Problem::new(
                        format!("{root}.updates.{key}"),
                        format!("there is no placeholder `{{{name}}}`"),
                    )
                    .hint(format!("known are {}", list_words(&PLACEHOLDERS))),
                );
            }
        }
    }
    schedule(day, problems);
}

fn timed(length: DiscussionLength) -> Option<HumanDuration> {
    match length {
        DiscussionLength::For(length) => Some(length),
        DiscussionLength::ByHand(_) => None,
    }
}

fn positive(at: &str, length: Option<HumanDuration>, problems: &mut Vec<Problem>) {
    if length.is_some_and(|length| length.0.is_zero()) {
        problems.push(
            Problem::new(at, "the length is zero")
                .hint("leave it out, or give a longer one, e.g. `10m`"),
        );
    }
}

fn duties(day: &GameDay, problems: &mut Vec<Problem>) {
    for (duty, holders) in day.duties.listed() {
        let at = format!("$.game-day.duties.{duty}");
        for name in holders {
            let is_valid = name.len() <= MAX_PERSON_BYTES
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
            if !is_valid {
                problems.push(
                    Problem::new(&at, format!("`{name}` is not a valid name for a person")).hint(
                        "use the name of a person as in `backburn tokens`: letters, digits, `-`, `_`, `.` and `@`",
                    ),
                );
            }
        }
        let distinct: BTreeSet<&String> = holders.iter().collect();
        if distinct.len() < holders.len() {
            problems.push(Problem::new(&at, "a person is listed twice"));
        }
        if duty != Duty::Observers && holders.len() > 1 {
            problems.push(
                Problem::new(&at, format!("duty `{duty}` is held by one person"))
                    .hint("name one; it can be handed over while the game day goes on"),
            );
        }
    }
}

fn objectives(day: &GameDay, problems: &mut Vec<Problem>) {
    let Some(objectives) = &day.objectives else {
        return;
    };
    let root = "$.game-day.objectives";
    for (key, length) in [
        ("detect-within", objectives.detect_within),
        ("mitigate-within", objectives.mitigate_within),
        ("recover-within", objectives.recover_within),
    ] {
        positive(&format!("{root}.{key}"), length, problems);
    }
    if let Some(budget) = &objectives.error_budget {
        let percent: Option<f64> = budget.trim_end_matches('%').parse().ok();
        if !percent.is_some_and(|percent| percent <= 100.0) {
            problems.push(
                Problem::new(
                    format!("{root}.error-budget"),
                    format!("`{budget}` is more than everything"),
                )
                .hint("use at most `100%`"),
            );
        }
    }
}

/// The problem with the address of a link, which people open: other schemes than these two may run something.
pub(super) fn wrong_link(at: &str, url: &str) -> Option<Problem> {
    let lower = url.to_ascii_lowercase();
    let rest = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"));
    let is_valid = rest.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_alphanumeric() || c == '[')
            && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    match is_valid {
        true => None,
        false => Some(
            Problem::new(at, format!("`{url}` is not the address of a page"))
                .hint("begin with `https://` or `http://`"),
        ),
    }
}

fn step(
    day: &GameDay,
    step: &GameDayStep,
    at: &str,
    names: &mut BTreeSet<String>,
    problems: &mut Vec<Problem>,
) {
    if step.experiment.is_none() {
        if step.prompts.is_empty() && step.lasts.is_none() {
            problems.push(Problem::new(at, "the step does nothing").hint(
                "give `experiment`, `prompts`, or `lasts` for a step in which people only talk",
            ));
        }
        for (key, is_given) in [
            ("version", step.version.is_some()),
            ("seed", step.seed.is_some()),
            ("variables", !step.variables.is_empty()),
        ] {
            if is_given {
                problems.push(
                    Problem::new(
                        format!("{at}.{key}"),
                        format!("`{key}` requires `experiment`"),
                    )
                    .hint("name the stored experiment that the step runs"),
                );
            }
        }
    }
    positive(&format!("{at}.lasts"), step.lasts, problems);
    positive(
        &format!("{at}.discuss"),
        step.discuss.and_then(timed),
        problems,
    );
    for (index, prompt) in step.prompts.iter().enumerate() {
        let at = at_index(&format!("{at}.prompts"), index);
        if !names.insert(prompt.name.clone()) {
            problems.push(
                Problem::new(
                    format!("{at}.name"),
                    format!("two prompts are called `{}`", prompt.name),
                )
                .hint("give each prompt of the game day a name of its own"),
            );
        }
        prompt_fits(day, step, prompt, &at, problems);
    }
}

fn prompt_fits(
    day: &GameDay,
    step: &GameDayStep,
    prompt: &GameDayPrompt,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    if let Some(duty) = prompt.to
        && day.duties.holders(duty).is_none()
    {
        problems.push(
            Problem::new(format!("{at}.to"), format!("nobody holds duty `{duty}`")).hint(format!(
                "list it in `duties`, e.g. `\"{duty}\": []` to fill it when the game day is prepared"
            )),
        );
    }
    if let Some(lasts) = step.lasts.filter(|lasts| prompt.delay() > *lasts) {
        problems.push(
            Problem::new(
                format!("{at}.after"),
                format!(
                    "the prompt comes after {}, and the step lasts {lasts}",
                    prompt.delay()
                ),
            )
            .hint("give it sooner, or let the step last longer"),
        );
    }
}

fn schedule(day: &GameDay, problems: &mut Vec<Problem>) {
    let Some(schedule) = &day.schedule else {
        return;
    };
    let root = "$.game-day.schedule";
    for (key, is_given) in [
        ("guard", schedule.guard.is_some()),
        ("jitter", schedule.jitter.is_some()),
        ("random", schedule.random.is_some()),
    ] {
        if is_given {
            problems.push(
                Problem::new(
                    format!("{root}.{key}"),
                    format!("a game day has no `{key}`: people must know when they meet"),
                )
                .hint("use `at` or `cron`"),
            );
        }
    }
    if let Err(wrong) = Timetable::of(schedule, 0, "") {
        problems.extend(wrong.into_iter().map(|problem| Problem {
            at: problem.at.replacen('$', root, 1),
            ..problem
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(day: Value) -> Vec<String> {
        let text = json!({"game-day": day}).to_string();
        let problems = load_game_day(&text).err().unwrap_or_default();
        problems.iter().map(|problem| problem.at.clone()).collect()
    }

    fn day() -> Value {
        json!({
            "title": "Checkout", "purpose": "We learn whether we notice.",
            "objectives": {"detect-within": "5m", "error-budget": "2%"},
            "duties": {"facilitator": "ada", "scribe": [], "observers": ["bob", "eve"]},
            "prerequisites": ["The dashboards are open"],
            "runbooks": [{"title": "Database", "url": "https://wiki.example.org/db"}],
            "steps": [
                {"experiment": "db-latency", "discuss": "10m",
                 "prompts": [{"name": "call", "text": "A customer calls", "after": "2m", "to": "scribe"}]},
                {"title": "Who is there?", "lasts": "5m", "discuss": "by-hand"},
            ],
            "updates": {"every": "30m", "outward": "{impact} {next}"},
            "schedule": {"cron": "0 14 * * 4", "time-zone": "Europe/Amsterdam"},
        })
    }

    #[test]
    fn game_day_with_everything_is_read() {
        let text = json!({"game-day": day()}).to_string();
        let read = load_game_day(&text).unwrap();
        assert_eq!(read.last_step(), 2);
        assert!(read.stops_on(crate::journal::Outcome::NotClean));
        assert!(!read.stops_on(crate::journal::Outcome::Deviated));
        assert!(read.steps[0].is_hidden());
    }

    #[test]
    fn game_day_with_mistakes_reports_all_of_them_with_their_places() {
        let mut wrong = day();
        wrong["steps"][0]["prompts"][0]["to"] = json!("communications");
        wrong["steps"][0]["lasts"] = json!("1m");
        wrong["steps"][1] = json!({"seed": 1, "prompts": [{"name": "call", "text": "again"}]});
        wrong["runbooks"][0]["url"] = json!("javascript:alert(1)");
        wrong["updates"]["outward"] = json!("{impact} {nxt}");
        wrong["duties"]["scribe"] = json!(["bob", "eve"]);
        wrong["duties"]["facilitator"] = json!("a b");
        wrong["objectives"]["error-budget"] = json!("101%");
        wrong["objectives"]["detect-within"] = json!("0s");
        wrong["schedule"] = json!({"cron": "0 14 * *", "jitter": "5m"});
        let mut found = problems(wrong);
        found.sort();
        found.dedup();
        let wanted = [
            "$.game-day.duties.facilitator",
            "$.game-day.duties.scribe",
            "$.game-day.objectives.detect-within",
            "$.game-day.objectives.error-budget",
            "$.game-day.runbooks[0].url",
            "$.game-day.schedule.cron",
            "$.game-day.schedule.jitter",
            "$.game-day.steps[0].prompts[0].after",
            "$.game-day.steps[0].prompts[0].to",
            "$.game-day.steps[1].prompts[0].name",
            "$.game-day.steps[1].seed",
            "$.game-day.updates.outward",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn game_day_of_another_shape_is_refused() {
        assert!(load_game_day(r#"{"title": "an experiment", "method": []}"#).is_err());
        assert_eq!(
            problems(json!({"title": "x", "purpose": "y", "steps": []})),
            ["$.game-day.steps"]
        );
        let mut unknown = day();
        unknown["steps"][0]["experimnt"] = json!("x");
        assert_eq!(problems(unknown), ["$.game-day.steps[0].experimnt"]);
        let nothing = json!({"title": "x", "purpose": "y", "steps": [{"title": "nothing"}]});
        assert_eq!(problems(nothing), ["$.game-day.steps[0]"]);
    }

    #[test]
    fn game_day_in_the_past_is_refused_at_its_time() {
        let mut past = day();
        past["schedule"] = json!({"at": "2026-01-01T10:00:00Z"});
        let read = load_game_day(&json!({"game-day": past}).to_string()).unwrap();
        assert!(check_dates(&read, "2025-12-31T00:00:00Z".parse().unwrap()).is_empty());
        let late = check_dates(&read, "2026-01-01T10:00:00Z".parse().unwrap());
        assert_eq!(late[0].at, "$.game-day.schedule.at");
    }
}
