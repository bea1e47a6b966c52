//! The report of a run that is over: what was asked, what was hit, what it is worth, and what will be done. It is computed from the
//! run's journal and notes, and from the actions as of a change that the report names, so that the same ones give the same bytes.
//!
//! [`ReportBuilder`] reads the journal line by line, [`RunReport`] is what a program reads, and its sections are what people
//! read, in HTML or Markdown. [`GameDayReport`] puts the reports of a game day's runs together with its own notes.

mod assembly;
mod blame;
mod blocks;
mod builder;
mod escape;
mod evidence;
mod game_day;
mod game_day_model;
mod game_day_objectives;
mod game_day_sections;
mod html;
mod markdown;
mod model;
mod plot;
mod sections;
mod series;
mod summary;
mod timeline;

pub use blame::blaming_words;
pub use builder::ReportBuilder;
pub use evidence::{ReportEvidence, counts_text};
pub use game_day_model::{GameDayReport, GameDayReportContext, GameDayStepReport, ReportDecision};
pub use model::{
    EarlierRun, FaultHit, Objective, PlotColumn, ProbePlot, ReportAction, ReportContext, Rerun,
    RunReport, TargetReach, TimelineItem, TimelineSource,
};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportFormat {
    /// One page that needs nothing else: styles and plots are inside, and no script.
    Html,
    /// Text for a repository or a ticket.
    #[default]
    Markdown,
    /// JSON, as data for programs.
    Json,
}

impl ReportFormat {
    /// The format of a written report, by how it begins.
    pub fn of(text: &str) -> Self {
        match text.trim_start() {
            text if text.starts_with('{') => ReportFormat::Json,
            text if text.starts_with("<!") => ReportFormat::Html,
            _ => ReportFormat::Markdown,
        }
    }

    /// The format's name in requests.
    pub fn word(self) -> &'static str {
        match self {
            ReportFormat::Html => "html",
            ReportFormat::Markdown => "markdown",
            ReportFormat::Json => "json",
        }
    }

    /// The content type of a report in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            ReportFormat::Html => "text/html; charset=utf-8",
            ReportFormat::Markdown => "text/markdown; charset=utf-8",
            ReportFormat::Json => "application/json",
        }
    }
}

impl RunReport {
    /// The report as text in this format, with a line break at its end.
    pub fn render(&self, format: ReportFormat) -> String {
        match format {
            ReportFormat::Html => {
                html::page(&self.title, &self.evidence, &sections::sections(self))
            }
            ReportFormat::Markdown => markdown::text(&self.title, &sections::sections(self)),
            ReportFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
        }
    }

    /// The plots alone, as SVG, one after the other.
    pub fn plots_svg(&self) -> String {
        let mut out = String::new();
        for shown in &self.plots {
            plot::svg(&mut out, shown, &self.hits, self.seconds);
        }
        out
    }
}

impl GameDayReport {
    /// The report as text in this format, with a line break at its end.
    pub fn render(&self, format: ReportFormat) -> String {
        let sections = || game_day_sections::sections(self);
        match format {
            ReportFormat::Html => html::page(&self.title, &self.evidence, &sections()),
            ReportFormat::Markdown => markdown::text(&self.title, &sections()),
            ReportFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
        }
    }
}
