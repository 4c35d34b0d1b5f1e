//! Secrets of gates and notifications, read from Kubernetes one at a time and only where their owner allows it.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};

use super::READ_TIMEOUT;
use crate::api::common::{SECRET_USE_LABEL, SECRET_USE_NOTIFICATIONS, SECRET_USE_VALUE, SecretKeyRef};
use crate::sources::SourceError;
use crate::sources::secrets::SecretReader;

/// Reads Secrets that carry the label `voicerollout.dev/use` with one value.
#[derive(Clone)]
pub struct KubeSecrets {
    client: Client,
    label: &'static str,
}

impl KubeSecrets {
    /// Reads Secrets of gates with this client.
    pub fn new(client: Client) -> Self {
        Self { client, label: SECRET_USE_VALUE }
    }

    /// Reads Secrets of notifications with this client.
    pub fn of_notifications(client: Client) -> Self {
        Self { client, label: SECRET_USE_NOTIFICATIONS }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Secret>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(READ_TIMEOUT, api.get_opt(name)).await {
            Err(_) => Err(format!("no answer within {} s", READ_TIMEOUT.as_secs())),
            // kube's text holds the API server's message, which names the object and not its content.
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(secret)) => Ok(secret),
        }
    }
}

impl SecretReader for KubeSecrets {
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        async move {
            let told = |reason| format!("reading the key {} of the Secret {namespace}/{}: {reason}", secret.key, secret.name);
            match self.get(namespace, &secret.name).await {
                Ok(found) => pick(found, secret, self.label).map_err(|reason| SourceError::new(told(reason))),
                // Nobody has to change anything for it to be read next time.
                Err(reason) => Err(SourceError { retry_after: Some(READ_TIMEOUT), ..SourceError::new(told(reason)) }),
            }
        }
        .boxed()
    }
}

/// The key's text; one line break at its end, which editors like to leave, is not part of it.
fn pick(found: Option<Secret>, wanted: &SecretKeyRef, label: &str) -> Result<String, String> {
    let secret = found.ok_or_else(|| {
        format!("there is no such Secret; create it with the label {SECRET_USE_LABEL}: {label} and the key {}", wanted.key)
    })?;
    if secret.labels().get(SECRET_USE_LABEL).map(String::as_str) != Some(label) {
        return Err(format!("the Secret does not carry the label {SECRET_USE_LABEL}: {label}, so {label} may not use it; add the label"));
    }
    let data = secret.data.unwrap_or_default();
    let value = data.get(&wanted.key).ok_or("the Secret has no such key; add it")?;
    let text = String::from_utf8(value.0.clone()).map_err(|_| "the value is not text")?;
    let text = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text);
    if text.is_empty() { Err("the value is empty".into()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn only_labelled_secrets_with_the_key_are_used() {
        let secret = |label: &str, value: &[u8]| {
            let mut secret = Secret { data: Some([("k".to_owned(), ByteString(value.to_vec()))].into()), ..Secret::default() };
            secret.labels_mut().insert(SECRET_USE_LABEL.into(), label.into());
            Some(secret)
        };
        let wanted = |key: &str| SecretKeyRef { name: "s".into(), key: key.into() };
        assert_eq!(pick(secret("gates", b"v\r\n"), &wanted("k"), "gates").as_deref(), Ok("v"));
        for (found, key, part) in [
            (None, "k", "no such Secret"),
            (Some(Secret::default()), "k", "does not carry the label voicerollout.dev/use: gates"),
            (secret("other", b"topsecret"), "k", "does not carry the label"),
            (secret("gates", b"topsecret"), "x", "no such key"),
            (secret("gates", b"\xff"), "k", "not text"),
            (secret("gates", b"\n"), "k", "empty"),
        ] {
            let error = pick(found, &wanted(key), "gates").unwrap_err();
            assert!(error.contains(part) && !error.contains("topsecret"), "{error}");
        }
    }
}
