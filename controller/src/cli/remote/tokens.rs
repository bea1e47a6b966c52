//! `backburn tokens`, `backburn join-token` and `backburn audit`: who may use the controller, and who did what.

use super::super::{CommandFailure, print, print_json, print_stderr};
use super::{ControllerOptions, columns};
use backburn::api::types::{
    AuditLogEntry, AuditVerification, JoinTokenInfo, JoinTokenRequest, TokenInfo, TokenRequest,
};
use backburn_experiments::labels::parse_labels;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(in crate::cli) struct TokensCommand {
    #[command(subcommand)]
    action: Option<TokensAction>,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum TokensAction {
    /// Make a token and print it; it cannot be shown again
    Make {
        /// Name of the token's owner, as it appears in the audit log
        name: String,
        /// Role of the token: viewer, operator or admin
        #[arg(long, default_value = "operator")]
        role: String,
        /// How long the token is valid, e.g. `30d` [default: for ever]
        #[arg(long, value_name = "DURATION")]
        lasts: Option<String>,
    },
    /// Revoke a token
    Revoke {
        /// Id of the token, as `backburn tokens` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JoinTokenCommand {
    /// Only name under which an agent may join with the token; a known agent of that name is replaced
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// How long the token is valid
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    lasts: String,
    /// Label that the agent is granted; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn tokens`.
pub(in crate::cli) fn main(command: &TokensCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    match &command.action {
        None => {
            let tokens: Vec<TokenInfo> = client.get("/api/v1/tokens")?;
            print(&columns(&tokens.iter().map(row).collect::<Vec<_>>()));
        }
        Some(TokensAction::Make { name, role, lasts }) => {
            let request = TokenRequest {
                name: name.clone(),
                role: role.clone(),
                lasts: lasts.clone(),
            };
            let made: TokenInfo = client.post("/api/v1/tokens", &request)?;
            print(&format!("{}\n", made.token.unwrap_or_default()));
        }
        Some(TokensAction::Revoke { id }) => {
            client.delete::<()>(&format!("/api/v1/tokens/{id}"))?;
            print_stderr(&format!("token {id} is revoked\n"));
        }
    }
    Ok(0)
}

fn row(token: &TokenInfo) -> Vec<String> {
    let validity = match (&token.revoked, &token.expires) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "for ever".into(),
    };
    vec![
        token.id.clone(),
        token.name.clone(),
        token.role.clone(),
        validity,
    ]
}

/// Runs `backburn join-token`.
pub(in crate::cli) fn join(command: &JoinTokenCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let request = JoinTokenRequest {
        agent: command.agent.clone(),
        lasts: Some(command.lasts.clone()),
        labels: parse_labels(&command.labels).map_err(CommandFailure::invalid)?,
    };
    let made: JoinTokenInfo = client.post("/api/v1/join-tokens", &request)?;
    print(&format!("{}\n", made.token.unwrap_or_default()));
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditCommand {
    /// Print only entries after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Verify the log's chain of hashes instead of printing the log
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn audit`.
pub(in crate::cli) fn audit(command: &AuditCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    if command.verify {
        let verification: AuditVerification = client.get("/api/v1/audit/chain")?;
        print_json(&verification);
        return Ok(u8::from(verification.broken.is_some()));
    }
    let mut after = command.after;
    loop {
        let page: Vec<AuditLogEntry> =
            client.get(&format!("/api/v1/audit?limit=1000&after={after}"))?;
        let Some(last) = page.last() else {
            return Ok(0);
        };
        after = last.number;
        for entry in &page {
            super::super::print_json_line(entry);
        }
    }
}
