//! The file by which jobs' SSH clients know the gateway.

use std::{collections::BTreeSet, fmt::Write};

use policy::{Host, Policy, ResourceKind};
use russh::keys::ssh_key;

use super::Authority;

/// Standard port: names are written without it.
const PORT: u16 = 22;

/// The lines for jobs. The authority's line serves clients that know certificates, for whatever hosts policy may
/// have later: a certificate names its hosts itself. The others find the host key under each name and address of
/// the resources there are; of networks they find nothing.
///
/// # Errors
/// When a key cannot be written as text.
pub fn known_hosts(authority: &Authority, policy: &Policy) -> Result<String, ssh_key::Error> {
    let ca = authority.ca_key().public_key().to_openssh()?;
    let key = authority.host_key().public_key().to_openssh()?;
    let mut text = format!("@cert-authority * {}\n", ca.trim_end());
    let mut names = BTreeSet::new();
    for resource in policy.resources().iter().filter(|resource| resource.kind() == ResourceKind::Ssh) {
        for host in &resource.hosts {
            let name = match host {
                Host::Net(net) if net.prefix_len() < net.max_prefix_len() => continue,
                host => host.to_string(),
            };
            for port in &resource.ports {
                names.insert(match *port {
                    PORT => name.clone(),
                    port => format!("[{name}]:{port}"),
                });
            }
        }
    }
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {}", key.trim_end());
    }
    Ok(text)
}
