//! `backburn controller rotate-authority`: a new certificate authority while agents stay connected.

use super::data_directory::{DataOptions, audit_command, failed};
use super::{CommandFailure, print_stderr};
use backburn::pki::ca::CertificateAuthority;
use backburn::store::{SqliteStore, Store, StoreError};
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many agents and entries of the audit log are read at a time.
const PAGE_SIZE: u32 = 1000;
/// How many agents a message names.
const MAX_NAMED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RotateAuthorityOptions {
    /// End the replacement: what the old authority has signed, and tokens from before, are refused from then on
    #[arg(long)]
    finish: bool,
    /// With `--finish`: end it even if agents have no certificate of the new authority yet; they have to join again
    #[arg(long, requires = "finish")]
    force: bool,
    #[command(flatten)]
    data: DataOptions,
}

/// Runs `backburn controller rotate-authority`.
pub(super) fn rotate_authority(options: &RotateAuthorityOptions) -> Result<u8, CommandFailure> {
    let data = options.data.path();
    let store = SqliteStore::open_shared(&data.join("store")).map_err(|error| failed(&error))?;
    let folder = data.join("authority");
    if !options.finish {
        audit_command(&store, "rotate-authority", json!({"finish": false}))?;
        CertificateAuthority::rotate(&folder).map_err(|error| failed(&error))?;
        print_stderr(
            "there is a new authority, and both are trusted\nhint: send the controller SIGHUP, replace tokens, and finish with `--finish` when the metric `backburn_agents_of_retiring_authority` is 0: agents renew within 20 days\n",
        );
        return Ok(0);
    }
    CertificateAuthority::require_rotation(&folder).map_err(|error| failed(&error))?;
    let left = agents_without_renewal(&store, &folder)?;
    if !left.is_empty() {
        let what = format!(
            "{} of the new authority: {}",
            match left.len() {
                1 => "1 agent has no certificate".to_owned(),
                count => format!("{count} agents have no certificate"),
            },
            named(&left)
        );
        if !options.force {
            return Err(CommandFailure::invalid(format!(
                "{what}\nhint: they get one when they are connected and renew, within 20 days; revoke those that are gone with `backburn agents revoke NAME`, or end it with `--finish --force`: they have to join again then"
            )));
        }
        print_stderr(&format!("warning: {what}; they have to join again\n"));
    }
    let detail = json!({"finish": true, "without-renewal": left});
    audit_command(&store, "rotate-authority", detail)?;
    CertificateAuthority::finish_rotation(&folder).map_err(|error| failed(&error))?;
    print_stderr(
        "the old authority is removed\nhint: send the controller SIGHUP; tokens that were made before the new authority are refused from then on\n",
    );
    Ok(0)
}

/// The agents that may connect and whose last certificate, by the audit log, is not of the current authority.
fn agents_without_renewal(
    store: &dyn Store,
    folder: &Path,
) -> Result<BTreeSet<String>, CommandFailure> {
    let authority = CertificateAuthority::open(folder).map_err(|error| failed(&error))?;
    let current = authority.fingerprint();
    let issuers = last_issuers(store).map_err(|error| failed(&error))?;
    let known = agents(store).map_err(|error| failed(&error))?;
    let is_left = |name: &String| issuers.get(name) != Some(&current);
    Ok(known.into_iter().filter(is_left).collect())
}

/// Which authority has signed the last certificate of each agent, where the audit log says so.
fn last_issuers(store: &dyn Store) -> Result<BTreeMap<String, String>, StoreError> {
    let (mut issuers, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = store.audited(after, PAGE_SIZE)?;
        let Some(last) = page.last() else {
            return Ok(issuers);
        };
        after = last.number;
        let issued = page.into_iter().map(|entry| entry.record);
        for record in issued.filter(|record| matches!(record.what.as_str(), "join" | "renew")) {
            let issuer = record.detail["authority"].as_str().unwrap_or_default();
            issuers.insert(record.about, issuer.to_owned());
        }
    }
}

/// The names of the agents that may connect.
fn agents(store: &dyn Store) -> Result<BTreeSet<String>, StoreError> {
    let (mut names, mut after) = (BTreeSet::new(), None::<String>);
    loop {
        let page = store.agents(after.as_deref(), PAGE_SIZE)?;
        let Some(last) = page.last() else {
            return Ok(names);
        };
        after = Some(last.name.clone());
        let valid = page.into_iter().filter(|agent| agent.revoked.is_none());
        names.extend(valid.map(|agent| agent.name));
    }
}

fn named(agents: &BTreeSet<String>) -> String {
    let mut names: Vec<String> = agents
        .iter()
        .take(MAX_NAMED)
        .map(|name| escape(name).into_owned())
        .collect();
    if agents.len() > MAX_NAMED {
        names.push(format!("and {} more", agents.len() - MAX_NAMED));
    }
    names.join(", ")
}
