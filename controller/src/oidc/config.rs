//! The owner's file for log-ins: which provider is trusted, and what its groups may do.

use super::id_token::Claims;
use crate::fleet::TeamSet;
use crate::store::Role;
use backburn_experiments::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The longest that a log-in may last: a provider cannot take back what it has said.
const MAX_SESSION: HumanDuration = HumanDuration::seconds(8 * 3600);

/// Log-in with an identity provider (OpenID Connect).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider's issuer, e.g. `https://id.example.org`. Its configuration is read from `/.well-known/openid-configuration` below it.
    pub issuer: String,
    /// The client id that the provider knows the controller by.
    pub client_id: String,
    /// A file with the client's secret, if the provider requires one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// The scopes to ask for.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// The claim that names the person: `email`, which the provider must have verified, or another one, e.g. `sub`.
    #[serde(default = "default_person_claim")]
    pub person_claim: String,
    /// The claim that lists the person's groups.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// What members of each group may do. Who is in none of them may not log in.
    pub groups: BTreeMap<String, GroupGrant>,
    /// How long a log-in lasts, at most 8 hours.
    #[serde(default = "default_session")]
    pub session: HumanDuration,
    /// The pages that the provider may send a browser back to. Without one, people log in on the command line only.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
}

/// What the members of a group may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GroupGrant {
    /// Their role.
    #[schemars(with = "String")]
    pub role: Role,
    /// The teams that they are limited to; none means all.
    #[serde(default)]
    pub teams: TeamSet,
}

/// Who somebody is, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonGrant {
    /// The person's name.
    pub person: String,
    /// The highest role that a group of theirs has.
    pub role: Role,
    /// The teams of the groups with that role; none means all.
    pub teams: TeamSet,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct OidcConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

fn default_scopes() -> Vec<String> {
    ["openid", "email", "groups"].map(str::to_owned).into()
}

fn default_person_claim() -> String {
    "email".into()
}

fn default_groups_claim() -> String {
    "groups".into()
}

fn default_session() -> HumanDuration {
    MAX_SESSION
}

/// Whether a person may be asked to trust this address: encrypted, or on this very host.
pub(super) fn is_safe_url(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    ["127.0.0.1", "localhost", "[::1]"].contains(&host)
}

impl OidcConfig {
    /// Loads and checks the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Self, OidcConfigError> {
        let wrong = |what: String| OidcConfigError {
            path: path.to_owned(),
            what,
        };
        let text = crate::files::read_text(path).map_err(|error| wrong(error.to_string()))?;
        let config: OidcConfig =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match config.problem() {
            None => Ok(config),
            Some(what) => Err(wrong(what)),
        }
    }

    fn problem(&self) -> Option<String> {
        if !is_safe_url(&self.issuer) {
            return Some(format!(
                "`issuer`: `{}` does not begin with `https://`",
                self.issuer.escape_debug()
            ));
        }
        if self.client_id.is_empty() {
            return Some("`client-id` is empty".into());
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Some("`scopes`: `openid` is missing".into());
        }
        if self.session > MAX_SESSION || self.session < HumanDuration::seconds(60) {
            return Some(format!(
                "`session`: a log-in lasts from a minute to {MAX_SESSION}"
            ));
        }
        let limited_admin = (self.groups.iter())
            .find(|(_, grant)| grant.role == Role::Admin && !grant.teams.is_empty());
        if let Some((group, _)) = limited_admin {
            return Some(format!(
                "`groups`: `{}` has role `admin`, which cannot be limited to teams",
                group.escape_debug()
            ));
        }
        let unsafe_page = self.redirect_uris.iter().find(|page| !is_safe_url(page));
        unsafe_page.map(|page| {
            format!(
                "`redirect-uris`: `{}` does not begin with `https://`",
                page.escape_debug()
            )
        })
    }

    /// Who these claims are about, and what they may do.
    ///
    /// # Errors
    /// The claims do not name a person, or no group of theirs may do anything.
    pub fn grant(&self, claims: &Claims) -> Result<PersonGrant, String> {
        let person = claims.text(&self.person_claim).ok_or_else(|| {
            format!(
                "the provider did not send the claim `{}`",
                self.person_claim
            )
        })?;
        // Whoever may choose an address that nobody verifies may choose somebody else's.
        if self.person_claim == "email" && !claims.is_true("email_verified") {
            return Err("the provider has not verified the person's address of e-mail".into());
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if person.is_empty() || person.len() > 128 || !person.chars().all(is_name) {
            return Err(format!(
                "the claim `{}` cannot be a person's name: use at most 128 letters, digits, `-`, `_`, `.` and `@`",
                self.person_claim
            ));
        }
        let groups = claims.texts(&self.groups_claim);
        let grants: Vec<&GroupGrant> = (groups.iter())
            .filter_map(|group| self.groups.get(group))
            .collect();
        let Some(role) = grants.iter().map(|grant| grant.role).max() else {
            return Err(format!(
                "`{person}` is in no group that may use this controller"
            ));
        };
        // Only groups with that role count: one that may look at everything does not make another's operator one of everything.
        let of_role = grants.iter().filter(|grant| grant.role == role);
        let is_limited = of_role.clone().all(|grant| !grant.teams.is_empty());
        let teams = of_role.flat_map(|grant| grant.teams.iter().cloned());
        Ok(PersonGrant {
            person: person.to_owned(),
            role,
            teams: match is_limited {
                true => teams.collect(),
                false => TeamSet::new(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> OidcConfig {
        serde_json::from_value(json!({
            "issuer": "https://id.example.org", "client-id": "backburn",
            "groups": {
                "all-look": {"role": "viewer"},
                "pay-run": {"role": "operator", "teams": ["payments"]},
                "shop-run": {"role": "operator", "teams": ["shop"]},
                "sre": {"role": "operator"},
                "boss": {"role": "admin"},
            },
        }))
        .unwrap()
    }

    fn grant(groups: Value) -> Result<(Role, Vec<String>), String> {
        let claims = json!({"email": "ada@example.org", "email_verified": true, "groups": groups});
        let grant = config().grant(&Claims::new(claims))?;
        assert_eq!(grant.person, "ada@example.org");
        Ok((grant.role, grant.teams.into_iter().collect()))
    }

    #[test]
    fn groups_give_the_highest_role_with_its_own_teams() {
        let none: Vec<String> = Vec::new();
        assert_eq!(grant(json!(["all-look"])), Ok((Role::Viewer, none.clone())));
        assert_eq!(
            grant(json!(["all-look", "pay-run", "other"])),
            Ok((Role::Operator, vec!["payments".into()])),
            "to look everywhere is not to run everywhere"
        );
        assert_eq!(
            grant(json!(["pay-run", "shop-run"])),
            Ok((Role::Operator, vec!["payments".into(), "shop".into()]))
        );
        assert_eq!(
            grant(json!(["pay-run", "sre"])),
            Ok((Role::Operator, none.clone()))
        );
        assert_eq!(grant(json!(["pay-run", "boss"])), Ok((Role::Admin, none)));
        for nothing in [
            json!([]),
            json!(["other"]),
            json!("boss"),
            json!(null),
            json!([["boss"]]),
        ] {
            assert!(grant(nothing.clone()).is_err(), "{nothing}");
        }
    }

    #[test]
    fn person_is_only_who_the_provider_has_verified() {
        let mut claims = json!({"sub": "7", "email": "ada@example.org", "groups": ["sre"]});
        let refused = |claims: &Value| config().grant(&Claims::new(claims.clone())).unwrap_err();
        assert!(refused(&claims).contains("not verified"));
        claims["email_verified"] = json!("true");
        assert!(refused(&claims).contains("not verified"));
        claims["email_verified"] = json!(true);
        claims["email"] = json!("ada\n@example.org");
        assert!(refused(&claims).contains("cannot be a person's name"));
        let by_sub = OidcConfig {
            person_claim: "sub".into(),
            ..config()
        };
        assert_eq!(by_sub.grant(&Claims::new(claims)).unwrap().person, "7");
    }

    #[test]
    fn config_that_is_unsafe_is_refused() {
        assert_eq!(config().problem(), None);
        let with = |change: fn(&mut OidcConfig)| {
            let mut changed = config();
            change(&mut changed);
            changed.problem().unwrap_or_default()
        };
        assert!(with(|config| config.issuer = "http://id.example.org".into()).contains("https"));
        assert!(
            with(|config| config.issuer = "http://127.0.0.1.evil.org".into()).contains("https")
        );
        assert!(
            with(|config| config.issuer = "http://localhost@evil.org/".into()).contains("https")
        );
        assert!(with(|config| config.scopes.clear()).contains("openid"));
        assert!(
            with(|config| config.session = HumanDuration::seconds(9 * 3600)).contains("session")
        );
        assert!(
            with(|config| {
                let boss = config.groups.get_mut("boss").unwrap();
                boss.teams.insert("shop".into());
            })
            .contains("`boss`")
        );
        assert!(
            with(|config| config.redirect_uris = vec!["http://page.org/".into()]).contains("page")
        );
    }
}
