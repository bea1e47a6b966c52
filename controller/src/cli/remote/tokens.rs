//! `backburn tokens` and `backburn join-token`: letting people, jobs and agents in.

use super::super::{CommandError, print, print_json, print_stderr};
use super::{ControllerOptions, columns, text};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct TokensCommand {
    #[command(subcommand)]
    what: Option<TokensAction>,
    #[command(flatten)]
    remote: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum TokensAction {
    /// Make a token, and print it: it is told once
    Make {
        /// Whose it is: what the audit log calls whoever uses it
        name: String,
        /// What it may do: viewer, operator or admin
        #[arg(long, default_value = "operator")]
        role: String,
        /// How long it is good, e.g. `30d` [default: for ever]
        #[arg(long, value_name = "DURATION")]
        lasts: Option<String>,
    },
    /// Make a token good for nothing
    Revoke {
        /// Its id, as `backburn tokens` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JoinTokenCommand {
    /// The only name under which an agent may join with it; it takes the place of one that has the name
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    lasts: String,
    #[command(flatten)]
    remote: ControllerOptions,
}

pub(in crate::cli) fn main(command: &TokensCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    match &command.what {
        None => {
            let (_, tokens) = client.call("GET", "/api/v1/tokens", None)?;
            let rows: Vec<Vec<String>> = tokens.as_array().into_iter().flatten().map(row).collect();
            print(&columns(&rows));
        }
        Some(TokensAction::Make { name, role, lasts }) => {
            let wanted = json!({"name": name, "role": role, "lasts": lasts});
            let (_, made) = client.call("POST", "/api/v1/tokens", Some(&wanted))?;
            print(&format!("{}\n", text(&made, "token")));
        }
        Some(TokensAction::Revoke { id }) => {
            client.call("DELETE", &format!("/api/v1/tokens/{id}"), None)?;
            print_stderr("the token is good for nothing any more\n");
        }
    }
    Ok(0)
}

fn row(token: &Value) -> Vec<String> {
    let state = match (&token["revoked"], &token["expires"]) {
        (Value::String(at), _) => format!("revoked {at}"),
        (_, Value::String(at)) => format!("until {at}"),
        _ => "for ever".into(),
    };
    vec![
        text(token, "id").to_owned(),
        text(token, "name").to_owned(),
        text(token, "role").to_owned(),
        state,
    ]
}

/// `backburn join-token`
pub(in crate::cli) fn join(command: &JoinTokenCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let wanted = json!({"agent": command.agent, "lasts": command.lasts});
    let (_, made) = client.call("POST", "/api/v1/join-tokens", Some(&wanted))?;
    print(&format!("{}\n", text(&made, "token")));
    Ok(0)
}

/// `backburn audit`
#[derive(Debug, Args)]
pub(in crate::cli) struct AuditCommand {
    /// The entries after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Look whether the log is whole, instead
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// `backburn audit`
pub(in crate::cli) fn audit(command: &AuditCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    if command.verify {
        let (_, chain) = client.call("GET", "/api/v1/audit/chain", None)?;
        print_json(&chain);
        return Ok(u8::from(!chain["broken"].is_null()));
    }
    let mut after = command.after;
    loop {
        let path = format!("/api/v1/audit?limit=1000&after={after}");
        let (_, page) = client.call("GET", &path, None)?;
        let page = page.as_array().cloned().unwrap_or_default();
        let Some(last) = page.last() else {
            return Ok(0);
        };
        after = last["number"].as_u64().unwrap_or(u64::MAX);
        for entry in page {
            print(&format!("{entry}\n"));
        }
    }
}
