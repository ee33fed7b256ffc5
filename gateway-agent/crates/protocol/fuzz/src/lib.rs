//! A session to feed, and decisions to answer its questions with.

#[path = "../../tests/session/model/mod.rs"]
pub mod model;

use std::sync::{Arc, OnceLock};

use policy::{
    Action, Allow, Connect, Effect, Http, Limits, Obligations, OutputMask, OutputMasks, Policy, Question,
    Recording, Source, Ssh, SshRequest, UnixTime,
};
use protocol::{
    Step,
    postgres::{Allowed, BackendKey, CopyOptions, Decision, Login, NoOrigins, Refusal, Session, Settings},
};

fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let text = r#"
version: 1
subjects: [{ name: job, issuer: "https://token.example", claims: { sub: x } }]
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: ["*"]
    login: { user: gateway, password: { file: /etc/gateway/orders } }
    tls: { mode: disable }
  - { name: api, kind: https, hosts: [api.example] }
  - name: web
    kind: ssh
    hosts: [198.51.100.20]
    host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    users: [deploy]
    login: { password: { env: X } }
rules:
  - { id: all, effect: allow, subjects: [job], resources: [orders, web], connect: true }
  - id: little
    effect: allow
    subjects: [job]
    resources: [web]
    ssh:
      commands: [{ program: git, arguments: [fetch, "*..."] }]
      files: [{ operations: [read, write, list, rename], paths: ["/srv/**"] }]
      quarantine: true
  - { id: open, effect: allow, subjects: [job], resources: [api], http: { methods: [GET], paths: ["/open/**"] } }
masks:
  - { id: m, resources: [web], files: ["/srv/m/**"], detectors: [email], transform: redact }
"#;
        let source = Source { name: "fuzz.yaml".to_owned(), text: text.to_owned() };
        Policy::load(&[source]).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    })
}

fn allow() -> Allow {
    let (subject, resource) =
        (policy().subject_named("job").unwrap(), policy().resource_named("orders").unwrap());
    let action = Action::Connect(Connect {
        database: "orders".to_owned(),
        user: "u".to_owned(),
        application: String::new(),
    });
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None };
    match policy().decide(&question).effect {
        Effect::Allow(allow) => allow,
        other => panic!("{other:?}"),
    }
}

/// Obligations that depend on a statement's length, so that every path is taken by some text.
pub fn decision(sql: &str) -> Arc<Decision> {
    let masks = (0..sql.len() % 3).map(|at| (at == 0).then(|| OutputMask::new(mask::Transform::Redact)));
    let detectors = mask::Detectors::new(&[(mask::Detector::Email, None)]);
    let obligations = Obligations {
        outputs: match sql.len() % 4 {
            0 => OutputMasks::None,
            1 => OutputMasks::Unknown,
            _ => OutputMasks::Columns(masks.collect()),
        },
        detectors: (sql.len() % 5 == 0).then(|| Arc::new(detectors)),
        limits: Limits { rows: (sql.len() % 7 == 0).then_some(2), bytes: None },
        record: if sql.len() % 3 == 0 { Recording::Results } else { Recording::Statements },
        ..Obligations::default()
    };
    let copy = match sql.len() % 5 {
        0 => None,
        1 => Some(CopyOptions::csv()),
        2 => Some(CopyOptions::Binary),
        _ => Some(CopyOptions::text()),
    };
    let statement = Allowed {
        allow: Allow { obligations, ..allow() },
        rules: Vec::new(),
        defines: None,
        refers: None,
        copy: copy.map(Into::into),
        inert: false,
        plan: protocol::postgres::Plannable::Nothing,
    };
    Arc::new(Decision { statements: vec![statement], epoch: 0, open: false, context: Arc::new(()) })
}

/// As many statements as there are obligations.
pub fn statements(each: Vec<Obligations>) -> Arc<Decision> {
    let allowed = |obligations| Allowed {
        allow: Allow { obligations, ..allow() },
        rules: Vec::new(),
        defines: None,
        refers: None,
        copy: None,
        inert: false,
        plan: protocol::postgres::Plannable::Nothing,
    };
    let statements = each.into_iter().map(allowed).collect();
    Arc::new(Decision { statements, epoch: 0, open: false, context: Arc::new(()) })
}

pub fn session() -> Session {
    Session::new(Settings::new(BackendKey { pid: 1, secret: [1; 32] }))
}

/// Logged in.
pub fn ready() -> Session {
    let mut session = session();
    session.job_in().extend_from_slice(b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
    assert_eq!(session.step(), Step::Login);
    session.login(login());
    session.up_in().extend_from_slice(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    assert_eq!(session.step(), Step::Need);
    drain(&mut session);
    session
}

fn login() -> Login {
    Login {
        user: "gateway".to_owned(),
        password: Some(b"secret".to_vec().into()),
        database: "orders".to_owned(),
        tls: false,
        settings: Vec::new(),
        epoch: 0,
        open: false,
        origins: Arc::new(NoOrigins),
        own: false,
        mask_key: Arc::new(mask::Key::new(&vec![1; 32].into()).unwrap()),
    }
}

/// Steps until nothing more happens. Texts with a `D` are denied, with an `L` deferred, else allowed.
pub fn drive(session: &mut Session) {
    for _ in 0..1000 {
        let step = session.step();
        drain(session);
        match step {
            Step::Ask => {
                let sql = session.pending().expect("an Ask without a question").sql.to_owned();
                if sql.contains('D') {
                    session.deny(&Refusal::policy("fuzz", "no", None));
                } else if sql.contains('L') {
                    session.defer();
                } else {
                    session.allow(decision(&sql));
                }
            }
            Step::Login => session.login(login()),
            Step::StartTls(leg) => session.tls_started(leg, None),
            Step::Need | Step::Cancel | Step::Close(_) => return,
        }
    }
}

fn drain(session: &mut Session) {
    let mut events = session.events();
    while let Some(event) = events.next() {
        if let protocol::postgres::Event::Row { row, .. } = event {
            let _ = row.cells().count();
        }
    }
    drop(events);
    if session.take_cancel() {
        session.cancel_done();
    }
    let (job, up) = (session.job_out().len(), session.up_out().len());
    session.job_out().advance(job);
    session.up_out().advance(up);
}

/// What the policy says to a request on its HTTPS host.
pub fn ask_http(http: Http) -> Effect {
    let (subject, resource) =
        (policy().subject_named("job").unwrap(), policy().resource_named("api").unwrap());
    let action = Action::Http(http);
    policy()
        .decide(&Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None })
        .effect
}

/// What the policy says to a request on its SSH host.
pub fn ask(request: SshRequest) -> Effect {
    let (subject, resource) =
        (policy().subject_named("job").unwrap(), policy().resource_named("web").unwrap());
    let action = Action::Ssh(Ssh { user: "deploy".to_owned(), request });
    policy()
        .decide(&Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None })
        .effect
}
