//! Ten years of clock in seconds: each time dealt with once; cron lines against a count of every
//! minute; both edges of daylight saving; chance that keeps its mean and its hours.

use super::*;
use jiff::civil::date;
use jiff::{ToSpan as _, Zoned};
use proptest::prelude::*;
use serde_json::{Value, json};

const GRACE: SignedDuration = SignedDuration::from_secs(60);

fn table(schedule: Value) -> Timetable {
    let schedule: Schedule = serde_json::from_value(schedule).expect("a schedule");
    Timetable::of(&schedule, 7, "trial").expect("it is right")
}

fn problems(schedule: Value) -> Vec<(String, Option<String>)> {
    let schedule: Schedule = serde_json::from_value(schedule).expect("a schedule");
    let problems = Timetable::of(&schedule, 7, "trial").expect_err("it is wrong");
    problems
        .into_iter()
        .map(|problem| (problem.at, problem.hint))
        .collect()
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The times from one to another, not counting the first.
fn times(table: &Timetable, from: &str, to: &str) -> Vec<Timestamp> {
    let (mut last, to) = (time(from), time(to));
    let mut found = Vec::new();
    while let Some(due) = table.next(last).filter(|due| due.nominal <= to) {
        assert!(due.nominal > last && due.at >= due.nominal);
        found.push(due.nominal);
        last = due.nominal;
    }
    found
}

fn local(table: &Timetable, from: &str, to: &str) -> Vec<String> {
    let at = |time: &Timestamp| {
        time.to_zoned(table.zone().clone())
            .strftime("%m-%d %H:%M%:z")
            .to_string()
    };
    times(table, from, to).iter().map(at).collect()
}

#[test]
fn cron_lines_mean_what_a_count_of_every_minute_says() {
    type Has = fn(&Zoned) -> bool;
    let cases: [(&str, Has); 7] = [
        ("0 10 * * MON-FRI", |t| {
            t.hour() == 10 && t.minute() == 0 && t.weekday().to_monday_zero_offset() < 5
        }),
        ("*/7 * * * *", |t| t.minute() % 7 == 0),
        ("15 3 1,31 * *", |t| {
            t.minute() == 15 && t.hour() == 3 && [1, 31].contains(&t.day())
        }),
        // Where both days are given, either will do.
        ("0 0 13 * FRI", |t| {
            t.minute() == 0
                && t.hour() == 0
                && (t.day() == 13 || t.weekday() == jiff::civil::Weekday::Friday)
        }),
        ("30 8-17/3 * 2,9 *", |t| {
            t.minute() == 30
                && (8..=17).contains(&t.hour())
                && (t.hour() - 8) % 3 == 0
                && [2, 9].contains(&t.month())
        }),
        ("59 23 L * *", |t| {
            t.minute() == 59 && t.hour() == 23 && t.day() == t.days_in_month()
        }),
        ("0 0 * * 7", |t| {
            t.minute() == 0 && t.hour() == 0 && t.weekday() == jiff::civil::Weekday::Sunday
        }),
    ];
    let (from, to) = ("2027-12-31T23:59:00Z", "2029-01-01T00:00:00Z");
    for (cron, has) in cases {
        let mut minute = time(from).to_zoned(TimeZone::UTC);
        let mut expected = Vec::new();
        while minute.timestamp() < time(to) {
            minute = minute.checked_add(1.minutes()).expect("a time");
            if has(&minute) {
                expected.push(minute.timestamp());
            }
        }
        assert_eq!(
            times(&table(json!({"cron": cron})), from, to),
            expected,
            "{cron}"
        );
    }
}

/// In Amsterdam the clock goes from 02:00 to 03:00 on 28 March 2027, and from 03:00 back to 02:00 on 31 October.
#[test]
fn a_time_that_is_skipped_comes_right_after_and_one_that_comes_twice_is_run_once() {
    let amsterdam = |cron: &str| table(json!({"cron": cron, "time-zone": "Europe/Amsterdam"}));
    assert_eq!(
        local(
            &amsterdam("30 2 * * *"),
            "2027-03-27T00:00:00Z",
            "2027-03-29T12:00:00Z"
        ),
        [
            "03-27 02:30+01:00",
            "03-28 03:00+02:00",
            "03-29 02:30+02:00"
        ]
    );
    assert_eq!(
        local(
            &amsterdam("30 2 * * *"),
            "2027-10-30T00:00:00Z",
            "2027-11-01T12:00:00Z"
        ),
        [
            "10-30 02:30+02:00",
            "10-31 02:30+02:00",
            "11-01 02:30+01:00"
        ]
    );
    // What comes at each so many minutes goes on doing so.
    let half_hours = local(
        &amsterdam("*/30 * * * *"),
        "2027-10-31T00:00:00Z",
        "2027-10-31T02:00:00Z",
    );
    assert_eq!(
        half_hours,
        [
            "10-31 02:30+02:00",
            "10-31 02:00+01:00",
            "10-31 02:30+01:00",
            "10-31 03:00+01:00"
        ]
    );
    let over_the_gap = local(
        &amsterdam("*/30 * * * *"),
        "2027-03-28T00:00:00Z",
        "2027-03-28T01:30:00Z",
    );
    assert_eq!(
        over_the_gap,
        [
            "03-28 01:30+01:00",
            "03-28 03:00+02:00",
            "03-28 03:30+02:00"
        ]
    );
    // The same day in New York, where the clocks change on another one.
    let new_york = table(json!({"cron": "0 9 * * *", "time-zone": "America/New_York"}));
    assert_eq!(
        local(&new_york, "2027-03-13T00:00:00Z", "2027-03-15T00:00:00Z"),
        ["03-13 09:00-05:00", "03-14 09:00-04:00"]
    );
}

#[test]
fn windows_and_blackouts_are_kept() {
    let hourly = json!({"cron": "0 * * * *", "time-zone": "Europe/Amsterdam",
        "window": {"days": ["MON-FRI"], "hours": "09:00-12:00"}, "blackouts": ["2026-12-24/2027-01-03", "2027-01-05"]});
    assert_eq!(
        local(
            &table(hourly),
            "2026-12-22T23:00:00Z",
            "2027-01-07T00:00:00Z"
        ),
        [
            "12-23 09:00+01:00",
            "12-23 10:00+01:00",
            "12-23 11:00+01:00",
            "01-04 09:00+01:00",
            "01-04 10:00+01:00",
            "01-04 11:00+01:00",
            "01-06 09:00+01:00",
            "01-06 10:00+01:00",
            "01-06 11:00+01:00",
        ]
    );
    // Past midnight it is still the evening that it began on.
    let night = json!({"cron": "0 */2 * * *", "window": {"days": ["FRI"], "hours": "22:00-04:00"}});
    assert_eq!(
        local(
            &table(night),
            "2027-01-01T12:00:00Z",
            "2027-01-03T12:00:00Z"
        ),
        [
            "01-01 22:00+00:00",
            "01-02 00:00+00:00",
            "01-02 02:00+00:00"
        ]
    );
    let once = table(json!({"at": "2027-01-05T10:00:00+01:00"}));
    assert_eq!(
        times(&once, "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        [time("2027-01-05T09:00:00Z")]
    );
}

#[test]
fn chance_keeps_its_mean_and_its_hours() {
    let schedule = json!({"random": {"mean-time-between": "12h"}, "time-zone": "Europe/Amsterdam",
        "window": {"days": ["MON-THU"], "hours": "09:00-17:00"}, "blackouts": ["2027-04-01/2027-04-30"]});
    let table = table(schedule);
    let found = times(&table, "2027-01-01T00:00:00Z", "2031-01-01T00:00:00Z");
    // Of four years less a month two a day; in all but one of a million cases within five deviations.
    let expected = (4.0 * 365.25 - 30.0) * 2.0;
    println!("{} times by chance, {expected:.0} expected", found.len());
    assert!(
        (found.len() as f64 - expected).abs() < 5.0 * expected.sqrt(),
        "{}",
        found.len()
    );
    for at in &found {
        let at = at.to_zoned(table.zone().clone());
        assert!(
            (9..17).contains(&at.hour()) && at.weekday().to_monday_zero_offset() < 4,
            "{at}"
        );
        assert!(
            !(date(2027, 4, 1)..=date(2027, 4, 30)).contains(&at.date()),
            "{at}"
        );
    }
    assert_eq!(
        found,
        times(&table, "2027-01-01T00:00:00Z", "2031-01-01T00:00:00Z"),
        "the seed repeats them"
    );
}

#[test]
fn chance_that_comes_often_keeps_its_mean_over_the_hours() {
    let table = table(json!({"random": {"mean-time-between": "30s"}}));
    let (from, until) = ("2027-01-01T21:30:00Z", "2027-01-02T01:30:00Z");
    let found = times(&table, from, until);
    // 120 an hour; in all but one of a million cases within five deviations.
    let expected = 4.0 * 120.0_f64;
    assert!(
        (found.len() as f64 - expected).abs() < 5.0 * expected.sqrt(),
        "{}",
        found.len()
    );
    // Whoever looks later finds the same ones, and each hour has some.
    let later = found[found.len() / 2];
    assert_eq!(
        times(&table, &later.to_string(), until),
        found[found.len() / 2 + 1..]
    );
    let hours: std::collections::BTreeSet<_> =
        found.iter().map(|at| at.as_second() / 3600).collect();
    assert_eq!(hours.len(), 5);
}

#[test]
fn jitter_is_late_but_allowed_and_never_as_late_as_the_next() {
    let window = json!({"hours": "09:00-10:00"});
    let table = table(json!({"cron": "*/20 * * * *", "jitter": "1h", "window": window}));
    let mut last = time("2027-01-01T00:00:00Z");
    let mut with_jitter = 0;
    for _ in 0..300 {
        let due = table.next(last).expect("there is one");
        let at = due.at.to_zoned(TimeZone::UTC);
        assert!(at.hour() == 9 && due.nominal <= due.at, "{at}");
        assert!(table.next(due.nominal).expect("one more").nominal > due.at);
        with_jitter += i32::from(due.at > due.nominal);
        last = due.nominal;
    }
    assert!(with_jitter > 150, "{with_jitter} of 300 are late");
}

#[test]
fn what_is_wrong_with_a_schedule() {
    assert_eq!(
        problems(json!({"cron": "0 10 * * *", "time-zone": "Europe/Amsterdm"})),
        [(
            "$.time-zone".to_owned(),
            Some("did you mean `Europe/Amsterdam`?".to_owned())
        )]
    );
    for never in [
        json!({"cron": "0 10 31 2 *"}),
        json!({"cron": "0 10 * * *", "window": {"hours": "11:00-12:00"}}),
        json!({"at": "2027-01-05T10:00:00Z", "blackouts": ["2027-01-05"]}),
    ] {
        assert_eq!(problems(never.clone())[0].0, "$", "{never}");
    }
}

/// Ten years, looked at again and again at odd times, with nobody there now and then, and runs that take long.
fn ten_years(schedule: Value, seed: u64) {
    let table = table(schedule.clone());
    let (from, to) = (time("2026-11-22T07:00:00Z"), time("2036-11-22T07:00:00Z"));
    let mut progress = Progress {
        last: from,
        waiting: None,
    };
    let mut now = from;
    let mut ends: Option<Timestamp> = None;
    let mut dealt_with = Vec::new();
    let (mut run, mut caught_up, mut step) = (Vec::new(), 0, 0u64);
    let mut waiting = None;
    while now < to {
        step += 1;
        let chance = |what: &str| select::seeded_fraction(seed, &format!("{what} {step}"));
        // Mostly when the timetable says; sometimes later, or for no reason.
        let next_wake = table.next_wake(progress).unwrap_or(to).max(now);
        let until = [Some(next_wake), ends]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(to);
        let away = match chance("away") {
            x if x < 0.01 => SignedDuration::from_hours((chance("long") * 200.0) as i64),
            x if x < 0.3 => SignedDuration::from_secs((chance("long") * 50.0) as i64),
            _ => SignedDuration::ZERO,
        };
        now = until.max(now).checked_add(away).expect("a time");
        if ends.is_some_and(|ends| ends <= now) {
            ends = None;
        }
        let (kept, calls) = table.decide(progress, now, ends.is_some(), GRACE);
        assert!(kept.last >= progress.last);
        let mut begun = 0;
        for call in calls {
            let due = match call {
                ScheduleDecision::Run(due) => {
                    begun += 1;
                    assert!(ends.is_none(), "two at a time");
                    caught_up += u32::from(due.at.duration_until(now) > GRACE);
                    let long = SignedDuration::from_secs((chance("run") * 5400.0) as i64 + 1);
                    ends = now.checked_add(long).ok();
                    run.push(due.nominal);
                    if waiting.take_if(|waiting| *waiting == due.nominal).is_some() {
                        continue;
                    }
                    due
                }
                ScheduleDecision::Waits(due) => {
                    assert!(waiting.replace(due.nominal).is_none(), "two wait");
                    due
                }
                ScheduleDecision::Overlapped(due) | ScheduleDecision::Missed(due) => due,
            };
            dealt_with.push(due.nominal);
        }
        assert!(begun <= 1);
        progress = kept;
        if table.next_wake(progress).is_none() && progress.waiting.is_none() {
            break;
        }
    }
    let all = times(&table, "2026-11-22T07:00:00Z", &progress.last.to_string());
    println!(
        "{schedule}: {} times, {} run, {caught_up} of them late",
        all.len(),
        run.len()
    );
    assert_eq!(dealt_with, all, "each time once, in order");
    assert!(!run.is_empty() && run.is_sorted());
    let once = schedule.get("catch-up").is_some_and(|what| what == "once");
    assert!(once || schedule.get("overlap").is_some() || caught_up == 0);
}

#[test]
fn ten_years_of_clock_miss_and_double_nothing() {
    for (seed, schedule) in [
        json!({"cron": "0 10 * * MON-FRI", "time-zone": "Europe/Amsterdam"}),
        json!({"cron": "30 2 * * *", "time-zone": "America/New_York", "catch-up": "once"}),
        json!({"cron": "0 */6 * * *", "jitter": "2h", "overlap": "queue"}),
        json!({"cron": "15 * * * *", "window": {"days": ["TUE"], "hours": "22:00-03:00"}, "overlap": "queue", "catch-up": "once"}),
        json!({"random": {"mean-time-between": "30h"}, "window": {"hours": "09:00-17:00"}, "time-zone": "Australia/Lord_Howe"}),
        json!({"random": {"mean-time-between": "2d"}, "jitter": "10m", "blackouts": ["2027-12-20/2028-01-05"], "catch-up": "once"}),
        json!({"at": "2030-02-28T23:59:59Z"}),
    ]
    .into_iter()
    .enumerate()
    {
        ten_years(schedule, seed as u64);
    }
}

proptest! {
    #[test]
    fn a_later_look_finds_the_same_times(hours in 1u32..200, minutes in 0u32..59, chance: bool) {
        let schedule = match chance {
            true => json!({"random": {"mean-time-between": "5h"}, "window": {"hours": "21:00-17:00"}, "jitter": "20m"}),
            false => json!({"cron": format!("{minutes} */3 * * *"), "time-zone": "Europe/Amsterdam", "jitter": "20m"}),
        };
        let table = table(schedule);
        let from = time("2027-03-20T00:00:00Z");
        let later = from.checked_add(SignedDuration::from_hours(hours.into())).expect("a time");
        let mut last = from;
        while let Some(due) = table.next(last).filter(|due| due.nominal <= later) {
            last = due.nominal;
        }
        prop_assert_eq!(table.next(last), table.next(later));
    }
}
