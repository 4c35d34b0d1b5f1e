//! Names of Services as they are written in hosts.

const DOMAIN: &str = "svc.cluster.local";

/// The full name of a Service.
pub(super) fn service(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.{DOMAIN}")
}

/// The full name that `host` stands for in an object of `namespace`. A name without a dot is a Service of that
/// namespace; `svc.ns` and `svc.ns.svc` are completed; anything else is full already.
pub(super) fn resolve(host: &str, namespace: &str) -> String {
    match host.split('.').collect::<Vec<_>>().as_slice() {
        [name] => service(name, namespace),
        [name, namespace] | [name, namespace, "svc"] => service(name, namespace),
        _ => host.to_owned(),
    }
}
