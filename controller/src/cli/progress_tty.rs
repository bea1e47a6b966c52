//! The live display of a run on a terminal: each probe with its last judgements, and each fault with its action, its agent and
//! its remaining time.
//!
//! The cursor waits at the beginning of the first line of the display. A terminal that is resized wraps or unwraps the lines
//! below the cursor in ways of its own, and clearing from there to the end of the screen removes all of them, whatever they
//! have become.

use super::palette::Palette;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, JournalEntry, Judgement, Tone};
use backburn_experiments::wire::InjectionId;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How many judgements of a probe are shown, the last ones.
const HISTORY_LENGTH: usize = 40;

/// The widest that a column of names gets, in columns of the terminal.
const MAX_NAME_WIDTH: usize = 30;

/// The size of a terminal that does not tell it, in columns and lines.
const USUAL_SIZE: TerminalSize = TerminalSize {
    columns: 80,
    lines: 24,
};

/// Clears from the cursor to the end of the screen (ECMA-48, ED).
const CLEAR_BELOW: &str = "\x1b[J";
/// Clears from the cursor to the end of the line (ECMA-48, EL).
const CLEAR_REST: &str = "\x1b[K";

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalSize {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

impl TerminalSize {
    /// The size of the terminal that stderr is.
    pub(super) fn of_stderr() -> Self {
        match terminal_size::terminal_size_of(std::io::stderr()) {
            Some((columns, lines)) if columns.0 > 0 && lines.0 > 0 => TerminalSize {
                columns: columns.0.into(),
                lines: lines.0.into(),
            },
            _ => USUAL_SIZE,
        }
    }
}

pub(super) struct TtyProgress<W> {
    paint: Palette,
    terminal: W,
    /// The size for which the display was drawn.
    size: TerminalSize,
    probes: BTreeMap<String, ProbeLine>,
    faults: BTreeMap<InjectionId, FaultLine>,
    /// The clock of the run: what it showed at a moment.
    clock: Option<(f64, Instant)>,
}

#[derive(Default)]
struct ProbeLine {
    history: VecDeque<Judgement>,
    value: String,
    took: String,
}

struct FaultLine {
    activity: String,
    fault: String,
    agent: String,
    /// How long the fault acts; none if it is over once it is done, or if that is not known.
    duration: Option<HumanDuration>,
    /// When it was injected, in seconds since the run started; none before that.
    since: Option<f64>,
}

/// A part of a line, in one tone.
type Span = (Tone, String);

impl<W: Write> TtyProgress<W> {
    pub(super) fn new(paint: Palette, terminal: W, size: TerminalSize) -> Self {
        TtyProgress {
            paint,
            terminal,
            size,
            probes: BTreeMap::new(),
            faults: BTreeMap::new(),
            clock: None,
        }
    }

    /// Takes an event of the run. `now` is when it arrived.
    pub(super) fn take(&mut self, entry: &JournalEntry, now: Instant) {
        // An event that comes late, because a run is followed that began earlier, was written earlier.
        let age = Timestamp::now().duration_since(entry.at).as_secs_f64();
        self.clock = Some((entry.elapsed + age.max(0.0), now));
        match &entry.event {
            Event::RunStarted { hypothesis, .. } => {
                for name in hypothesis {
                    self.probes.entry(name.clone()).or_default();
                }
            }
            Event::Sampled {
                probe,
                judgement,
                output,
                why,
                took,
                ..
            } => {
                let probe = self.probes.entry(probe.clone()).or_default();
                probe.history.push_back(*judgement);
                if probe.history.len() > HISTORY_LENGTH {
                    probe.history.pop_front();
                }
                probe.value = why.clone().unwrap_or_else(|| value_in_words(output));
                probe.took = format!("{:.0} ms", took.0.as_secs_f64() * 1e3);
            }
            Event::InjectionRequested {
                injection,
                fault,
                activity,
                agent,
                duration,
                ..
            } => {
                let line = FaultLine {
                    activity: activity.clone(),
                    fault: fault.clone(),
                    agent: agent.clone(),
                    duration: *duration,
                    since: None,
                };
                self.faults.insert(injection.clone(), line);
            }
            Event::Injected { injection, .. } => {
                if let Some(fault) = self.faults.get_mut(injection) {
                    fault.since = Some(entry.elapsed);
                }
            }
            // Only the agent's report ends a fault.
            Event::InjectionRefused { injection, .. } => drop(self.faults.remove(injection)),
            Event::InjectionEnded(ended) => drop(self.faults.remove(&ended.injection)),
            _ => {}
        }
    }

    /// Draws the display for a terminal of this size, below these lines, which stay.
    pub(super) fn draw(&mut self, lines: &[String], size: TerminalSize, now: Instant) {
        let mut frame = "\r".to_owned();
        if self.size != size || !lines.is_empty() {
            frame.push_str(CLEAR_BELOW);
        }
        self.size = size;
        for line in lines {
            frame.push_str(line);
            frame.push('\n');
        }
        let display = self.display(now);
        for (number, line) in display.iter().enumerate() {
            if number > 0 {
                frame.push('\n');
            }
            frame.push_str(line);
            frame.push_str(CLEAR_REST);
        }
        frame.push_str(CLEAR_BELOW);
        frame.push('\r');
        if display.len() > 1 {
            // Writing to a string cannot fail.
            write!(frame, "\x1b[{}A", display.len() - 1).ok();
        }
        self.write(&frame);
    }

    /// Ends the display: it stays as it was last drawn, and the cursor is below it.
    pub(super) fn end(mut self, now: Instant) {
        let display = self.display(now);
        let mut frame = format!("\r{CLEAR_BELOW}");
        for line in display {
            frame.push_str(&line);
            frame.push('\n');
        }
        self.write(&frame);
    }

    fn write(&mut self, text: &str) {
        // A terminal that is gone needs no display.
        let written = self.terminal.write_all(text.as_bytes());
        written.and_then(|()| self.terminal.flush()).ok();
    }

    /// The lines of the display, none longer than the terminal is wide, and together shorter than it is high.
    fn display(&self, now: Instant) -> Vec<String> {
        let mut rows = self.probe_rows();
        rows.extend(self.fault_rows(now));
        // The last column stays free: some terminals wrap as soon as it is written to.
        let width = self.size.columns.saturating_sub(1);
        let height = self.size.lines.saturating_sub(1).max(1);
        if rows.len() > height {
            let left = rows.len() - (height - 1);
            rows.truncate(height - 1);
            rows.push(vec![(Tone::Dim, format!("  … and {left} more"))]);
        }
        rows.iter().map(|row| self.fitted(row, width)).collect()
    }

    fn probe_rows(&self) -> Vec<Vec<Span>> {
        let name_width = widest(self.probes.keys().map(String::as_str));
        let lengths = self.probes.values().map(|probe| probe.history.len());
        let history_width = lengths.max().unwrap_or(0);
        let row = |(name, probe): (&String, &ProbeLine)| {
            let mut row = vec![(Tone::Plain, format!("  {}  ", padded(name, name_width)))];
            row.extend(probe.history.iter().map(|judgement| {
                let (tone, mark) = judgement.mark();
                (tone, mark.to_owned())
            }));
            let rest = " ".repeat(history_width - probe.history.len());
            row.push((Tone::Plain, format!("{rest}  {}", probe.value)));
            row.push((Tone::Dim, format!("  {}", probe.took)));
            row
        };
        self.probes.iter().map(row).collect()
    }

    fn fault_rows(&self, now: Instant) -> Vec<Vec<Span>> {
        let faults = || self.faults.values();
        let widths = [
            widest(faults().map(|line| line.activity.as_str())),
            widest(faults().map(|line| line.fault.as_str())),
            widest(faults().map(|line| line.agent.as_str())),
        ];
        let clock = self.clock.map_or(0.0, |(elapsed, at)| {
            elapsed + now.saturating_duration_since(at).as_secs_f64()
        });
        let row = |line: &FaultLine| {
            let cells = [&line.activity, &line.fault, &line.agent];
            let mut text = "  ⚡ ".to_owned();
            for (cell, width) in cells.into_iter().zip(widths) {
                text.push_str(&padded(cell, width));
                text.push_str("  ");
            }
            let tone = match line.since {
                Some(_) => Tone::Failure,
                None => Tone::Plain,
            };
            vec![(tone, text + &line.time(clock))]
        };
        faults().map(row).collect()
    }

    /// A row cut to a width, in colours.
    fn fitted(&self, row: &[Span], width: usize) -> String {
        let (mut out, mut left) = (String::new(), width);
        for (tone, text) in row {
            let (cut, used) = cut(text, left);
            out.push_str(&self.paint.toned(*tone, cut));
            left -= used;
            if cut.len() < text.len() {
                break;
            }
        }
        out
    }
}

impl FaultLine {
    /// The remaining time, by the clock of the run.
    fn time(&self, clock: f64) -> String {
        let whole =
            |seconds: f64| HumanDuration(Duration::from_secs(seconds.max(0.0).round() as u64));
        match (self.since, self.duration) {
            (None, _) => "requested".into(),
            (Some(since), Some(duration)) => {
                let left = since + duration.0.as_secs_f64() - clock;
                match left > 0.0 {
                    true => format!("{} left", whole(left)),
                    false => "ending".into(),
                }
            }
            (Some(since), None) => format!("for {}", whole(clock - since)),
        }
    }
}

fn widest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let widths = names.map(|name| name.width().min(MAX_NAME_WIDTH));
    widths.max().unwrap_or(0)
}

/// A name in a column of this width: cut where it is longer, else followed by spaces.
fn padded(name: &str, width: usize) -> String {
    if name.width() <= width {
        return format!("{name}{}", " ".repeat(width - name.width()));
    }
    let (cut, used) = cut(name, width.saturating_sub(1));
    format!("{cut}…{}", " ".repeat((width - 1).saturating_sub(used)))
}

/// The beginning of a text that fits into this width, and its own width.
fn cut(text: &str, width: usize) -> (&str, usize) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        let more = c.width().unwrap_or(0);
        if used + more > width {
            return (&text[..at], used);
        }
        used += more;
    }
    (text, used)
}

fn value_in_words(value: &Value) -> String {
    match value.get("status") {
        Some(status) => status.to_string(),
        None => value.to_string().chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{TerminalSize, TtyProgress};
    use crate::cli::palette::Palette;
    use backburn_experiments::journal::JournalEntry;
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    /// A display and the terminal that it is drawn on.
    struct Shown {
        progress: TtyProgress<Vec<u8>>,
        terminal: vt100::Parser,
        size: TerminalSize,
        started: Instant,
    }

    impl Shown {
        fn new(columns: u16, lines: u16) -> Self {
            let size = TerminalSize {
                columns: columns.into(),
                lines: lines.into(),
            };
            let mut shown = Shown {
                progress: TtyProgress::new(Palette::plain(), Vec::new(), size),
                terminal: vt100::Parser::new(lines, columns, 0),
                size,
                started: Instant::now(),
            };
            let hypothesis = ["p", "a longer name"];
            shown.take(0.0, json!({"event": "run-started", "run": "r", "title": "t", "seed": 1, "version": "1",
                "hypothesis": hypothesis, "looks": {"before": true, "during": true, "after": true}}));
            for (number, agent) in ["web-1", "database-1"].into_iter().enumerate() {
                let activity = ["pause it", "データ"][number];
                let injection = format!("i-{number}");
                shown.take(1.0, json!({"event": "injection-requested", "injection": injection, "activity": activity,
                    "fault": "process-pause", "agent": agent, "duration": "30s"}));
                shown.take(2.0, json!({"event": "injected", "injection": injection, "plan": {"victims": [], "changes": []}}));
            }
            shown
        }

        fn take(&mut self, elapsed: f64, event: Value) {
            let mut entry = json!({"at": Timestamp::now(), "elapsed": elapsed});
            for (key, value) in event.as_object().unwrap() {
                entry[key] = value.clone();
            }
            let entry: JournalEntry = serde_json::from_value(entry).unwrap();
            self.progress.take(&entry, self.at(elapsed));
        }

        fn at(&self, elapsed: f64) -> Instant {
            self.started + Duration::from_secs_f64(elapsed)
        }

        fn sample(&mut self, elapsed: f64, probe: &str) {
            self.take(
                elapsed,
                json!({"event": "sampled", "phase": "method", "probe": probe, "hypothesis": true,
                "judgement": "within", "output": {"status": 200}, "took": "5ms"}),
            );
        }

        /// Draws, and gives what is on the terminal, line by line.
        fn draw(&mut self, elapsed: f64, lines: &[&str]) -> Vec<String> {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let now = self.at(elapsed);
            self.progress.draw(&lines, self.size, now);
            let drawn = std::mem::take(&mut self.progress.terminal);
            // The kernel's terminal makes `\r\n` of each `\n`.
            let drawn = String::from_utf8(drawn).unwrap().replace('\n', "\r\n");
            self.terminal.process(drawn.as_bytes());
            self.lines()
        }

        fn lines(&self) -> Vec<String> {
            let contents = self.terminal.screen().contents();
            contents.lines().map(str::to_owned).collect()
        }

        /// Resizes the terminal, which wraps its lines anew and leaves the cursor on the character where it was.
        fn resize(&mut self, columns: u16, lines: u16) {
            let (row, _) = self.terminal.screen().cursor_position();
            let above = self.lines()[..usize::from(row)].to_vec();
            let below = self.lines()[usize::from(row)..].to_vec();
            let mut other = vt100::Parser::new(lines, columns, 0);
            for line in &above {
                other.process(format!("{line}\r\n").as_bytes());
            }
            let (row, _) = other.screen().cursor_position();
            other.process(below.join("\r\n").as_bytes());
            other.process(format!("\x1b[{};1H", row + 1).as_bytes());
            self.terminal = other;
            self.size = TerminalSize {
                columns: columns.into(),
                lines: lines.into(),
            };
        }
    }

    #[test]
    fn display_names_action_and_agent_of_each_fault_in_aligned_columns() {
        let mut shown = Shown::new(80, 24);
        shown.sample(3.0, "p");
        shown.sample(4.0, "p");
        shown.sample(4.0, "a longer name");
        let wanted = [
            "  a longer name  ✓   200  5 ms",
            "  p              ✓✓  200  5 ms",
            "  ⚡ pause it  process-pause  web-1       28s left",
            "  ⚡ データ    process-pause  database-1  28s left",
        ];
        assert_eq!(shown.draw(4.0, &[]), wanted);
        // Time goes on without events, and never below nothing.
        assert!(shown.draw(20.0, &[])[2].ends_with("  12s left"));
        assert!(shown.draw(40.0, &[])[2].ends_with("  ending"));
    }

    #[test]
    fn display_that_is_drawn_again_leaves_nothing_of_the_one_before() {
        let mut shown = Shown::new(80, 24);
        shown.draw(3.0, &["one line"]);
        shown.take(5.0, json!({"event": "injection-ended", "injection": "i-1", "cause": "done", "clean": true, "took": "1ms"}));
        let lines = shown.draw(5.0, &["another line"]);
        assert_eq!(lines[..2], ["one line", "another line"]);
        assert_eq!(lines.len(), 5, "{lines:?}");
        shown.take(5.0, json!({"event": "injection-ended", "injection": "i-0", "cause": "done", "clean": true, "took": "1ms"}));
        let lines = shown.draw(6.0, &[]);
        assert!(!lines.concat().contains('⚡'), "{lines:?}");
    }

    #[test]
    fn display_on_a_terminal_that_was_resized_leaves_no_fragments() {
        for columns in [200, 79, 41, 20, 9] {
            let mut shown = Shown::new(80, 24);
            shown.draw(3.0, &["one line"]);
            shown.resize(columns, 24);
            let lines = shown.draw(3.0, &[]);
            let mut fresh = Shown::new(columns, 24);
            let wanted = fresh.draw(3.0, &["one line"]);
            assert_eq!(lines, wanted, "{columns} columns");
        }
    }

    #[test]
    fn display_that_is_higher_than_the_terminal_is_cut() {
        let mut shown = Shown::new(80, 4);
        shown.draw(3.0, &[]);
        let lines = shown.draw(4.0, &["one line"]);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "one line");
        assert_eq!(lines[3], "  … and 2 more");
    }
}
