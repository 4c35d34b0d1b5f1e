//! A long call over a WebSocket, on the port of everything else.

use std::future::Future;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::calls::Call;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Answers the opening request with the key from [`accept_key`], and hands the connection to `talk`.
pub fn upgrade<F: Future<Output = ()> + Send + 'static>(
    mut request: Request,
    accept: String,
    talk: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response {
    let connection = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = connection.await {
            talk(Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    let headers =
        [(header::CONNECTION, "upgrade".to_owned()), (header::UPGRADE, "websocket".to_owned()), (header::SEC_WEBSOCKET_ACCEPT, accept)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// The key that accepts an opening request (RFC 6455, 4.2.2); `None` when it does not ask for a WebSocket.
pub fn accept_key(headers: &HeaderMap) -> Option<String> {
    let is = |name, value: &str| headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(value));
    if !is(header::UPGRADE, "websocket") || !is(header::SEC_WEBSOCKET_VERSION, "13") {
        return None;
    }
    headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()))
}

/// Says who answers, then a turn for every message: the text comes back. The call is good when the caller closes it.
pub async fn talk(mut socket: Socket, mut call: Call, identity: Value) {
    let mut greeting = identity;
    greeting["firstTokenMs"] = json!(call.turn());
    if socket.send(Message::text(greeting.to_string())).await.is_err() {
        return;
    }
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Close(_)) => {
                call.end();
                // Sends the answering close frame.
                let _ = socket.close(None).await;
                return;
            }
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                call.turn();
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered by the socket itself.
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
