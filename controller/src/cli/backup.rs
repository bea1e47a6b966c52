//! Backup and restore of a controller's data, on the controller's host. The backup is made while the controller runs, and no
//! route of the API gives it out: it holds the authority's key.

use super::data_directory::{DataOptions, audit_command, failed, file_and_hash};
use super::output::shown_path;
use super::table::print_table;
use super::{CommandFailure, print_stderr};
use backburn::api::role_name;
use backburn::files::sync_parent;
use backburn::pki::ca::{AUTHORITY_FILES, CaError, CertificateAuthority};
use backburn::store::{Backup, SqliteStore, Store, StoreError};
use clap::Args;
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The exit code of a command that a signal has ended: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Debug, Args)]
pub(super) struct BackupCommand {
    /// File to write, which must not exist; it holds the authority's key and is readable by its owner only
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub(super) struct RestoreOptions {
    /// File that `backburn backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Revoke every token and agent of the backup: make a token with `admin-token`, and have the agents join again
    #[arg(long)]
    revoke_all: bool,
    /// Trust the backup's tokens and agents, because none was revoked after it was made; only needed if the data directory has no store to tell
    #[arg(long, conflicts_with = "revoke_all")]
    nothing_revoked_since: bool,
    #[command(flatten)]
    data: DataOptions,
}

fn at(path: &Path, error: &io::Error) -> CommandFailure {
    CommandFailure::invalid(format!("{}: {error}", shown_path(path)))
}

fn store_failed(error: &StoreError) -> CommandFailure {
    match &error.hint {
        Some(hint) => CommandFailure::invalid(format!("{error}\nhint: {hint}")),
        None => failed(error),
    }
}

/// Removes an unfinished file when it is dropped.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone if it was finished.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Has SIGINT, SIGTERM and SIGHUP remove a file before they end the process.
fn remove_when_interrupted(file: &Path) -> io::Result<()> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let file = file.to_owned();
    std::thread::Builder::new().spawn(move || {
        if let Ok(signal) = mask.wait() {
            std::fs::remove_file(&file).ok();
            print_stderr(&format!("error: {signal}: no backup was written\n"));
            std::process::exit(EXIT_INTERRUPTED);
        }
    })?;
    Ok(())
}

/// Runs `backburn backup`.
pub(super) fn backup(command: &BackupCommand) -> Result<u8, CommandFailure> {
    let file = &command.file;
    let exists = || {
        CommandFailure::invalid(format!(
            "{}: the file exists\nhint: give another name; a backup never replaces a file",
            shown_path(file)
        ))
    };
    if file.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let data = command.data.path();
    let store = SqliteStore::open_shared(&data.join("store")).map_err(|e| store_failed(&e))?;
    let files = authority_files(data).map_err(|error| failed(&error))?;
    audit_command(&store, "backup", json!({"file": file}))?;

    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = file.with_file_name(name);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&partial)
        .map_err(|error| at(&partial, &error))?;
    let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|_| {
        CommandFailure::invalid(format!(
            "{}: another backup is being written there",
            shown_path(&partial)
        ))
    })?;
    let unfinished = Unfinished(partial.clone());
    remove_when_interrupted(&partial).map_err(|error| at(&partial, &error))?;
    // A backup that was killed may have left something.
    lock.set_len(0).map_err(|error| at(&partial, &error))?;
    let made = Timestamp::now();
    let backup = Backup { made, files };
    store
        .backup(&partial, &backup)
        .map_err(|e| store_failed(&e))?;
    lock.sync_all().map_err(|error| at(&partial, &error))?;
    match renameat2(
        AT_FDCWD,
        &partial,
        AT_FDCWD,
        file,
        RenameFlags::RENAME_NOREPLACE,
    ) {
        Ok(()) => {}
        Err(nix::errno::Errno::EEXIST) => return Err(exists()),
        Err(error) => return Err(at(file, &error.into())),
    }
    drop(unfinished);
    sync_parent(file).map_err(|error| at(file, &error))?;
    print_stderr(&format!(
        "backup of {} as of {}: {}\nhint: whoever reads it can sign certificates: keep it as safe as the controller's data\n",
        shown_path(data),
        made.strftime("%F %T UTC"),
        shown_path(file)
    ));
    Ok(0)
}

/// The files of the authority, by their names.
fn authority_files(data: &Path) -> Result<Vec<(String, String)>, CaError> {
    let folder = data.join("authority");
    let mut files = Vec::new();
    for name in AUTHORITY_FILES {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(content) => files.push(((*name).to_owned(), content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CaError::File { path, source }),
        }
    }
    Ok(files)
}

/// Runs `backburn controller restore`.
pub(super) fn restore(options: &RestoreOptions) -> Result<u8, CommandFailure> {
    let data = options.data.path();
    let backup = SqliteStore::read_backup(&options.file).map_err(|e| store_failed(&e))?;
    options.data.create()?;
    let place = data.join("store");
    let is_known = place.join("store.db").is_file();
    if !is_known && !options.revoke_all && !options.nothing_revoked_since {
        return Err(CommandFailure::invalid(format!(
            "{} has no store that says what was revoked after the backup was made, at {}\nhint: restore into the controller's data directory, which keeps what is revoked; else `--revoke-all`, or `--nothing-revoked-since` if you know that",
            shown_path(data),
            backup.made.strftime("%F %T UTC")
        )));
    }
    let now = Timestamp::now();
    let restored = SqliteStore::restore(&options.file, &place, now, options.revoke_all)
        .map_err(|e| store_failed(&e))?;
    // An authority that is there is the newer one.
    let folder = data.join("authority");
    let has_authority = folder.join("authority.crt").is_file();
    if !has_authority {
        for (name, content) in &backup.files {
            if AUTHORITY_FILES.contains(&name.as_str()) {
                CertificateAuthority::restore_file(&folder, name, content)
                    .map_err(|error| failed(&error))?;
            }
        }
    }
    let store = SqliteStore::open(&place).map_err(|e| store_failed(&e))?;
    audit_command(
        &store,
        "restore",
        json!({
            "backup": file_and_hash(&options.file), "made": backup.made, "revoked-all": options.revoke_all,
            "replaced-head": restored.replaced_head, "open-runs": restored.open_runs,
        }),
    )?;
    let kept = match &restored.kept {
        Some(kept) => format!("the store that was there is in {}\n", shown_path(kept)),
        None => String::new(),
    };
    let authority = match has_authority {
        true => "the authority that was there stays\n",
        false => "",
    };
    print_stderr(&format!(
        "restored {} as of {}: {} runs, of which {} were open and are closed at the next start; {} agents may connect\n{kept}{authority}",
        shown_path(data),
        backup.made.strftime("%F %T UTC"),
        restored.runs,
        restored.open_runs,
        restored.agents,
    ));
    let tokens = store.api_tokens().map_err(|e| store_failed(&e))?;
    let is_over = |expires: Option<Timestamp>| expires.is_some_and(|expires| expires <= now);
    let valid = tokens
        .into_iter()
        .filter(|token| token.revoked.is_none() && !is_over(token.expires));
    print_table(
        ["TOKEN", "NAME", "PERSON", "ROLE", "EXPIRES"],
        valid.map(|token| {
            let expires = token.expires.map(|at| at.to_string());
            let role = role_name(token.role).to_owned();
            [
                token.id,
                token.name,
                token.person,
                role,
                expires.unwrap_or_default(),
            ]
        }),
        "no token is valid: `backburn controller admin-token` makes one",
    );
    Ok(0)
}
