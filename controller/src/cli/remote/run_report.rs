//! Reports of a controller's runs.

use super::super::{CommandFailure, print_stderr};
use super::client::Client;
use super::run_view;
use backburn::api::types::RunNoteInfo;
use backburn::report::{ReportFormat, blaming_words};
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;

/// The report of a run. With `as_of`, as it was when it had so many notes, and after that change of an action.
pub(in crate::cli) fn fetch(
    client: &Client,
    run: &str,
    format: ReportFormat,
    as_of: Option<(u64, u64)>,
) -> Result<String, CommandFailure> {
    let run = run_view::resolve(client, run)?;
    let mut path = format!(
        "/api/v1/runs/{}/report?format={}",
        percent_encoded(&run),
        format.word()
    );
    if let Some((notes, actions)) = as_of {
        path.push_str(&format!("&notes={notes}&actions={actions}"));
    }
    client.get_text(&path)
}

/// Shows the words in the notes of a run that judge a person, for whoever edits them.
pub(in crate::cli) fn hint_at_blame(client: &Client, run: &str) -> Result<(), CommandFailure> {
    let run = run_view::resolve(client, run)?;
    let path = format!("/api/v1/runs/{}/notes", percent_encoded(&run));
    let notes: Vec<RunNoteInfo> = client.get(&path)?;
    for note in notes {
        let texts = note.body.as_object().into_iter().flatten();
        let texts = texts.filter_map(|(_, value)| value.as_str());
        for (words, instead) in texts.flat_map(blaming_words) {
            print_stderr(&format!(
                "hint: note {} of {} says `{words}`: {instead}\n",
                note.number,
                escape(&note.who)
            ));
        }
    }
    Ok(())
}
