//! Failures as the `Status` objects that a real API server answers with.

use kube::core::response::{Status, StatusCause, StatusDetails};

use super::registry::Resource;

/// The result of a request.
pub type Answer<T> = Result<T, Box<Status>>;

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Cause {
    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: message.into() }
    }

    /// A value that may not be set or changed here.
    pub fn forbidden(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {message}") }
    }

    /// A value that is missing.
    pub fn required(field: impl Into<String>) -> Self {
        Self { reason: "FieldValueRequired", field: field.into(), message: "Required value".into() }
    }
}

fn status(code: u16, reason: &str, message: impl AsRef<str>) -> Box<Status> {
    Status::failure(message.as_ref(), reason).with_code(code).boxed()
}

fn no_details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

fn about(mut status: Box<Status>, resource: &Resource, kind: &str, name: &str) -> Box<Status> {
    status.details = Some(StatusDetails { name: name.into(), group: resource.group.clone(), kind: kind.into(), ..no_details() });
    status
}

/// 404 for an object.
pub fn not_found(resource: &Resource, name: &str) -> Box<Status> {
    let message = format!("{} \"{name}\" not found", resource.qualified());
    about(status(404, "NotFound", message), resource, &resource.plural, name)
}

/// 404 for a path that nothing serves.
pub fn no_such_path() -> Box<Status> {
    status(404, "NotFound", "the server could not find the requested resource")
}

/// 405 for a verb the path does not have.
pub fn method_not_allowed() -> Box<Status> {
    status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

/// 409 for a name that is taken.
pub fn already_exists(resource: &Resource, name: &str) -> Box<Status> {
    let message = format!("{} \"{name}\" already exists", resource.qualified());
    about(status(409, "AlreadyExists", message), resource, &resource.plural, name)
}

/// 409 for a write based on another version of the object.
pub fn conflict(resource: &Resource, name: &str, why: &str) -> Box<Status> {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
    about(status(409, "Conflict", message), resource, &resource.plural, name)
}

/// 409 for a write based on an older version of the object.
pub fn stale(resource: &Resource, name: &str) -> Box<Status> {
    conflict(resource, name, "the object has been modified; please apply your changes to the latest version and try again")
}

/// 409 for fields that other managers own.
pub fn apply_conflict(conflicts: &[(String, String)]) -> Box<Status> {
    let list: Vec<String> = conflicts.iter().map(|(manager, field)| format!("conflict with \"{manager}\": {field}")).collect();
    let plural = if conflicts.len() == 1 { "" } else { "s" };
    let mut answer = status(409, "Conflict", format!("Apply failed with {} conflict{plural}: {}", list.len(), list.join(", ")));
    let causes = conflicts.iter().map(|(manager, field)| StatusCause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with \"{manager}\""),
        field: field.clone(),
    });
    answer.details = Some(StatusDetails { causes: causes.collect(), ..no_details() });
    answer
}

/// 422 with one cause a field.
pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Box<Status> {
    let lines: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    let list = if lines.len() == 1 { lines[0].clone() } else { format!("[{}]", lines.join(", ")) };
    let kind = if resource.group.is_empty() { resource.kind.clone() } else { format!("{}.{}", resource.kind, resource.group) };
    let mut answer = about(status(422, "Invalid", format!("{kind} \"{name}\" is invalid: {list}")), resource, &resource.kind, name);
    if let Some(details) = answer.details.as_mut() {
        details.causes = causes.into_iter().map(|c| StatusCause { reason: c.reason.into(), message: c.message, field: c.field }).collect();
    }
    answer
}

/// All that a real API server says about a JSON patch whose operation failed: a `test` that does not hold, a path that is
/// not there.
pub const PATCH_FAILED: &str = "the server rejected our request due to an error in our request";

/// 422 for a JSON patch whose operation failed.
pub fn patch_failed() -> Box<Status> {
    status(422, "Invalid", PATCH_FAILED)
}

/// 422 for a patch whose result cannot be decoded.
pub fn undecodable_patch(result: &str, why: &str) -> Box<Status> {
    let message = format!("Invalid value: {result:?}: {why}");
    let mut answer = status(422, "Invalid", format!(" \"\" is invalid: patch: {message}"));
    let cause = StatusCause { reason: "FieldValueInvalid".into(), message, field: "patch".into() };
    answer.details = Some(StatusDetails { causes: vec![cause], ..no_details() });
    answer
}

/// 500 as the storage layer gives it, without a reason.
pub fn internal(message: &str) -> Box<Status> {
    status(500, "", message)
}

/// 404 for a group that is not served; not a `Status` on the wire.
pub fn no_such_group() -> Box<Status> {
    status(404, "", "404 page not found")
}

/// 400.
pub fn bad_request(message: impl AsRef<str>) -> Box<Status> {
    status(400, "BadRequest", message)
}

/// 403 for a namespace that is going away.
pub fn terminating(resource: &Resource, name: &str, namespace: &str) -> Box<Status> {
    let message = format!(
        "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
        resource.qualified()
    );
    about(status(403, "Forbidden", message), resource, &resource.plural, name)
}

/// 429 for an eviction that a PodDisruptionBudget forbids.
pub fn over_budget(budget: &str, desired: i64, healthy: i64) -> Box<Status> {
    let mut answer = status(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let message = format!("The disruption budget {budget} needs {desired} healthy pods and has {healthy} currently");
    let cause = StatusCause { reason: "DisruptionBudget".into(), message, field: String::new() };
    answer.details = Some(StatusDetails { causes: vec![cause], ..no_details() });
    answer
}

/// 500 for an eviction that two PodDisruptionBudgets are about.
pub fn two_budgets() -> Box<Status> {
    internal("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
}

/// 415.
pub fn unsupported_patch(content_type: &str) -> Box<Status> {
    status(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - {content_type} is not accepted for this resource"),
    )
}

/// 410 for a version that compaction has removed.
pub fn expired(asked: u64, oldest: u64) -> Box<Status> {
    status(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
}

/// 504 for a version that does not exist yet.
pub fn too_large(asked: u64, current: u64) -> Box<Status> {
    let mut answer = status(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
    let cause =
        StatusCause { reason: "ResourceVersionTooLarge".into(), message: "Too large resource version".into(), field: String::new() };
    answer.details = Some(StatusDetails { causes: vec![cause], retry_after_seconds: 1, ..no_details() });
    answer
}

/// An injected failure.
pub fn injected(code: u16) -> Box<Status> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    };
    status(code, reason, format!("injected failure {code}"))
}
