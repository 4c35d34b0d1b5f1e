//! Requests to the API server, counted as they leave the client.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tower::{Layer, Service};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    verb: &'static str,
    resource: String,
    code: String,
}

/// Counts the requests of a [`kube::Client`]: `ClientBuilder::with_layer`.
#[derive(Clone, Debug, Default)]
pub struct ApiMetricsLayer {
    requests: Family<ApiLabels, Counter>,
}

impl ApiMetricsLayer {
    pub(super) fn family(
        &self,
    ) -> Family<impl EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static, Counter> {
        self.requests.clone()
    }
}

impl<S> Layer<S> for ApiMetricsLayer {
    type Service = ApiMetrics<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiMetrics { inner, requests: self.requests.clone() }
    }
}

/// See [`ApiMetricsLayer`].
#[derive(Clone, Debug)]
pub struct ApiMetrics<S> {
    inner: S,
    requests: Family<ApiLabels, Counter>,
}

impl<S, B, R> Service<Request<B>> for ApiMetrics<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = classify(request.method(), request.uri());
        let labels = ApiLabels { verb, resource, code: "abandoned".into() };
        let mut count = OnDrop { labels, requests: self.requests.clone() };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            count.answered(answer.as_ref().map_or_else(|_| "error".into(), |r| r.status().as_u16().to_string()));
            answer
        })
    }
}

/// Counts a request at its end, also when nobody waits for that.
struct OnDrop {
    labels: ApiLabels,
    requests: Family<ApiLabels, Counter>,
}

impl OnDrop {
    fn answered(&mut self, code: String) {
        self.labels.code = code;
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.requests.get_or_create(&self.labels).inc();
    }
}

/// Verb and resource (with subresource) in the words of RBAC; names and namespaces are left out, so there are not many.
fn classify(method: &Method, uri: &Uri) -> (&'static str, String) {
    let path: Vec<&str> = uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let rest = match path.as_slice() {
        ["api", _version, rest @ ..] | ["apis", _, _version, rest @ ..] => rest,
        _ => &[],
    };
    let (resource, name, subresource) = match rest {
        ["namespaces", _, resource, rest @ ..] | [resource, rest @ ..] => (*resource, rest.first(), rest.get(1)),
        [] => ("none", None, None),
    };
    let watch = || uri.query().is_some_and(|q| q.split('&').any(|p| p == "watch=true" || p == "watch=1"));
    let verb = match (method.as_str(), name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if rest.is_empty() => "get",
        ("GET", None) if watch() => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "other",
    };
    (verb, subresource.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}")))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::ServiceExt;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn requests_are_named_as_in_rbac() {
        let cases = [
            ("GET", "/apis/voicerollout.dev/v1alpha1/voicerollouts?watch=true&resourceVersion=5", "watch voicerollouts"),
            ("GET", "/apis/voicerollout.dev/v1alpha1/namespaces/voice/voicerollouts?limit=500", "list voicerollouts"),
            ("PUT", "/apis/voicerollout.dev/v1alpha1/namespaces/voice/voicerollouts/agent/status?", "update voicerollouts/status"),
            ("PATCH", "/apis/networking.istio.io/v1/namespaces/voice/virtualservices/agent", "patch virtualservices"),
            ("GET", "/api/v1/namespaces/voice/secrets/key", "get secrets"),
            ("GET", "/api/v1/namespaces/voice", "get namespaces"),
            ("GET", "/api/v1/namespaces", "list namespaces"),
            ("GET", "/api/v1/namespaces/voice/pods/agent-0/log", "get pods/log"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/voice/events", "create events"),
            ("DELETE", "/apis/apps/v1/namespaces/voice/replicasets/agent-1", "delete replicasets"),
            ("DELETE", "/apis/apps/v1/namespaces/voice/replicasets", "deletecollection replicasets"),
            ("GET", "/version", "get none"),
        ];
        for (method, uri, want) in cases {
            let (verb, resource) = classify(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(format!("{verb} {resource}"), want);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_request_is_counted_once_whatever_becomes_of_it() {
        let metrics = Metrics::new();
        let service = metrics.api_layer().layer(tower::service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/api/v1/pods/slow" => std::future::pending().await,
                "/api/v1/pods/broken" => Err("no connection"),
                _ => Ok(Response::builder().status(404).body(()).unwrap()),
            }
        }));
        for path in ["/api/v1/pods/a", "/api/v1/pods/b", "/api/v1/pods/slow", "/api/v1/pods/broken"] {
            let request = Request::get(path).body(()).unwrap();
            let _ = tokio::time::timeout(Duration::from_secs(5), service.clone().oneshot(request)).await;
        }
        let text = metrics.encode().unwrap();
        let counted: Vec<&str> =
            text.lines().filter_map(|l| l.strip_prefix("voicerollout_api_requests_total{verb=\"get\",resource=\"pods\",")).collect();
        let mut sorted = counted.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["code=\"404\"} 2", "code=\"abandoned\"} 1", "code=\"error\"} 1"]);
    }

    #[tokio::test]
    async fn it_fits_the_client_of_kube() {
        let metrics = Metrics::new();
        let inner = tower::service_fn(|_: Request<kube::client::Body>| async {
            Ok::<_, Infallible>(Response::new(kube::client::Body::from(br#"{"major":"1","minor":"37"}"#.to_vec())))
        });
        let client = kube::client::ClientBuilder::new(inner, "default").with_layer(&metrics.api_layer()).build();
        let _ = client.apiserver_version().await;
        assert!(metrics.encode().unwrap().contains("voicerollout_api_requests_total{verb=\"get\",resource=\"none\",code=\"200\"} 1"));
    }
}
