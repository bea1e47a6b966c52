//! Cron lines as people write them, made into ones that every cron understands: `@daily`, `FRI-MON`, names in any case.

use super::DAYS;
use crate::Problem;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];

/// The names for whole lines that crontab(5) knows.
const NAMED_LINES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A field of a cron line.
struct CronField {
    name: &'static str,
    least: u32,
    most: u32,
}

const FIELDS: [CronField; 5] = [
    CronField {
        name: "minute",
        least: 0,
        most: 59,
    },
    CronField {
        name: "hour",
        least: 0,
        most: 23,
    },
    CronField {
        name: "day of month",
        least: 1,
        most: 31,
    },
    CronField {
        name: "month",
        least: 1,
        most: 12,
    },
    CronField {
        name: "day of week",
        least: 0,
        most: 7,
    },
];

const USAGE: &str = "five fields: minute, hour, day of month, month, day of week, for example `0 10 * * MON-FRI`; or `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`";

/// The line with its name resolved, and with each range that goes over the end (`FRI-MON`, `22-2`) as a list.
///
/// # Errors
/// What is wrong with the line, and what would be right; its place is left to the caller.
pub(crate) fn expand(line: &str) -> Result<String, Problem> {
    let wrong = |what: String| Problem::new("$", what);
    let trimmed = line.trim();
    if trimmed.starts_with('@') {
        let name = trimmed.split_whitespace().next().unwrap_or_default();
        let named = NAMED_LINES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(trimmed));
        return match named {
            Some((_, line)) => Ok((*line).to_owned()),
            None if name.eq_ignore_ascii_case("@every") => Err(wrong(format!(
                "`{line}`: cron has times of the clock, not lengths between them"
            ))
            .hint("`0 * * * *` is every hour and `*/15 * * * *` every 15 minutes; `random` with `mean-time-between` is about that often, at random times")),
            None if name.eq_ignore_ascii_case("@reboot") => Err(wrong(format!(
                "`{line}`: a controller does not run experiments because it was started"
            ))
            .hint("give a time, for example `@daily`")),
            None => Err(wrong(format!("`{line}` is not a name of cron")).hint(USAGE)),
        };
    }
    let fields: Vec<&str> = trimmed.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let hint = match fields.len() {
            6 | 7 => format!("leave out the seconds or the year; {USAGE}"),
            _ => USAGE.to_owned(),
        };
        return Err(wrong(format!(
            "`{line}` has {} fields, and 5 are expected",
            fields.len()
        ))
        .hint(hint));
    }
    let mut expanded = Vec::new();
    for (text, field) in fields.iter().zip(&FIELDS) {
        let parts: Option<Vec<String>> = text.split(',').map(|part| field.part(part)).collect();
        let parts = parts.ok_or_else(|| {
            wrong(format!("`{text}` cannot be the {}", field.name)).hint(field.hint())
        })?;
        expanded.push(parts.join(","));
    }
    Ok(expanded.join(" "))
}

impl CronField {
    /// One part of the field between commas, in numbers; none where it is not one.
    fn part(&self, part: &str) -> Option<String> {
        let (span, step) = match part.split_once('/') {
            Some((span, step)) => (
                span,
                Some(step.parse::<u32>().ok().filter(|step| *step > 0)?),
            ),
            None => (part, None),
        };
        let with_step = |span: String| match step {
            Some(step) => format!("{span}/{step}"),
            None => span,
        };
        if span == "*" || (span == "?" && self.is_day()) {
            return Some(with_step("*".to_owned()));
        }
        if self.name == "day of month" && span.eq_ignore_ascii_case("L") && step.is_none() {
            return Some("L".to_owned());
        }
        let Some((from, to)) = span.split_once('-') else {
            return Some(with_step(self.number(span)?.to_string()));
        };
        let (from, to) = (self.number(from)?, self.number(to)?);
        if from <= to {
            return Some(with_step(format!("{from}-{to}")));
        }
        // Sunday is 0 and 7: what goes over the end of the week counts on from 7 days.
        let length = match self.name {
            "day of week" => 7,
            _ => self.most - self.least + 1,
        };
        let numbers = (from..=to + length).step_by(step.unwrap_or(1) as usize);
        let numbers = numbers.map(|number| match number >= self.least + length {
            true => number - length,
            false => number,
        });
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        Some(numbers.join(","))
    }

    fn is_day(&self) -> bool {
        self.name.starts_with("day")
    }

    /// A number or a name, e.g. `MON`, `Monday` or `jan`, as its number.
    fn number(&self, text: &str) -> Option<u32> {
        let upper = text.to_uppercase();
        let is_word = |word: &str| upper == word;
        let named = match self.name {
            // Cron counts days from Sunday.
            "day of week" => super::day(text).map(|day| (day as u32 + 1) % 7),
            "month" => MONTHS
                .iter()
                .position(|month| is_word(month))
                .map(|month| month as u32 + 1),
            _ => None,
        };
        let number = || {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number)
        };
        named
            .or_else(number)
            .filter(|number| (self.least..=self.most).contains(number))
    }

    fn hint(&self) -> String {
        let names = match self.name {
            "day of week" => format!(", or {} to {}", DAYS[0], DAYS[6]),
            "month" => format!(", or {} to {}", MONTHS[0], MONTHS[11]),
            _ => String::new(),
        };
        format!(
            "the {} is {} to {}{names}; also `*`, `*/2`, ranges and lists with commas",
            self.name, self.least, self.most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn cron_usual_spellings_are_expanded() {
        for (line, wanted) in [
            ("0 3 * * *", "0 3 * * *"),
            ("@daily", "0 0 * * *"),
            (" @Hourly ", "0 * * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 1 *"),
            ("0 10 * * MON-FRI", "0 10 * * 1-5"),
            ("0 10 * * mon-fri", "0 10 * * 1-5"),
            ("0 10 * * FRI-MON", "0 10 * * 5,6,0,1"),
            ("0 10 * * Sat-Sun", "0 10 * * 6,0"),
            ("0 10 * * SUN-TUE", "0 10 * * 0-2"),
            ("0 10 * * 5-7", "0 10 * * 5-7"),
            ("0 10 * * Friday", "0 10 * * 5"),
            ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
            ("50-10/10 * * * *", "50,0,10 * * * *"),
            ("0 0 1 NOV-feb *", "0 0 1 11,12,1,2 *"),
            ("0 0 L * ?", "0 0 L * *"),
            ("*/15 9-17 * JAN,jul 1-5", "*/15 9-17 * 1,7 1-5"),
        ] {
            assert_eq!(expand(line).as_deref(), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn cron_other_lines_are_refused_with_examples() {
        for (line, hint) in [
            ("@every 1h", "`0 * * * *` is every hour"),
            ("@reboot", "@daily"),
            ("@often", "@daily"),
            ("0 0 3 * * *", "leave out the seconds"),
            ("3am", "five fields"),
            ("60 * * * *", "the minute is 0 to 59"),
            ("0 10 * * FUN", "MON to SUN"),
            ("0 0 1 13 *", "JAN to DEC"),
            ("0 10 * * 1-9", "the day of week is 0 to 7"),
            ("*/0 * * * *", "the minute is"),
        ] {
            let problem = expand(line).unwrap_err();
            assert!(
                problem
                    .hint
                    .as_deref()
                    .is_some_and(|said| said.contains(hint)),
                "{problem:?}"
            );
        }
    }
}
