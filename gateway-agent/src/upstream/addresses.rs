//! Which resource an address belongs to, and what the kernel is told about it.
//!
//! The address that a job dialled, as the kernel saw it, selects the resource; names in policy are resolved
//! here, by the gateway, never by the job.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use ipnet::IpNet;
use policy::{Host, OutsideJobs, Policy, Resource};
use tracing::warn;

use crate::kernel::{Disposition, canonical};

/// Resource addresses at one moment.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    entries: Vec<(IpNet, Arc<Resource>)>,
    /// Last answer per name, kept while the resolver fails.
    names: HashMap<String, BTreeSet<IpNet>>,
}

impl Addresses {
    /// Resolves every host of the policy. A name that does not resolve keeps its `previous` addresses.
    pub async fn resolve(policy: &Policy, previous: &Self) -> Self {
        let mut next = Self::default();
        for resource in policy.resources() {
            for host in &resource.hosts {
                match host {
                    Host::Net(net) => match canonical(*net) {
                        Some(net) => next.entries.push((net, Arc::clone(resource))),
                        None => {
                            warn!(%net, resource = %resource.name, "a tunnel address: no job ever reaches it")
                        }
                    },
                    Host::Name(name) => {
                        let nets = match next.names.get(name) {
                            Some(nets) => nets.clone(),
                            None => look_up(name, previous).await,
                        };
                        next.entries.extend(nets.iter().map(|net| (*net, Arc::clone(resource))));
                        next.names.insert(name.clone(), nets);
                    }
                }
            }
        }
        // The narrowest network decides.
        next.entries.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        next
    }

    /// The resource at `address`, or one of several that differ in their databases.
    pub fn find(&self, address: SocketAddr) -> Option<&Arc<Resource>> {
        self.at(address).next()
    }

    /// The resource at `address` that has this database.
    pub fn find_database(&self, address: SocketAddr, database: &str) -> Option<&Arc<Resource>> {
        self.at(address).find(|resource| resource.has_database(database))
    }

    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Arc<Resource>> {
        self.entries
            .iter()
            .filter(move |(net, resource)| {
                net.contains(&address.ip()) && resource.ports.contains(&address.port())
            })
            .map(|(_, resource)| resource)
    }

    /// Networks and ports whose connections the kernel hands to the gateway, and how.
    pub fn redirected(&self) -> impl Iterator<Item = (IpNet, u16, Disposition)> + '_ {
        self.entries.iter().flat_map(|(net, resource)| {
            let disposition = match resource.outside_jobs {
                OutsideJobs::Deny => Disposition::Redirect,
                OutsideJobs::Allow => Disposition::RedirectJobs,
            };
            resource.ports.iter().map(move |port| (*net, *port, disposition))
        })
    }

    /// Whether the policy has names, so that the answer has to be refreshed.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }
}

async fn look_up(name: &str, previous: &Addresses) -> BTreeSet<IpNet> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => found.filter_map(|a| canonical(IpNet::from(a.ip()))).collect(),
        Err(error) => {
            warn!(name, %error, "resource name does not resolve; its last known addresses stay in force");
            previous.names.get(name).cloned().unwrap_or_default()
        }
    }
}
