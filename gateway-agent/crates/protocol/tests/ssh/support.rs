//! A policy, and questions to it.

use policy::{
    Action, Effect, FileOperation, FileRequest, Policy, Question, Route, Source, Ssh, SshRequest, UnixTime,
};
use protocol::ssh::command;

const HEAD: &str = r#"
version: 1
subjects: [{ name: job, issuer: https://token.example, claims: { sub: x } }]
resources:
  - name: web
    kind: ssh
    hosts: [198.51.100.20]
    host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    users: [deploy]
    login: { password: { env: X } }
rules:
"#;

pub(crate) fn policy(rules: &str) -> Policy {
    let source = Source { name: "p.yaml".into(), text: format!("{HEAD}{rules}") };
    Policy::load(&[source]).unwrap_or_else(|found| {
        panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// `None` = allowed; otherwise the reason.
pub(crate) fn refused(policy: &Policy, request: SshRequest) -> Option<String> {
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("web").unwrap();
    let action = Action::Ssh(Ssh { user: "deploy".into(), request });
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None };
    match policy.decide(&question).effect {
        Effect::Allow(_) => None,
        Effect::Approve(_) => Some("approval".into()),
        Effect::Deny(denial) => Some(denial.reason),
    }
}

pub(crate) fn exec(policy: &Policy, text: &str) -> Option<String> {
    refused(policy, SshRequest::Exec(command::read(text.as_bytes())))
}

pub(crate) fn file(
    policy: &Policy,
    operation: FileOperation,
    path: &str,
    target: Option<&str>,
) -> Option<String> {
    let (path, target, home) = (path.into(), target.map(str::to_owned), Some("/home/deploy".into()));
    refused(policy, SshRequest::File(FileRequest { operation, path, target, home, by: Route::Sftp }))
}
