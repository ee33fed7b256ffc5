//! The gateway's own resolver: for the host names of resources, and for what jobs may ask.
//!
//! Questions go out with random ids from random ports, over UDP and, where that fails, TCP. Nothing in an answer
//! widens what a job may reach.

use std::{collections::BTreeSet, io, time::Instant};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
    system_conf::read_system_conf,
};
use ipnet::IpNet;

use crate::config;

/// Aliases that are followed in one answer.
const ALIASES: usize = 8;
/// Records of one answer.
const RECORDS: usize = 64;

/// What the world says to a question.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: ResponseCode,
    /// Aliases from the name that was asked for, then records of the type that was asked for; nothing else.
    pub records: Vec<Record>,
}

/// Shared by all; cheap to clone.
#[derive(Clone)]
pub struct Names {
    resolver: TokioResolver,
}

impl Names {
    /// With the configured servers, or those of /etc/resolv.conf. Without any, nothing but the host's own
    /// /etc/hosts resolves.
    pub fn new(config: &config::Dns) -> io::Result<Self> {
        let system = || match read_system_conf() {
            Ok((servers, _)) => servers,
            Err(error) => {
                tracing::warn!(%error, "/etc/resolv.conf names no resolver; names will not resolve");
                ResolverConfig::from_name_servers(Vec::new())
            }
        };
        let servers = match &config.upstreams[..] {
            [] => system(),
            given => {
                ResolverConfig::from_name_servers(given.iter().map(|server| name_server(*server)).collect())
            }
        };
        let mut options = ResolverOpts::default();
        options.timeout = config.timeout;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        // The chain of aliases is part of an answer.
        options.preserve_intermediates = true;
        options.edns0 = true;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(servers, provider).with_options(options);
        Ok(Self { resolver: builder.build().map_err(io::Error::other)? })
    }

    /// Asks for exactly this name.
    ///
    /// # Errors
    /// When no server answers, or none knows.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, NetError> {
        let mut name = name.clone();
        // No search domains: the job's own resolver has gone through those.
        name.set_fqdn(true);
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(found) => {
                Ok(Answer { code: ResponseCode::NoError, records: chain(&name, kind, found.answers()) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(Answer { code: none.response_code, records: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// The addresses of a resource's host, and until when they hold.
    ///
    /// # Errors
    /// When there are none, or nobody answers.
    pub async fn addresses(&self, host: &str) -> Result<(BTreeSet<IpNet>, Instant), NetError> {
        let found = self.resolver.lookup_ip(host).await?;
        Ok((found.iter().map(IpNet::from).collect(), found.valid_until()))
    }
}

/// Follows aliases from the name, and takes what is at their end.
fn chain(name: &Name, kind: RecordType, records: &[Record]) -> Vec<Record> {
    let mut at = name.clone();
    let mut taken = Vec::new();
    if kind != RecordType::CNAME {
        for _ in 0..ALIASES {
            let alias = records.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name.eq_ignore_root(&at) => Some((record, target.0.clone())),
                _ => None,
            });
            let Some((record, target)) = alias else { break };
            taken.push(record.clone());
            at = target;
        }
    }
    let wanted = |record: &&Record| record.record_type() == kind && record.name.eq_ignore_root(&at);
    taken.extend(records.iter().filter(wanted).cloned());
    taken.truncate(RECORDS);
    taken
}

fn name_server(address: std::net::SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(from: &str, to: &str) -> Record {
        Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))))
    }

    fn address(of: &str, last: u8) -> Record {
        Record::from_rdata(name(of), 60, RData::A(A::new(198, 51, 100, last)))
    }

    #[test]
    fn an_answer_is_what_the_name_leads_to_and_nothing_else() {
        let records = [
            address("other.example.", 9),
            address("c.example.", 1),
            alias("A.example.", "b.example."),
            address("c.example.", 2),
            alias("b.example.", "c.example."),
            alias("x.example.", "y.example."),
        ];
        let taken = chain(&name("a.example."), RecordType::A, &records);
        let shown: Vec<_> = taken.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(shown, ["A.example.", "b.example.", "c.example.", "c.example."]);
        assert!(chain(&name("z.example."), RecordType::A, &records).is_empty());
        assert_eq!(chain(&name("a.example."), RecordType::CNAME, &records).len(), 1);
    }

    #[test]
    fn aliases_that_go_round_end() {
        let records = [alias("a.example.", "b.example."), alias("b.example.", "a.example.")];
        assert_eq!(chain(&name("a.example."), RecordType::A, &records).len(), ALIASES);
    }
}
