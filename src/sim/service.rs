//! The server as a tower service: what a `kube::Client` talks to in place of a connection.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted};
use super::fail::{self, Answer};
use super::journal::{Fault, RequestInfo, Verb};
use super::patch;
use super::patch::PatchKind;
use super::read::scale_of;
use super::request::Request;
use super::server::SimServer;
use super::state::{Part, State, Write};
use super::watch;

type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection of one user.
#[derive(Clone)]
pub struct SimService {
    pub(super) server: SimServer,
    pub(super) user: Arc<str>,
}

impl tower::Service<http::Request<Body>> for SimService {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.serve(request).await })
    }
}

impl SimService {
    async fn serve(self, request: http::Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let path = parts.uri.path().to_owned();
        let parsed = match self.server.with_state(|state| state.discovery(&path)) {
            Ok(document) if parts.method == Method::GET => Ok(Asked::Document(document)),
            _ => self
                .server
                .with_state(|state| Request::parse(state, &parts, body.clone(), &self.user))
                .map(|request| Asked::Object(Box::new(request))),
        };
        let info = self.info(&parts, body, parsed.as_ref().ok());
        let number = info.number;
        let fault = self.server.record(info);
        let latency = self.server.latency().request;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let lost = || -> BoxError { Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "connection lost (injected)")) };
        match fault {
            Fault::None => Ok(self.execute(number, parsed)),
            Fault::Status(code) => Ok(self.finish(number, failure(&fail::injected(code)))),
            Fault::DropBefore => Err(lost()),
            Fault::DropAfter => {
                self.execute(number, parsed);
                Err(lost())
            }
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(self.execute(number, parsed))
            }
            Fault::Hang => std::future::pending().await,
            Fault::CrashBefore(hook) => {
                hook();
                std::future::pending().await
            }
            Fault::CrashAfter(hook) => {
                self.execute(number, parsed);
                hook();
                std::future::pending().await
            }
        }
    }

    fn info(&self, parts: &http::request::Parts, body: Bytes, asked: Option<&Asked>) -> RequestInfo {
        let object = match asked {
            Some(Asked::Object(request)) => Some(request),
            _ => None,
        };
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        RequestInfo {
            number: self.server.next_number(),
            at: self.server.clock().now(),
            user: Arc::clone(&self.user),
            user_agent: agent.to_owned(),
            verb: object.map_or(Verb::Discover, |o| o.verb),
            group: object.map(|o| o.resource.group.clone()).unwrap_or_default(),
            resource: object.map(|o| o.resource.plural.clone()).unwrap_or_default(),
            namespace: object.map(|o| o.in_namespace().to_owned()).unwrap_or_default(),
            name: object.map(|o| o.name.clone()).unwrap_or_default(),
            subresource: object.map(|o| o.subresource.clone()).unwrap_or_default(),
            patch: object.and_then(|o| o.patch),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body,
            code: None,
        }
    }

    fn execute(&self, number: u64, asked: Answer<Asked>) -> Response<AnswerBody> {
        let answer = match asked {
            Err(status) => Err(status),
            Ok(Asked::Document(document)) => Ok(object(StatusCode::OK, &document)),
            Ok(Asked::Object(request)) => self.server.with_state_mut(|state| answer(&self.server, state, &request)),
        };
        self.finish(number, answer.unwrap_or_else(|status| failure(&status)))
    }

    fn finish(&self, number: u64, response: Response<AnswerBody>) -> Response<AnswerBody> {
        self.server.note_code(number, response.status().as_u16());
        response
    }
}

enum Asked {
    Document(Value),
    Object(Box<Request>),
}

/// Carries a request out.
fn answer(server: &SimServer, state: &mut State, request: &Request) -> Answer<Response<AnswerBody>> {
    let (namespace, name) = (request.in_namespace(), request.name.as_str());
    let resource = &request.resource;
    match (request.subresource.as_str(), request.verb) {
        ("", _) => {}
        ("status", Verb::Get | Verb::Update | Verb::Patch) if resource.status => {}
        ("scale", Verb::Get | Verb::Update | Verb::Patch) if resource.scale.is_some() => {
            return scale(state, request).map(|scale| object(StatusCode::OK, &scale));
        }
        ("eviction", Verb::Create) if resource.kind == "Pod" => {
            let asked = json_body(&request.body)?;
            let grace = asked.pointer("/deleteOptions/gracePeriodSeconds").and_then(Value::as_i64);
            state.evict(namespace, name, &DeleteOptions { grace, ..DeleteOptions::default() })?;
            return Ok(object(StatusCode::CREATED, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})));
        }
        ("log", Verb::Get) if resource.kind == "Pod" => {
            return state.log_text(request).map(|text| respond(StatusCode::OK, "text/plain", Bytes::from(text)));
        }
        _ => return Err(fail::no_such_path()),
    }
    let shown = |value: &Value| if request.metadata_only { metadata_only(value) } else { value.clone() };
    match request.verb {
        Verb::Get => state.get(resource, namespace, name).map(|o| object(StatusCode::OK, &shown(&o))),
        Verb::List => list(state, request),
        Verb::Watch => watch::start(server, state, request).map(|events| {
            let frames = events.map_ok(Frame::data).boxed();
            let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            response
        }),
        Verb::Create => {
            let created = state.create(resource, namespace, json_body(&request.body)?, &request.write()?)?;
            Ok(object(StatusCode::CREATED, &shown(&created)))
        }
        Verb::Update => {
            let existed = state.get(resource, namespace, name).is_ok();
            let updated = state.replace(resource, namespace, name, json_body(&request.body)?, &request.write()?)?;
            let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
            Ok(object(code, &shown(&updated)))
        }
        Verb::Patch => {
            let existed = state.get(resource, namespace, name).is_ok();
            let kind = request.patch.unwrap_or(PatchKind::Merge);
            let patched = state.patch(resource, namespace, name, kind, &request.body, request.is_set("force"), &request.write()?)?;
            let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
            Ok(object(code, &shown(&patched)))
        }
        Verb::Delete => {
            let options = request.delete_options()?;
            Ok(object(
                StatusCode::OK,
                &match state.delete(resource, namespace, name, &options)? {
                    Deleted::Marked(o) => (*o).clone(),
                    Deleted::Gone(o) if resource.kind == "Pod" => (*o).clone(),
                    Deleted::Gone(o) => deleted(request, &o),
                },
            ))
        }
        Verb::DeleteCollection => {
            let options = request.delete_options()?;
            let page = state.page(request)?;
            for item in &page.items {
                let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
                state.delete(resource, &text("namespace"), &text("name"), &options)?;
            }
            Ok(respond(StatusCode::OK, "application/json", list_bytes(request, &page)))
        }
        Verb::Discover => Err(fail::no_such_path()),
    }
}

fn list(state: &State, request: &Request) -> Answer<Response<AnswerBody>> {
    let page = state.page(request)?;
    Ok(respond(StatusCode::OK, "application/json", list_bytes(request, &page)))
}

fn list_bytes(request: &Request, page: &super::read::Page) -> Bytes {
    let resource = &request.resource;
    let (kind, version) = if request.metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        (format!("{}List", resource.kind), resource.api_version())
    };
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<String> =
        page.items.iter().map(|item| if request.metadata_only { metadata_only(item).to_string() } else { item.to_string() }).collect();
    let head = json!({"kind": kind, "apiVersion": version, "metadata": metadata}).to_string();
    Bytes::from(format!("{},\"items\":[{}]}}", &head[..head.len() - 1], items.join(",")))
}

/// Reads or writes the scale of an object.
fn scale(state: &mut State, request: &Request) -> Answer<Value> {
    let resource = &request.resource;
    let Some(paths) = resource.scale.clone() else { return Err(fail::no_such_path()) };
    let (namespace, name) = (request.in_namespace(), request.name.as_str());
    let current = state.get(resource, namespace, name)?;
    let mut wanted = scale_of(resource, &paths, &current);
    match (request.verb, request.patch) {
        (Verb::Get, _) => return Ok(wanted),
        (Verb::Update, _) => wanted = json_body(&request.body)?,
        (_, Some(PatchKind::Json)) => patch::json(&mut wanted, &request.body)?,
        (_, Some(PatchKind::Merge | PatchKind::Strategic)) => patch::merge(&mut wanted, &request.body)?,
        _ => {
            let applied: Value =
                serde_yaml::from_slice(&request.body).map_err(|e| fail::bad_request(format!("error decoding YAML: {e}")))?;
            json_patch::merge(&mut wanted, &applied);
        }
    }
    let version = wanted.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    if !version.is_empty() && current.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(version) {
        return Err(fail::stale(resource, name));
    }
    let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = fail::Cause::invalid("spec.replicas", format!("Invalid value: {replicas}: must be greater than or equal to 0"));
        return Err(fail::invalid(resource, name, vec![cause]));
    }
    let mut next = json!({});
    let mut at = &mut next;
    for field in paths.spec_replicas.split('/').filter(|f| !f.is_empty()) {
        at = &mut at[field];
    }
    *at = json!(replicas);
    let write = Write { part: Part::Main, ..request.write()? };
    let stored = state.patch(resource, namespace, name, PatchKind::Merge, next.to_string().as_bytes(), false, &write)?;
    Ok(scale_of(resource, &paths, &stored))
}

fn deleted(request: &Request, object: &Value) -> Value {
    let mut details = json!({"name": request.name, "kind": request.resource.plural, "uid": object["metadata"]["uid"]});
    if !request.resource.group.is_empty() {
        details["group"] = json!(request.resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn json_body(body: &[u8]) -> Answer<Value> {
    let value: Value = serde_json::from_slice(body).map_err(|e| fail::bad_request(format!("error decoding the body: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(fail::bad_request("the body of the request has to be a JSON object")) }
}

/// The metadata of an object as an object of its own.
pub fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn failure(status: &kube::core::Status) -> Response<AnswerBody> {
    if status.code == 404 && status.reason.is_empty() {
        return respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", Bytes::from(format!("{}\n", status.message)));
    }
    let mut value = serde_json::to_value(status).unwrap_or_default();
    value["kind"] = json!("Status");
    value["apiVersion"] = json!("v1");
    object(StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &value)
}

fn object(code: StatusCode, value: &Value) -> Response<AnswerBody> {
    respond(code, "application/json", Bytes::from(value.to_string()))
}

fn respond(code: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(BodyExt::boxed_unsync(Full::new(bytes).map_err(|never| match never {})));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
