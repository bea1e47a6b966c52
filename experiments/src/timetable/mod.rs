//! When an experiment runs by itself: from its schedule to the next time, and what becomes of
//! times that come while it still runs, or while nobody was there. Pure: the clock is an argument,
//! zones come from the database that is compiled in, and chance comes from a seed.

mod allowed_hours;
pub(crate) mod cron;
mod progress;
#[cfg(test)]
mod tests;

pub use allowed_hours::QuietHours;
pub(crate) use allowed_hours::{day, hours};
pub use progress::{Progress, ScheduleDecision};

use crate::document::{CatchUp, Overlap, Schedule};
use crate::problem::nearest;
use crate::{HumanDuration, Problem, select};
use allowed_hours::AllowedHours;
use croner::Cron;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// The days, as a schedule writes them.
pub(crate) const DAYS: [&str; 7] = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

/// How many times, or hours or days, are passed over in search of one that is allowed.
const MAX_SKIPPED_TIMES: usize = 100_000;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A schedule that is understood.
#[derive(Debug, Clone)]
pub struct Timetable {
    times: Recurrence,
    zone: TimeZone,
    allowed_hours: AllowedHours,
    jitter: HumanDuration,
    overlap: Overlap,
    catch_up: CatchUp,
    seed: u64,
}

#[derive(Debug, Clone)]
enum Recurrence {
    Cron(Box<Cron>),
    At(Timestamp),
    /// With a mean of this much open time in between.
    Random(HumanDuration),
}

/// A time at which a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduledTime {
    /// As the schedule says: what tells this time from others.
    pub nominal: Timestamp,
    /// With its jitter: when the run begins.
    pub at: Timestamp,
}

impl Timetable {
    /// The timetable of a schedule. `seed` and `name` decide what chance decides: the same ones give the same times.
    ///
    /// # Errors
    /// What is wrong with its zone or its times, and only what a whole look shows: paths start at `$`, the schedule.
    pub fn of(schedule: &Schedule, seed: u64, name: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let zone = schedule
            .time_zone
            .as_deref()
            .map_or(Some(TimeZone::UTC), |name| {
                let found = zone(name);
                if let Err(problem) = &found {
                    problems.push(problem.clone());
                }
                found.ok()
            });
        let unread = |at: &str, what: String| Problem::new(at, what);
        let times = match (&schedule.cron, &schedule.at, &schedule.random) {
            (Some(cron), None, None) => match cron::expand(cron).map(|cron| cron.parse()) {
                Ok(Ok(cron)) => Some(Recurrence::Cron(Box::new(cron))),
                Ok(Err(error)) => {
                    problems.push(unread("$.cron", format!("`{cron}`: {error}")));
                    None
                }
                Err(problem) => {
                    problems.push(Problem {
                        at: "$.cron".into(),
                        ..problem
                    });
                    None
                }
            },
            (None, Some(at), None) => match at.parse() {
                Ok(at) => Some(Recurrence::At(at)),
                Err(_) => {
                    problems.push(unread("$.at", format!("`{at}` is no time")));
                    None
                }
            },
            (None, None, Some(random)) => Some(Recurrence::Random(random.mean_time_between)),
            _ => {
                problems.push(unread(
                    "$",
                    "not exactly one of `cron`, `at` and `random`".into(),
                ));
                None
            }
        };
        let allowed_hours = zone
            .clone()
            .and_then(|zone| AllowedHours::of(schedule, zone));
        if zone.is_some() && allowed_hours.is_none() {
            problems.push(unread(
                "$",
                "its window or its blackouts can't be read".into(),
            ));
        }
        let (Some(mut times), Some(zone), Some(allowed_hours)) = (times, zone, allowed_hours)
        else {
            return Err(problems);
        };
        if let Recurrence::Random(mean) = &mut times {
            // The mean is that of all the time, as people count; chance passes in open time only.
            mean.0 = mean.0.mul_f64(allowed_hours.open_fraction());
        }
        let timetable = Timetable {
            times,
            zone,
            allowed_hours,
            jitter: schedule.jitter.unwrap_or_default(),
            overlap: schedule.overlap.unwrap_or(Overlap::Skip),
            catch_up: schedule.catch_up.unwrap_or(CatchUp::Skip),
            seed: select::seeded_number(seed, &format!("schedule {name}")),
        };
        // Any beginning will do: what never comes after this one never comes at all.
        let long_ago = Timestamp::constant(946_684_800, 0);
        if problems.is_empty() && timetable.next(long_ago).is_none() {
            problems.push(Problem::new("$", "its time never comes").hint(
                "is there such a date, and is it within the window and outside the blackouts?",
            ));
        }
        match problems.is_empty() {
            true => Ok(timetable),
            false => Err(problems),
        }
    }

    /// The first time after another one.
    pub fn next(&self, after: Timestamp) -> Option<ScheduledTime> {
        let nominal = self.next_nominal(after)?;
        Some(ScheduledTime {
            nominal,
            at: self.with_jitter(nominal),
        })
    }

    /// The zone in which its times are meant.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    fn next_nominal(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Recurrence::At(at) => (*at > after && self.allowed_hours.at(*at)).then_some(*at),
            Recurrence::Random(mean) => {
                // All times before this one are reckoned, too: where a day has many, they begin anew with each hour.
                let piece = match mean.0 < HOUR.unsigned_abs() {
                    true => HOUR,
                    false => DAY,
                };
                let seconds = piece.as_secs();
                let begun = after.as_second().div_euclid(seconds) * seconds;
                let mut from = Timestamp::from_second(begun).ok()?;
                for _ in 0..MAX_SKIPPED_TIMES {
                    let until = from.checked_add(piece).ok()?;
                    let first = std::iter::successors(Some(from), |last| {
                        self.allowed_hours.after_open_time(
                            *last,
                            self.random_gap(*mean, *last),
                            until,
                        )
                    });
                    if let Some(found) = first.skip(1).find(|time| *time > after) {
                        return Some(found);
                    }
                    from = until;
                }
                None
            }
            Recurrence::Cron(cron) => {
                let mut time = after.to_zoned(self.zone.clone());
                for _ in 0..MAX_SKIPPED_TIMES {
                    time = cron.find_next_occurrence(&time, false).ok()?;
                    if self.allowed_hours.at(time.timestamp()) {
                        return Some(time.timestamp());
                    }
                }
                None
            }
        }
    }

    /// How long until the next time by chance: of events that do not know of each other (a Poisson process), so
    /// that each day, or hour, can begin anew, and a later look finds the same times.
    fn random_gap(&self, mean: HumanDuration, last: Timestamp) -> SignedDuration {
        let chance = 1.0 - select::seeded_fraction(self.seed, &format!("gap {last}"));
        let random_gap = mean.0.as_secs_f64() * -chance.ln();
        // Whole seconds read better, and two are never the same.
        SignedDuration::from_secs((random_gap as i64).max(1))
    }

    /// When the run of a time begins: up to the jitter later, but allowed, and before the next one.
    fn with_jitter(&self, nominal: Timestamp) -> Timestamp {
        if self.jitter.0.is_zero() {
            return nominal;
        }
        let mut room = SignedDuration::try_from(self.jitter.0).unwrap_or(SignedDuration::MAX);
        if let Some(next) = self.next_nominal(nominal) {
            room = room.min(nominal.duration_until(next));
        }
        let fraction = select::seeded_fraction(self.seed, &format!("jitter {nominal}"));
        let delay = SignedDuration::from_secs((room.as_secs_f64() * fraction) as i64);
        match nominal.checked_add(delay) {
            Ok(at) if self.allowed_hours.at(at) => at,
            _ => nominal,
        }
    }
}

/// The zone of this name.
fn zone(name: &str) -> Result<TimeZone, Problem> {
    let zones = TimeZoneDatabase::bundled();
    zones.get(name).map_err(|_| {
        let names: Vec<String> = zones
            .available()
            .map(|name| name.as_str().to_owned())
            .collect();
        let problem = Problem::new("$.time-zone", format!("there is no time zone `{name}`"));
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("a name such as `Europe/Amsterdam` or `UTC`"),
        }
    })
}
