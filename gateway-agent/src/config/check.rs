//! Raw to checked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Algorithm, Approvals, Audit, Config, ConfigError, Control, Destination, Dns, Durability, Identity,
    Issuer, Kernel, KeySource, Metrics, PolicyFiles, Recording, Sessions, raw,
};

/// Bytes of an SSH connection between two changes of keys; RFC 4253 section 9 asks for one after each GiB.
const MAX_REKEY: usize = 1 << 30;
const MIN_REKEY: usize = 64 * 1024;

/// The parsers hold this much on purpose; a larger cap would promise what they refuse.
const SQL_MAX: usize = 64 * 1024;
const DNS_PORT: u16 = 53;
const MAX_SKEW: Duration = Duration::from_secs(300);

pub(super) fn check(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let raw: raw::Raw = serde_yaml::from_str(text).map_err(|e| ConfigError::Invalid {
        path: path.to_owned(),
        line: e.location().map(|l| l.line()),
        message: e.to_string(),
        hint: hint_for(&e.to_string()),
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Checker { path, text, base }.config(raw)
}

fn hint_for(message: &str) -> String {
    if message.contains("unknown field") {
        "remove or rename the field; it is not ignored, because a misspelt restriction would be none".into()
    } else if message.contains("missing field") {
        "add the field; identity.issuers and policy.files have no default".into()
    } else {
        "see the commented example in the README".into()
    }
}

pub(super) struct Checker<'a> {
    path: &'a Path,
    text: &'a str,
    base: PathBuf,
}

impl Checker<'_> {
    fn config(&self, raw: raw::Raw) -> Result<Config, ConfigError> {
        let state_dir = self.absolute(&raw.state_dir);
        let runtime_dir = self.absolute(&raw.runtime_dir);
        let or = |given: Option<PathBuf>, folder: &Path, name: &str| {
            given.map_or_else(|| folder.join(name), |p| self.absolute(&p))
        };
        Ok(Config {
            source: std::path::absolute(self.path).unwrap_or_else(|_| self.path.to_owned()),
            kernel: self.kernel(raw.kernel, raw.dns.answer.unwrap_or(true))?,
            dns: self.dns(raw.dns)?,
            jobs: self.jobs(raw.jobs)?,
            identity: self.identity(raw.identity)?,
            policy: self.policy(raw.policy)?,
            control: Control {
                socket: or(raw.control.socket, &runtime_dir, "control.sock"),
                group: raw.control.group,
            },
            approvals: self.approvals(raw.approvals)?,
            recording: Recording {
                dir: or(raw.recording.dir, &state_dir, "recordings"),
                signing_key: or(raw.recording.signing_key, &state_dir, "recording.key"),
                required: raw.recording.required.unwrap_or(true),
                durability: raw.recording.durability.unwrap_or(Durability::Batched),
            },
            audit: Audit { file: or(raw.audit.file, &state_dir, "audit.jsonl") },
            metrics: raw.metrics.map(|m| self.metrics(&m)).transpose()?,
            sessions: self.sessions(raw.sessions)?,
            sandbox: raw.sandbox == raw::Sandbox::On,
            state_dir,
            runtime_dir,
        })
    }

    fn kernel(&self, raw: raw::Kernel, dns: bool) -> Result<Kernel, ConfigError> {
        let virtual_port = raw.virtual_port.unwrap_or(15001);
        if virtual_port == 0 {
            return Err(self.wrong("virtual_port", "0", "virtual_port is 0", "choose a port, such as 15001"));
        }
        let allow = raw.allow.into_iter().map(|d| self.destination(&d)).collect::<Result<Vec<_>, _>>()?;
        if dns && allow.iter().any(|d| d.port == DNS_PORT) {
            return Err(self.wrong(
                "port",
                "53",
                "kernel.allow names port 53, but the gateway answers questions to every resolver itself",
                "remove the entry and name the resolver in dns.upstreams, or set dns.answer to false",
            ));
        }
        Ok(Kernel {
            cgroup_root: raw.cgroup_root.map(|p| self.absolute(&p)),
            pin_dir: self.absolute(&raw.pin_dir.unwrap_or_else(|| "/sys/fs/bpf/gateway".into())),
            virtual_port,
            mode: raw.mode,
            allow,
            namespaces: raw.namespaces,
        })
    }

    fn dns(&self, raw: raw::Dns) -> Result<Dns, ConfigError> {
        let upstream = |text: &String| {
            let address = text.parse::<std::net::IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
            address.or_else(|_| text.parse::<SocketAddr>()).map_err(|_| {
                self.wrong(
                    "upstreams",
                    text,
                    &format!("`{text}` is not the address of a resolver"),
                    "write 10.0.0.2, 10.0.0.2:5353 or \"[2001:db8::53]:53\"",
                )
            })
        };
        Ok(Dns {
            answer: raw.answer.unwrap_or(true),
            upstreams: raw.upstreams.iter().map(upstream).collect::<Result<_, _>>()?,
            timeout: self.duration("timeout", raw.timeout.as_deref())?.unwrap_or(Duration::from_secs(2)),
        })
    }

    fn destination(&self, raw: &raw::Destination) -> Result<Destination, ConfigError> {
        let net = raw
            .net
            .parse::<ipnet::IpNet>()
            .or_else(|_| raw.net.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
            .map_err(|_| {
                self.wrong(
                    "net",
                    &raw.net,
                    &format!("`{}` is not a network", raw.net),
                    "write 127.0.0.53/32 or 2001:db8::/64",
                )
            })?;
        let net = crate::kernel::canonical(net).ok_or_else(|| {
            self.wrong(
                "net",
                &raw.net,
                &format!(
                    "`{}` names its hosts through a tunnel or translator, which jobs are refused",
                    raw.net
                ),
                "write the addresses that are meant, such as 198.51.100.0/24",
            )
        })?;
        Ok(Destination { net, port: raw.port, protocol: raw.protocol })
    }

    fn identity(&self, raw: raw::Identity) -> Result<Identity, ConfigError> {
        let skew = self.duration("skew", raw.skew.as_deref())?.unwrap_or(Duration::from_secs(30));
        if skew > MAX_SKEW {
            return Err(self.wrong(
                "skew",
                "",
                "identity.skew is over 5m",
                "set the host's clock instead; 30s is enough for synchronised hosts",
            ));
        }
        if raw.issuers.is_empty() {
            return Err(self.wrong(
                "issuers",
                "",
                "identity.issuers is empty: no job could ever enrol",
                "add an issuer with its audience and its keys",
            ));
        }
        let mut issuers: Vec<Issuer> = Vec::with_capacity(raw.issuers.len());
        for issuer in raw.issuers {
            let issuer = self.issuer(issuer)?;
            if issuers.iter().any(|i| i.issuer == issuer.issuer) {
                return Err(self.wrong(
                    "issuer",
                    &issuer.issuer,
                    &format!("issuer `{}` is listed twice", issuer.issuer),
                    "keep one entry per issuer; a token is checked against exactly one",
                ));
            }
            issuers.push(issuer);
        }
        Ok(Identity { skew, issuers })
    }

    fn issuer(&self, raw: raw::Issuer) -> Result<Issuer, ConfigError> {
        let bad = |message: &str, hint: &str| self.wrong("issuer", &raw.issuer, message, hint);
        if raw.audience.trim().is_empty() {
            return Err(bad("audience is empty", "name an audience that only this gateway uses"));
        }
        let keys = match (&raw.jwks_file, raw.discovery) {
            (Some(file), false) => {
                if raw.ca.is_some() {
                    return Err(bad("ca is given, but keys come from jwks_file", "remove ca"));
                }
                KeySource::File(self.absolute(file))
            }
            (None, true) => {
                if !raw.issuer.starts_with("https://") {
                    return Err(bad(
                        &format!("discovery needs an https issuer, not `{}`", raw.issuer),
                        "use https://, or pin the keys with jwks_file",
                    ));
                }
                KeySource::Discovery { ca: raw.ca.as_ref().map(|p| self.absolute(p)) }
            }
            (Some(_), true) => {
                return Err(bad("both jwks_file and discovery are given", "keep one of them"));
            }
            (None, false) => {
                return Err(bad(
                    &format!("no keys for issuer `{}`", raw.issuer),
                    "add `discovery: true`, or `jwks_file: FILE` on a host without egress",
                ));
            }
        };
        let algorithms =
            raw.algorithms.unwrap_or_else(|| vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
        if algorithms.is_empty() {
            return Err(bad(
                "algorithms is empty",
                "list some of RS256, ES256, EdDSA, or leave the field out",
            ));
        }
        let max_lifetime = self
            .duration("max_lifetime", raw.max_lifetime.as_deref())?
            .unwrap_or(Duration::from_secs(24 * 3600));
        Ok(Issuer {
            issuer: raw.issuer,
            audience: raw.audience,
            nonce: raw.nonce,
            keys,
            algorithms,
            max_lifetime,
        })
    }

    fn policy(&self, raw: raw::Policy) -> Result<PolicyFiles, ConfigError> {
        if raw.files.is_empty() {
            return Err(self.wrong("files", "", "policy.files is empty", "name at least one policy file"));
        }
        Ok(PolicyFiles { files: raw.files.iter().map(|p| self.absolute(p)).collect() })
    }

    fn approvals(&self, raw: raw::Approvals) -> Result<Approvals, ConfigError> {
        if let Some(bad) = raw.approvers.iter().find(|a| a.trim_start_matches('@').trim().is_empty()) {
            return Err(self.wrong(
                "approvers",
                bad,
                &format!("`{bad}` names nobody"),
                "write a user name, or @group",
            ));
        }
        Ok(Approvals { approvers: raw.approvers })
    }

    fn metrics(&self, raw: &raw::Metrics) -> Result<Metrics, ConfigError> {
        let listen: SocketAddr = raw.listen.parse().map_err(|_| {
            self.wrong(
                "listen",
                &raw.listen,
                &format!("`{}` is not an address and port", raw.listen),
                "write 127.0.0.1:9464 or [::1]:9464",
            )
        })?;
        Ok(Metrics { listen })
    }

    fn sessions(&self, raw: raw::Sessions) -> Result<Sessions, ConfigError> {
        let workers = raw.workers.unwrap_or(2);
        if !(1..=256).contains(&workers) {
            return Err(self.wrong("workers", "", "sessions.workers is not in 1..=256", "2 is the default"));
        }
        let sql_max_bytes = raw.sql_max_bytes.unwrap_or(SQL_MAX);
        if !(1..=SQL_MAX).contains(&sql_max_bytes) {
            return Err(self.wrong(
                "sql_max_bytes",
                "",
                "sessions.sql_max_bytes is not in 1..=65536",
                "longer statements are refused: the parsers' stack is sized for 64 KiB",
            ));
        }
        let max_per_job = raw.max_per_job.unwrap_or(200);
        let max_total = raw.max_total.unwrap_or(4000);
        if max_per_job == 0 || max_total == 0 {
            return Err(self.wrong(
                "max_per_job",
                "",
                "a session limit is 0",
                "leave it out for the default",
            ));
        }
        let ssh_rekey_bytes = raw.ssh_rekey_bytes.unwrap_or(MAX_REKEY);
        if !(MIN_REKEY..=MAX_REKEY).contains(&ssh_rekey_bytes) {
            return Err(self.wrong(
                "ssh_rekey_bytes",
                "",
                &format!("ssh_rekey_bytes is {ssh_rekey_bytes}"),
                &format!("from {MIN_REKEY} to {MAX_REKEY}, which is the default"),
            ));
        }
        Ok(Sessions {
            workers,
            ssh_rekey_bytes,
            ssh_rekey_after: self
                .duration("ssh_rekey_after", raw.ssh_rekey_after.as_deref())?
                .unwrap_or(Duration::from_secs(3600)),
            max_per_job,
            max_total,
            login_timeout: self
                .duration("login_timeout", raw.login_timeout.as_deref())?
                .unwrap_or(Duration::from_secs(10)),
            idle_timeout: self.duration("idle_timeout", raw.idle_timeout.as_deref())?,
            sql_max_bytes,
        })
    }

    fn duration(&self, field: &str, text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        match humantime::parse_duration(text) {
            Ok(d) if d > Duration::ZERO => Ok(Some(d)),
            _ => Err(self.wrong(
                field,
                text,
                &format!("{field}: `{text}` is not a duration"),
                "write a number and a unit: 500ms, 30s, 10m, 24h",
            )),
        }
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        if path.is_absolute() { path.to_owned() } else { self.base.join(path) }
    }

    /// An error at the line where `field` stands with `value`.
    pub(super) fn wrong(&self, field: &str, value: &str, message: &str, hint: &str) -> ConfigError {
        let key = format!("{field}:");
        let line = self
            .text
            .lines()
            .position(|l| !l.trim_start().starts_with('#') && l.contains(&key) && l.contains(value))
            .or_else(|| self.text.lines().position(|l| !l.trim_start().starts_with('#') && l.contains(&key)))
            .map(|i| i + 1);
        ConfigError::Invalid {
            path: self.path.to_owned(),
            line,
            message: message.to_owned(),
            hint: hint.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
