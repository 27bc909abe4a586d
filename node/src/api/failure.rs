//! From what went wrong inside to what a client is told.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dunlin_api::{ErrorBody, ErrorCode};
use dunlin_state::desired::Rejection;
use dunlin_state::model::{BadName, ServiceKey};

use crate::daemon::handle::Unanswered;

/// An error answer.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ErrorBody);

/// The answer of most handlers.
pub(crate) type Answer<T> = Result<Json<T>, Failure>;

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorBody::new(code, message))
    }

    pub(crate) fn no_such_service(service: &ServiceKey) -> Self {
        Self(
            ErrorBody::new(
                ErrorCode::NoSuchService,
                format!("no service is named '{service}'"),
            )
            .with_hint("`dunlin ls` lists the services of all namespaces"),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        let message = error.to_string();
        let code = match error {
            Unanswered::Closing => ErrorCode::Unavailable,
            Unanswered::Busy => ErrorCode::Busy,
            Unanswered::Slow => ErrorCode::NotDurable,
            Unanswered::Rejected(rejection) => rejection_code(&rejection),
        };
        Self::new(code, message)
    }
}

impl From<BadName> for Failure {
    fn from(error: BadName) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ErrorCode::TooLarge
        } else {
            ErrorCode::BadRequest
        };
        Self::new(code, rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

fn rejection_code(rejection: &Rejection) -> ErrorCode {
    match rejection {
        Rejection::NoSuchService { .. } => ErrorCode::NoSuchService,
        Rejection::NoSuchItem { .. } => ErrorCode::NoSuchItem,
        Rejection::NoSuchRun { .. } => ErrorCode::NoSuchSlot,
        Rejection::FollowsLoad { .. }
        | Rejection::JobHasNoScale(_)
        | Rejection::NoJob(_)
        | Rejection::TooManyRuns { .. } => ErrorCode::Refused,
        Rejection::PortTaken { .. } | Rejection::ItemExists { .. } => ErrorCode::Conflict,
        Rejection::OverQuota { .. } | Rejection::VotersInUse(_) => ErrorCode::Refused,
        Rejection::BadNamespace(_) | Rejection::BadWindow { .. } => ErrorCode::BadRequest,
        Rejection::ItemInUse { .. } | Rejection::TooManyItems { .. } => ErrorCode::Refused,
        Rejection::TooManyServices { .. } | Rejection::GlobalHasNoScale(_) => ErrorCode::Refused,
        Rejection::NotAllowed { .. } | Rejection::Certificate(_) | Rejection::GrantorRemoved => {
            ErrorCode::Forbidden
        }
        Rejection::NotJoined => ErrorCode::Unavailable,
        Rejection::BadTrust(_) => ErrorCode::BadRequest,
        Rejection::TooManyReplicas { .. }
        | Rejection::InvalidSpec { .. }
        | Rejection::BadJobName { .. }
        | Rejection::DependencyCycle(_)
        | Rejection::InvalidItemLabels { .. }
        | Rejection::InvalidLabels { .. } => ErrorCode::Invalid,
        Rejection::ValueTooLarge { .. }
        | Rejection::ItemTooLarge { .. }
        | Rejection::ChangeTooLarge { .. }
        | Rejection::TooManyCommands { .. } => ErrorCode::TooLarge,
        // A later kind of rejection is still a rejection: the text says what to do.
        Rejection::Internal(_) | _ => ErrorCode::NotDurable,
    }
}

/// A JSON body whose faults are answered in our own form.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Failure))]
pub(crate) struct Body<T>(pub(crate) T);

/// A query string whose faults are answered in our own form.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Failure))]
pub(crate) struct Query<T>(pub(crate) T);

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::new(ErrorCode::NoSuchRoute, format!("there is no route {path}"))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::new(
        ErrorCode::NoSuchRoute,
        format!("{path} does not take {method}"),
    )
}
