//! Which requests are looked at, and the headers of every answer.
//!
//! A page of another site can make a browser send requests to this machine, and can point a name of its own at 127.0.0.1
//! (DNS rebinding). The first shows in `Origin` and `Sec-Fetch-Site`, the second in `Host`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refusal::Refusal;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// By which names the dashboard may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Names of this machine, with any port: `kubectl port-forward` may choose another one.
    Loopback,
    /// Names of this machine with this port.
    LoopbackPort(u16),
    /// Any name: it is for proxies and Services to say who comes here.
    Any,
}

impl Hosts {
    /// Loopback addresses go by loopback names only.
    pub fn of(address: std::net::SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Any }
    }

    fn allow(self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
            _ => (host, "80"),
        };
        let here = name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]";
        match self {
            Self::Any => true,
            Self::Loopback => here,
            Self::LoopbackPort(wanted) => here && port.parse() == Ok(wanted),
        }
    }
}

/// Refuses names that are not the dashboard's; adds the headers.
pub async fn by_name(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut response = if hosts.allow(text(request.headers(), &header::HOST).unwrap_or_default()) {
        next.run(request).await
    } else {
        Refusal::Forbidden("the dashboard of this machine goes by 127.0.0.1 or localhost, and by no other name".into()).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses what pages of other sites sent. Not for the page itself: links and sign-ins of proxies lead to it, and it tells
/// nothing.
pub async fn own_page(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    if is_foreign(hosts, request.headers()) {
        return Refusal::Forbidden("another site sent this request".into()).into_response();
    }
    next.run(request).await
}

fn is_foreign(hosts: Hosts, headers: &HeaderMap) -> bool {
    let site = text(headers, &FETCH_SITE).unwrap_or("none");
    if !matches!(site, "none" | "same-origin") {
        return true;
    }
    // Behind a proxy the two may differ for good reasons, and there the token alone decides.
    let origin = text(headers, &header::ORIGIN).filter(|_| hosts != Hosts::Any);
    let host = text(headers, &header::HOST).unwrap_or_default();
    origin.is_some_and(|origin| origin != format!("http://{host}"))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}
