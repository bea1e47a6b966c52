//! When runs are allowed: days and hours of a zone, less the dates that are blacked out.

use crate::Problem;
use crate::document::{Schedule, Window};
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// The times in which runs are allowed.
#[derive(Debug, Clone)]
pub(super) struct AllowedHours {
    zone: TimeZone,
    /// A time is in all of them.
    windows: Vec<WeeklyWindow>,
    /// First and last date, both closed.
    blackouts: Vec<(Date, Date)>,
}

/// A window that is understood.
#[derive(Debug, Clone)]
struct WeeklyWindow {
    /// Which days, from Monday.
    days: [bool; 7],
    /// From when to when; past midnight where the second is not after the first.
    hours: Option<(Time, Time)>,
}

/// When nothing may run: hours of the week, and dates, of a zone.
#[derive(Debug, Clone)]
pub struct QuietHours {
    zone: TimeZone,
    windows: Vec<WeeklyWindow>,
    /// First and last date.
    blackouts: Vec<(Date, Date)>,
}

impl QuietHours {
    /// Quiet in each of these windows and on each of these dates (`2026-12-24`, or `2026-12-20/2027-01-02`), as a
    /// schedule writes them. Without a zone, UTC's.
    ///
    /// # Errors
    /// What is wrong; paths start at `$`, with the keys `quiet`, `blackouts` and `time-zone`.
    pub fn of(
        windows: &[Window],
        blackouts: &[String],
        zone: Option<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let zone = super::zone(zone.unwrap_or("UTC")).unwrap_or_else(|problem| {
            problems.push(problem);
            TimeZone::UTC
        });
        let mut hours = Vec::new();
        for (index, window) in windows.iter().enumerate() {
            match WeeklyWindow::of(window) {
                Some(window) => hours.push(window),
                None => problems.push(
                    Problem::new(format!("$.quiet[{index}]"), "these are no days and hours")
                        .hint(r#"e.g. `{"days": ["MON-FRI"], "hours": "18:00-08:00"}`"#),
                ),
            }
        }
        let mut closed = Vec::new();
        for (index, text) in blackouts.iter().enumerate() {
            match dates(text) {
                Some(dates) => closed.push(dates),
                None => problems.push(
                    Problem::new(
                        format!("$.blackouts[{index}]"),
                        format!("`{text}` is no date"),
                    )
                    .hint("e.g. `2026-12-24`, or `2026-12-20/2027-01-02`"),
                ),
            }
        }
        match problems.is_empty() {
            true => Ok(QuietHours {
                zone,
                windows: hours,
                blackouts: closed,
            }),
            false => Err(problems),
        }
    }

    /// Whether nothing may run at this time.
    pub fn at(&self, time: Timestamp) -> bool {
        let local = self.zone.to_datetime(time);
        let date = local.date();
        self.windows.iter().any(|window| window.has(local))
            || (self.blackouts.iter()).any(|(first, last)| (*first..=*last).contains(&date))
    }
}

impl AllowedHours {
    pub(super) fn of(schedule: &Schedule, zone: TimeZone) -> Option<Self> {
        let random = schedule.random.as_ref();
        let windows = [
            schedule.window.as_ref(),
            random.and_then(|random| random.window.as_ref()),
        ];
        Some(AllowedHours {
            zone,
            windows: windows
                .into_iter()
                .flatten()
                .map(WeeklyWindow::of)
                .collect::<Option<_>>()?,
            blackouts: schedule
                .blackouts
                .iter()
                .map(|text| dates(text))
                .collect::<Option<_>>()?,
        })
    }

    /// Whether a run is allowed at this time.
    pub(super) fn at(&self, time: Timestamp) -> bool {
        let local = self.zone.to_datetime(time);
        let blacked_out = |(first, last): &(Date, Date)| (*first..=*last).contains(&local.date());
        self.windows.iter().all(|window| window.has(local))
            && !self.blackouts.iter().any(blacked_out)
    }

    /// How much of a usual week is open, from 0 to 1.
    pub(super) fn open_fraction(&self) -> f64 {
        const MINUTES: i32 = 7 * 24 * 60;
        let monday = Date::constant(2001, 1, 1).at(0, 0, 0, 0);
        let open = (0..MINUTES)
            .filter_map(|minute| monday.checked_add(minute.minutes()).ok())
            .filter(|time| self.windows.iter().all(|window| window.has(*time)))
            .count();
        open as f64 / f64::from(MINUTES)
    }

    /// The time at which this much of open time has passed since another, where that is before `until`.
    pub(super) fn after_open_time(
        &self,
        since: Timestamp,
        amount: SignedDuration,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let mut left = amount;
        let mut now = since;
        while now < until {
            let next = self.next_change(now)?.min(until);
            if self.at(now) {
                let here = now.duration_until(next);
                if left < here {
                    return now.checked_add(left).ok();
                }
                left -= here;
            }
            now = next;
        }
        None
    }

    /// The next time at which open and closed could change places.
    fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        let mut times = vec![Time::midnight()];
        for (from, to) in self.windows.iter().filter_map(|window| window.hours) {
            times.extend([from, to]);
        }
        let days = [today, today.tomorrow().ok()?];
        days.into_iter()
            .flat_map(|day| times.iter().map(move |time| day.to_datetime(*time)))
            .filter_map(|local| self.zone.to_timestamp(local).ok())
            .filter(|decide| *decide > now)
            .min()
    }
}

impl WeeklyWindow {
    fn of(window: &Window) -> Option<Self> {
        let mut days = [window.days.is_empty(); 7];
        for text in &window.days {
            let (first, last) = match text.split_once('-') {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(text)?, day(text)?),
            };
            // `FRI-MON` goes over the week's end.
            let long = (last + 7 - first) % 7;
            (0..=long).for_each(|step| days[(first + step) % 7] = true);
        }
        let hours = match &window.hours {
            None => None,
            Some(text) => Some(hours(text)?),
        };
        Some(WeeklyWindow { days, hours })
    }

    fn has(&self, local: DateTime) -> bool {
        let on = |weekday: Weekday| self.days[weekday.to_monday_zero_offset() as usize];
        let (today, now) = (local.weekday(), local.time());
        match self.hours {
            None => on(today),
            Some((from, to)) if from < to => on(today) && (from..to).contains(&now),
            // What goes past midnight belongs to the day that it begins on.
            Some((from, to)) => (on(today) && now >= from) || (on(today.previous()) && now < to),
        }
    }
}

/// Hours of a day, `09:00-17:00`, also without the minutes or a leading zero: `9-17`.
pub(crate) fn hours(text: &str) -> Option<(Time, Time)> {
    let (from, to) = text.split_once(['-', '–'])?;
    Some((time(from.trim())?, time(to.trim())?))
}

/// `24:00` is the midnight after.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':').unwrap_or((text, "00"));
    let number = |text: &str| -> Option<i8> {
        let is_number = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_number)
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    match (hour, minute) {
        (24, 0) => Some(Time::midnight()),
        _ => Time::new(hour, minute, 0, 0).ok(),
    }
}

/// How many days after Monday: `MON`, `mon`, `Monday`.
pub(crate) fn day(text: &str) -> Option<usize> {
    const NAMES: [&str; 7] = [
        "MONDAY",
        "TUESDAY",
        "WEDNESDAY",
        "THURSDAY",
        "FRIDAY",
        "SATURDAY",
        "SUNDAY",
    ];
    let text = text.trim().to_uppercase();
    super::DAYS
        .iter()
        .zip(NAMES)
        .position(|(day, name)| *day == text || name == text)
}

fn dates(text: &str) -> Option<(Date, Date)> {
    let (first, last) = text.split_once('/').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}
