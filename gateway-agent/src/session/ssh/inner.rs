//! SSH inside of SSH: a connection through the host that leads to another declared SSH host (ProxyJump) is a session of its own.
//!
//! It is no tunnel: the client's inner SSH ends in the gateway as the outer does, under the same job and the policy for the inner host.
//! The gateway connects to that host by itself; where a rule of the outer host grants the tunnel, by way of that host.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use policy::{Effect, Permit, Resource, ResourceKind, SshRequest};

use super::{
    Session,
    upstream::{self, HostError, Upstream},
};

/// A declared SSH host, and where it is.
pub(super) struct Destination {
    pub(super) resource: Arc<Resource>,
    pub(super) address: SocketAddr,
}

/// The way to an inner session's host through the outer one's.
pub(super) struct Route {
    outer: Rc<Session>,
    /// For the outer host.
    permit: Permit,
    host: String,
    port: u16,
}

impl Session {
    /// The SSH host that a client means by this, if policy declares one: by its address, or by a name as policy has it.
    pub(super) fn declared(&self, host: &str, port: u16) -> Option<Destination> {
        let in_force = self.shared().policy.load_full();
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address.to_canonical()],
            Err(_) => in_force.addresses.of_name(&host.to_ascii_lowercase())?.0,
        };
        addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).find_map(|address| {
            let found = in_force.addresses.find(address)?;
            (found.kind() == ResourceKind::Ssh).then(|| Destination { resource: Arc::clone(found), address })
        })
    }

    /// The way through this session's host, where a rule grants the tunnel without asking anybody.
    pub(super) fn way(self: &Rc<Self>, host: &str, port: u16) -> Option<Route> {
        let policy = self.shared().policy.load_full();
        let request = SshRequest::DirectTcpip { host: host.to_owned(), port };
        match self.decide(&policy.policy, &request, None).effect {
            Effect::Allow(allow) => {
                Some(Route { outer: Rc::clone(self), permit: allow.permit, host: host.to_owned(), port })
            }
            Effect::Approve(_) | Effect::Deny(_) => None,
        }
    }
}

impl Route {
    pub(super) async fn connect(&self, permit: &Permit, to: upstream::To<'_>) -> Result<Upstream, HostError> {
        let outer = &self.outer;
        let told = |error| HostError::Way(Arc::clone(&outer.resource.name), Box::new(error));
        // Boxed: the outer host may itself be reached by way of another.
        let dialling: std::pin::Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(outer.dial(&self.permit, true));
        let carrier = dialling.await.map_err(told)?;
        let channel =
            carrier.direct_tcpip(&self.permit, &self.host, u32::from(self.port)).await.map_err(told)?;
        upstream::connect_through((carrier, channel), permit, to).await
    }
}
