//! How a question about an SSH host is answered; the order is that of [`crate::evaluate`].

use std::{fmt, sync::Arc};

use mask::Detectors;

use super::{
    Bounded, FileOperation, Ssh, SshLimits, SshObligations, SshRequest,
    matcher::{Bounds, Need, SshMatcher, needs, shown},
};
use crate::{
    builtin,
    evaluate::{Outcome, decided, denied_by, deny, live},
    mask_set::MaskSet,
    policy::{Policy, Question, Scope},
    raw::RuleEffect,
    rule::Rule,
    verdict::Obligations,
};

/// Most needs named in one message.
const NAMED: usize = 5;

pub(crate) fn asked<'a>(
    policy: &Policy,
    question: &Question<'a>,
    scope: &'a Scope,
    ssh: &'a Ssh,
    missing: &mut Vec<String>,
) -> Outcome<'a> {
    let Some(host) = question.resource.ssh() else {
        let reason = format!("resource {} is of kind {}", question.resource.name, question.resource.kind());
        return deny(builtin::DEFAULT_DENY, reason, "connect to it by its own protocol");
    };
    if !host.has_user(&ssh.user) {
        return deny(
            builtin::DEFAULT_DENY,
            format!("resource {} has no login name {:?}", question.resource.name, ssh.user),
            "ask for one of the resource's `users`",
        );
    }
    let rules = |effect: RuleEffect| {
        live(scope, question.now, effect).filter(|rule| match &rule.ssh {
            Some(matcher) => matcher.is_for(&ssh.user),
            None => true,
        })
    };
    let touched = |rule: &&'a Rule| touch(rule, &ssh.request).is_some();
    let denying: Vec<_> = rules(RuleEffect::Deny).filter(touched).collect();
    if let Some(rule) = denying.first() {
        let what = touch(rule, &ssh.request).unwrap_or_default();
        return denied_by(&denying, what, "leave it out, or ask for the policy to be changed");
    }
    let asking: Vec<_> = match does_nothing(&ssh.request) {
        false => rules(RuleEffect::Approve).filter(touched).collect(),
        true => Vec::new(),
    };
    // Whoever agrees to the rest agrees to these.
    let unasked = rules(RuleEffect::Approve).filter(|_| does_nothing(&ssh.request));
    let candidates: Vec<&Rule> =
        rules(RuleEffect::Allow).chain(unasked).chain(asking.iter().copied()).collect();
    let mut granting: Vec<&Rule> = Vec::new();
    let mut uncovered = Vec::new();
    for need in needs(&ssh.request) {
        let mut granted = false;
        for rule in candidates.iter().filter(|rule| grants(rule, need)) {
            granted = true;
            if !granting.iter().any(|known| std::ptr::eq(*known, *rule)) {
                granting.push(rule);
            }
        }
        if !granted {
            uncovered.push(need);
        }
    }
    if !uncovered.is_empty() {
        missing.extend(uncovered.iter().map(ToString::to_string));
        return ungranted(question, ssh, &uncovered);
    }
    if granting.is_empty() {
        // Nothing in it needs a grant; that it runs at all does.
        granting =
            candidates.into_iter().filter(|rule| rule.ssh.as_ref().is_some_and(SshMatcher::runs)).collect();
        if granting.is_empty() {
            missing.push("running a command".to_owned());
            return ungranted(question, ssh, &[]);
        }
    }
    if let Some(outcome) = laundering(&scope.masks, ssh) {
        return outcome;
    }
    decided(policy, question, asking, granting)
}

/// Whether it does nothing by itself.
pub(crate) fn does_nothing(request: &SshRequest) -> bool {
    match request {
        SshRequest::Pty { .. } | SshRequest::Env { .. } | SshRequest::Signal { .. } => true,
        SshRequest::Subsystem { name } => name == "sftp",
        _ => false,
    }
}

/// What of the request a rule is about, as a restriction.
pub(crate) fn touch(rule: &Rule, request: &SshRequest) -> Option<String> {
    match request {
        SshRequest::Connect => rule.connect.then(|| "connecting".to_owned()),
        _ => rule.ssh.as_ref()?.touched(request).map(|need| need.to_string()),
    }
}

/// Whether a rule grants it.
pub(crate) fn grants(rule: &Rule, need: Need<'_>) -> bool {
    match need {
        Need::Request(SshRequest::Connect) => rule.connect,
        _ => rule.ssh.as_ref().is_some_and(|matcher| matcher.grants(need)),
    }
}

fn ungranted<'a>(question: &Question<'_>, ssh: &Ssh, uncovered: &[Need<'_>]) -> Outcome<'a> {
    let mut what: Vec<String> = uncovered.iter().take(NAMED).map(ToString::to_string).collect();
    if uncovered.is_empty() {
        what.push("running a command".to_owned());
    }
    if uncovered.len() > NAMED {
        what.push(format!("and {} more", uncovered.len() - NAMED));
    }
    let hint = match (&ssh.request, uncovered.first()) {
        (SshRequest::Connect, _) => "a rule with `connect: true` would",
        (_, Some(Need::Opaque(_))) => "write it as plain commands, which can be read",
        (SshRequest::Shell, _) => "run single commands, `ssh host command`",
        _ => "leave it out, or ask for a rule that allows it; `policy explain` shows every rule",
    };
    let reason = format!(
        "no rule allows {} on {} as {}: {}",
        question.subject.name,
        question.resource.name,
        ssh.user,
        what.join(", ")
    );
    deny(builtin::DEFAULT_DENY, reason, hint)
}

/// Whether the contents of masked files would get out by a way on which they are not masked.
fn laundering<'a>(masks: &MaskSet, ssh: &Ssh) -> Option<Outcome<'a>> {
    let refused = |mask: &str, why: &str| {
        deny(
            builtin::LAUNDERING,
            format!("mask {mask} hides contents of files there: {why}"),
            "read the files by SFTP or scp",
        )
    };
    match &ssh.request {
        SshRequest::File(file)
            if matches!(file.operation, FileOperation::Rename | FileOperation::Symlink) =>
        {
            let home = file.home.as_deref();
            let paths = || std::iter::once(file.path.as_str()).chain(file.target.as_deref());
            let mask = masks.files.iter().find(|mask| paths().any(|path| mask.is_about(path, home, true)))?;
            Some(refused(&mask.id, "they may not get other names"))
        }
        SshRequest::Exec(exec) => {
            let mask =
                masks.files.iter().find(|mask| exec.files.iter().any(|used| mask.may_leave_by(used)))?;
            Some(refused(&mask.id, "rsync and git are not seen into"))
        }
        _ => None,
    }
}

/// What an allow of this request is conditional on.
pub(crate) fn obligations(granting: &[&Rule], masks: &MaskSet, ssh: &Ssh) -> Obligations {
    let matchers = || granting.iter().filter_map(|rule| Some((rule.ssh.as_ref()?, &rule.id)));
    let record = granting.iter().map(|rule| rule.record).max().unwrap_or_default();
    let (mut detectors, mut contents) = (None, None);
    match &ssh.request {
        SshRequest::Exec(exec) => {
            detectors = masks.detectors_with(masks.files.iter().filter(|mask| mask.may_be_read_by(exec)));
        }
        // Whatever is there may be read.
        SshRequest::Shell | SshRequest::Subsystem { .. } => {
            let unseen = !matches!(&ssh.request, SshRequest::Subsystem { name } if name == "sftp");
            detectors = masks.detectors_with(masks.files.iter().filter(|_| unseen));
        }
        SshRequest::File(file) if file.operation == FileOperation::Read => {
            let about =
                masks.files.iter().filter(|mask| mask.is_about(&file.path, file.home.as_deref(), false));
            let parts: Vec<_> = about.flat_map(|mask| mask.detectors.iter().copied()).collect();
            contents = (!parts.is_empty()).then(|| Arc::new(Detectors::new(&parts)));
        }
        _ => {}
    }
    let written = matches!(&ssh.request, SshRequest::File(file) if file.operation == FileOperation::Write);
    let quarantine = written && matchers().any(|(matcher, _)| matcher.quarantine);
    let limits = limits(matchers().map(|(matcher, id)| (&matcher.limits, id)));
    Obligations {
        detectors,
        masks: Arc::clone(&masks.ids),
        record,
        ssh: Some(Arc::new(SshObligations { contents, quarantine, limits })),
        ..Obligations::default()
    }
}

fn limits<'a>(bounds: impl Iterator<Item = (&'a Bounds, &'a Arc<str>)> + Clone) -> SshLimits {
    SshLimits {
        idle: Bounded::strictest(bounds.clone(), |bounds| bounds.idle),
        duration: Bounded::strictest(bounds.clone(), |bounds| bounds.duration),
        bytes: Bounded::strictest(bounds.clone(), |bounds| bounds.bytes),
        channels: Bounded::strictest(bounds.clone(), |bounds| bounds.channels),
        per_minute: Bounded::each(bounds, |bounds| bounds.per_minute).collect(),
    }
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => write!(f, "running `{}`", shown(run)),
            Self::Open(used) => {
                let below = if used.recursive { " and what is below it" } else { "" };
                write!(f, "{} of {}{below} by {}", used.operation.name(), used.path.text, used.by.name())
            }
            Self::Set(set) => write!(f, "setting the variable {}", set.name),
            Self::Opaque(exec) => {
                let why = exec.opaque.first().map(String::as_str).unwrap_or_default();
                write!(f, "a command line that cannot be seen through ({why})")
            }
            Self::Request(request) => match request {
                SshRequest::Connect => f.write_str("connecting"),
                SshRequest::Exec(_) => f.write_str("a command"),
                SshRequest::Shell => f.write_str("a shell"),
                SshRequest::Pty { .. } => f.write_str("a terminal"),
                SshRequest::Env { name, .. } => write!(f, "setting the variable {name}"),
                SshRequest::Subsystem { name } => write!(f, "the subsystem {name}"),
                SshRequest::File(file) => {
                    write!(f, "{} of {}", file.operation.name(), file.path)?;
                    match &file.target {
                        Some(target) => write!(f, " and {target} by {}", file.by.name()),
                        None => write!(f, " by {}", file.by.name()),
                    }
                }
                SshRequest::DirectTcpip { host, port } => write!(f, "a tunnel to {host}:{port}"),
                SshRequest::DirectStreamlocal { path } => write!(f, "a tunnel to the socket {path}"),
                SshRequest::TcpipForward { host, port } => write!(f, "a tunnel from {host}:{port}"),
                SshRequest::StreamlocalForward { path } => write!(f, "a tunnel from the socket {path}"),
                SshRequest::AgentForwarding => f.write_str("forwarding the agent"),
                SshRequest::X11 => f.write_str("forwarding X11"),
                SshRequest::Signal { name } => write!(f, "the signal {name}"),
            },
        }
    }
}
