//! Which resource an address belongs to, and what the kernel is told about it.
//!
//! The address that a job dialled, as the kernel saw it, selects the resource; names in policy are resolved
//! here, by the gateway, never by the job. A name's addresses are followed: new ones count at once, old ones stay
//! while something may still be on its way to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use policy::{Host, OutsideJobs, Policy, Resource};
use tracing::warn;

use super::Names;
use crate::kernel::{Disposition, canonical};

/// Answers count for at least and at most this long, whatever their records say.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A name that does not resolve is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Addresses that a name had stay reachable this long, and beyond it while sessions use them: no job keeps an
/// answer for longer than [`Addresses::of_name`] says.
const LINGER: Duration = Duration::from_secs(60);

/// Resource addresses at one moment.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    entries: Vec<(IpNet, Arc<Resource>)>,
    names: HashMap<String, Named>,
}

/// A name's last answer, kept while the resolver fails.
#[derive(Debug, Clone)]
struct Named {
    nets: BTreeSet<IpNet>,
    /// To be asked again then.
    until: Instant,
    /// Earlier addresses, and when they may go.
    earlier: BTreeMap<IpNet, Instant>,
}

impl Addresses {
    /// Resolves every host of the policy whose last answer is over. A name that does not resolve keeps its
    /// `previous` addresses; `in_use` are those that sessions are open to.
    pub async fn resolve(policy: &Policy, previous: &Self, names: &Names, in_use: &HashSet<IpAddr>) -> Self {
        let mut next = Self::default();
        let now = Instant::now();
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
                        let named = match (next.names.get(name), previous.names.get(name)) {
                            (Some(named), _) => named.clone(),
                            (None, before) => look_up(name, before, names, now).await.without(now, in_use),
                        };
                        let nets = named.nets.iter().chain(named.earlier.keys());
                        next.entries.extend(nets.map(|net| (*net, Arc::clone(resource))));
                        next.names.insert(name.clone(), named);
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

    /// The resource at `address` that jobs may call by this name or address.
    pub fn find_http(&self, address: SocketAddr, name: &str) -> Option<&Arc<Resource>> {
        let ip: Option<IpAddr> = name.parse().ok();
        let mut called = self.at(address).filter(|resource| {
            let named = resource.http().is_some_and(|http| http.has_name(name));
            // By its address only where policy writes addresses.
            named
                || ip
                    .is_some_and(|ip| ip == address.ip().to_canonical() && resource.is_at(ip, address.port()))
        });
        let found = called.next()?;
        // Of several that share an address, none is meant by the address alone.
        (ip.is_none() || called.all(|other| other.name == found.name)).then_some(found)
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

    /// The present addresses of a resource's host, and for how long a job may remember them. `None`: no resource
    /// has this name, or it never resolved.
    pub fn of_name(&self, name: &str) -> Option<(Vec<IpAddr>, Duration)> {
        let named = self.names.get(name).filter(|named| !named.nets.is_empty())?;
        let left = named.until.saturating_duration_since(Instant::now());
        Some((named.nets.iter().map(IpNet::addr).collect(), left.clamp(SHORTEST, LINGER / 2)))
    }

    /// When a name has to be asked again; `None`: the policy has none.
    pub fn refresh_at(&self) -> Option<Instant> {
        let earlier = |named: &Named| named.earlier.values().min().copied();
        self.names.values().map(|named| earlier(named).map_or(named.until, |at| at.min(named.until))).min()
    }

    /// Whether the kernel has to be told anew.
    pub fn differ(&self, other: &Self) -> bool {
        let set = |addresses: &Self| addresses.redirected().collect::<HashSet<_>>();
        set(self) != set(other)
    }
}

impl Named {
    /// Drops earlier addresses whose time is over; those in use get more.
    fn without(mut self, now: Instant, in_use: &HashSet<IpAddr>) -> Self {
        self.earlier.retain(|net, until| {
            if *until <= now && in_use.contains(&net.addr()) {
                *until = now + RETRY;
            }
            *until > now
        });
        self
    }
}

async fn look_up(name: &str, before: Option<&Named>, names: &Names, now: Instant) -> Named {
    if let Some(before) = before.filter(|before| before.until > now) {
        return before.clone();
    }
    let mut earlier = before.map(|before| before.earlier.clone()).unwrap_or_default();
    match names.addresses(name).await {
        Ok((nets, until)) => {
            let nets: BTreeSet<IpNet> = nets.into_iter().filter_map(canonical).collect();
            for net in before.iter().flat_map(|before| &before.nets) {
                earlier.insert(*net, now + LINGER);
            }
            earlier.retain(|net, _| !nets.contains(net));
            Named { nets, until: until.clamp(now + SHORTEST, now + LONGEST), earlier }
        }
        Err(error) => {
            warn!(name, %error, "resource name does not resolve; its last known addresses stay in force");
            let nets = before.map(|before| before.nets.clone()).unwrap_or_default();
            Named { nets, until: now + RETRY, earlier }
        }
    }
}
