//! A session between two piles of bytes.

use std::sync::{Arc, OnceLock};

use policy::{
    Action, Allow, Class, Effect, Obligations, Outputs, Policy, Question, Source, Statement, UnixTime,
};
use protocol::{
    CloseReason, Leg, Step,
    postgres::{
        Allowed, BackendKey, Decision, Event, Login, Origin, Origins, Outcome, Plannable, Refusal, Session,
        Settings,
    },
};

pub(crate) fn key() -> BackendKey {
    BackendKey { pid: 77, secret: [7; 32] }
}

pub(crate) fn mask_key() -> Arc<mask::Key> {
    Arc::new(mask::Key::new(&b"0123456789abcdef".to_vec().into()).unwrap())
}

/// Table 100 is public.customers (1 id, 2 email, 3 name), 200 the view public.v (1 email).
pub(crate) struct Names;

impl Origins for Names {
    fn origin(&self, table_oid: u32, attnum: i16, with: &mut dyn FnMut(Origin<'_>)) {
        let (relation, column, known) = match (table_oid, attnum) {
            (100, 1) => ("customers", "id", true),
            (100, 2) => ("customers", "email", true),
            (100, 3) => ("customers", "name", true),
            (200, 1) => ("v", "email", false),
            _ => return,
        };
        with(Origin { schema: Some("public"), relation: Some(relation), column, known });
    }
}

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
    databases: [orders]
    login: { user: gateway, password: { file: /etc/gateway/orders } }
    tls: { mode: disable }
rules:
  - { id: read, effect: allow, subjects: [job], resources: [orders], connect: true, statements: { classes: [read] } }
masks:
  - { id: pii, resources: [orders], columns: [public.customers.email], transform: redact }
"#;
        let source = Source { name: "test.yaml".to_owned(), text: text.to_owned() };
        Policy::load(&[source]).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    })
}

/// An allow as policy gives it: masks on public.customers.email.
pub(crate) fn allow() -> Allow {
    let policy = policy();
    let (subject, resource) =
        (policy.subject_named("job").unwrap(), policy.resource_named("orders").unwrap());
    let action = Action::Statement(Statement {
        kind: "select",
        nested: Vec::new(),
        class: Class::Read,
        relations: Vec::new(),
        columns: Vec::new(),
        functions: Vec::new(),
        opaque: false,
        stores_unseen: false,
        filters_unseen: false,
        fails_unseen: false,
        outputs: Outputs::None,
        refers: None,
        defines: None,
        settings: Vec::new(),
    });
    let question =
        Question { subject: &subject, resource, action: &action, now: UnixTime(1_700_000_000), grant: None };
    match policy.decide(&question).effect {
        Effect::Allow(allow) => allow,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn allowed(obligations: Obligations) -> Allowed {
    let allow = Allow { obligations, ..allow() };
    Allowed {
        allow,
        rules: vec!["read".into()],
        defines: None,
        refers: None,
        copy: None,
        inert: false,
        plan: Plannable::Nothing,
    }
}

pub(crate) fn decision(statements: Vec<Allowed>) -> Arc<Decision> {
    Arc::new(Decision { statements, epoch: 1, open: false, context: Arc::new(()) })
}

/// One statement, no obligations.
pub(crate) fn plain() -> Arc<Decision> {
    decision(vec![allowed(Obligations::default())])
}

pub(crate) fn denied() -> Refusal {
    Refusal::policy("no-drop", "DROP is not for jobs", Some("Ask.".to_owned()))
}

pub(crate) struct Rig {
    pub(crate) session: Session,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self { session: Session::new(Settings::new(key())) }
    }

    /// Logged in, with everything of the login drained.
    pub(crate) fn ready() -> Self {
        Self::with(Settings::new(key()))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let mut rig = Self { session: Session::new(settings) };
        rig.job(&startup(0, &[("user", "u"), ("database", "d")]));
        assert_eq!(rig.step(), Step::Login);
        rig.session.login(login());
        rig.need();
        rig.up(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x09wxyzZ\0\0\0\x05I");
        rig.need();
        rig.sent_up();
        rig.sent_to_job();
        rig
    }

    pub(crate) fn job(&mut self, bytes: &[u8]) {
        self.session.job_in().extend_from_slice(bytes);
    }

    pub(crate) fn up(&mut self, bytes: &[u8]) {
        self.session.up_in().extend_from_slice(bytes);
    }

    pub(crate) fn step(&mut self) -> Step {
        self.session.step()
    }

    #[track_caller]
    pub(crate) fn need(&mut self) {
        assert_eq!(self.step(), Step::Need);
    }

    #[track_caller]
    pub(crate) fn closes(&mut self) -> CloseReason {
        match self.step() {
            Step::Close(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sent_up(&mut self) -> Vec<u8> {
        take(self.session.up_out())
    }

    pub(crate) fn sent_to_job(&mut self) -> Vec<u8> {
        take(self.session.job_out())
    }

    /// Feeds a message that is asked about, and allows it.
    #[track_caller]
    pub(crate) fn run(&mut self, message: &[u8], decision: &Arc<Decision>) {
        self.job(message);
        assert_eq!(self.step(), Step::Ask);
        self.session.allow(Arc::clone(decision));
        self.need();
    }

    /// Feeds a message of the server and gives what the job gets.
    #[track_caller]
    pub(crate) fn reply(&mut self, message: &[u8]) -> Vec<u8> {
        self.up(message);
        self.need();
        self.sent_to_job()
    }

    /// Ends of statements: run, index, how, rows, masked cells.
    pub(crate) fn ends(&mut self) -> Vec<(u64, usize, String, u64, u64)> {
        let mut ends = Vec::new();
        let mut events = self.session.events();
        while let Some(event) = events.next() {
            if let Event::Finished { run, index, outcome, rows, masked, .. } = event {
                let outcome = match outcome {
                    Outcome::Done { tag } => tag.to_owned(),
                    Outcome::Failed { sqlstate } => format!("failed {sqlstate}"),
                    other => format!("{other:?}").to_lowercase(),
                };
                ends.push((run, index, outcome, rows, masked));
            }
        }
        ends
    }
}

pub(crate) fn login() -> Login {
    Login {
        user: "gateway".to_owned(),
        password: Some(b"hunter2".to_vec().into()),
        database: "orders".to_owned(),
        tls: false,
        settings: vec![("search_path".to_owned(), "public".to_owned())],
        epoch: 1,
        open: false,
        origins: Arc::new(Names),
        own: false,
        mask_key: mask_key(),
    }
}

fn take(output: &mut protocol::postgres::Output) -> Vec<u8> {
    let bytes = output.bytes().to_vec();
    output.advance(bytes.len());
    bytes
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

pub(crate) fn startup(minor: u8, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, minor];
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    message(b' ', &body)[1..].to_vec()
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Binds text parameters; results come in one format.
pub(crate) fn bind(portal: &str, statement: &str, params: &[&str], format: u8) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.extend_from_slice(&[0, 0, 0, u8::try_from(params.len()).unwrap()]);
    for param in params {
        body.extend_from_slice(&[0, 0, 0, u8::try_from(param.len()).unwrap()]);
        body.extend_from_slice(param.as_bytes());
    }
    body.extend_from_slice(&[0, 1, 0, format]);
    message(b'B', &body)
}

pub(crate) fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

pub(crate) fn close(kind: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{kind}{name}\0").as_bytes())
}

pub(crate) fn execute(portal: &str, rows: u8) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend_from_slice(&[0, 0, 0, rows]);
    message(b'E', &body)
}

pub(crate) const SYNC: &[u8] = b"S\0\0\0\x04";
pub(crate) const FLUSH: &[u8] = b"H\0\0\0\x04";
pub(crate) const PARSED: &[u8] = b"1\0\0\0\x04";
pub(crate) const BOUND: &[u8] = b"2\0\0\0\x04";
pub(crate) const CLOSED: &[u8] = b"3\0\0\0\x04";
pub(crate) const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub(crate) const NO_PARAMS: &[u8] = b"t\0\0\0\x06\0\0";

pub(crate) fn ready(status: char) -> Vec<u8> {
    message(b'Z', status.to_string().as_bytes())
}

pub(crate) fn done(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// Columns as (name, table, attribute, type, format).
pub(crate) fn columns(columns: &[(&str, u32, i16, u32, i16)]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for (name, table, attnum, type_oid, format) in columns {
        body.extend_from_slice(format!("{name}\0").as_bytes());
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&attnum.to_be_bytes());
        body.extend_from_slice(&type_oid.to_be_bytes());
        body.extend_from_slice(&[0xff; 6]);
        body.extend_from_slice(&format.to_be_bytes());
    }
    message(b'T', &body)
}

pub(crate) fn row(cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            None => body.extend_from_slice(&[0xff; 4]),
            Some(cell) => {
                body.extend_from_slice(&u32::try_from(cell.len()).unwrap().to_be_bytes());
                body.extend_from_slice(cell);
            }
        }
    }
    message(b'D', &body)
}

pub(crate) fn texts(cells: &[&str]) -> Vec<u8> {
    let cells: Vec<_> = cells.iter().map(|cell| Some(cell.as_bytes())).collect();
    row(&cells)
}

pub(crate) fn failure(fields: &[(char, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (letter, text) in fields {
        body.extend_from_slice(format!("{letter}{text}\0").as_bytes());
    }
    body.push(0);
    message(b'E', &body)
}

/// What the server is sent where it has to fail as well, and what it says to that.
pub(crate) fn provoked() -> Vec<u8> {
    parse("refused", "refused by the gateway")
}

pub(crate) fn syntax_error() -> Vec<u8> {
    failure(&[('S', "ERROR"), ('V', "ERROR"), ('C', "42601"), ('M', "syntax error at or near \"refused\"")])
}

/// The error that a refusal becomes.
pub(crate) fn refused(refusal: &Refusal) -> Vec<u8> {
    let mut fields =
        vec![('S', "ERROR"), ('V', "ERROR"), ('C', refusal.sqlstate), ('M', refusal.message.as_str())];
    if let Some(hint) = &refusal.hint {
        fields.push(('H', hint));
    }
    failure(&fields)
}

pub(crate) fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

pub(crate) const JOB: Leg = Leg::Job;
pub(crate) const UPSTREAM: Leg = Leg::Upstream;
