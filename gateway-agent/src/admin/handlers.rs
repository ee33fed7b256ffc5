//! The routes of the control API.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State, rejection::JsonRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};

use super::{Control, Observation, api, serve::Caller};
use crate::{
    approval::{DecideError, Record, Voter},
    identity::{EnrolError, Job, JobUser, Peer, PlaceError, Target, TokenError},
};

/// Longest request body; a token is at most 16 KiB.
const MAX_BODY: usize = 64 * 1024;
const MAX_WAIT: Duration = Duration::from_secs(60);

type Shared = State<Arc<Control>>;

pub(super) fn router(control: Arc<Control>) -> Router {
    let for_operators = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs))
        .route("/v1/release", post(release))
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/{id}", delete(kill))
        .route("/v1/sessions/{id}/watch", get(watch))
        .route("/v1/approvals", get(approvals))
        .route("/v1/approvals/{id}", get(approval).post(answer))
        .route("/v1/policy/reload", post(reload))
        .layer(middleware::from_fn_with_state(control.clone(), operators_only));
    Router::new()
        .route("/v1/enroll/begin", post(enroll_begin))
        .route("/v1/enroll/complete", post(enroll_complete))
        .merge(for_operators)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "not_found", "no such call") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(control)
}

/// Root or the group, and in no case from inside a job.
async fn operators_only(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    // Looking groups up may block on a slow directory, and this thread keeps the agent's heart beating.
    let (asked, who) = (control.clone(), caller.clone());
    let refused = tokio::task::spawn_blocking(move || refusal(&asked, &who)).await;
    match refused.unwrap_or_else(|e| Some((e.to_string(), None))) {
        None => next.run(request).await,
        Some((message, inside_job)) => {
            control.backend.observe(&Observation::ControlRefused {
                pid: caller.0.pid,
                uid: caller.0.uid,
                path: request.uri().path().to_owned(),
                inside_job,
            });
            problem(StatusCode::FORBIDDEN, "forbidden", message)
        }
    }
}

fn refusal(control: &Control, caller: &Caller) -> Option<(String, Option<u64>)> {
    match control.enrolments.inside(&caller.0) {
        Err(error) => return Some((error.to_string(), None)),
        Ok(Some(job)) => {
            let what = "a job may use the control socket to enrol and for nothing else".to_owned();
            return Some((what, Some(job.cgroup_id)));
        }
        Ok(None) => {}
    }
    let in_group = |group: &String| control.directory.in_group(caller.0.uid, group);
    if caller.0.uid == 0 || control.group.as_ref().is_some_and(in_group) {
        return None;
    }
    let who = match &control.group {
        Some(group) => format!("root or a member of group {group}"),
        None => "root".to_owned(),
    };
    Some((format!("this needs {who}; you are uid {}", caller.0.uid), None))
}

async fn status(State(control): Shared) -> Json<api::Status> {
    let mut status = control.backend.status();
    status.jobs = control.enrolments.all().len();
    status.approvals_waiting = control.approvals.waiting();
    Json(status)
}

async fn jobs(State(control): Shared) -> Json<Vec<api::JobInfo>> {
    let sessions = control.backend.sessions();
    let of = |id: u64| sessions.iter().filter(|s| s.job == id).count();
    let all = control.enrolments.all();
    let info = |j: &Arc<Job>| api::JobInfo {
        sessions: of(j.cgroup_id),
        container: j.container(),
        job: Job::clone(j),
    };
    Json(all.iter().map(info).collect())
}

async fn sessions(State(control): Shared) -> Json<Vec<api::Session>> {
    Json(control.backend.sessions())
}

/// Lines of JSON, one for each piece that the session's job is shown, until either side ends it.
async fn watch(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(id): Path<String>,
) -> Response {
    let Some(mut shown) = control.backend.watch_session(&id) else {
        return problem(StatusCode::NOT_FOUND, "not_found", format!("there is no session `{id}`"));
    };
    control.backend.observe(&Observation::SessionWatched { id: &id, uid: caller.0.uid });
    let lines = futures_util::stream::poll_fn(move |cx| {
        shown.poll_recv(cx).map(|piece| {
            piece.map(|piece| {
                let piece =
                    api::Shown { channel: piece.channel, error: piece.error, data: hex::encode(&piece.data) };
                serde_json::to_vec(&piece).map(|mut line| {
                    line.push(b'\n');
                    line
                })
            })
        })
    });
    Body::from_stream(lines).into_response()
}

async fn kill(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(id): Path<String>,
    body: Result<Json<api::Kill>, JsonRejection>,
) -> Response {
    let Json(kill) = match body {
        Ok(body) => body,
        Err(e) => return malformed(&e),
    };
    let reason = if kill.reason.is_empty() { "ended by an operator" } else { &kill.reason };
    if !control.backend.kill_session(&id, reason) {
        return problem(StatusCode::NOT_FOUND, "not_found", format!("there is no session `{id}`"));
    }
    control.backend.observe(&Observation::SessionKilled { id: &id, uid: caller.0.uid, reason });
    StatusCode::NO_CONTENT.into_response()
}

async fn release(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<api::Release>, JsonRejection>,
) -> Response {
    let Json(which) = match body {
        Ok(body) => body,
        Err(e) => return malformed(&e),
    };
    let id = match (which.job, &which.cgroup) {
        (Some(id), None) => Some(id),
        (None, Some(dir)) => control.enrolments.at(dir).map(|j| j.cgroup_id),
        _ => {
            return problem(StatusCode::BAD_REQUEST, "malformed", "name either a job or a cgroup");
        }
    };
    let released = match id {
        Some(id) => control.enrolments.release(id),
        None => Ok(false),
    };
    match (released, id) {
        (Ok(true), Some(id)) => {
            control.backend.observe(&Observation::JobReleased { cgroup_id: id, uid: caller.0.uid });
            StatusCode::NO_CONTENT.into_response()
        }
        (Ok(_), _) => problem(StatusCode::NOT_FOUND, "not_found", "there is no such job"),
        (Err(e), _) => problem(StatusCode::INTERNAL_SERVER_ERROR, e.code(), e.to_string()),
    }
}

async fn approvals(
    State(control): Shared,
    Query(query): Query<api::ApprovalsQuery>,
) -> Json<api::ApprovalList> {
    let mut changes = control.approvals.changes();
    if let Some(after) = query.after {
        let wait = Duration::from_secs(query.wait.unwrap_or(0)).min(MAX_WAIT);
        // Running out of time is an answer too: the list as it is.
        let _ = tokio::time::timeout(wait, changes.wait_for(|now| *now != after)).await;
    }
    let change = *changes.borrow_and_update();
    Json(api::ApprovalList { change, approvals: control.approvals.list(query.all) })
}

async fn approval(State(control): Shared, Path(id): Path<String>) -> Response {
    let found = control.approvals.full_id(&id).map(|id| control.approvals.get(&id));
    match found {
        Ok(Some(record)) => Json(record).into_response(),
        Ok(None) => decide_problem(&DecideError::Unknown(id)),
        Err(e) => decide_problem(&e),
    }
}

async fn answer(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(id): Path<String>,
    body: Result<Json<api::Answer>, JsonRejection>,
) -> Response {
    let Json(answer) = match body {
        Ok(body) => body,
        Err(e) => return malformed(&e),
    };
    // Asked again although the door was passed: the caller may have been moved or enrolled since.
    let inside_job = match control.enrolments.inside(&caller.0) {
        Ok(job) => job.map(|j| j.cgroup_id),
        Err(e) => return problem(StatusCode::FORBIDDEN, "forbidden", e.to_string()),
    };
    let voter = Voter { uid: caller.0.uid, inside_job };
    let (shared, wanted) = (control.clone(), id.clone());
    // Looking names up may block on a slow directory.
    let reason = answer.reason.clone();
    let result = tokio::task::spawn_blocking(move || {
        shared.approvals.decide(&wanted, &voter, answer.approve, &reason)
    })
    .await;
    let result = match result {
        Ok(result) => result,
        Err(e) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()),
    };
    control.backend.observe(&Observation::Answered {
        approval: result.as_ref().map_or(&id, |r: &Record| &*r.id),
        uid: caller.0.uid,
        approve: answer.approve,
        reason: &answer.reason,
        error: result.as_ref().err().map(ToString::to_string),
    });
    match result {
        Ok(record) => Json(record).into_response(),
        Err(e) => decide_problem(&e),
    }
}

async fn reload(State(control): Shared, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    let uid = caller.0.uid;
    let result = control.backend.reload_policy();
    control
        .backend
        .observe(&Observation::PolicyReload { uid, result: result.as_deref().map_err(Vec::as_slice) });
    match result {
        Ok(version) => Json(api::Reloaded { version }).into_response(),
        Err(details) => {
            let body = api::Problem {
                code: "policy".into(),
                message: "the policy files are not good; the policy in force stays".into(),
                details,
            };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
    }
}

async fn enroll_begin(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<api::EnrollBegin>, JsonRejection>,
) -> Response {
    let Json(begin) = match body {
        Ok(body) => body,
        Err(e) => return malformed(&e),
    };
    let result = other(&control, &caller, begin.target.as_ref(), JobUser::Owner)
        .await
        .and_then(|other| control.enrolments.begin(&target(&caller, other.as_ref())).map_err(Refused::Enrol));
    match result {
        Ok(begun) => Json(api::EnrollBegun {
            nonce: begun.nonce,
            audiences: begun
                .audiences
                .into_iter()
                .map(|(issuer, audience)| api::Audience { issuer, audience })
                .collect(),
            expires_in: begun.expires_in.as_secs(),
        })
        .into_response(),
        Err(e) => enrol_problem(&control, &caller, begin.target.as_ref(), e),
    }
}

async fn enroll_complete(
    State(control): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<api::EnrollComplete>, JsonRejection>,
) -> Response {
    let Json(complete) = match body {
        Ok(body) => body,
        // Not `malformed`: its text may quote the body, which is a token.
        Err(_) => {
            return enrol_problem(
                &control,
                &caller,
                None,
                Refused::Enrol(TokenError::Malformed("the request is not {token, nonce, cgroup}").into()),
            );
        }
    };
    let result = match other(&control, &caller, complete.target.as_ref(), complete.user).await {
        Ok(other) => control
            .enrolments
            .complete(&target(&caller, other.as_ref()), &complete.token, complete.nonce.as_deref())
            .await
            .map_err(Refused::Enrol),
        Err(e) => Err(e),
    };
    match result {
        Ok(job) => {
            control.backend.observe(&Observation::Enrolled(&job));
            Json(Job::clone(&job)).into_response()
        }
        Err(e) => enrol_problem(&control, &caller, complete.target.as_ref(), e),
    }
}

enum Refused {
    Enrol(EnrolError),
    Forbidden(String),
}

/// The caller's own cgroup, or the other one.
fn target<'a>(caller: &'a Caller, other: Option<&'a (PathBuf, JobUser)>) -> Target<'a> {
    match other {
        None => Target::Caller(&caller.0),
        Some((dir, user)) => Target::Directory { dir, user: *user },
    }
}

/// Another cgroup than the caller's, and its user: only for root outside of every job.
async fn other(
    control: &Control,
    caller: &Caller,
    wanted: Option<&api::Cgroup>,
    user: JobUser,
) -> Result<Option<(PathBuf, JobUser)>, Refused> {
    let Some(wanted) = wanted.cloned() else { return Ok(None) };
    // Asked before anything is looked up.
    match control.enrolments.inside(&caller.0) {
        Ok(None) if caller.0.uid == 0 => {}
        Ok(None) => return Err(Refused::Forbidden("enrolling another cgroup needs root".into())),
        Ok(Some(_)) => return Err(Refused::Forbidden("a job may enrol only itself".into())),
        Err(e) => return Err(Refused::Enrol(e.into())),
    }
    let cgroups = control.enrolments.cgroups().clone();
    let find = move || match wanted {
        api::Cgroup::Cgroup(dir) => Ok((dir, user)),
        api::Cgroup::Pid(pid) => {
            let peer = Peer::process(pid).map_err(|_| PlaceError::Gone(pid))?;
            let user = if user == JobUser::Owner { JobUser::Uid(peer.uid) } else { user };
            Ok((cgroups.locate(&peer)?.dir, user))
        }
        api::Cgroup::Container(id) => Ok((cgroups.container(&id)?.dir, user)),
    };
    // It reads directories.
    match tokio::task::spawn_blocking(find).await {
        Ok(found) => found.map(Some).map_err(|e: PlaceError| Refused::Enrol(e.into())),
        Err(e) => Err(Refused::Forbidden(e.to_string())),
    }
}

fn enrol_problem(
    control: &Control,
    caller: &Caller,
    wanted: Option<&api::Cgroup>,
    refused: Refused,
) -> Response {
    let (status, code, message) = match refused {
        Refused::Forbidden(message) => (StatusCode::FORBIDDEN, "forbidden", message),
        Refused::Enrol(e) => {
            let status = match &e {
                EnrolError::Token(t) if t.retry() => StatusCode::SERVICE_UNAVAILABLE,
                EnrolError::Token(TokenError::Malformed(_)) => StatusCode::BAD_REQUEST,
                EnrolError::Token(_) => StatusCode::UNAUTHORIZED,
                EnrolError::Place(_) | EnrolError::Subject { .. } => StatusCode::FORBIDDEN,
                EnrolError::Bound(_) => StatusCode::CONFLICT,
                EnrolError::Busy => StatusCode::TOO_MANY_REQUESTS,
                EnrolError::NoUid(_) => StatusCode::SERVICE_UNAVAILABLE,
                EnrolError::Kernel(_) | EnrolError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, e.code(), e.to_string())
        }
    };
    control.backend.observe(&Observation::EnrolRefused {
        pid: caller.0.pid,
        uid: caller.0.uid,
        cgroup: wanted.map(ToString::to_string),
        code,
        message: message.clone(),
    });
    problem(status, code, message)
}

fn decide_problem(e: &DecideError) -> Response {
    let (status, code) = match e {
        DecideError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
        DecideError::Ambiguous(_) => (StatusCode::BAD_REQUEST, "ambiguous"),
        DecideError::Finished { .. } => (StatusCode::CONFLICT, "finished"),
        DecideError::Own(_) => (StatusCode::FORBIDDEN, "own"),
        DecideError::NotApprover { .. } => (StatusCode::FORBIDDEN, "not_approver"),
        DecideError::Twice(_) => (StatusCode::CONFLICT, "twice"),
    };
    problem(status, code, e.to_string())
}

fn malformed(e: &JsonRejection) -> Response {
    problem(StatusCode::BAD_REQUEST, "malformed", e.body_text())
}

fn problem(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    let body = api::Problem { code: code.to_owned(), message: message.into(), details: Vec::new() };
    (status, Json(body)).into_response()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
