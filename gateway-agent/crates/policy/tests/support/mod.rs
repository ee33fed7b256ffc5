//! Builders for statements as an analyser would make them, and a policy to ask.

#![allow(dead_code, reason = "each test binary uses a part")]

use policy::*;

pub(crate) const POLICY_HEAD: &str = r#"
version: 1
subjects:
  - { name: job, issuer: https://token.example, claims: { repository: acme/payments } }
  - { name: other, issuer: https://token.example, claims: { repository: acme/other } }
groups:
  - { name: agents, members: [job, other] }
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: [orders]
    login: { user: gateway, password: { file: /etc/gateway/orders } }
    tls: { mode: verify-full }
    search_path: [public]
  - name: reports
    kind: postgres
    hosts: [198.51.100.11]
    databases: ["*"]
    login: { user: gateway, password: { env: REPORTS } }
    tls: { mode: disable }
    search_path: [app, public]
"#;

pub(crate) fn load(rest: &str) -> Policy {
    match try_load(&format!("{POLICY_HEAD}{rest}")) {
        Ok(policy) => policy,
        Err(diagnostics) => panic!("{}", show(&diagnostics)),
    }
}

pub(crate) fn try_load(text: &str) -> Result<Policy, Vec<Diagnostic>> {
    Policy::load(&[Source { name: "p.yaml".into(), text: text.into() }])
}

pub(crate) fn show(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Asks for subject `job` on resource `orders`.
pub(crate) fn ask(policy: &Policy, statement: &Statement) -> Verdict {
    ask_as(policy, "job", "orders", statement, None)
}

pub(crate) fn ask_as(
    policy: &Policy,
    subject: &str,
    resource: &str,
    statement: &Statement,
    grant: Option<&Grant>,
) -> Verdict {
    let action = Action::Statement(statement.clone());
    decide(policy, subject, resource, &action, grant, UnixTime(1_000))
}

pub(crate) fn decide(
    policy: &Policy,
    subject: &str,
    resource: &str,
    action: &Action,
    grant: Option<&Grant>,
    now: UnixTime,
) -> Verdict {
    let subject = policy.subject_named(subject).expect("subject");
    let resource = policy.resource_named(resource).expect("resource");
    policy.decide(&Question { subject: &subject, resource, action, now, grant })
}

pub(crate) fn rules(verdict: &Verdict) -> Vec<&str> {
    verdict.rules.iter().map(|rule| &**rule).collect()
}

#[track_caller]
pub(crate) fn allowed(verdict: Verdict) -> Obligations {
    match verdict.effect {
        Effect::Allow(allow) => allow.obligations,
        other => panic!("not allowed: {other:?} by {:?}", verdict.rules),
    }
}

#[track_caller]
pub(crate) fn denied(verdict: Verdict) -> (String, String) {
    match verdict.effect {
        Effect::Deny(denial) => (verdict.rules[0].to_string(), denial.reason),
        other => panic!("not denied: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn waits(verdict: Verdict) -> (Vec<String>, ApprovalTerms) {
    match verdict.effect {
        Effect::Approve(terms) => (verdict.rules.iter().map(ToString::to_string).collect(), terms),
        other => panic!("does not wait: {other:?}"),
    }
}

pub(crate) fn statement(kind: &'static str, class: Class) -> Statement {
    Statement {
        kind,
        nested: Vec::new(),
        class,
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
    }
}

/// `SELECT` that returns these columns (`schema.relation.column`) and nothing else.
pub(crate) fn select(columns: &[&str]) -> Statement {
    let mut select = statement("select", Class::Read);
    for column in columns {
        select = select.reads(column);
    }
    select
}

pub(crate) fn column(text: &str) -> Column {
    let parts: Vec<_> = text.split('.').map(str::to_owned).collect();
    match parts.as_slice() {
        [name] => Column { schema: None, relation: None, name: name.clone() },
        [relation, name] => Column { schema: None, relation: Some(relation.clone()), name: name.clone() },
        [schema, relation, name] => {
            Column { schema: Some(schema.clone()), relation: Some(relation.clone()), name: name.clone() }
        }
        _ => panic!("{text}"),
    }
}

pub(crate) trait Build: Sized {
    fn on(self, access: Access, relation: &str) -> Self;
    fn reads(self, column: &str) -> Self;
    fn uses(self, column: &str, change: impl Fn(&mut ColumnUse)) -> Self;
    fn filters(self, column: &str) -> Self;
    fn stores(self, column: &str) -> Self;
    fn writes(self, column: &str) -> Self;
    fn calls(self, function: &str) -> Self;
    fn sets(self, name: &str, value: Option<&str>) -> Self;
    fn with(self, nested: &'static str) -> Self;
    fn returns(self, outputs: Outputs) -> Self;
    fn opaque(self) -> Self;
}

impl Build for Statement {
    fn on(mut self, access: Access, relation: &str) -> Self {
        let (schema, name) = match relation.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name.to_owned()),
            None => (None, relation.to_owned()),
        };
        match self.relations.iter_mut().find(|known| known.schema == schema && known.name == name) {
            Some(known) => known.access = known.access.max(access),
            None => self.relations.push(RelationUse { schema, name, access }),
        }
        self
    }

    fn reads(mut self, text: &str) -> Self {
        let lineage = Lineage::Known(vec![column(text)]);
        self.outputs = match self.outputs {
            Outputs::Columns(mut columns) => {
                columns.push(lineage);
                Outputs::Columns(columns)
            }
            _ => Outputs::Columns(vec![lineage]),
        };
        self.uses(text, |used| used.output = true)
    }

    fn uses(mut self, text: &str, change: impl Fn(&mut ColumnUse)) -> Self {
        let column = column(text);
        if let Some((relation, _)) = text.rsplit_once('.') {
            self = self.on(Access::Read, relation);
        }
        if !self.columns.iter().any(|used| used.column == column) {
            let unused = ColumnUse {
                column: column.clone(),
                output: false,
                predicate: false,
                stored: false,
                fails: false,
                written: false,
                shown_through: false,
            };
            self.columns.push(unused);
        }
        self.columns.iter_mut().filter(|used| used.column == column).for_each(change);
        self
    }

    fn filters(self, column: &str) -> Self {
        self.uses(column, |used| used.predicate = true)
    }

    fn stores(self, column: &str) -> Self {
        self.uses(column, |used| used.stored = true)
    }

    fn writes(self, column: &str) -> Self {
        self.uses(column, |used| used.written = true)
    }

    fn calls(mut self, function: &str) -> Self {
        self.functions.push(function.into());
        self
    }

    fn sets(mut self, name: &str, value: Option<&str>) -> Self {
        self.settings.push((name.into(), value.map(str::to_owned)));
        self
    }

    fn with(mut self, nested: &'static str) -> Self {
        self.nested.push(nested);
        self
    }

    fn returns(mut self, outputs: Outputs) -> Self {
        self.outputs = outputs;
        self
    }

    fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }
}
