//! `backburn export` and `import`: a controller's data as one file of JSON lines.

use super::data_directory::{DataOptions, audit_command, failed};
use super::{CommandFailure, print_stderr};
use backburn::store::{Store, StoreError, missing_secrets};
use clap::Args;
use serde_json::json;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

/// How many experiments are read at a time.
const EXPERIMENTS_PER_PAGE: u32 = 100;

#[derive(Debug, Args)]
pub(super) struct ExportCommand {
    /// File to write; `-` is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Export the secrets that stored experiments write out as well; without them, such experiments must be applied again after an import
    #[arg(long)]
    with_secrets: bool,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub(super) struct ImportCommand {
    /// File that `backburn export` wrote; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: DataOptions,
}

/// Runs `backburn export`.
pub(super) fn export(command: &ExportCommand) -> Result<u8, CommandFailure> {
    let store = command.data.store()?;
    let unwritten = |error: std::io::Error| {
        CommandFailure::invalid(format!("{}: {error}", command.file.display()))
    };
    let file = match command.file == Path::new("-") {
        true => None,
        // The export holds hashes of tokens and the output of probes.
        false => {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = std::fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            Some(options.open(&command.file).map_err(unwritten)?)
        }
    };
    // Titles, names and outputs of probes are in it as they are.
    let is_terminal = match &file {
        Some(file) => file.is_terminal(),
        None => std::io::stdout().is_terminal(),
    };
    if is_terminal {
        return Err(CommandFailure::invalid(format!(
            "{}: an export is for files and programs, and this is a terminal\nhint: name a file, or pipe it: `backburn export -` into another program",
            command.file.display()
        )));
    }
    audit_command(store.as_ref(), "export", json!({"file": command.file}))?;
    let write = |out: &mut dyn Write| match command.with_secrets {
        true => store.export_with_secrets(out),
        false => store.export(out),
    };
    match file {
        None => {
            let mut out = std::io::stdout().lock();
            write(&mut out).map_err(|error| failed(&error))?;
            out.flush().map_err(unwritten)?;
        }
        Some(file) => {
            if file.metadata().is_ok_and(|file| file.is_file()) {
                file.set_len(0).map_err(unwritten)?;
            }
            let mut out = std::io::BufWriter::new(file);
            write(&mut out).map_err(|error| failed(&error))?;
            out.flush().map_err(unwritten)?;
        }
    }
    Ok(0)
}

/// Runs `backburn import`.
pub(super) fn import(command: &ImportCommand) -> Result<u8, CommandFailure> {
    let store = command.data.store()?;
    let count = if command.file == Path::new("-") {
        store.import(&mut std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(&command.file).map_err(|error| {
            CommandFailure::invalid(format!("{}: {error}", command.file.display()))
        })?;
        store.import(&mut std::io::BufReader::new(file))
    };
    let count = count.map_err(|error| failed(&error))?;
    audit_command(
        store.as_ref(),
        "import",
        json!({"file": command.file, "records": count}),
    )?;
    print_stderr(&format!("{count} records imported\n"));
    print_missing_secrets(store.as_ref()).map_err(|error| failed(&error))?;
    Ok(0)
}

/// Says which experiments have secrets that the store does not have.
fn print_missing_secrets(store: &dyn Store) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.experiments(after.as_deref(), EXPERIMENTS_PER_PAGE)?;
        for experiment in &page {
            let name = &experiment.name;
            let missing = missing_secrets(&store.experiment_with_secrets(name, None)?.document);
            if !missing.is_empty() {
                let places: Vec<&str> = missing.iter().map(|secret| secret.at.as_str()).collect();
                print_stderr(&format!(
                    "warning: experiment `{name}`: secrets are missing: {}; its runs are refused until it is applied again\n",
                    places.join(", ")
                ));
            }
        }
        match page.last() {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(()),
        }
    }
}
