//! The environment of a container: what the node gives, the image's, `envFrom`, `env` with its references.
//!
//! All pods share one network namespace, so a program has to bind its pod's address, not 0.0.0.0: the node gives it as
//! `POD_IP`. Volumes are not mounted. A pod with a `serviceAccountName` finds a folder with `token`, `ca.crt` and
//! `namespace` under `VOICEROLLOUT_SA_DIR`, and a kubeconfig that uses them under `KUBECONFIG`.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, ObjectFieldSelector, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::error::is_not_found;
use super::kubelet::{Image, NODE, NODE_IP};
use super::pod::PodRun;

type Env = BTreeMap<String, String>;

/// Makes the environment, or says what it lacks.
pub async fn resolve(pod: &PodRun, container: &Container, image: &Image) -> Result<Env, String> {
    let mut env = Env::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("PATH", std::env::var("PATH").unwrap_or_default());
    set("HOME", pod.dir.display().to_string());
    set("HOSTNAME", pod.name.clone());
    set("POD_IP", pod.ip.clone());
    for (name, value) in service_account(pod).await?.into_iter().chain(image.env.iter().cloned()) {
        set(&name, value);
    }

    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let values = if let Some(map) = &source.config_map_ref {
            config_map(pod, &map.name, map.optional == Some(true)).await?
        } else if let Some(map) = &source.secret_ref {
            secret(pod, &map.name, map.optional == Some(true)).await?
        } else {
            Env::new()
        };
        env.extend(values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, var, &env).await? {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env)
}

async fn value_of(pod: &PodRun, var: &EnvVar, env: &Env) -> Result<Option<String>, String> {
    let Some(source) = &var.value_from else {
        return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), env)));
    };
    let EnvVarSource { field_ref, config_map_key_ref, secret_key_ref, .. } = source;
    let (values, key, optional) = if let Some(field) = field_ref {
        return field_value(pod, field).map(Some);
    } else if let Some(key) = config_map_key_ref {
        (config_map(pod, &key.name, key.optional == Some(true)).await?, &key.key, key.optional)
    } else if let Some(key) = secret_key_ref {
        (secret(pod, &key.name, key.optional == Some(true)).await?, &key.key, key.optional)
    } else {
        return Err(format!("env {}: this kind of reference is not played by the test stack", var.name));
    };
    match values.get(key) {
        None if optional != Some(true) => Err(format!("env {}: no key {key}", var.name)),
        value => Ok(value.cloned()),
    }
}

fn field_value(pod: &PodRun, field: &ObjectFieldSelector) -> Result<String, String> {
    let path = field.field_path.as_str();
    let entry = |kind: &str| path.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = entry("metadata.labels") {
        return Ok(pod.pod.labels().get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = entry("metadata.annotations") {
        return Ok(pod.pod.annotations().get(key).cloned().unwrap_or_default());
    }
    let account = || pod.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        "spec.nodeName" => NODE.into(),
        "spec.serviceAccountName" => account(),
        "status.podIP" | "status.podIPs" => pod.ip.clone(),
        "status.hostIP" | "status.hostIPs" => NODE_IP.into(),
        _ => return Err(format!("fieldPath {path} is not played by the test stack")),
    })
}

/// Replaces `$(NAME)` by the variable's value where there is one; `$$` stands for `$`.
pub fn expand(text: &str, env: &Env) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((value, after)) = name.and_then(|(name, after)| Some((env.get(name)?, after))) {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

async fn config_map(pod: &PodRun, name: &str, optional: bool) -> Result<Env, String> {
    let api: Api<ConfigMap> = Api::namespaced(pod.shared.client.clone(), &pod.namespace);
    match api.get(name).await {
        Ok(map) => Ok(map.data.unwrap_or_default()),
        Err(error) if optional && is_not_found(&error) => Ok(Env::new()),
        Err(error) => Err(format!("ConfigMap {name}: {error}")),
    }
}

async fn secret(pod: &PodRun, name: &str, optional: bool) -> Result<Env, String> {
    let api: Api<Secret> = Api::namespaced(pod.shared.client.clone(), &pod.namespace);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match api.get(name).await {
        Ok(secret) => Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, text(value.0))).collect()),
        Err(error) if optional && is_not_found(&error) => Ok(Env::new()),
        Err(error) => Err(format!("Secret {name}: {error}")),
    }
}

/// Requests a token bound to the pod, and writes it where the variables say.
async fn service_account(pod: &PodRun) -> Result<Vec<(String, String)>, String> {
    let Some(spec) = &pod.pod.spec else { return Ok(Vec::new()) };
    let Some(account) = spec.service_account_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(Vec::new());
    };
    let api: Api<ServiceAccount> = Api::namespaced(pod.shared.client.clone(), &pod.namespace);
    let told = |error: kube::Error| format!("ServiceAccount {account}: {error}");
    let mount = spec.automount_service_account_token;
    if mount.or(api.get(account).await.map_err(told)?.automount_service_account_token) == Some(false) {
        return Ok(Vec::new());
    }
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await.map_err(told)?;
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    let dir = pod.dir.join("serviceaccount");
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("token"), token)?;
        std::fs::copy(&pod.shared.ca, dir.join("ca.crt"))?;
        std::fs::write(dir.join("namespace"), &pod.namespace)?;
        let user = format!("tokenFile: {}", dir.join("token").display());
        std::fs::write(dir.join("kubeconfig"), (pod.shared.kubeconfig)(&user))
    };
    write().map_err(|error| format!("{}: {error}", dir.display()))?;
    let text = |name: &str| dir.join(name).display().to_string();
    Ok(vec![("VOICEROLLOUT_SA_DIR".into(), dir.display().to_string()), ("KUBECONFIG".into(), text("kubeconfig"))])
}
