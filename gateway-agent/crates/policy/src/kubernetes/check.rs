//! Checks the language's part for Kubernetes.

use std::time::Duration;

use super::{
    ExecPlugin, Impersonate, KubernetesLogin, KubernetesMethod, KubernetesUpstream, ServiceAccount,
    ShownSecrets,
    matcher::{Bounds, GroupPattern, KubernetesMatcher, PathPattern, RequestPattern, ResourcePattern},
    raw::{
        RawExec, RawExecPlugin, RawImpersonate, RawKubernetes, RawKubernetesLimits, RawRequests,
        RawServiceAccount, RawShown,
    },
};
use crate::{
    check::resource::{client_certificate, secret},
    diagnostic::{Findings, Place, did_you_mean},
    http::HttpUpstream,
    model::SecretRef,
    pattern::{BadPattern, Glob, bad},
    raw::{RawLogin, RawResource, RuleEffect},
    ssh::{
        self,
        matcher::SshMatcher,
        raw::{RawSsh, RawSshLimits},
    },
};

const VERBS: &[&str] =
    &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"];
/// What servers give at least and at most.
const VALID_LEAST: Duration = Duration::from_secs(600);
const VALID_MOST: Duration = Duration::from_secs(60 * 60);

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

/// The `kubernetes` part of a rule.
pub(crate) fn matcher(
    id: &str,
    effect: RuleEffect,
    raw: &RawKubernetes,
    place: &Place,
    findings: &mut Findings,
) -> KubernetesMatcher {
    let grants = effect != RuleEffect::Deny;
    let nothing = raw.requests.is_empty() && raw.paths.is_empty();
    if nothing && (effect == RuleEffect::Allow || raw.risks.is_empty()) {
        findings.add(
            place.clone(),
            format!("rule `{id}` names nothing of Kubernetes"),
            "name `requests: [{verbs: [get, list, watch], resources: [pods], namespaces: [shop]}]` or `paths`",
        );
    }
    if !grants && (raw.show_secrets != RawShown::default() || limits_are_set(&raw.limits)) {
        findings.add(
            place.clone(),
            format!("rule `{id}` denies, so there is nothing to show or to limit"),
            "drop `show_secrets` and `limits` here, or write them into the rule that allows",
        );
    }
    let requests: Vec<_> = raw
        .requests
        .iter()
        .enumerate()
        .map(|(index, raw)| request(id, effect, raw, &place.at("requests").at(index), findings))
        .collect();
    let enters = raw
        .requests
        .iter()
        .flat_map(|of| &of.resources)
        .any(|resource| matches!(resource.as_str(), "pods/exec" | "pods/attach"));
    let runs = is_about_parts(&raw.exec) || raw.exec.shell;
    if grants && enters && !runs {
        findings.add(
            place.clone(),
            format!("rule `{id}` opens pods and does not say what may be run there"),
            "add `exec: {commands: [{program: cat, arguments: [\"**\"]}]}`, or `exec: {shell: true}` for anything",
        );
    }
    if runs && !enters && !raw.requests.is_empty() {
        findings.add(
            place.at("exec"),
            format!("rule `{id}` says what may be run in pods and does not open them"),
            "add `pods/exec` to the resources, with the verb create",
        );
    }
    KubernetesMatcher {
        requests,
        paths: patterns(&raw.paths, &place.at("paths"), findings, path),
        risks: raw.risks.clone(),
        exec: exec(id, effect, &raw.exec, &place.at("exec"), findings),
        shown: match &raw.show_secrets {
            RawShown::All(true) => ShownSecrets::All,
            RawShown::All(false) => ShownSecrets::None,
            RawShown::Named(names) => {
                ShownSecrets::Named(patterns(names, &place.at("show_secrets"), findings, Glob::new))
            }
        },
        limits: limits(&raw.limits, &place.at("limits"), findings),
    }
}

fn request(
    id: &str,
    effect: RuleEffect,
    raw: &RawRequests,
    place: &Place,
    findings: &mut Findings,
) -> RequestPattern {
    let grants = effect != RuleEffect::Deny;
    if grants && raw.verbs.is_empty() {
        findings.add(place.clone(), format!("rule `{id}` names no verbs"), "add `verbs: [get, list, watch]`");
    }
    if grants && raw.resources.is_empty() {
        findings.add(
            place.clone(),
            format!("rule `{id}` names no resources"),
            "add `resources: [pods, pods/log]`, or `[\"*\"]` for any without a subresource",
        );
    }
    if grants && raw.namespaces.is_none() && !raw.cluster {
        findings.add(
            place.clone(),
            format!("rule `{id}` says neither in which namespaces nor `cluster: true`"),
            "add `namespaces: [shop]` (`[\"*\"]` for each), `cluster: true` for what is in none and for lists across all",
        );
    }
    if !grants && (raw.dry_run || !raw.selectors.is_empty()) {
        findings.add(
            place.clone(),
            format!("rule `{id}` denies: it cannot tell by `dry_run` or `selectors` what it is about"),
            "drop them: write an allow rule with them instead",
        );
    }
    for (index, verb) in raw.verbs.iter().enumerate() {
        if verb != "*" && !VERBS.contains(&verb.as_str()) {
            let hint = match verb.as_str() {
                "bind" | "escalate" | "impersonate" | "approve" | "sign" | "use" => {
                    "the server asks itself about this one; the gateway's own rights decide it".to_owned()
                }
                _ => did_you_mean(verb, VERBS.iter().copied()),
            };
            findings.add(place.at("verbs").at(index), format!("unknown verb `{verb}`"), hint);
        }
    }
    for (name, list) in
        [("namespaces", &raw.namespaces), ("names", &raw.names), ("containers", &raw.containers)]
    {
        if list.as_ref().is_some_and(Vec::is_empty) {
            findings.add(
                place.at(name),
                format!("rule `{id}` is for no {name}"),
                "name some, or drop the line",
            );
        }
    }
    let mut globs = |name: &str, list: &Option<Vec<String>>| {
        list.as_ref().map(|list| patterns(list, &place.at(name), findings, Glob::new))
    };
    let (namespaces, names) = (globs("namespaces", &raw.namespaces), globs("names", &raw.names));
    let containers = globs("containers", &raw.containers);
    RequestPattern {
        verbs: (!raw.verbs.is_empty() && !raw.verbs.iter().any(|verb| verb == "*"))
            .then(|| raw.verbs.clone()),
        groups: raw.groups.as_ref().map(|groups| patterns(groups, &place.at("groups"), findings, group)),
        resources: patterns(&raw.resources, &place.at("resources"), findings, resource),
        namespaces,
        cluster: raw.cluster,
        names,
        selectors: raw.selectors.iter().map(|one| one.replace("==", "=")).collect(),
        dry_run: raw.dry_run,
        containers,
        ports: raw.ports.clone(),
    }
}

fn group(text: &str) -> Result<GroupPattern, BadPattern> {
    match text {
        "" | "core" => Ok(GroupPattern::Core),
        text => Glob::new(text).map(GroupPattern::Named),
    }
}

fn resource(text: &str) -> Result<ResourcePattern, BadPattern> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*?/_".contains(c);
    if text.is_empty() || !text.chars().all(known) || text.matches('/').count() > 1 {
        return bad(
            format!("{text:?} is no resource"),
            "plural and lower case, as `kubectl api-resources` prints it: `deployments`, `pods/log`",
        );
    }
    let (resource, subresource) = match text.split_once('/') {
        Some((resource, subresource)) => (resource, Some(Glob::new(subresource)?)),
        None => (text, None),
    };
    Ok(ResourcePattern { resource: Glob::new(resource)?, subresource })
}

fn path(text: &str) -> Result<PathPattern, BadPattern> {
    let (text, prefix) = match text.strip_suffix('*') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if !text.starts_with('/') || text.contains(['*', '?', '%']) || text.contains("//") {
        return bad(
            format!("{text:?} is no path"),
            "for example /metrics, or /healthz/* for every one that begins so",
        );
    }
    if prefix && text == "/" {
        return bad(
            "`/*` would open the server's own logs and profiles",
            "name the paths: /metrics, /healthz/*, /livez/*",
        );
    }
    Ok(PathPattern { text: text.to_owned(), prefix })
}

fn is_about_parts(raw: &RawExec) -> bool {
    !raw.commands.is_empty() || !raw.files.is_empty() || !raw.env.is_empty() || raw.opaque
}

/// What runs in a pod is matched as what runs on an SSH host is.
fn exec(id: &str, effect: RuleEffect, raw: &RawExec, place: &Place, findings: &mut Findings) -> SshMatcher {
    if !is_about_parts(raw) {
        return SshMatcher { shell: raw.shell, ..SshMatcher::default() };
    }
    let same = RawSsh {
        commands: raw.commands.clone(),
        files: raw.files.clone(),
        env: raw.env.clone(),
        opaque: raw.opaque,
        shell: raw.shell,
        limits: RawSshLimits::default(),
        ..RawSsh::default()
    };
    ssh::check::matcher(id, effect, false, &same, place, findings)
}

fn limits_are_set(raw: &RawKubernetesLimits) -> bool {
    raw.duration.is_some() || raw.response_bytes.is_some() || raw.per_minute.is_some()
}

fn limits(raw: &RawKubernetesLimits, place: &Place, findings: &mut Findings) -> Bounds {
    let duration = raw.duration.as_ref().and_then(|text| match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Some(time),
        _ => {
            findings.add(place.at("duration"), "not a length of time", "for example 30s, 10m or 1h");
            None
        }
    });
    for (name, zero) in
        [("response_bytes", raw.response_bytes == Some(0)), ("per_minute", raw.per_minute == Some(0))]
    {
        if zero {
            findings.add(
                place.at(name),
                "a limit of 0",
                "leave the limit out for none, or write a deny rule",
            );
        }
    }
    Bounds { duration, response_bytes: raw.response_bytes, per_minute: raw.per_minute }
}

/// What a resource of kind `kubernetes` has besides how it is called.
pub(crate) fn upstream(
    raw: &RawResource,
    http: HttpUpstream,
    place: &Place,
    findings: &mut Findings,
) -> KubernetesUpstream {
    let of = raw.impersonate.as_ref();
    KubernetesUpstream {
        http,
        login: login(raw, &place.at("login"), findings),
        impersonate: of.and_then(|raw| impersonate(raw, &place.at("impersonate"), findings)),
    }
}

fn login(raw: &RawResource, place: &Place, findings: &mut Findings) -> KubernetesLogin {
    let none = RawLogin::default();
    let raw = raw.login.as_ref().unwrap_or(&none);
    let token =
        raw.token.as_ref().map(|token| KubernetesMethod::Token(secret(token, &place.at("token"), findings)));
    let certificate = raw.certificate.as_ref().map(|raw| {
        KubernetesMethod::Certificate(client_certificate(raw, &place.at("certificate"), findings))
    });
    let plugin =
        raw.exec.as_ref().map(|raw| KubernetesMethod::Plugin(plugin(raw, &place.at("exec"), findings)));
    let mut methods = [token, certificate, plugin].into_iter().flatten();
    let method = methods.next();
    if method.is_none() || methods.next().is_some() {
        findings.add(
            place.clone(),
            "a login has exactly one of `token`, `certificate` and `exec`",
            "for example `token: {file: /etc/gateway/secrets/cluster}`; `service_account` may stand beside it",
        );
    }
    KubernetesLogin {
        method: method.unwrap_or_else(|| KubernetesMethod::Token(SecretRef::Credential(String::new()))),
        service_account: raw
            .service_account
            .as_ref()
            .map(|raw| service_account(raw, &place.at("service_account"), findings)),
    }
}

fn service_account(raw: &RawServiceAccount, place: &Place, findings: &mut Findings) -> ServiceAccount {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    for (name, text) in [("namespace", &raw.namespace), ("name", &raw.name)] {
        if !plain(text) {
            findings.add(
                place.at(name),
                format!("{text:?} is no {name}"),
                "lower-case letters, digits, `-` and `.`",
            );
        }
    }
    let valid_for = match raw.valid_for.as_deref().map(humantime::parse_duration) {
        None => VALID_LEAST,
        Some(Ok(time)) if (VALID_LEAST..=VALID_MOST).contains(&time) => time,
        Some(_) => {
            findings.add(
                place.at("valid_for"),
                "not a length of time from 10 minutes to an hour",
                "for example 10m: a new one is asked for when half of it is over",
            );
            VALID_LEAST
        }
    };
    ServiceAccount {
        namespace: raw.namespace.clone(),
        name: raw.name.clone(),
        valid_for,
        audiences: raw.audiences.clone(),
    }
}

fn plugin(raw: &RawExecPlugin, place: &Place, findings: &mut Findings) -> ExecPlugin {
    let (program, arguments) = raw.command.split_first().unwrap_or((const { &String::new() }, &[]));
    if !program.starts_with('/') {
        findings.add(
            place.at("command"),
            "the program of a credential is not named by its absolute path",
            "for example `command: [/usr/local/bin/login-plugin, get-token]`",
        );
    }
    let env = raw
        .env
        .iter()
        .map(|(name, value)| (name.clone(), secret(value, &place.at("env").at(name.as_str()), findings)));
    ExecPlugin { program: program.into(), arguments: arguments.to_vec(), env: env.collect() }
}

fn impersonate(raw: &RawImpersonate, place: &Place, findings: &mut Findings) -> Option<Impersonate> {
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if !visible(&raw.user) || raw.user.replace("{subject}", "").contains(['{', '}']) {
        findings.add(place.at("user"), "no name of a user", "for example `gateway:{subject}`");
        return None;
    }
    for (index, group) in raw.groups.iter().enumerate() {
        if !visible(group) {
            findings.add(place.at("groups").at(index), "no name of a group", "visible letters, no spaces");
        } else if group == "system:masters" {
            findings.add(
                place.at("groups").at(index),
                "`system:masters` may do everything, whatever the cluster's own rules say",
                "name a group that the cluster binds to a role",
            );
        }
    }
    Some(Impersonate::new(raw.user.clone(), raw.groups.clone()))
}
