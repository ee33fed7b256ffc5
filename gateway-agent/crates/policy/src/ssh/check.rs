//! Checks the language's part for SSH.

use std::{net::IpAddr, time::Duration};

use base64::Engine as _;
use ipnet::IpNet;

use super::{
    FileOperation, HostKey, LoginMethod, PublicKey, Route, Signer, SshLogin, SshUpstream, UserCertificate,
    command::{ArgumentPattern, CommandPattern, ProgramPattern},
    environment,
    matcher::{Bounds, FilePattern, HostPort, SshMatcher},
    pattern::PathPattern,
    raw::{RawCommand, RawFiles, RawForward, RawSsh, RawSshLimits, RawUserCertificate},
    vault::vault,
};
use crate::{
    check::resource::{secret, user_name},
    diagnostic::{Findings, Place, did_you_mean},
    pattern::{BadPattern, Glob},
    raw::{RawLogin, RawResource, RuleEffect},
};

/// Programs that a command may go through.
const VIA: &[&str] = &[
    "sudo",
    "doas",
    "su",
    "runuser",
    "chroot",
    "gosu",
    "su-exec",
    "setuidgid",
    "ssh",
    "docker",
    "podman",
    "nerdctl",
    "kubectl",
    "oc",
];
const VALID_FOR: Duration = Duration::from_secs(300);
const VALID_MOST: Duration = Duration::from_secs(24 * 60 * 60);
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "FPE", "HUP", "ILL", "INFO", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1",
    "USR2",
];

fn patterns<T>(
    texts: &[String],
    place: &Place,
    findings: &mut Findings,
    parse: impl Fn(&str) -> Result<T, BadPattern>,
) -> Vec<T> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    patterns
}

/// The `ssh` part of a rule.
pub(crate) fn matcher(
    id: &str,
    effect: RuleEffect,
    connects: bool,
    raw: &RawSsh,
    place: &Place,
    findings: &mut Findings,
) -> SshMatcher {
    let of = |name: &str| place.at("forward").at(name);
    let matcher = SshMatcher {
        users: raw.users.as_ref().map(|users| patterns(users, &place.at("users"), findings, Glob::new)),
        commands: commands(id, effect, &raw.commands, &place.at("commands"), findings),
        shell: raw.shell,
        pty: raw.pty,
        env: env(effect, &raw.env, &place.at("env"), findings),
        subsystems: patterns(&raw.subsystems, &place.at("subsystems"), findings, Glob::new),
        files: files(effect, &raw.files, &place.at("files"), findings),
        to: patterns(&raw.forward.to, &of("to"), findings, host_port),
        sockets: patterns(&raw.forward.sockets, &of("sockets"), findings, PathPattern::new),
        listen: patterns(&raw.forward.listen, &of("listen"), findings, host_port),
        listen_sockets: patterns(
            &raw.forward.listen_sockets,
            &of("listen_sockets"),
            findings,
            PathPattern::new,
        ),
        agent: raw.forward.agent,
        x11: raw.forward.x11,
        signals: patterns(&raw.signals, &place.at("signals"), findings, Glob::new),
        opaque: raw.opaque,
        quarantine: raw.quarantine,
        limits: limits(&raw.limits, &place.at("limits"), findings),
    };
    if raw.users.as_ref().is_some_and(Vec::is_empty) {
        findings.add(
            place.at("users"),
            format!("rule `{id}` is for nobody's login"),
            "name login names, or drop the line",
        );
    }
    if names_nothing(raw) && !connects {
        findings.add(
            place.clone(),
            format!("rule `{id}` names nothing of SSH"),
            "name `commands`, `files`, `shell` or what else it is about; `connect: true` stands beside `ssh`",
        );
    }
    if effect != RuleEffect::Deny {
        for (name, granted, why) in [
            (
                "agent",
                raw.forward.agent,
                "whoever runs the host could sign with every key of the job's agent, to any host",
            ),
            (
                "x11",
                raw.forward.x11,
                "whoever runs the host could watch and type into every window of the job's display",
            ),
        ] {
            if granted {
                findings.add(
                    of(name),
                    format!("the gateway never lends a job's {name} to a host: {why}"),
                    "drop the line; the gateway logs in with a credential of its own, and deny rules may name it",
                );
            }
        }
        if let Some(at) = raw.subsystems.iter().position(|name| name == "sftp") {
            findings.add(
                place.at("subsystems").at(at),
                "sftp is opened by whoever may do something to files by SFTP",
                "name what may be done under `files`, and drop it here",
            );
        }
        if !raw.signals.is_empty() {
            findings.add(
                place.at("signals"),
                "whoever may run something may send it signals",
                "drop the line; deny rules can name signals",
            );
        }
    }
    for (index, signal) in raw.signals.iter().enumerate() {
        let known = Glob::new(signal).is_ok_and(|glob| SIGNALS.iter().any(|name| glob.matches(name)));
        if !known {
            findings.add(
                place.at("signals").at(index),
                format!("`{signal}` is no signal of SSH"),
                did_you_mean(signal, SIGNALS.iter().copied()),
            );
        }
    }
    if effect == RuleEffect::Deny && (raw.quarantine || matcher.limits != Bounds::default()) {
        findings.add(
            place.clone(),
            format!("rule `{id}` denies, so there is nothing to limit or to keep"),
            "drop `limits` and `quarantine` here, or write them into the rule that allows",
        );
    }
    if matcher.limits.channels.is_some() && !connects {
        findings.add(
            place.at("limits").at("channels"),
            "channels are counted for a connection",
            "write it into the rule with `connect: true`",
        );
    }
    matcher
}

fn names_nothing(raw: &RawSsh) -> bool {
    let RawForward { to, sockets, listen, listen_sockets, agent, x11 } = &raw.forward;
    let lists = [&raw.env, &raw.subsystems, &raw.signals, to, sockets, listen, listen_sockets]
        .iter()
        .all(|of| of.is_empty());
    let flags = raw.shell || raw.pty || raw.opaque || *agent || *x11;
    lists && !flags && raw.commands.is_empty() && raw.files.is_empty()
}

fn commands(
    id: &str,
    effect: RuleEffect,
    raws: &[RawCommand],
    place: &Place,
    findings: &mut Findings,
) -> Vec<CommandPattern> {
    let mut commands = Vec::new();
    for (index, raw) in raws.iter().enumerate() {
        let place = place.at(index);
        if raw.arguments.is_none() && effect != RuleEffect::Deny {
            findings.add(
                place.clone(),
                format!("rule `{id}` does not say what `{}` may be given", raw.program),
                "write `arguments: [\"**\"]` for anything, `arguments: []` for nothing",
            );
        }
        for (index, via) in raw.via.iter().enumerate() {
            if !VIA.contains(&via.as_str()) {
                findings.add(
                    place.at("via").at(index),
                    format!("`{via}` is nothing that commands are looked through and named by"),
                    did_you_mean(via, VIA.iter().copied()),
                );
            }
        }
        let arguments = raw
            .arguments
            .as_ref()
            .map(|texts| patterns(texts, &place.at("arguments"), findings, ArgumentPattern::new));
        let folder = raw.folder.as_ref().and_then(|text| {
            PathPattern::new(text).map_err(|bad| findings.add(place.at("folder"), bad.message, bad.hint)).ok()
        });
        match CommandPattern::new(ProgramPattern::new(&raw.program), arguments, raw.via.clone(), folder) {
            Ok(pattern) => commands.push(pattern),
            Err(bad) => findings.add(place.at("program"), bad.message, bad.hint),
        }
    }
    commands
}

fn env(effect: RuleEffect, names: &[String], place: &Place, findings: &mut Findings) -> Vec<Glob> {
    for (index, name) in names.iter().enumerate() {
        if effect != RuleEffect::Deny && environment::is_fixed(name) {
            findings.add(
                place.at(index),
                format!("`{name}` changes what command lines mean, or which programs they start"),
                format!("leave these alone: {}", environment::FIXED.join(", ")),
            );
        }
    }
    patterns(names, place, findings, Glob::new)
}

fn files(effect: RuleEffect, raws: &[RawFiles], place: &Place, findings: &mut Findings) -> Vec<FilePattern> {
    let mut files = Vec::new();
    for (index, raw) in raws.iter().enumerate() {
        let place = place.at(index);
        if raw.operations.is_empty() || raw.paths.is_empty() {
            let known: Vec<_> = FileOperation::ALL.iter().map(|operation| operation.name()).collect();
            findings.add(
                place.clone(),
                "files without operations, or operations without paths",
                format!(
                    "for example {{ operations: [read], paths: [/srv/app/**] }}; operations are {}",
                    known.join(", ")
                ),
            );
        }
        if raw.by.as_ref().is_some_and(Vec::is_empty) {
            findings.add(
                place.at("by"),
                "reached by no means",
                "name sftp, scp, exec, rsync or git, or drop the line",
            );
        }
        let all = || vec![Route::Sftp, Route::Scp, Route::Exec, Route::Rsync, Route::Git];
        let by = raw.by.clone().unwrap_or_else(|| match effect {
            RuleEffect::Deny => all(),
            RuleEffect::Allow | RuleEffect::Approve => vec![Route::Sftp, Route::Scp, Route::Exec],
        });
        let paths = patterns(&raw.paths, &place.at("paths"), findings, PathPattern::new);
        let unseen = by.iter().any(|route| matches!(route, Route::Rsync | Route::Git));
        if unseen && effect != RuleEffect::Deny && raw.by.is_some() {
            for (index, path) in raw.paths.iter().enumerate() {
                if !path.ends_with("/**") {
                    findings.add(
                        place.at("paths").at(index),
                        format!("rsync and git move whole folders: `{path}` would never be granted to them"),
                        format!("write `{}/**`", path.trim_end_matches('/')),
                    );
                }
            }
        }
        files.push(FilePattern { operations: raw.operations.clone(), paths, by });
    }
    files
}

fn host_port(text: &str) -> Result<HostPort, BadPattern> {
    let wrong = || BadPattern {
        message: format!("`{text}` is not `host:port`"),
        hint: "for example db.internal:5432, \"*:443\" or \"127.0.0.1:*\"; an IPv6 address goes in brackets"
            .to_owned(),
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port = match port {
        "*" => None,
        port => Some(port.parse::<u16>().map_err(|_| wrong())?),
    };
    Ok(HostPort { host: Glob::new(&host.to_ascii_lowercase())?, port })
}

fn limits(raw: &RawSshLimits, place: &Place, findings: &mut Findings) -> Bounds {
    let mut time = |text: &Option<String>, name: &str| {
        let text = text.as_ref()?;
        match humantime::parse_duration(text) {
            Ok(time) if !time.is_zero() => Some(time),
            _ => {
                findings.add(place.at(name), "not a length of time", "for example 30s, 10m or 1h");
                None
            }
        }
    };
    let (idle, duration) = (time(&raw.idle, "idle"), time(&raw.duration, "duration"));
    let zero = [
        ("bytes", raw.bytes == Some(0)),
        ("channels", raw.channels == Some(0)),
        ("per_minute", raw.per_minute == Some(0)),
    ];
    for (name, _) in zero.iter().filter(|(_, zero)| *zero) {
        findings.add(place.at(*name), "a limit of 0", "leave the limit out for none, or write a deny rule");
    }
    Bounds { idle, duration, bytes: raw.bytes, channels: raw.channels, per_minute: raw.per_minute }
}

/// What a resource of kind `ssh` has.
pub(crate) fn upstream(raw: &RawResource, place: &Place, findings: &mut Findings) -> SshUpstream {
    let keys = raw.host_keys.as_deref().unwrap_or_default();
    let authorities = raw.host_ca.as_deref().unwrap_or_default();
    if keys.is_empty() && authorities.is_empty() {
        findings.add(
            place.clone(),
            format!("resource `{}` does not say which host key is the right one", raw.name),
            "add `host_keys: [...]` with what `ssh-keyscan` or `ssh-keygen -l` print on the host, or `host_ca`; nothing is trusted at first sight",
        );
    }
    let users = raw.users.as_deref().unwrap_or_default();
    if raw.users.is_some() && users.is_empty() {
        findings.add(
            place.at("users"),
            format!("resource `{}` has no login names", raw.name),
            "name those that jobs may ask for, `\"*\"` for any",
        );
    }
    SshUpstream {
        host_keys: patterns(keys, &place.at("host_keys"), findings, host_key),
        host_authorities: patterns(authorities, &place.at("host_ca"), findings, public_key),
        users: patterns(users, &place.at("users"), findings, Glob::new),
        login: login(raw, &place.at("login"), findings),
    }
}

fn login(raw: &RawResource, place: &Place, findings: &mut Findings) -> SshLogin {
    let none = RawLogin::default();
    let raw = raw.login.as_ref().unwrap_or(&none);
    let mut users = Vec::new();
    for (from, to) in raw.users.iter().flatten() {
        let place = place.at("users").at(from.as_str());
        user_name(from, &place, findings);
        user_name(to, &place, findings);
        users.push((from.clone(), to.clone()));
    }
    if let Some(user) = &raw.user {
        user_name(user, &place.at("user"), findings);
    }
    let key = raw.key.as_ref().map(|key| secret(key, &place.at("key"), findings));
    let password = raw.password.as_ref().map(|password| secret(password, &place.at("password"), findings));
    let certificate = raw
        .user_certificate
        .as_ref()
        .map(|raw| LoginMethod::Certificate(certificate(raw, &place.at("user_certificate"), findings)));
    let methods = [key.map(LoginMethod::Key), password.map(LoginMethod::Password), certificate];
    let mut methods = methods.into_iter().flatten();
    let method = methods.next();
    if method.is_none() || methods.next().is_some() {
        findings.add(
            place.clone(),
            "a login has exactly one of `key`, `password` and `user_certificate`",
            "for example `key: {file: /etc/gateway/secrets/deploy_key}`",
        );
    }
    let nothing = || LoginMethod::Password(crate::model::SecretRef::Credential(String::new()));
    SshLogin { user: raw.user.clone(), users, method: method.unwrap_or_else(nothing) }
}

fn certificate(raw: &RawUserCertificate, place: &Place, findings: &mut Findings) -> UserCertificate {
    for (index, principal) in raw.principals.iter().enumerate() {
        user_name(principal, &place.at("principals").at(index), findings);
    }
    let valid_for = match raw.valid_for.as_deref().map(humantime::parse_duration) {
        None => VALID_FOR,
        Some(Ok(time)) if time >= Duration::from_secs(60) && time <= VALID_MOST => time,
        Some(_) => {
            findings.add(
                place.at("valid_for"),
                "not a length of time from a minute to a day",
                "for example 5m: it is signed anew for each session",
            );
            VALID_FOR
        }
    };
    let source_address = patterns(&raw.source_address, &place.at("source_address"), findings, |text| {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok());
        net.filter(|net| *net == net.trunc()).ok_or_else(|| BadPattern {
            message: format!("`{text}` is not an address or a network"),
            hint: "for example 192.0.2.7 or 10.1.0.0/24".to_owned(),
        })
    });
    if raw.force_command.as_ref().is_some_and(|command| command.is_empty() || command.contains('\0')) {
        findings.add(place.at("force_command"), "an empty command", "name the command, or drop the line");
    }
    let own = raw.authority.as_ref().map(|key| Signer::Own(secret(key, &place.at("authority"), findings)));
    let vault =
        raw.vault.as_ref().map(|raw| Signer::Vault(Box::new(vault(raw, &place.at("vault"), findings))));
    if own.is_some() == vault.is_some() {
        findings.add(
            place.clone(),
            "a certificate is signed by exactly one of `authority` and `vault`",
            "for example `authority: {file: /etc/gateway/secrets/user_ca}`",
        );
    }
    let nothing = || Signer::Own(crate::model::SecretRef::Credential(String::new()));
    UserCertificate {
        signer: own.or(vault).unwrap_or_else(nothing),
        principals: raw.principals.clone(),
        valid_for,
        source_address,
        force_command: raw.force_command.clone(),
    }
}

fn host_key(text: &str) -> Result<HostKey, BadPattern> {
    let Some(digest) = text.strip_prefix("SHA256:") else {
        return public_key(text).map(HostKey::Key);
    };
    let digest = base64::engine::general_purpose::STANDARD_NO_PAD.decode(digest).ok();
    match digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()) {
        Some(digest) => Ok(HostKey::Sha256(digest)),
        None => Err(BadPattern {
            message: format!("`{text}` is not a fingerprint"),
            hint: "as `ssh-keygen -l` prints it: SHA256: and 43 characters".to_owned(),
        }),
    }
}

fn public_key(text: &str) -> Result<PublicKey, BadPattern> {
    let wrong = |message: String| BadPattern {
        message,
        hint: "as in a .pub file: `ssh-ed25519 AAAA…`; without the host's name in front".to_owned(),
    };
    let mut words = text.split_whitespace();
    let (Some(algorithm), Some(key)) = (words.next(), words.next()) else {
        return Err(wrong(format!("`{text}` is not a public key")));
    };
    let blob = base64::engine::general_purpose::STANDARD
        .decode(key)
        .map_err(|_| wrong(format!("`{text}` is not a public key")))?;
    let named = blob
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?));
    if named != Some(algorithm.as_bytes()) {
        return Err(wrong(format!("the key does not say of itself that it is `{algorithm}`")));
    }
    if algorithm.contains("-cert-") {
        return Err(wrong("a certificate stands where a public key should".to_owned()));
    }
    if matches!(algorithm, "ssh-dss" | "ssh-rsa1") {
        return Err(wrong(format!("`{algorithm}` keys are not to be trusted")));
    }
    Ok(PublicKey { algorithm: algorithm.to_owned(), blob })
}
