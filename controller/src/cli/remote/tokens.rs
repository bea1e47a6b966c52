//! `backburn tokens` and `backburn join-token`: who may use the controller.

use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_stderr};
use super::ControllerOptions;
use super::client::Client;
use backburn::api::types::{
    JoinTokenInfo, JoinTokenRequest, RevokedTokens, TokenInfo, TokenRequest,
};
use backburn_experiments::labels::parse_labels;
use backburn_experiments::probes::address::percent_encoded;
use clap::{Args, Subcommand};
use jiff::Timestamp;

#[derive(Debug, Args)]
pub(in crate::cli) struct TokensCommand {
    #[command(subcommand)]
    action: Option<TokensAction>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum TokensAction {
    /// Make a token and print it; it cannot be shown again
    Make {
        /// Name of the token, as it appears in the audit log
        name: String,
        /// Person or job that the token belongs to [default: the token's name]
        #[arg(long, value_name = "NAME")]
        person: Option<String>,
        /// Role of the token: viewer, operator or admin
        #[arg(long, default_value = "operator")]
        role: String,
        /// Team whose experiments, runs and agents the token may use; may be repeated [default: all]
        #[arg(long = "team", value_name = "TEAM", value_delimiter = ',')]
        teams: Vec<String>,
        /// How long the token is valid, e.g. `30d` [default: for ever]
        #[arg(long, value_name = "DURATION")]
        lasts: Option<String>,
        /// Make a token for a participant of game days, who may not know what they do before it is revealed
        #[arg(long)]
        blind: bool,
    },
    /// Revoke a token, or all tokens of a person
    Revoke {
        /// Name or id of the token, as `backburn tokens` shows it
        #[arg(required_unless_present = "person", conflicts_with = "person")]
        token: Option<String>,
        /// Person whose tokens are all revoked
        #[arg(long, value_name = "NAME")]
        person: Option<String>,
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
            match command.json {
                true => print_json(&tokens),
                false => print_table(
                    ["ID", "NAME", "PERSON", "ROLE", "TEAMS", "CREATED", "VALID"],
                    tokens.iter().map(row),
                    "there are no tokens",
                ),
            }
        }
        Some(TokensAction::Make {
            name,
            person,
            role,
            teams,
            lasts,
            blind,
        }) => {
            let request = TokenRequest {
                name: name.clone(),
                person: person.clone(),
                role: role.clone(),
                teams: teams.iter().cloned().collect(),
                lasts: lasts.clone(),
                blind: *blind,
            };
            let made: TokenInfo = client.post("/api/v1/tokens", &request)?;
            print(&format!("{}\n", made.token.unwrap_or_default()));
        }
        Some(TokensAction::Revoke {
            token: Some(token), ..
        }) => revoke(&client, token)?,
        Some(TokensAction::Revoke { person, .. }) => {
            let person = person.as_deref().unwrap_or_default();
            let path = format!("/api/v1/people/{}", percent_encoded(person));
            let RevokedTokens { revoked } = client.delete(&path)?;
            print_stderr(&format!(
                "{} tokens of `{person}` are revoked\n",
                revoked.len()
            ));
        }
    }
    Ok(0)
}

/// Revokes the token with this id, or the only valid one of this name.
fn revoke(client: &Client, token: &str) -> Result<(), CommandFailure> {
    let all: Vec<TokenInfo> = client.get("/api/v1/tokens")?;
    let token = named(&all, token)?;
    client.delete::<()>(&format!("/api/v1/tokens/{}", token.id))?;
    print_stderr(&format!(
        "token `{}` ({}) is revoked\n",
        token.name, token.id
    ));
    Ok(())
}

/// The token with this id, or the only valid one of this name.
fn named<'a>(all: &'a [TokenInfo], wanted: &str) -> Result<&'a TokenInfo, CommandFailure> {
    if let Some(token) = all.iter().find(|token| token.id == wanted) {
        return Ok(token);
    }
    let named = all.iter().filter(|token| token.name == wanted);
    let (over, valid): (Vec<_>, Vec<_>) = named.partition(|token| is_over(token));
    let ids = |tokens: &[&TokenInfo]| {
        let ids = tokens.iter().map(|token| token.id.as_str());
        ids.collect::<Vec<_>>().join(", ")
    };
    let wanted = wanted.escape_debug();
    match (&valid[..], &over[..]) {
        ([token], _) => Ok(token),
        ([], []) => Err(CommandFailure::invalid(format!(
            "no token has the name or id `{wanted}`\nhint: `backburn tokens` lists them"
        ))),
        ([], over) => Err(CommandFailure::invalid(format!(
            "no valid token has the name `{wanted}`: {} is revoked or expired",
            ids(over)
        ))),
        (several, _) => Err(CommandFailure::invalid(format!(
            "{} valid tokens have the name `{wanted}`\nhint: give the id of one: {}",
            several.len(),
            ids(several)
        ))),
    }
}

/// Whether a token is revoked or expired.
fn is_over(token: &TokenInfo) -> bool {
    let expires = token.expires.as_deref().and_then(|at| at.parse().ok());
    token.revoked.is_some() || expires.is_some_and(|at: Timestamp| at <= Timestamp::now())
}

fn row(token: &TokenInfo) -> [String; 7] {
    let validity = match (&token.revoked, &token.expires) {
        (Some(at), _) => format!("revoked {}", to_the_second(at)),
        (None, Some(at)) => format!("until {}", to_the_second(at)),
        (None, None) => "for ever".into(),
    };
    [
        token.id.clone(),
        token.name.clone(),
        token.person.clone(),
        token.role.clone(),
        match token.teams.is_empty() {
            true => "all".into(),
            false => Vec::from_iter(token.teams.iter().map(String::as_str)).join(", "),
        },
        to_the_second(&token.created),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, name: &str, revoked: bool, expires: Option<&str>) -> TokenInfo {
        TokenInfo {
            id: id.into(),
            token: None,
            name: name.into(),
            person: name.into(),
            role: "viewer".into(),
            blind: false,
            teams: Default::default(),
            created: "2026-01-01T00:00:00Z".into(),
            expires: expires.map(str::to_owned),
            revoked: revoked.then(|| "2026-01-02T00:00:00Z".into()),
        }
    }

    #[test]
    fn token_is_found_by_id_or_by_the_name_of_one_valid_token() {
        let all = [
            token("a1", "ci", true, None),
            token("a2", "ci", false, None),
            token("a3", "ci", false, Some("2026-01-03T00:00:00Z")),
            token("a4", "screen", false, None),
            token("a5", "screen", false, None),
            token("a6", "gone", true, None),
            token("a7", "a4", false, None),
        ];
        let found = |wanted| match named(&all, wanted) {
            Ok(token) => token.id.clone(),
            Err(failure) => failure.message,
        };
        assert_eq!(found("ci"), "a2");
        assert_eq!(found("a1"), "a1");
        assert_eq!(found("a4"), "a4", "an id goes before a name");
        assert!(found("screen").contains("give the id of one: a4, a5"));
        assert!(found("gone").contains("a6 is revoked or expired"));
        assert!(found("none\n").contains("the name or id `none\\n`"));
    }
}
