//! Every request that changes something goes through here: own timeout, leader check, count.

use std::future::Future;
use std::time::Duration;

use super::leadership::Leadership;

/// Limit of one write. kube's client has no read timeout and retries for minutes.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another process leads, or the claim ends too soon.
    #[error("{what}: this process is not the leader")]
    NotLeader {
        /// What was being done, to which object.
        what: String,
    },
    /// No answer in time; it may or may not have been carried out.
    #[error("{what}: no answer within {} s", WRITE_TIMEOUT.as_secs())]
    Timeout {
        /// What was being done, to which object.
        what: String,
    },
    /// The API server refused it.
    #[error("{what}: {source}")]
    Api {
        /// What was being done, to which object.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
}

impl WriteError {
    /// The API server's status code, where it answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// 409: the object is newer than the one the write was based on; or it exists already.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// 404: the object is gone.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 422: a JSON patch test failed, or the object is not valid.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }
}

/// Sends one write.
///
/// # Errors
/// When this process does not lead for long enough, on time-out, or when the API server refuses.
pub async fn write<T>(
    leadership: &Leadership,
    what: impl Into<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, WriteError> {
    let what = what.into();
    if !leadership.allows(WRITE_TIMEOUT) {
        return Err(WriteError::NotLeader { what });
    }
    match tokio::time::timeout(WRITE_TIMEOUT, request).await {
        Err(_) => Err(WriteError::Timeout { what }),
        Ok(Err(source)) => Err(WriteError::Api { what, source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}
