//! `run --compare-with`: what a run measured, beside what an earlier one did.

use backburn::report::EarlierRun;
use backburn_experiments::journal::Verdict;
use backburn_experiments::terminal_text::escape;
use jiff::Timestamp;
use std::fmt::Write as _;

/// The word that means the latest earlier run that held.
pub(super) const LAST_HELD: &str = "last-held";

/// Both runs side by side, a line for each figure; what differs is marked.
pub(super) fn format_comparison(now: &Verdict, before: &EarlierRun) -> String {
    let this = EarlierRun::new(String::new(), Timestamp::UNIX_EPOCH, None, now);
    let started = before.started.strftime("%Y-%m-%d %H:%M:%S");
    let mut out = format!(
        "compared with run {} of {started} UTC:\n",
        escape(&before.run)
    );
    let seconds = |seconds: Option<f64>| {
        seconds.map_or("not measured".into(), |seconds| format!("{seconds:.1} s"))
    };
    let failed = |run: &EarlierRun| format!("{} of {}", run.failures, run.samples);
    let lines = [
        (
            "outcome",
            before.outcome.to_string(),
            this.outcome.to_string(),
        ),
        (
            "out of tolerance",
            seconds(Some(before.outage_seconds)),
            seconds(Some(this.outage_seconds)),
        ),
        (
            "recovered after",
            seconds(before.recovered_seconds),
            seconds(this.recovered_seconds),
        ),
        ("failed checks", failed(before), failed(&this)),
    ];
    for (name, before, now) in lines {
        // Writing to a string cannot fail.
        match before == now {
            true => writeln!(out, "  {name}: {now}, as before").ok(),
            false => writeln!(out, "  {name}: {before} before, now {now}").ok(),
        };
    }
    out
}
