//! Decisions on SSH hosts in words.

use super::{
    Ssh, SshObligations, SshRequest,
    evaluate::{does_nothing, grants, touch},
    matcher::needs,
};
use crate::{raw::RuleEffect, rule::Rule};

/// What is asked for, as rules see it.
pub(crate) fn sees(ssh: &Ssh) -> Vec<String> {
    let mut lines = vec![format!("{} as {}", ssh.request.name(), ssh.user)];
    if matches!(ssh.request, SshRequest::Exec(_)) {
        lines.extend(needs(&ssh.request).iter().map(ToString::to_string));
    }
    if let SshRequest::Exec(exec) = &ssh.request {
        lines.extend(exec.opaque.iter().map(|why| format!("not seen through: {why}")));
    }
    lines
}

/// What a rule has to do with it: whether it had a part in the answer, and why.
pub(crate) fn consider(rule: &Rule, ssh: &Ssh) -> (bool, String) {
    if rule.ssh.as_ref().is_some_and(|matcher| !matcher.is_for(&ssh.user)) {
        return (false, format!("is not for {}", ssh.user));
    }
    match (rule.effect, touch(rule, &ssh.request)) {
        (RuleEffect::Deny, Some(what)) => return (true, format!("is about {what}")),
        (RuleEffect::Approve, None) if does_nothing(&ssh.request) => {}
        (RuleEffect::Deny | RuleEffect::Approve, None) => {
            return (false, "is not about any part of it".into());
        }
        _ => {}
    }
    let needs = needs(&ssh.request);
    let granted: Vec<_> = needs.iter().filter(|need| grants(rule, **need)).map(ToString::to_string).collect();
    match (rule.effect, granted.is_empty()) {
        (RuleEffect::Approve, true) => (true, "is about this, and grants nothing of it".into()),
        (_, true) => (false, "grants nothing that it needs".into()),
        (_, false) => (true, format!("grants {}", granted.join(", "))),
    }
}

/// What an allow is conditional on.
pub(crate) fn describe(obligations: &SshObligations, lines: &mut Vec<String>) {
    if let Some(contents) = &obligations.contents {
        lines.push(format!(
            "its contents are searched for {}",
            contents.names().collect::<Vec<_>>().join(", ")
        ));
    }
    if obligations.quarantine {
        lines.push("a copy of what is written is kept".into());
    }
    let limits = &obligations.limits;
    let mut limit = |what: &str, most: Option<String>, rule: Option<&str>| {
        if let (Some(most), Some(rule)) = (most, rule) {
            lines.push(format!("{what} {most} (rule {rule})"));
        }
    };
    let idle = limits.idle.as_ref();
    limit("idle for at most", idle.map(|of| format!("{:?}", of.most)), idle.map(|of| &*of.rule));
    let duration = limits.duration.as_ref();
    limit("it lasts at most", duration.map(|of| format!("{:?}", of.most)), duration.map(|of| &*of.rule));
    let bytes = limits.bytes.as_ref();
    limit("bytes at most", bytes.map(|of| of.most.to_string()), bytes.map(|of| &*of.rule));
    let channels = limits.channels.as_ref();
    limit("channels at most", channels.map(|of| of.most.to_string()), channels.map(|of| &*of.rule));
    for rate in &limits.per_minute {
        limit("requests a minute at most", Some(rate.most.to_string()), Some(&*rate.rule));
    }
}
