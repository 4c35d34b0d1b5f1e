//! A request as the API's paths and parameters mean it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::request::Parts;

use super::delete::{DeleteOptions, Propagation};
use super::fail::{self, Answer};
use super::journal::Verb;
use super::patch::PatchKind;
use super::registry::Resource;
use super::state::{Part, State, Unknown, Write};

/// A request to an object or a collection.
pub struct Request {
    /// The kind.
    pub resource: Arc<Resource>,
    /// Namespace; `None` for all, and for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Name; empty for a collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// What it does.
    pub verb: Verb,
    /// For patches.
    pub patch: Option<PatchKind>,
    /// Parameters.
    pub query: HashMap<String, String>,
    /// Only metadata is wanted.
    pub metadata_only: bool,
    /// Body.
    pub body: Bytes,
    /// Manager used when the request names none.
    pub default_manager: String,
}

impl Request {
    /// Understands a request.
    ///
    /// # Errors
    /// 404 for a path that nothing serves, 405, 415.
    pub fn parse(state: &State, parts: &Parts, body: Bytes, user: &str) -> Answer<Self> {
        let segments: Vec<&str> = parts.uri.path().split('/').filter(|s| !s.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(fail::no_such_path()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (Some((*namespace).to_owned()), [&[*plural], rest].concat())
            }
            other => (None, other.to_vec()),
        };
        let (plural, name, subresource) = match rest.as_slice() {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Err(fail::no_such_path()),
        };
        if !state.resources.iter().any(|r| r.group == group && r.version == version) {
            return Err(fail::no_such_group());
        }
        let resource = state.resource(group, plural).filter(|r| r.version == version).ok_or_else(fail::no_such_path)?;
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let header = |name: http::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let verb = verb_of(&parts.method, name, subresource, &query)?;
        let patch = match verb {
            Verb::Patch => {
                let content_type = header(http::header::CONTENT_TYPE);
                Some(PatchKind::parse(content_type).ok_or_else(|| fail::unsupported_patch(content_type))?)
            }
            _ => None,
        };
        let agent = header(http::header::USER_AGENT).split('/').next().unwrap_or_default();
        Ok(Self {
            resource,
            namespace,
            name: name.into(),
            subresource: subresource.into(),
            verb,
            patch,
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            default_manager: if agent.is_empty() { user.to_owned() } else { agent.to_owned() },
            query,
            body,
        })
    }

    /// A parameter that is there and not empty.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A parameter that says true.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "1"))
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub fn number(&self, name: &str) -> Answer<Option<u64>> {
        let parse = |text: &str| text.parse().map_err(|_| fail::bad_request(format!("{name}: {text:?} is not a number")));
        self.param(name).map(parse).transpose()
    }

    /// The namespace of an object; empty for cluster-wide kinds.
    pub fn in_namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The circumstances of a write.
    ///
    /// # Errors
    /// 422 for an apply without a manager.
    pub fn write(&self) -> Answer<Write> {
        let manager = match (self.param("fieldManager"), self.patch) {
            (Some(manager), _) => manager.to_owned(),
            (None, Some(PatchKind::Apply)) => {
                let cause =
                    fail::Cause { message: "Required value: is required for apply patch".into(), ..fail::Cause::required("fieldManager") };
                return Err(fail::invalid(&self.resource, "", vec![cause]));
            }
            (None, _) => self.default_manager.clone(),
        };
        Ok(Write {
            manager,
            part: if self.subresource == "status" { Part::Status } else { Part::Main },
            unknown: if self.param("fieldValidation") == Some("Strict") { Unknown::Refuse } else { Unknown::Drop },
            dry_run: self.param("dryRun").is_some(),
        })
    }

    /// What a delete asks for, in its body or its parameters.
    ///
    /// # Errors
    /// 400 for a body that does not parse.
    pub fn delete_options(&self) -> Answer<DeleteOptions> {
        let body: serde_json::Value = if self.body.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&self.body).map_err(|e| fail::bad_request(format!("error decoding DeleteOptions: {e}")))?
        };
        let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str).map(ToOwned::to_owned);
        let policy = text("/propagationPolicy").or_else(|| self.param("propagationPolicy").map(Into::into));
        let asked = body.get("gracePeriodSeconds").and_then(serde_json::Value::as_i64);
        Ok(DeleteOptions {
            dry_run: self.param("dryRun").is_some() || body.get("dryRun").is_some_and(|d| d.as_array().is_some_and(|d| !d.is_empty())),
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            grace: match asked {
                Some(asked) => Some(asked),
                None => self.number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok()),
            },
            propagation: match policy.as_deref() {
                Some("Foreground") => Propagation::Foreground,
                Some("Orphan") => Propagation::Orphan,
                _ => Propagation::Background,
            },
        })
    }
}

fn verb_of(method: &Method, name: &str, subresource: &str, query: &HashMap<String, String>) -> Answer<Verb> {
    let watch = query.get("watch").is_some_and(|w| w == "true" || w == "1");
    Ok(match (method, name.is_empty()) {
        (&Method::GET, true) if watch => Verb::Watch,
        (&Method::GET, true) => Verb::List,
        (&Method::GET, false) => Verb::Get,
        (&Method::POST, true) => Verb::Create,
        (&Method::POST, false) if subresource == "eviction" => Verb::Create,
        (&Method::PUT, false) => Verb::Update,
        (&Method::PATCH, false) => Verb::Patch,
        (&Method::DELETE, false) => Verb::Delete,
        (&Method::DELETE, true) => Verb::DeleteCollection,
        _ => return Err(fail::method_not_allowed()),
    })
}
