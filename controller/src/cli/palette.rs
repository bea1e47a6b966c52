//! Colours of what is printed for people.

use backburn_experiments::journal::Tone;
use owo_colors::OwoColorize;

/// Colours, if the output supports them: `NO_COLOR`, `CLICOLOR` and dumb terminals are respected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette(bool);

impl Palette {
    pub(super) fn stderr() -> Self {
        Palette(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
    }

    /// No colours, whatever the output supports.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Palette(false)
    }

    pub(super) fn stdout() -> Self {
        Palette(anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never)
    }

    pub(super) fn success(self, text: &str) -> String {
        if self.0 {
            text.green().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn failure(self, text: &str) -> String {
        if self.0 {
            text.red().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn warning(self, text: &str) -> String {
        if self.0 {
            text.yellow().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn dim(self, text: &str) -> String {
        if self.0 {
            text.dimmed().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn toned(self, tone: Tone, text: &str) -> String {
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Dim => self.dim(text),
            Tone::Success => self.success(text),
            Tone::Warning => self.warning(text),
            Tone::Failure => self.failure(text),
        }
    }
}
