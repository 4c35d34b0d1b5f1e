//! Why a request is not answered, as status code and one sentence.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
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
    /// The API server says no for another reason.
    #[error("{0}")]
    Conflict(String),
    /// No answer of the API server, or too much at once.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// Sorts an error of the client. Its text is the API server's, or says that there was no answer.
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
            other => {
                // It may name addresses; those are for the log.
                tracing::warn!(error = %other, "dashboard: {what}");
                Self::Unavailable(format!("{what}: the API server does not answer"))
            }
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
