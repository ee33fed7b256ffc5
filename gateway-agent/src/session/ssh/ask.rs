//! Decisions about what a session's channels ask for: from policy, from a human.

use std::{sync::Arc, time::Instant};

use policy::{
    Action, Allow, ApprovalTerms, Denial, Effect, Grant, Policy, Question, Ssh, SshRequest, Verdict, builtin,
};

use super::Session;
use crate::session::{
    log::Said,
    observer::{Approval, Lost},
    people,
};

/// Longest text of an action that is shown, recorded and bound.
const TEXT: usize = 64 * 1024;

/// An allow, and what led to it.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) rules: Vec<Arc<str>>,
    pub(super) allow: Allow,
    pub(super) approval: Option<Approval>,
    pub(super) since: Instant,
}

/// A no, in words for the person at the client.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) rule: Arc<str>,
    pub(super) reason: String,
    pub(super) hint: String,
}

/// What an ask came to.
pub(super) type Answer = Result<Granted, Refused>;

impl Refused {
    pub(super) fn new(rules: &[Arc<str>], reason: impl Into<String>, hint: impl Into<String>) -> Self {
        let rule = rules.first().cloned().unwrap_or_else(|| builtin::DEFAULT_DENY.into());
        Self { rule, reason: reason.into(), hint: hint.into() }
    }

    /// On one line, for where the protocol carries no more.
    pub(super) fn line(&self) -> String {
        let Self { rule, reason, hint } = self;
        match hint.is_empty() {
            true => format!("denied by policy rule {rule}: {reason}"),
            false => format!("denied by policy rule {rule}: {reason}; {hint}"),
        }
    }

    /// For standard error.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("denied by policy rule {}: {}", self.rule, self.reason)];
        if !self.hint.is_empty() {
            lines.push(format!("hint: {}", self.hint));
        }
        lines
    }
}

impl Session {
    /// Asks policy, without a human and without leaving a trace.
    pub(super) fn decide(&self, policy: &Policy, request: &SshRequest, grant: Option<&Grant>) -> Verdict {
        let nobody = |rule: &str, reason: &str| Verdict {
            effect: Effect::Deny(Denial {
                reason: reason.to_owned(),
                hint: "enrol the job again".to_owned(),
            }),
            rules: vec![rule.into()],
            valid_until: None,
            ahead: None,
        };
        let Some(subject) = policy.subject_named(&self.live.subject) else {
            return nobody("builtin:no-subject", "policy no longer names this job");
        };
        let action = Action::Ssh(Ssh { user: self.user.clone(), request: request.clone() });
        policy.decide(&Question {
            subject: &subject,
            resource: &self.resource,
            action: &action,
            now: crate::clock::now(),
            grant,
        })
    }

    /// Whether policy would still not refuse this.
    pub(super) fn still(&self, request: &SshRequest) -> Result<(), Refused> {
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, request, None);
        match verdict.effect {
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Allow(_) | Effect::Approve(_) => Ok(()),
        }
    }

    /// Asks policy about something that cannot wait for a human.
    pub(super) async fn ask_now(&self, request: &SshRequest) -> Result<Answer, Lost> {
        let since = Instant::now();
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, request, None);
        let text = text(request);
        let said = Said { kind: request.name(), text: &text };
        let refused = match verdict.effect {
            Effect::Allow(allow) => {
                return Ok(Ok(Granted { rules: verdict.rules, allow, approval: None, since }));
            }
            Effect::Deny(denial) => Refused::new(&verdict.rules, denial.reason, denial.hint),
            Effect::Approve(_) => Refused::new(
                &verdict.rules,
                "this needs a human's approval, for which it cannot wait",
                "ask for it by a rule that allows it",
            ),
        };
        self.log.denied(said, &verdict.rules, &refused.reason, since.elapsed()).await?;
        Ok(Err(refused))
    }

    /// Writes down that something was allowed that does nothing by itself and has no end of its own.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(super) fn granted(&self, request: &SshRequest, granted: &Granted) -> Result<(), Lost> {
        let text = text(request);
        let said = Said { kind: request.name(), text: &text };
        self.log.granted(said, &granted.rules, granted.since.elapsed())
    }

    /// Asks policy, and a human where policy wants one; `notice` is told of the wait. `beside`: what else the human agrees to, such as
    /// the environment of a command.
    ///
    /// # Errors
    /// When what happened cannot be written down.
    pub(super) async fn ask(
        &self,
        request: &SshRequest,
        beside: &[String],
        notice: impl Fn(&str),
    ) -> Result<Answer, Lost> {
        let since = Instant::now();
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, request, None);
        let text = text(request);
        let said = Said { kind: request.name(), text: &text };
        let answer = match verdict.effect {
            Effect::Allow(allow) => {
                Ok(Granted { rules: verdict.rules.clone(), allow, approval: None, since })
            }
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Approve(terms) => {
                self.ask_human(&policy.policy, request, &text, beside, &verdict.rules, &terms, notice).await?
            }
        };
        if let Err(refused) = &answer {
            self.log.denied(said, &verdict.rules, &refused.reason, since.elapsed()).await?;
        }
        Ok(answer)
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is what a human is shown")]
    async fn ask_human(
        &self,
        policy: &Policy,
        request: &SshRequest,
        text: &str,
        beside: &[String],
        rules: &[Arc<str>],
        terms: &ApprovalTerms,
        notice: impl Fn(&str),
    ) -> Result<Answer, Lost> {
        let since = Instant::now();
        let refused = |why: String| {
            Refused::new(rules, why, "ask an approver, then try again: this rule wants a human's approval")
        };
        let question = people::Question {
            statement: format!("{text} (as {})", self.user),
            params: beside.iter().map(|value| Some(value.clone().into_bytes())).collect(),
            rules,
            terms,
            because: None,
        };
        let answered =
            people::ask(self.shared(), (&self.live, &self.log), policy, question, async |ticket| {
                notice(&ticket.notice());
                let _waiting = self.waiting();
                Ok(ticket.wait().await)
            });
        let (grant, approval) = match answered.await? {
            Ok(yes) => yes,
            Err(why) => return Ok(Err(refused(why))),
        };
        // Under what is in force now: the grant is of the version that asked.
        let policy = self.shared().policy.load_full();
        let verdict = self.decide(&policy.policy, request, Some(&grant));
        notice(&format!("approved by {}", approval.by.join(", ")));
        Ok(match verdict.effect {
            Effect::Allow(allow) => {
                Ok(Granted { rules: verdict.rules, allow, approval: Some(approval), since })
            }
            Effect::Deny(denial) => Err(Refused::new(&verdict.rules, denial.reason, denial.hint)),
            Effect::Approve(_) => Err(refused("the approval does not cover this".to_owned())),
        })
    }
}

/// An action on one line, for people and recordings.
pub(super) fn text(request: &SshRequest) -> String {
    let text = match request {
        SshRequest::Connect => "connect".to_owned(),
        SshRequest::Exec(exec) => format!("exec {}", exec.text),
        SshRequest::Shell => "shell".to_owned(),
        SshRequest::Pty { term } => format!("pty {term}"),
        SshRequest::Env { name, .. } => format!("env {name}"),
        SshRequest::Subsystem { name } => format!("subsystem {name}"),
        SshRequest::File(file) => match &file.target {
            Some(target) => format!("{} {} -> {target}", file.operation.name(), file.path),
            None => format!("{} {}", file.operation.name(), file.path),
        },
        SshRequest::DirectTcpip { host, port } => format!("connection from the host to {host}:{port}"),
        SshRequest::DirectStreamlocal { path } => format!("connection to the host's socket {path}"),
        SshRequest::TcpipForward { host, port } => format!("listener of the host at {host}:{port}"),
        SshRequest::StreamlocalForward { path } => format!("socket of the host at {path}"),
        SshRequest::AgentForwarding => "agent forwarding".to_owned(),
        SshRequest::X11 => "x11 forwarding".to_owned(),
        SshRequest::Signal { name } => format!("signal {name}"),
    };
    match text.char_indices().nth(TEXT) {
        None => text,
        Some((at, _)) => text.get(..at).unwrap_or_default().to_owned(),
    }
}
