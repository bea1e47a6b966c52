//! What a token that is limited to teams gets to see: each path that names an experiment, a run or an agent is guarded here, for all
//! handlers alike, and so are pages of lists. What belongs to others does not exist for it.

use super::problem::ApiProblem;
use super::{Api, blocking};
use crate::service::{Actor, Service};
use crate::store::{OwnedKind, StoreError};
use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use std::sync::Arc;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Owned(OwnedKind),
    Agent,
    /// Nothing that belongs to a team.
    Nothing,
}

impl Subject {
    /// What the first parameter of this route names.
    fn of(route: &str) -> Self {
        let Some(rest) = route.strip_prefix("/api/v1/") else {
            return Subject::Nothing;
        };
        match rest.split_once("/{").map(|(room, _)| room) {
            Some("experiments" | "schedules") => Subject::Owned(OwnedKind::Experiment),
            Some("runs" | "approvals") => Subject::Owned(OwnedKind::Run),
            Some("actions") => Subject::Owned(OwnedKind::Action),
            Some("game-day-documents") => Subject::Owned(OwnedKind::GameDayDocument),
            Some("game-days") => Subject::Owned(OwnedKind::GameDay),
            Some("agents") => Subject::Agent,
            _ => Subject::Nothing,
        }
    }
}

/// Refuses a request for something that does not belong to a team of the token, as if it did not exist.
pub(super) async fn guard(parts: &mut Parts, api: &Api, who: &Actor) -> Result<(), ApiProblem> {
    if who.teams.is_empty() {
        return Ok(());
    }
    let route = parts.extensions.get::<MatchedPath>();
    let subject = route.map_or(Subject::Nothing, |route| Subject::of(route.as_str()));
    if subject == Subject::Nothing {
        return Ok(());
    }
    let hidden = || ApiProblem::not_found("it does not exist, or belongs to another team");
    let parameters = RawPathParams::from_request_parts(parts, api).await;
    let Ok(parameters) = parameters else {
        return Err(hidden());
    };
    let Some(id) = parameters.iter().next().map(|(_, id)| id.to_owned()) else {
        return Err(hidden());
    };
    let stores = parts.method == Method::PUT
        && matches!(
            subject,
            Subject::Owned(OwnedKind::Experiment | OwnedKind::GameDayDocument)
        );
    let (service, who) = (Arc::clone(&api.service), who.clone());
    let sees = blocking(move || match subject {
        // The name may be free.
        _ if stores => Ok(true),
        Subject::Owned(kind) => service.sees(&who, kind, &id),
        Subject::Agent => service.sees_agent_called(&who, &id),
        Subject::Nothing => Ok::<_, StoreError>(true),
    });
    match sees.await? {
        true => Ok(()),
        false => Err(hidden()),
    }
}

/// Refuses to store an experiment under a name that belongs to another team.
pub(super) fn check_experiment_name(
    service: &Service,
    who: &Actor,
    name: &str,
) -> Result<(), ApiProblem> {
    match service.may_store_experiment(who, name)? {
        true => Ok(()),
        false => Err(ApiProblem::new(
            StatusCode::CONFLICT,
            "team",
            format!("the name `{name}` is taken by an experiment of another team"),
        )
        .hint("use another name")),
    }
}

/// Reads pages until one page of what the token may see is full. `read` gets the key of the last item before, if there is one.
pub(super) fn visible<T, E>(
    first: Option<String>,
    limit: u32,
    read: impl Fn(Option<&str>, u32) -> Result<Vec<T>, E>,
    key: impl Fn(&T) -> &str,
    sees: impl Fn(&T) -> Result<bool, E>,
) -> Result<Vec<T>, E> {
    let mut seen = Vec::new();
    let mut after = first;
    loop {
        let page = read(after.as_deref(), limit)?;
        let Some(last) = page.last() else {
            return Ok(seen);
        };
        after = Some(key(last).to_owned());
        for item in page {
            if sees(&item)? {
                seen.push(item);
            }
            if seen.len() == limit as usize {
                return Ok(seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn every_route_that_names_something_of_a_team_is_guarded() {
        let description = crate::api::description();
        let paths = description["paths"].as_object().unwrap();
        for path in paths.keys().filter(|path| path.contains('{')) {
            // Only admins may use the first three, and an admin is never limited to teams. A log-in is known to who began it only.
            let of_nobody = [
                "/api/v1/tokens/",
                "/api/v1/join-tokens/",
                "/api/v1/people/",
                "/api/v1/login/device/",
            ];
            let is_guarded = Subject::of(path) != Subject::Nothing;
            let is_nobodys = of_nobody.iter().any(|start| path.starts_with(start));
            assert!(is_guarded != is_nobodys, "{path}");
        }
    }

    #[test]
    fn page_is_filled_from_what_is_visible() {
        let all = ["a", "B", "c", "D", "E", "f", "g"].map(str::to_owned);
        let page = |after: Option<&str>, limit| {
            visible(
                after.map(str::to_owned),
                limit,
                |after, limit| {
                    let rest = all.iter().skip_while(|name| {
                        after.is_some_and(|after| name.to_lowercase() <= after.to_lowercase())
                    });
                    Ok::<_, Infallible>(rest.take(limit as usize).cloned().collect())
                },
                |name: &String| name,
                |name| Ok(name.to_lowercase() == *name),
            )
            .unwrap()
        };
        assert_eq!(page(None, 2), ["a", "c"]);
        assert_eq!(page(Some("c"), 2), ["f", "g"]);
        assert_eq!(page(Some("g"), 2), [""; 0]);
    }
}
