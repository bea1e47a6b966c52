//! Game days that are or were held: preparing one, going through its steps, and what participants may see of it.

use super::auth::{Operator, Viewer};
use super::blind::BlindView;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::pagination::{default_page_size, page};
use super::problem::ApiProblem;
use super::teams::visible;
use super::types::{
    GameDayInfo, GameDayReason, GameDayStepInfo, PrepareGameDayRequest, PrerequisiteInfo,
    PromptInfo, RevealRequest,
};
use super::{Api, blocking};
use crate::service::{Actor, GameDayError, GameDaySpec, HeldGameDay, Service};
use crate::store::{ExperimentRef, GameDayRecord, OwnedKind, StoreError};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::Problem;
use backburn_experiments::game_day::{
    DiscussionLength, Duty, GameDayMode, GameDayPrompt, GameDayStage,
};
use backburn_experiments::problem::meant;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::IntoParams;

/// Which game days to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GameDaysQuery {
    /// Only game days that were prepared before the one with this id.
    before: Option<String>,
    /// The greatest number of game days to return, from 1 to 1000. The default is 100.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    limit: u32,
}

fn word(value: impl serde::Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

/// What the caller may see of a game day.
pub(super) fn shown(service: &Service, who: &Actor, held: HeldGameDay) -> GameDayInfo {
    let view = who
        .is_blind
        .then(|| BlindView::of_game_day(service, who, &held));
    let HeldGameDay {
        record,
        day,
        progress,
    } = held;
    let is_open = view.as_ref().is_none_or(BlindView::is_open);
    let text = |text: &str| match &view {
        Some(view) => view.text(text),
        None => text.to_owned(),
    };
    let steps = (1..=day.last_step()).filter_map(|number| {
        let step = day.step(number)?;
        let shows = view.as_ref().is_none_or(|view| view.is_revealed(number));
        let prompt = |prompt: &GameDayPrompt| PromptInfo {
            name: text(&prompt.name),
            text: text(&prompt.text),
            after: prompt.delay().to_string(),
            to: prompt.to.map(|duty| duty.to_string()),
            given: progress.prompts.contains(&prompt.name),
        };
        let prompts = step.prompts.iter().filter(|prompt| match &view {
            None => true,
            Some(view) => {
                let is_given = progress.prompts.contains(&prompt.name);
                (shows || is_given) && view.gets_prompt(prompt.to)
            }
        });
        Some(GameDayStepInfo {
            number,
            title: step.title.clone().filter(|_| shows),
            experiment: step.experiment.clone().filter(|_| shows),
            run: progress.runs.get(&number).cloned(),
            revealed: progress.is_revealed(&day, number),
            prompts: prompts.map(prompt).collect(),
        })
    });
    let prerequisites = day.prerequisites.iter().zip(1..);
    let prerequisites = prerequisites.map(|(what, number)| PrerequisiteInfo {
        number,
        text: text(what),
        met: progress.met.contains(&number),
    });
    let discussion = match (progress.stage, day.step(progress.step), progress.paused) {
        (GameDayStage::Discussion, Some(step), None) => day.discussion_of(step),
        _ => None,
    };
    let discussion_ends = match discussion {
        Some(DiscussionLength::For(length)) => progress.since.and_then(|since| {
            let length = SignedDuration::try_from(length.0).ok()?;
            since.checked_add(length).ok()
        }),
        _ => None,
    };
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let duties = progress.duties.iter();
    let duties = duties.map(|(duty, names)| (duty.to_string(), names.iter().cloned().collect()));
    let (name, version) = match &record.reference {
        Some(reference) => (Some(reference.name.clone()), Some(reference.version)),
        None => (None, None),
    };
    GameDayInfo {
        steps: steps.collect(),
        prerequisites: prerequisites.collect(),
        duties: duties.collect(),
        id: record.id,
        name: name.as_deref().map(text),
        version,
        title: text(&day.title),
        purpose: text(&day.purpose),
        mode: word(record.mode),
        state: word(progress.stage),
        paused: time(progress.paused),
        step: progress.step,
        since: time(progress.since),
        discussion_ends: time(discussion_ends),
        update_due: time(progress.next_update.filter(|_| progress.is_active())),
        who: record.who,
        prepared: record.prepared.to_string(),
        begun: time(progress.begun),
        ended: time(progress.ended),
        why: progress.why.as_deref().map(text),
        document: is_open.then_some(record.document),
    }
}

/// Lists game days that are or were held, latest first.
#[utoipa::path(get, path = "/api/v1/game-days", tag = "game-days", params(GameDaysQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<GameDayInfo>), ProblemStatus<404>))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(which): QueryParams<GameDaysQuery>,
) -> Result<Json<Vec<GameDayInfo>>, ApiProblem> {
    let limit = page(which.limit)?;
    let service = Arc::clone(&api.service);
    let found = blocking(move || -> Result<_, ApiProblem> {
        if let Some(before) = &which.before
            && !service.sees(&who, OwnedKind::GameDay, before)?
        {
            let what = format!("there is no game day `{}`", before.escape_debug());
            return Err(ApiProblem::not_found(what));
        }
        let found = visible(
            which.before,
            limit,
            |before, limit| service.store().game_days(before, limit),
            |record: &GameDayRecord| &record.id,
            |record| service.sees(&who, OwnedKind::GameDay, &record.id),
        )?;
        let mut shown_days = Vec::new();
        for record in found {
            let held = service.held_game_day(&record.id)?;
            shown_days.push(shown(&service, &who, held));
        }
        Ok(shown_days)
    });
    Ok(Json(found.await?))
}

/// Returns a game day that is or was held.
#[utoipa::path(get, path = "/api/v1/game-days/{id}", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), security(("token" = ["viewer"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>))]
pub async fn get(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || -> Result<_, StoreError> {
        let held = service.held_game_day(&id)?;
        Ok(shown(&service, &who, held))
    });
    Ok(Json(found.await?))
}

/// What a request to prepare a game day asks for.
fn spec(
    service: &Service,
    who: &Actor,
    request: PrepareGameDayRequest,
) -> Result<GameDaySpec, ApiProblem> {
    let wrong = |at: &str, what: String, hint: Option<String>| {
        ApiProblem::invalid_game_day(vec![Problem {
            at: at.into(),
            what,
            hint,
        }])
    };
    let mut duties = BTreeMap::new();
    for (name, holders) in request.duties {
        let known = Duty::ALL.map(Duty::word);
        let duty = Duty::from_word(&name).ok_or_else(|| {
            let what = format!("there is no duty `{name}`");
            wrong("$.duties", what, meant(&name, &known))
        })?;
        duties.insert(duty, holders);
    }
    let mode = match request.mode.as_deref() {
        None => None,
        Some("live") => Some(GameDayMode::Live),
        Some("tabletop") => Some(GameDayMode::Tabletop),
        Some(mode) => {
            let what = format!("there is no mode `{mode}`");
            let hint = Some("use `live` or `tabletop`".into());
            return Err(wrong("$.mode", what, hint));
        }
    };
    let (document, reference) = match (request.name, request.document) {
        (None, Some(document)) => (document, None),
        (Some(name), None) => {
            if !service.sees(who, OwnedKind::GameDayDocument, &name)? {
                let what = format!("there is no stored game day `{}`", name.escape_debug());
                return Err(ApiProblem::not_found(what));
            }
            let kept = service.store().game_day_document(&name, request.version)?;
            let version = kept.version;
            let mut document = kept.document;
            // Its schedule is that of the stored one, and may be over.
            if let Some(day) = document
                .get_mut("game-day")
                .and_then(|day| day.as_object_mut())
            {
                day.remove("schedule");
            }
            (document, Some(ExperimentRef { name, version }))
        }
        _ => {
            let what = "exactly one of `name` and `document` is required".to_owned();
            return Err(wrong("$", what, None));
        }
    };
    Ok(GameDaySpec {
        document,
        reference,
        mode,
        duties,
        prerequisites_met: request.prerequisites_met,
        begin: request.begin,
    })
}

/// Prepares a game day, and begins it if that is asked for.
#[utoipa::path(post, path = "/api/v1/game-days", tag = "game-days", request_body = PrepareGameDayRequest, security(("token" = ["operator"])), responses((status = 201, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>))]
pub async fn prepare(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<PrepareGameDayRequest>,
) -> Result<(StatusCode, Json<GameDayInfo>), ApiProblem> {
    let service = Arc::clone(&api.service);
    let prepared = blocking(move || -> Result<_, ApiProblem> {
        let spec = spec(&service, &who, request)?;
        let id = service.prepare_game_day(&who, spec)?;
        let held = service.held_game_day(&id)?;
        Ok(shown(&service, &who, held))
    });
    Ok((StatusCode::CREATED, Json(prepared.await?)))
}

/// Does something with a game day, and returns what it is then.
async fn change(
    api: &Api,
    who: Actor,
    change: impl FnOnce(&Arc<Service>, &Actor) -> Result<HeldGameDay, GameDayError> + Send + 'static,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let changed = blocking(move || -> Result<_, ApiProblem> {
        let held = change(&service, &who)?;
        Ok(shown(&service, &who, held))
    });
    Ok(Json(changed.await?))
}

/// Begins a game day, or goes on to its next step or to the discussion of a step without a run.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/next", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), security(("token" = ["operator"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn next(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    change(&api, who, move |service, who| {
        service.next_of_game_day(who, &id)
    })
    .await
}

/// Pauses a game day: nothing goes on by itself until it is resumed. A run that is open goes on.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/pause", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), request_body = GameDayReason, security(("token" = ["operator"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn pause(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    JsonBody(reason): JsonBody<GameDayReason>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    change(&api, who, move |service, who| {
        service.pause_game_day(who, &id, reason.why)
    })
    .await
}

/// Resumes a game day that is paused.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/resume", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), security(("token" = ["operator"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn resume(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    change(&api, who, move |service, who| {
        service.resume_game_day(who, &id)
    })
    .await
}

/// Stops a game day and its run, whose faults are reverted first.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/stop", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), request_body = GameDayReason, security(("token" = ["operator"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn stop(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    JsonBody(reason): JsonBody<GameDayReason>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    change(&api, who, move |service, who| {
        service.stop_game_day(who, &id, reason.why)
    })
    .await
}

/// Reveals a step, or all, to participants with a blind token.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/reveal", tag = "game-days", params(("id" = String, Path, description = "The id of the game day")), request_body = RevealRequest, security(("token" = ["operator"])), responses((status = 200, body = GameDayInfo), ProblemStatus<404>, ProblemStatus<422>))]
pub async fn reveal(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    JsonBody(request): JsonBody<RevealRequest>,
) -> Result<Json<GameDayInfo>, ApiProblem> {
    change(&api, who, move |service, who| {
        service.reveal(who, &id, request.step)
    })
    .await
}
