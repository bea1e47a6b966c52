//! What no schema can say about targets, abort rules and the schedule.

use super::activity::{check_target, part};
use crate::document::{AbortRule, HostMetric, ProbeRef, Schedule, Target, Window};
use crate::problem::{at_index, at_key, meant};
use crate::timetable::{self, Timetable, cron};
use crate::{HumanDuration, Problem};
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest mean time between the runs of a `random` schedule. Each day until the next run is reckoned.
const MAX_MEAN_TIME_BETWEEN: HumanDuration = HumanDuration::seconds(8_760 * 3_600);

pub(super) fn check(document: &Value, problems: &mut Vec<Problem>) {
    for (name, target) in document
        .get("targets")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(target) = part::<Target>(target) {
            check_target(&target, &at_key("$.targets", name), problems);
        }
    }
    let rules = document.get("abort").and_then(Value::as_array);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let at = at_index("$.abort", index);
        let Some(rule) = part::<AbortRule>(rule) else {
            continue;
        };
        if names.contains(&rule.name) {
            problems.push(
                Problem::new(
                    at_key(&at, "name"),
                    format!("there is another abort rule `{}`", rule.name),
                )
                .hint("give each a name of its own: the verdict says which one struck"),
            );
        }
        check_rule(&rule, document, &at, problems);
        names.insert(rule.name);
    }
    if let Some(schedule) = document.get("schedule").and_then(part::<Schedule>) {
        check_schedule(&schedule, problems);
    }
}

fn check_rule(rule: &AbortRule, document: &Value, at: &str, problems: &mut Vec<Problem>) {
    match (&rule.probe, &rule.host) {
        (None, None) => problems.push(
            Problem::new(at, format!("the abort rule `{}` watches nothing", rule.name))
                .hint("`probe`: the name of a hypothesis probe, or an inline probe; or `host`: a metric of the host"),
        ),
        (Some(_), Some(_)) => problems.push(
            Problem::new(at, format!("the abort rule `{}` has both a `probe` and a `host`", rule.name))
                .hint("write two rules"),
        ),
        _ => {}
    }
    if rule.every == Some(HumanDuration::default()) {
        problems.push(
            Problem::new(at_key(at, "every"), "`every` is nothing")
                .hint("e.g. `\"every\": \"1s\"`"),
        );
    }
    if let Some(ProbeRef::Name(name)) = &rule.probe {
        let probes = document
            .pointer("/steady-state-hypothesis/probes")
            .and_then(Value::as_array);
        let names: Vec<&str> = probes
            .into_iter()
            .flatten()
            .filter_map(|probe| probe.get("name").or_else(|| probe.get("ref"))?.as_str())
            .collect();
        if !names.contains(&name.as_str()) {
            let problem = Problem::new(
                at_key(at, "probe"),
                format!("the hypothesis has no probe `{name}`"),
            );
            problems.push(match meant(name, &names) {
                Some(hint) => problem.hint(hint),
                None => problem.hint("add it to the hypothesis, or write an inline probe"),
            });
        }
    }
    if let Some(host) = &rule.host {
        let at = at_key(at, "host");
        if host.below.is_some() == host.above.is_some() {
            let what = if host.below.is_some() {
                "both `below` and `above` are there"
            } else {
                "neither `below` nor `above` is there"
            };
            problems.push(
                Problem::new(&at, what)
                    .hint("exactly one of them: a failure is a figure on that side of it"),
            );
        }
        if host.path.is_some() && host.metric != HostMetric::DiskFreePercent {
            problems.push(Problem::new(
                at_key(&at, "path"),
                "only `disk-free-percent` has a path",
            ));
        }
    }
}

fn check_schedule(schedule: &Schedule, problems: &mut Vec<Problem>) {
    let at = "$.schedule";
    let before = problems.len();
    check_parts_of_schedule(schedule, at, problems);
    if problems.len() == before
        && let Err(wrong) = Timetable::of(schedule, 0, "")
    {
        problems.extend(wrong.into_iter().map(|problem| {
            let below = problem.at.trim_start_matches('$');
            Problem {
                at: format!("{at}{below}"),
                ..problem
            }
        }));
    }
}

fn check_parts_of_schedule(schedule: &Schedule, at: &str, problems: &mut Vec<Problem>) {
    let ways = [
        ("cron", schedule.cron.is_some()),
        ("at", schedule.at.is_some()),
        ("random", schedule.random.is_some()),
    ];
    let there: Vec<&str> = ways
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| *name)
        .collect();
    if there.len() != 1 {
        let what = match there.as_slice() {
            [] => "no time is named".to_owned(),
            some => format!(
                "there are {} at once",
                some.iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" and ")
            ),
        };
        problems.push(Problem::new(at, what).hint("exactly one of `cron`, `at` and `random`"));
    }
    if let Some(Err(problem)) = schedule.cron.as_deref().map(cron::expand) {
        problems.push(Problem {
            at: at_key(at, "cron"),
            ..problem
        });
    }
    if let Some(time) = schedule
        .at
        .as_deref()
        .filter(|time| time.parse::<jiff::Timestamp>().is_err())
    {
        problems.push(
            Problem::new(at_key(at, "at"), format!("`{time}` is no time")).hint(
                "for example `2026-12-01T10:00:00Z`, or `2026-12-01T10:00:00+01:00` (RFC 3339)",
            ),
        );
    }
    if let Some(random) = &schedule.random {
        let at = at_key(at, "random");
        if random.mean_time_between == HumanDuration::default() {
            problems.push(Problem::new(
                at_key(&at, "mean-time-between"),
                "the mean time between runs is nothing",
            ));
        }
        if random.mean_time_between > MAX_MEAN_TIME_BETWEEN {
            let what = format!("the mean time between runs is longer than {MAX_MEAN_TIME_BETWEEN}");
            problems.push(
                Problem::new(at_key(&at, "mean-time-between"), what)
                    .hint("`8760h` at the most, which is a year; a rarer run is better given a date, with `at`"),
            );
        }
        check_window(random.window.as_ref(), &at_key(&at, "window"), problems);
    }
    check_window(schedule.window.as_ref(), &at_key(at, "window"), problems);
    for (index, blackout) in schedule.blackouts.iter().enumerate() {
        let dates: Vec<Option<jiff::civil::Date>> =
            blackout.split('/').map(|date| date.parse().ok()).collect();
        let fine = match dates[..] {
            [Some(_)] => true,
            [Some(first), Some(last)] => first <= last,
            _ => false,
        };
        if !fine {
            problems.push(
                Problem::new(
                    at_index(&at_key(at, "blackouts"), index),
                    format!("`{blackout}` is neither a date nor a range of dates"),
                )
                .hint("`2026-12-24`, or `2026-12-24/2027-01-01` with both days included"),
            );
        }
    }
}

fn check_window(window: Option<&Window>, at: &str, problems: &mut Vec<Problem>) {
    let Some(window) = window else { return };
    for (index, day) in window.days.iter().enumerate() {
        let is_day = |text: &str| timetable::day(text).is_some();
        let fine = match day.split_once('-') {
            Some((from, to)) => is_day(from) && is_day(to),
            None => is_day(day),
        };
        if !fine {
            problems.push(
                Problem::new(
                    at_index(&at_key(at, "days"), index),
                    format!("`{day}` is no day"),
                )
                .hint("`MON`, `TUE`, … `SUN`, or from one to another: `MON-FRI`"),
            );
        }
    }
    if let Some(hours) = &window.hours {
        let fine = timetable::hours(hours).is_some_and(|(from, to)| from != to);
        if !fine {
            problems.push(
                Problem::new(at_key(at, "hours"), format!("`{hours}` are no hours"))
                    .hint("for example `09:00-17:00`, or `22:00-06:00` over midnight"),
            );
        }
    }
}
