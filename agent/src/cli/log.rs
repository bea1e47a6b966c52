//! The log on standard error: one line for each entry, for people or as JSON.

use backburn_experiments::terminal_text::guard;
use std::io::{IsTerminal as _, Write};
use std::str::FromStr;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// The variable that says how the log is written: `text` or `json`. Processes that this one starts inherit it.
pub const LOG_FORMAT_VARIABLE: &str = "BACKBURN_LOG_FORMAT";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people, in colours on a terminal.
    #[default]
    Text,
    /// For programs: each line is a JSON object.
    Json,
}

impl LogFormat {
    /// The word for it, as it is given.
    pub fn word(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// The format that the environment names; text if it names none, or one that does not exist.
    pub fn from_environment() -> Self {
        let named = std::env::var(LOG_FORMAT_VARIABLE);
        named
            .ok()
            .and_then(|word| word.parse().ok())
            .unwrap_or_default()
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("expected `text` or `json`".to_owned()),
        }
    }
}

/// The variable that says from which level on the log is written.
const LOG_LEVEL_VARIABLE: &str = "BACKBURN_LOG";

/// The level of the log that this process writes, which can be changed while it runs.
pub struct LogLevelSwitch {
    initial: Level,
    filter: reload::Handle<LevelFilter, Registry>,
}

impl LogLevelSwitch {
    /// The level with which the log began: the one in `BACKBURN_LOG`, else the program's usual one.
    pub fn initial(&self) -> Level {
        self.initial
    }

    /// The level from which on the log is written now; the initial one if no log is written.
    pub fn current(&self) -> Level {
        let current = self.filter.with_current(|filter| filter.into_level());
        current.ok().flatten().unwrap_or(self.initial)
    }

    /// Writes the log from this level on, if one is written.
    pub fn set(&self, level: Level) {
        self.filter.reload(LevelFilter::from_level(level)).ok();
    }
}

/// Writes the log to standard error, from this level on or from the level in `BACKBURN_LOG`.
pub fn log_to_stderr(usual: Level, format: LogFormat) -> LogLevelSwitch {
    let named = std::env::var(LOG_LEVEL_VARIABLE).ok();
    let level = named.as_deref().map(str::parse::<Level>);
    let initial = level
        .as_ref()
        .map_or(usual, |level| *level.as_ref().unwrap_or(&usual));
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(initial));
    let log = tracing_subscriber::registry().with(filter);
    // A test may have installed a subscriber already.
    match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let lines = fmt::layer().with_writer(|| NonBlockingStderr(text_line));
            log.with(lines.with_ansi(colours)).try_init().ok();
        }
        LogFormat::Json => {
            let lines = fmt::layer().with_writer(|| NonBlockingStderr(json_line));
            let lines = lines.json().flatten_event(true).with_span_list(false);
            log.with(lines).try_init().ok();
            // A bug's message is one line of the log, too.
            std::panic::set_hook(Box::new(|panic| {
                tracing::error!(panic = %panic, "a thread ended because of a bug in Backburn");
            }));
        }
    }
    if let (Some(named), Some(Err(_))) = (named, level) {
        tracing::warn!(
            named,
            used = %initial,
            "`{LOG_LEVEL_VARIABLE}` names no level: expected `error`, `warn`, `info`, `debug` or `trace`"
        );
    }
    LogLevelSwitch {
        initial,
        filter: handle,
    }
}

/// What a writable pipe takes without blocking (`PIPE_BUF`, pipe(7)), in bytes.
const TAKEN_AT_ONCE: usize = 4096;

/// Standard error that never blocks: what cannot be written at once is lost. The processes that end faults write their log there.
/// One write is one entry, which the function turns into the line that is written.
struct NonBlockingStderr(fn(&[u8]) -> Vec<u8>);

impl Write for NonBlockingStderr {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut stderr = std::io::stderr().lock();
        let at_once = Timespec::default();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        if matches!(poll(&mut fds, Some(&at_once)), Ok(1..)) {
            stderr.write_all(&(self.0)(text))?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An entry for people. What its values say cannot begin a line of their own, or control a terminal; what is too long is cut.
fn text_line(entry: &[u8]) -> Vec<u8> {
    let entry = String::from_utf8_lossy(entry);
    let line = guard(entry.trim_end_matches('\n')).replace('\n', "\\n");
    let mut line = line.into_bytes();
    line.truncate(TAKEN_AT_ONCE - 1);
    line.push(b'\n');
    line
}

/// An entry for programs. The texts of one that is too long are cut, so that it still is JSON.
fn json_line(line: &[u8]) -> Vec<u8> {
    let entry = String::from_utf8_lossy(line);
    // What JSON may contain and a terminal would obey is escaped; the escapes are JSON's.
    let line = guard(entry.trim_end_matches('\n')).into_owned() + "\n";
    if line.len() <= TAKEN_AT_ONCE {
        return line.into_bytes();
    }
    let mut longest = 1024;
    let mut entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
    while longest > 0 {
        cut_strings(&mut entry, longest);
        let mut cut = entry.to_string().into_bytes();
        cut.push(b'\n');
        if cut.len() <= TAKEN_AT_ONCE {
            return cut;
        }
        longest /= 2;
    }
    b"{\"level\":\"WARN\",\"message\":\"an entry of the log was too long\"}\n".to_vec()
}

fn cut_strings(value: &mut serde_json::Value, longest: usize) {
    match value {
        serde_json::Value::String(text) if text.chars().count() > longest => {
            *text = text.chars().take(longest).chain(['…']).collect();
        }
        serde_json::Value::Object(fields) => {
            for field in fields.values_mut() {
                cut_strings(field, longest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_line_that_is_too_long_is_cut_and_still_is_json() {
        let line =
            serde_json::json!({"level": "WARN", "message": "short", "why": "\"ä\n".repeat(9000)});
        let cut = json_line(line.to_string().as_bytes());
        assert!(cut.len() <= TAKEN_AT_ONCE && cut.ends_with(b"\n"));
        let cut: serde_json::Value = serde_json::from_slice(&cut).unwrap();
        assert_eq!(cut["message"], "short");
        assert!(cut["why"].as_str().unwrap().starts_with("\"ä\n"));
    }

    #[test]
    fn log_format_is_text_or_json_and_nothing_else() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.word().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
