//! A client whose requests a closure answers.

use std::future::Future;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub content_type: String,
    pub body: Value,
}

/// An answer: status code and object.
pub type Answer = (u16, Value);

/// A client whose requests `answer` answers.
pub fn client<F>(answer: impl Fn(Call) -> F + Clone + Send + 'static) -> Client
where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let call = Call {
                method: head.method,
                path: head.uri.path().to_owned(),
                content_type: head.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default(),
                body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
            };
            let (code, value) = answer(call).await;
            let body = Body::from(serde_json::to_vec(&value).unwrap());
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// The API server's way to say no.
pub fn refusal(code: u16, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": message, "code": code});
    (code, status)
}
