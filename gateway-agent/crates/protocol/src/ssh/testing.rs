//! An allow, as a policy gives it.

use policy::{Action, Allow, Effect, Policy, Question, Source, Ssh, SshRequest, UnixTime};

const POLICY: &str = r#"
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
  - { id: all, effect: allow, subjects: [job], resources: [web], connect: true, ssh: { files: [{ operations: [read, write], paths: ["/**"] }] } }
"#;

/// The allow of a request under a policy; `rest` is added to it.
pub(crate) fn allow(rest: &str, request: SshRequest) -> Allow {
    let source = Source { name: "p".into(), text: format!("{POLICY}{rest}") };
    let policy = Policy::load(&[source]).unwrap();
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("web").unwrap();
    let action = Action::Ssh(Ssh { user: "deploy".into(), request });
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None };
    match policy.decide(&question).effect {
        Effect::Allow(allow) => allow,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn allowed() -> Allow {
    allow("", SshRequest::Connect)
}
