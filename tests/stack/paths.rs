//! Where the components are: the environment first, then the list that `components.sh` wrote, then nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Error, Result};

/// The paths of all components.
#[derive(Debug, Clone)]
pub struct Paths {
    /// kube-apiserver
    pub apiserver: PathBuf,
    /// kube-controller-manager
    pub controller_manager: PathBuf,
    /// etcd
    pub etcd: PathBuf,
    /// kubectl
    pub kubectl: PathBuf,
    /// helm
    pub helm: PathBuf,
    /// istiod, that is pilot-discovery
    pub istiod: PathBuf,
    /// the file with Istio's CRDs
    pub istio_crds: PathBuf,
    /// envoy
    pub envoy: PathBuf,
    /// prometheus
    pub prometheus: PathBuf,
}

impl Paths {
    /// Finds all components, or says which one is missing.
    pub fn find() -> Result<Self> {
        let listed = listed();
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let find = |name: &'static str, variable: &'static str| -> Result<PathBuf> {
            let given = std::env::var_os(variable).map(PathBuf::from);
            let in_assets = assets.as_ref().map(|dir| dir.join(name)).filter(|path| path.is_file());
            given
                .or(in_assets)
                .or_else(|| listed.get(variable).cloned())
                .filter(|path| path.is_file())
                .ok_or(Error::Missing { name, variable })
        };
        Ok(Self {
            apiserver: find("kube-apiserver", "VOICEROLLOUT_KUBE_APISERVER")?,
            controller_manager: find("kube-controller-manager", "VOICEROLLOUT_KUBE_CONTROLLER_MANAGER")?,
            etcd: find("etcd", "VOICEROLLOUT_ETCD")
                .or_else(|missing| etcd_bin_vendored::etcd_bin_path().map(Path::to_path_buf).map_err(|_| missing))?,
            kubectl: find("kubectl", "VOICEROLLOUT_KUBECTL")?,
            helm: find("helm", "VOICEROLLOUT_HELM")?,
            istiod: find("istiod", "VOICEROLLOUT_ISTIOD")?,
            istio_crds: find("istio-crds", "VOICEROLLOUT_ISTIO_CRDS")?,
            envoy: find("envoy", "VOICEROLLOUT_ENVOY")?,
            prometheus: find("prometheus", "VOICEROLLOUT_PROMETHEUS")?,
        })
    }
}

/// The cache folder that `components.sh` fills.
fn cache() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("VOICEROLLOUT_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("voicerollout")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/voicerollout")))
}

/// The `KEY=path` lines of the cache folder's file `env`.
fn listed() -> BTreeMap<String, PathBuf> {
    let text = cache().and_then(|dir| std::fs::read_to_string(dir.join("env")).ok()).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once('=')).map(|(key, path)| (key.to_owned(), PathBuf::from(path))).collect()
}
