//! TLS configurations per resource: towards jobs a leaf of the local CA, towards servers what policy demands.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use policy::{ClientCertificate, Host, Policy, PostgresUpstream, Resource, ServerName, TlsMode};
use rustls::ServerConfig;
use secrecy::ExposeSecret as _;

use crate::{
    credential,
    tls::{
        Authority, ClientIdentity, Mode, Names, POSTGRES, Protocols, TlsError, TrustFiles, UpstreamTls,
        upstream,
    },
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
    protocols: Protocols,
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
        self.authority.job_acceptor(&names, POSTGRES)
    }

    /// For the leg to a job that calls a host by HTTP: a certificate for exactly this name or address.
    ///
    /// # Errors
    /// Fails when the leaf cannot be made.
    pub fn http_config(&self, name: &str, protocols: Protocols) -> Result<Arc<ServerConfig>, TlsError> {
        let names = match name.parse() {
            Ok(address) => Names { dns: Vec::new(), ips: vec![address] },
            Err(_) => Names { dns: vec![name.to_owned()], ips: Vec::new() },
        };
        self.authority.job_acceptor(&names, protocols)
    }

    /// For the leg to a host that is called by HTTP under this name.
    ///
    /// # Errors
    /// Fails when the CA file cannot be read or the name is none.
    pub fn http_upstream(
        &self,
        of: &policy::Tls,
        name: &str,
        client: Option<ClientCertificate>,
        protocols: Protocols,
    ) -> Result<UpstreamTls, TlsError> {
        let name = of.server_name.as_deref().unwrap_or(name);
        let made = self.client(of, name.to_owned(), client, protocols)?;
        made.ok_or_else(|| TlsError::Name(name.to_owned()))
    }

    /// Bounds the authority to the names of a policy's resources, and publishes its certificate for jobs.
    ///
    /// # Errors
    /// Fails when the certificate cannot be made or a file not be written.
    pub fn speak_for(&self, policy: &Policy, files: &TrustFiles) -> Result<(), TlsError> {
        match self.authority.constrain(&names_of(policy))? {
            true => self.authority.publish(files),
            false => Ok(()),
        }
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
        let name = tls.server_name.clone().unwrap_or_else(|| match resource.hosts.as_slice() {
            [Host::Name(name)] => name.clone(),
            _ => address.ip().to_string(),
        });
        self.client(tls, name, login.certificate.clone(), &[])
    }

    fn client(
        &self,
        tls: &policy::Tls,
        name: String,
        client: Option<ClientCertificate>,
        protocols: Protocols,
    ) -> Result<Option<UpstreamTls>, TlsError> {
        let mode = match tls.mode {
            TlsMode::VerifyFull => Mode::VerifyFull,
            TlsMode::VerifyCa => Mode::VerifyCa,
            TlsMode::Disable => Mode::Disable,
        };
        let demand = Demand { mode: mode as u8, ca: tls.ca.clone(), name, client, protocols };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&demand) {
            return Ok(known.clone());
        }
        let client = demand.client.as_ref().map(identity).transpose()?;
        let mut made = upstream(mode, demand.ca.as_deref(), &demand.name, client)?;
        if let Some(made) = &mut made
            && !protocols.is_empty()
        {
            let offered = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            Arc::make_mut(&mut made.config).alpn_protocols = offered;
        }
        clients.insert(demand, made.clone());
        Ok(made)
    }

    /// Reads CA files and client certificates anew: policy was loaded again.
    pub fn forget(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The DNS names by which jobs' clients may know resources.
fn names_of(policy: &Policy) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for resource in policy.resources() {
        for host in &resource.hosts {
            if let Host::Name(name) = host {
                names.insert(name.clone());
            }
        }
        names.extend(resource.postgres().and_then(|of| of.tls.server_name.clone()));
        for name in resource.http().into_iter().flat_map(|http| &http.names) {
            names.insert(match name {
                ServerName::Exact(name) => name.clone(),
                ServerName::Below(suffix) => suffix.trim_start_matches('.').to_owned(),
            });
        }
    }
    // A name may be an address.
    names.retain(|name| name.parse::<IpAddr>().is_err());
    names
}

fn identity(certificate: &ClientCertificate) -> Result<ClientIdentity, TlsError> {
    let ClientCertificate { chain, key } = certificate;
    let pem = std::fs::read(chain).map_err(|source| TlsError::File { path: chain.clone(), source })?;
    let secret = credential::private_key(key)
        .map_err(|error| TlsError::Content { path: key.clone(), what: error.to_string() })?;
    ClientIdentity::from_pem(&pem, chain, secret.expose_secret().as_bytes(), key)
}
