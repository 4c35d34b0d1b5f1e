use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, pki_types::PrivateKeyDer};

use super::{LogMap, error, request, sources_with, start};
use crate::sources::Progress;

/// An HTTPS server for `name` with a certificate of its own CA; gives its port and the CA in PEM.
async fn https(name: &str) -> (u16, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0_u8; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n{\"v\":1}").await;
            let _ = stream.shutdown().await;
        }
    });
    (port, ca_pem)
}

fn gate(port: u16, tls: Value) -> Value {
    let web = json!({"url": format!("https://localhost:{port}/"), "jsonPath": "{$.v}", "tls": tls});
    json!({"name": "g", "threshold": {"successCondition": "result == 1", "provider": {"web": web}}})
}

#[tokio::test]
async fn certificates_are_checked_unless_told_otherwise() {
    let allow = ["127.0.0.0/8"];
    let (port, ca) = https("localhost").await;
    let sources = sources_with(&allow, LogMap::default(), &ca);
    let with_ca = json!({"ca": {"name": "creds", "key": "ca"}});
    for tls in [with_ca.clone(), json!({"insecureSkipVerify": true})] {
        assert_eq!(start(&sources, &request(gate(port, tls))).await, Ok(Progress::Value(json!(1))));
    }
    let untrusted = error(&sources, &request(gate(port, json!({})))).await.message;
    assert!(untrusted.contains("cannot connect") && untrusted.contains("certificate"), "{untrusted}");

    let (port, ca) = https("elsewhere.example").await;
    let sources = sources_with(&allow, LogMap::default(), &ca);
    let misnamed = error(&sources, &request(gate(port, with_ca))).await.message;
    assert!(misnamed.contains("certificate"), "{misnamed}");
}
