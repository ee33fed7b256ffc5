//! The files by which jobs' SSH clients know the gateway.

use std::{collections::BTreeSet, fmt::Write};

use policy::{Host, Policy, ResourceKind};
use russh::keys::ssh_key;

use super::Authority;

/// Standard port: names are written without it.
const PORT: u16 = 22;

/// Lines for jobs, by what clients make of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHosts {
    /// The host key under each name and address of the resources there are, for clients that know no certificates; of networks they
    /// find nothing.
    pub hosts: String,
    /// The authority, for whatever hosts policy may have later: a certificate names its hosts itself. In a file of its own, because some
    /// clients stumble over the line.
    pub authority: String,
}

/// # Errors
/// When a key cannot be written as text.
pub fn known_hosts(authority: &Authority, policy: &Policy) -> Result<KnownHosts, ssh_key::Error> {
    let ca = authority.ca_key().public_key().to_openssh()?;
    let key = authority.host_key().public_key().to_openssh()?;
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
    let mut hosts = String::new();
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(hosts, "{name} {}", key.trim_end());
    }
    Ok(KnownHosts { hosts, authority: format!("@cert-authority * {}\n", ca.trim_end()) })
}
