//! A namespace for one test, gone after it.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;

use super::callers::HttpCaller;
use super::{Result, runtime};

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
        let object: K = serde_json::from_value(object).map_err(|error| super::Error::other(error.to_string()))?;
        Ok(self.api::<K>().create(&PostParams::default(), &object).await?)
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
