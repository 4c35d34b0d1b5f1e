//! Why a request is not answered, as status code and one sentence.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::client::AuthError;
use serde_json::json;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error("this needs a token: send it as Authorization: Bearer")]
    NoToken,
    /// The token is not one, or not any more.
    #[error("this token is not accepted here; it may have expired")]
    BadToken,
    /// Not this caller, or not this way.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The API server says no for another reason, or has something that cannot be read.
    #[error("{0}")]
    Conflict(String),
    /// No answer of the API server, or too much at once.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// Sorts an error of the client. Its text is the API server's, or says what else went wrong.
    pub fn of_kube(what: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = format!("{what}: {}", status.message);
                match status.code {
                    401 => Self::BadToken,
                    403 => Self::Forbidden(message),
                    404 => Self::NotFound(message),
                    400 | 422 => Self::Bad(message),
                    429 | 500.. => Self::Unavailable(message),
                    _ => Self::Conflict(message),
                }
            }
            kube::Error::SerdeError(error) => Self::Conflict(format!("{what}: what the API server has does not fit its kind: {error}")),
            other => Self::Unavailable(format!("{what}: {}", unanswered(what, &other))),
        }
    }

    fn code(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn unanswered(what: &str, error: &kube::Error) -> String {
    if let Some(why) = credentials(error) {
        tracing::warn!("dashboard: {what}: {why}");
        return why;
    }
    // It may name addresses; those are for the log.
    tracing::warn!(%error, "dashboard: {what}");
    "the API server does not answer".into()
}

/// What is wrong with the credentials that requests are sent with, when that is why one failed. Without what a command that
/// gives them has printed: a token may stand there.
pub fn credentials(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let why = match causes.into_iter().find_map(|cause| cause.downcast_ref::<AuthError>())? {
        AuthError::AuthExecStart(error) => format!("the command that gives them cannot be started: {error}"),
        AuthError::AuthExecRun { out, .. } => format!("the command that gives them failed with {}", out.status),
        AuthError::ReadTokenFile(error, path) => format!("{}: {error}", path.display()),
        _ => "they cannot be renewed".into(),
    };
    Some(format!("there are no credentials for the API server: {why}; log in again, and see that kubectl works"))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.to_string()}));
        let mut response = (self.code(), body).into_response();
        if self.code() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_was_no_answer_is_told_but_not_what_a_command_printed() {
        let command = |script: &str| std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        let run = AuthError::AuthExecRun { cmd: "login --secret hunter2".into(), out: Box::new(command("echo hunter2; exit 3")) };
        let start = AuthError::AuthExecStart(std::io::Error::from(std::io::ErrorKind::NotFound));
        let unread = serde_json::from_str::<crate::api::VoiceRollout>(r#"{"spec": 1}"#).unwrap_err();
        for (error, code, words) in [
            (
                kube::Error::Service(Box::new(run)),
                503,
                "read it: there are no credentials for the API server: the command that gives them failed with exit status: 3",
            ),
            (
                kube::Error::Auth(start),
                503,
                "read it: there are no credentials for the API server: the command that gives them cannot be started",
            ),
            (kube::Error::SerdeError(unread), 409, "read it: what the API server has does not fit its kind: invalid type: integer"),
            (kube::Error::Service("tcp connect error 10.0.0.1".into()), 503, "read it: the API server does not answer"),
        ] {
            let refusal = Refusal::of_kube("read it", error);
            let text = refusal.to_string();
            assert!(refusal.code() == code && text.starts_with(words), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("10.0.0.1"), "{text}");
        }
    }
}
