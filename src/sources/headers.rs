//! Request headers and credentials of the prometheus and web providers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::secrets::Vault;
use super::{ArgValue, SourceError};
use crate::api::analysis::{Auth, Header};
use crate::core::args::{Place, fill};
use crate::core::request::RESERVED_HEADERS;

/// The name under which a measurement's key goes to a provider.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What is said of one of [`RESERVED_HEADERS`].
pub(super) const OURS: &str = "this header is set by the operator; leave it out";

/// Builds the headers; `auth` comes last and replaces an `Authorization` among `headers`.
pub(super) async fn build(
    what: &str,
    headers: &[Header],
    auth: Option<&Auth>,
    args: &BTreeMap<String, ArgValue>,
    vault: &Vault<'_>,
) -> Result<HeaderMap, SourceError> {
    let mut map = HeaderMap::new();
    for header in headers {
        let fail = |e: &str| SourceError::new(format!("{what}: header {:?}: {e}", header.name));
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| fail("not a valid header name"))?;
        if RESERVED_HEADERS.contains(&name.as_str()) {
            return Err(fail(OURS));
        }
        let value = match (&header.value, &header.secret_key_ref) {
            (Some(template), None) => fill(template, Place::Header, args).map_err(|e| fail(&e.to_string()))?.text,
            (None, Some(secret)) => vault.read(secret).await?,
            _ => return Err(fail("set exactly one of value, secretKeyRef")),
        };
        map.append(name, sensitive(&value).ok_or_else(|| fail("the value has characters that a header cannot carry"))?);
    }
    if let Some(auth) = auth {
        map.insert(AUTHORIZATION, authorization(what, auth, vault).await?);
    }
    Ok(map)
}

async fn authorization(what: &str, auth: &Auth, vault: &Vault<'_>) -> Result<HeaderValue, SourceError> {
    let value = match (&auth.bearer, &auth.basic) {
        (Some(token), None) => format!("Bearer {}", vault.read(token).await?),
        (None, Some(basic)) => {
            let user = vault.read(&basic.username).await?;
            let pair = STANDARD.encode(format!("{user}:{}", vault.read(&basic.password).await?));
            vault.remember(&pair);
            format!("Basic {pair}")
        }
        _ => return Err(SourceError::new(format!("{what}: auth: set exactly one of bearer, basic"))),
    };
    sensitive(&value).ok_or_else(|| SourceError::new(format!("{what}: auth: the Secret's value has characters that a header cannot carry")))
}

/// A value that HTTP libraries do not print.
pub(super) fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
