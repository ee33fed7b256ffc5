//! TLS configurations per resource: towards jobs a leaf of the local CA, towards servers what policy demands.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use policy::{ClientCertificate, Host, PostgresUpstream, Resource, TlsMode};
use rustls::ServerConfig;
use secrecy::ExposeSecret as _;

use crate::{
    credential,
    tls::{Authority, ClientIdentity, Mode, Names, TlsError, UpstreamTls, upstream},
};

/// Makes and keeps configurations.
pub struct Tls {
    authority: Authority,
    /// Reading roots costs milliseconds; resources rarely change.
    clients: Mutex<HashMap<Demand, Option<UpstreamTls>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Demand {
    mode: u8,
    ca: Option<PathBuf>,
    name: String,
    client: Option<ClientCertificate>,
}

impl Tls {
    pub fn new(authority: Authority) -> Self {
        Self { authority, clients: Mutex::default() }
    }

    /// For the leg to the job: a certificate for every name that the resource goes by.
    ///
    /// # Errors
    /// Fails when the leaf cannot be made.
    pub fn job_config(
        &self,
        resource: &Resource,
        dialled: SocketAddr,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut names = Names { dns: Vec::new(), ips: vec![dialled.ip()] };
        names.dns.extend(resource.postgres().and_then(|of| of.tls.server_name.clone()));
        for host in &resource.hosts {
            match host {
                Host::Name(name) => names.dns.push(name.clone()),
                Host::Net(net) if net.prefix_len() == net.max_prefix_len() => names.ips.push(net.addr()),
                Host::Net(_) => {}
            }
        }
        // A server name may be an address.
        names.dns.retain(|name| match name.parse() {
            Ok(ip) => {
                names.ips.push(ip);
                false
            }
            Err(_) => true,
        });
        names.dns.sort();
        names.dns.dedup();
        names.ips.sort();
        names.ips.dedup();
        self.authority.job_acceptor(&names)
    }

    /// For the leg to the server; `None` when policy says `disable`.
    ///
    /// # Errors
    /// Fails when the CA file cannot be read or the name is none.
    pub fn upstream(
        &self,
        resource: &Resource,
        address: SocketAddr,
    ) -> Result<Option<UpstreamTls>, TlsError> {
        let Some(PostgresUpstream { tls, login, .. }) = resource.postgres() else {
            return Err(TlsError::Kind(resource.name.to_string()));
        };
        let mode = match tls.mode {
            TlsMode::VerifyFull => Mode::VerifyFull,
            TlsMode::VerifyCa => Mode::VerifyCa,
            TlsMode::Disable => Mode::Disable,
        };
        let name = tls.server_name.clone().unwrap_or_else(|| match resource.hosts.as_slice() {
            [Host::Name(name)] => name.clone(),
            _ => address.ip().to_string(),
        });
        let client = login.certificate.clone();
        let demand = Demand { mode: mode as u8, ca: tls.ca.clone(), name, client };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&demand) {
            return Ok(known.clone());
        }
        let client = demand.client.as_ref().map(identity).transpose()?;
        let made = upstream(mode, demand.ca.as_deref(), &demand.name, client)?;
        clients.insert(demand, made.clone());
        Ok(made)
    }

    /// Reads CA files and client certificates anew: policy was loaded again.
    pub fn forget(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn identity(certificate: &ClientCertificate) -> Result<ClientIdentity, TlsError> {
    let ClientCertificate { chain, key } = certificate;
    let pem = std::fs::read(chain).map_err(|source| TlsError::File { path: chain.clone(), source })?;
    let secret = credential::private_key(key)
        .map_err(|error| TlsError::Content { path: key.clone(), what: error.to_string() })?;
    ClientIdentity::from_pem(&pem, chain, secret.expose_secret().as_bytes(), key)
}
