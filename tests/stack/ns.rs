//! A namespace for one test, gone after it.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, ValidationDirective};
use kube::discovery::{self, Scope};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use super::callers::HttpCaller;
use super::{Error, Result, runtime};

/// A namespace of a test's own. Dropping it deletes it in the background.
pub struct Namespace {
    /// Its name.
    pub name: String,
    client: Client,
}

impl Namespace {
    /// Makes the namespace `<prefix>-<number>`.
    pub async fn create(client: Client, prefix: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let namespace =
            KubeNamespace { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, ..KubeNamespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { name, client })
    }

    /// A typed API of this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Makes an object of a built-in kind from JSON.
    pub async fn create_object<K>(&self, object: Value) -> Result<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(object).map_err(|error| Error::other(error.to_string()))?;
        Ok(self.api::<K>().create(&PostParams::default(), &object).await?)
    }

    /// Applies the objects of YAML text in this namespace, server-side, with unknown fields refused; what came of them.
    /// (kubectl does the same in one or two seconds instead of milliseconds: [`super::Stack::kubectl_apply`].)
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("test").force() };
        let mut applied = Vec::new();
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let wrong = |error: serde_yaml::Error| Error::other(format!("{error} in:\n{yaml}"));
            let value = serde_yaml::Value::deserialize(document).map_err(wrong)?;
            if value.is_null() {
                continue;
            }
            let object: DynamicObject = serde_yaml::from_value(value).map_err(wrong)?;
            let types = object.types.clone().unwrap_or_default();
            let kind = GroupVersionKind::try_from(&types).map_err(|error| Error::other(error.to_string()))?;
            let (resource, capabilities) = discovery::pinned_kind(&self.client, &kind).await?;
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Namespaced => Api::namespaced_with(self.client.clone(), &self.name, &resource),
                Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            };
            applied.push(api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await?);
        }
        Ok(applied)
    }

    /// A host name that only this test uses, for VirtualServices and callers.
    pub fn host(&self) -> String {
        format!("{}.calls.test", self.name)
    }

    /// Calls this test's host over HTTP.
    pub fn caller(&self, path: &str) -> HttpCaller {
        HttpCaller::new(&self.host(), path)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let api: Api<KubeNamespace> = Api::all(self.client.clone());
        let name = self.name.clone();
        runtime().spawn(async move { api.delete(&name, &DeleteParams::background()).await });
    }
}
