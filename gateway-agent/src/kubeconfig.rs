//! By which the Kubernetes clients of jobs know the clusters: the gateway's CA, and placeholders where they want credentials.

use std::path::Path;

use policy::{Host, Policy, Resource, ResourceKind};
use serde_json::{Value, json};

/// A kubeconfig with a context for each resource of kind kubernetes; the first is the current one. `None`: there are none.
pub fn kubeconfig(policy: &Policy, ca: &Path) -> Option<String> {
    let of_kind = |resource: &&std::sync::Arc<Resource>| resource.kind() == ResourceKind::Kubernetes;
    let clusters: Vec<_> = policy.resources().iter().filter(of_kind).collect();
    let current = clusters.first()?;
    let cluster = |resource: &std::sync::Arc<Resource>| {
        let server = json!({ "server": server(resource), "certificate-authority": ca });
        json!({ "name": &*resource.name, "cluster": server })
    };
    let context = |resource: &std::sync::Arc<Resource>| json!({ "name": &*resource.name, "context": { "cluster": &*resource.name, "user": "job" } });
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": &*current.name,
        "clusters": clusters.iter().map(|resource| cluster(resource)).collect::<Vec<Value>>(),
        "contexts": clusters.iter().map(|resource| context(resource)).collect::<Vec<Value>>(),
        // Whoever asks is who the kernel says it is: the gateway drops this.
        "users": [{ "name": "job", "user": { "token": "placeholder" } }],
    });
    serde_json::to_string_pretty(&document).ok().map(|text| text + "\n")
}

/// Where a resource is called: by a name, or else by an address.
fn server(resource: &Resource) -> String {
    let name = resource.hosts.iter().find_map(|host| match host {
        Host::Name(name) => Some(name.clone()),
        Host::Net(_) => None,
    });
    let address = || {
        resource.hosts.iter().find_map(|host| match host {
            Host::Net(net) if net.addr().is_ipv6() => Some(format!("[{}]", net.addr())),
            Host::Net(net) => Some(net.addr().to_string()),
            Host::Name(_) => None,
        })
    };
    let port = resource.ports.first().copied().unwrap_or(6443);
    format!("https://{}:{port}", name.or_else(address).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use policy::Source;

    use super::*;

    #[test]
    fn every_cluster_has_a_context() {
        let load = |text: &str| Policy::load(&[Source { name: "p".into(), text: text.into() }]).unwrap();
        let policy = load(
            "version: 1\nresources:\n\
             - { name: a, kind: kubernetes, hosts: [192.0.2.1, api.internal], login: { token: { env: X } } }\n\
             - { name: b, kind: kubernetes, hosts: [\"2001:db8::1\"], ports: [443], login: { token: { env: X } } }\n\
             - { name: c, kind: https, hosts: [c.internal] }\n",
        );
        let text = kubeconfig(&policy, Path::new("/run/gateway/ca.pem")).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["current-context"], "a");
        assert_eq!(read["clusters"][0]["cluster"]["server"], "https://api.internal:6443");
        assert_eq!(read["clusters"][1]["cluster"]["server"], "https://[2001:db8::1]:443");
        assert_eq!(read["clusters"][1]["cluster"]["certificate-authority"], "/run/gateway/ca.pem");
        assert_eq!(read["contexts"].as_array().unwrap().len(), 2);
        assert!(kubeconfig(&load("version: 1\n"), Path::new("/x")).is_none());
    }
}
