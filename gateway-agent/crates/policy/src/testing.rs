//! Expected decisions, kept beside a policy and checked against it.
//!
//! `NAME.tests.yaml` lists cases for `NAME.yaml`. How SQL becomes statements is the caller's to bring.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    action::{Action, Column, Connect, Lineage, Outputs, Statement},
    builtin,
    diagnostic::{self, Diagnostic},
    dns::{NameEffect, NameQuestion, RecordKind},
    facts::write_column,
    gate::{Estimate, Gates, Judgement, Planned},
    http::{Http, HttpCase},
    kubernetes::{Kubernetes, KubernetesCase},
    model::{Resource, Subject},
    policy::{Policy, Question, Source},
    ssh::{Exec, SshCase},
    verdict::{Effect, OutputMasks, UnixTime},
};

/// One expected decision.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// A subject by name; or
    pub subject: Option<String>,
    /// the claims of a token, `iss` among them.
    pub claims: Option<BTreeMap<String, Value>>,
    /// With `sql`, `connect`, `ssh`, `http` or `kubernetes`.
    pub resource: Option<String>,
    /// Statements, decided one by one; the strictest answer counts. Or
    pub sql: Option<String>,
    /// a connection. Or
    pub connect: Option<ConnectCase>,
    /// a request to an SSH host. Or
    pub ssh: Option<SshCase>,
    /// a request to an HTTP host. Or
    pub http: Option<HttpCase>,
    /// a request to an API server. Or
    pub kubernetes: Option<KubernetesCase>,
    /// What the server's planner is supposed to say of every statement. Without it, limits on estimates are not looked
    /// at.
    pub estimate: Option<EstimateCase>,
    /// a name to resolve.
    pub dns: Option<DnsCase>,
    /// RFC 3339 time of the decision; now when missing.
    pub at: Option<String>,
    pub expect: Expected,
    /// A rule that must be among those that decided.
    pub rule: Option<String>,
    /// Exactly the result columns that are masked: by position from 1, or by the base column they derive
    /// from. `"*"` = all of them, because they cannot be told apart.
    pub masked: Option<Vec<MaskedColumn>>,
}

/// A connection to be decided.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectCase {
    pub database: String,
}

/// A supposed estimate.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EstimateCase {
    pub cost: f64,
    pub rows: u64,
}

/// A name to be resolved.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsCase {
    pub name: String,
    /// Default: A.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// An expected answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    Allow,
    Approve,
    Deny,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Approve => "approve",
            Self::Deny => "deny",
        })
    }
}

/// A result column of a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MaskedColumn {
    Position(usize),
    Name(String),
}

/// What became of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub name: String,
    pub file: String,
    pub line: usize,
    /// What was wrong; empty = the case holds.
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Cases of one file, each with its line.
#[derive(Debug, Clone)]
pub struct Cases {
    file: String,
    cases: Vec<(usize, Case)>,
}

/// Reads a file of cases.
pub fn cases(source: &Source) -> Result<Cases, Vec<Diagnostic>> {
    if let Some(duplicate) = diagnostic::duplicate_key(&source.name, &source.text) {
        return Err(vec![duplicate]);
    }
    let cases: Vec<Case> = serde_yaml::from_str(&source.text)
        .map_err(|error| vec![diagnostic::from_yaml(&source.name, &error)])?;
    let mut wrong = Vec::new();
    let mut located = Vec::with_capacity(cases.len());
    for (index, case) in cases.into_iter().enumerate() {
        let (line, column) = diagnostic::locate(&source.text, &[index.into()]);
        let complaint = if case.subject.is_some() == case.claims.is_some() {
            Some(("a case has either `subject` or `claims`", "name one of the two"))
        } else if [
            case.sql.is_some(),
            case.connect.is_some(),
            case.dns.is_some(),
            case.ssh.is_some(),
            case.http.is_some(),
            case.kubernetes.is_some(),
        ]
        .iter()
        .filter(|is| **is)
        .count()
            != 1
        {
            Some((
                "a case has either `sql` or `connect` or `dns` or `ssh` or `http` or `kubernetes`",
                "name one of them",
            ))
        } else if case.resource.is_some() == case.dns.is_some() {
            Some(("statements and connections need a `resource`, names have none", "add or drop `resource`"))
        } else if case.at.as_deref().is_some_and(|at| humantime::parse_rfc3339(at).is_err()) {
            Some(("`at` is not a time", "write it in UTC like 2027-01-31T00:00:00Z"))
        } else {
            None
        };
        if let Some((message, hint)) = complaint {
            wrong.push(Diagnostic {
                file: source.name.clone(),
                line,
                column,
                message: format!("case {:?}: {message}", case.name),
                hint: hint.to_owned(),
            });
        }
        located.push((line, case));
    }
    match wrong.is_empty() {
        true => Ok(Cases { file: source.name.clone(), cases: located }),
        false => Err(wrong),
    }
}

/// Decides every case. `analyse` reads SQL; text that it refuses is denied by [`builtin::UNPARSABLE`]. `read` reads command
/// lines, `request` requests; one that it refuses is denied by [`builtin::HTTP`], and
/// `api` those to API servers, which [`builtin::KUBERNETES`] denies then.
pub fn run<E: fmt::Display>(
    policy: &Policy,
    cases: &Cases,
    now: UnixTime,
    analyse: impl Fn(&str) -> Result<Vec<Statement>, E>,
    read: impl Fn(&str) -> Exec,
    request: impl Fn(&HttpCase) -> Result<Http, String>,
    api: impl Fn(&KubernetesCase) -> Result<Kubernetes, String>,
) -> Vec<Outcome> {
    let outcome = |(line, case): &(usize, Case)| Outcome {
        name: case.name.clone(),
        file: cases.file.clone(),
        line: *line,
        failures: check(policy, case, now, &analyse, &read, &request, &api).err().unwrap_or_default(),
    };
    cases.cases.iter().map(outcome).collect()
}

/// One answer of a case, with what it takes to judge it.
struct Answer {
    effect: Expected,
    rules: Vec<Arc<str>>,
    reason: String,
    masked: Vec<Hidden>,
}

fn check<E: fmt::Display>(
    policy: &Policy,
    case: &Case,
    now: UnixTime,
    analyse: &impl Fn(&str) -> Result<Vec<Statement>, E>,
    read: &impl Fn(&str) -> Exec,
    request: &impl Fn(&HttpCase) -> Result<Http, String>,
    api: &impl Fn(&KubernetesCase) -> Result<Kubernetes, String>,
) -> Result<(), Vec<String>> {
    let subject = subject(policy, case).map_err(|failure| vec![failure])?;
    let now = case
        .at
        .as_deref()
        .and_then(|at| humantime::parse_rfc3339(at).ok())
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(now, |since| UnixTime(since.as_secs()));
    let answer = match (&case.dns, &case.resource) {
        (Some(dns), _) => name_answer(policy, dns, &subject, now),
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            let resource = policy
                .resource_named(name)
                .ok_or_else(|| vec![format!("the policy has no resource `{name}`")])?;
            let ssh =
                case.ssh.as_ref().map(|case| case.action(read)).transpose().map_err(|wrong| vec![wrong])?;
            let http = case.http.as_ref().map(request);
            let refused = |rule: &'static str| move |refused: String| (rule, refused);
            let of_http = || http.map(|http| http.map(Action::Http).map_err(refused(builtin::HTTP)));
            let of_kubernetes = || {
                let read = api(case.kubernetes.as_ref()?);
                let read = read.map(|action| Action::Kubernetes(Box::new(action)));
                Some(read.map_err(refused(builtin::KUBERNETES)))
            };
            let asked = ssh.map(|ssh| Ok(Action::Ssh(ssh))).or_else(of_http).or_else(of_kubernetes);
            answer(policy, case, asked, &subject, resource, now, analyse)
        }
    };

    let mut failures = Vec::new();
    if answer.effect != case.expect {
        failures.push(format!(
            "expected {}, got {} by {}{}",
            case.expect,
            answer.effect,
            answer.rules.join(", "),
            answer.reason
        ));
    }
    if let Some(rule) = &case.rule
        && !answer.rules.iter().any(|decided| **decided == **rule)
    {
        failures.push(format!("expected rule {rule} to decide, it was {}", answer.rules.join(", ")));
    }
    if let Some(expected) = &case.masked {
        let all_found = expected.iter().all(|column| answer.masked.iter().any(|found| found.is(column)));
        let all_expected = answer.masked.iter().all(|found| expected.iter().any(|column| found.is(column)));
        if !all_found || !all_expected {
            failures.push(format!(
                "expected masked columns {}, got {}",
                show(expected),
                show(&answer.masked)
            ));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

fn subject(policy: &Policy, case: &Case) -> Result<Arc<Subject>, String> {
    match (&case.subject, &case.claims) {
        (Some(name), _) => {
            policy.subject_named(name).ok_or_else(|| format!("the policy has no subject `{name}`"))
        }
        (None, Some(claims)) => {
            let issuer = claims.get("iss").and_then(Value::as_str).ok_or("claims without `iss`")?;
            let claims = Value::Object(claims.clone().into_iter().collect());
            policy.subject(issuer, &claims).map_err(|denial| denial.reason)
        }
        (None, None) => Err("no subject".into()),
    }
}

fn name_answer(policy: &Policy, case: &DnsCase, subject: &Subject, now: UnixTime) -> Answer {
    let name = case.name.trim_end_matches('.').to_ascii_lowercase();
    let kind = RecordKind::from_name(case.kind.as_deref().unwrap_or("A"));
    let verdict = policy.resolve(&NameQuestion { subject: &subject.name, name: &name, kind, now });
    let (effect, reason) = match verdict.effect {
        NameEffect::Resource | NameEffect::Allow => (Expected::Allow, String::new()),
        NameEffect::Deny(denial) => (Expected::Deny, format!(": {}", denial.reason)),
    };
    Answer { effect, rules: verdict.rules, reason, masked: Vec::new() }
}

fn answer<E: fmt::Display>(
    policy: &Policy,
    case: &Case,
    asked: Option<Result<Action, (&'static str, String)>>,
    subject: &Subject,
    resource: &Resource,
    now: UnixTime,
    analyse: &impl Fn(&str) -> Result<Vec<Statement>, E>,
) -> Answer {
    let actions = match (asked, &case.connect, &case.sql) {
        (Some(Ok(action)), ..) => vec![action],
        (Some(Err((rule, refused))), ..) => {
            return Answer {
                effect: Expected::Deny,
                rules: vec![rule.into()],
                reason: format!(": {refused}"),
                masked: Vec::new(),
            };
        }
        (None, Some(connect), _) => vec![Action::Connect(Connect {
            database: connect.database.clone(),
            user: "job".into(),
            application: "policy test".into(),
        })],
        (None, None, sql) => match analyse(sql.as_deref().unwrap_or_default()) {
            Ok(statements) => statements.into_iter().map(Action::Statement).collect(),
            Err(_) if policy.lets_everything(subject, resource) => {
                vec![Action::Statement(Statement::unread())]
            }
            Err(refused) => {
                return Answer {
                    effect: Expected::Deny,
                    rules: vec![builtin::UNPARSABLE.into()],
                    reason: format!(": {refused}"),
                    masked: Vec::new(),
                };
            }
        },
    };
    let mut strictest =
        Answer { effect: Expected::Allow, rules: Vec::new(), reason: String::new(), masked: Vec::new() };
    for action in &actions {
        let mut verdict = policy.decide(&Question { subject, resource, action, now, grant: None });
        let (effect, reason, masked) = match verdict.effect {
            Effect::Allow(allow) => match case
                .estimate
                .map_or(Judgement::Within, |of| judge(allow.obligations.gates.as_deref(), of))
            {
                Judgement::Within => {
                    (Expected::Allow, String::new(), masked(&allow.obligations.outputs, action))
                }
                Judgement::Ask { rules, why, .. } => {
                    verdict.rules = rules;
                    (Expected::Approve, format!(": {why}"), Vec::new())
                }
                Judgement::Beyond { rule, why, .. } => {
                    verdict.rules = vec![rule];
                    (Expected::Deny, format!(": {why}"), Vec::new())
                }
            },
            Effect::Approve(_) => {
                let gates = verdict.ahead.as_ref().and_then(|ahead| ahead.gates.as_deref());
                match case.estimate.map_or(Judgement::Within, |of| judge(gates, of)) {
                    Judgement::Within => (Expected::Approve, String::new(), Vec::new()),
                    Judgement::Ask { rules, why, .. } => {
                        verdict.rules.extend(rules);
                        (Expected::Approve, format!(": {why}"), Vec::new())
                    }
                    Judgement::Beyond { rule, why, .. } => {
                        verdict.rules = vec![rule];
                        (Expected::Deny, format!(": {why}"), Vec::new())
                    }
                }
            }
            Effect::Deny(denial) => (Expected::Deny, format!(": {}", denial.reason), Vec::new()),
        };
        strictest.masked.extend(masked);
        if effect > strictest.effect || strictest.rules.is_empty() {
            strictest = Answer { effect, rules: verdict.rules, reason, masked: strictest.masked };
        }
    }
    strictest
}

/// What the limits on estimates say.
fn judge(gates: Option<&Gates>, of: EstimateCase) -> Judgement {
    let planned = Planned::Estimate(Estimate { cost: of.cost, rows: of.rows });
    let gates = gates.map(|gates| gates.before.as_slice()).unwrap_or_default();
    let judged = gates.iter().filter(|gate| gate.needs_estimate()).map(|gate| gate.judge(&planned, 0));
    judged.fold(Judgement::Within, Judgement::and)
}

/// A masked result column.
#[derive(Debug)]
enum Hidden {
    /// All of them.
    All,
    /// One, and the base columns that it derives from as far as that is known.
    Column { position: usize, from: Vec<String> },
}

impl Hidden {
    fn is(&self, expected: &MaskedColumn) -> bool {
        match (self, expected) {
            (Self::All, MaskedColumn::Name(name)) => name == "*",
            (Self::Column { position, .. }, MaskedColumn::Position(at)) => position == at,
            (Self::Column { from, .. }, MaskedColumn::Name(name)) => from.iter().any(|column| {
                column.strip_suffix(name.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.'))
            }),
            (Self::All, MaskedColumn::Position(_)) => false,
        }
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Column { position, from } if from.is_empty() => write!(f, "{position}"),
            Self::Column { position, from } => write!(f, "{position} ({})", from.join(", ")),
        }
    }
}

impl fmt::Display for MaskedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(at) => write!(f, "{at}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn masked(outputs: &OutputMasks, action: &Action) -> Vec<Hidden> {
    let masks = match outputs {
        OutputMasks::None => return Vec::new(),
        OutputMasks::Unknown => return vec![Hidden::All],
        OutputMasks::Columns(masks) => masks,
    };
    let lineages = match action {
        Action::Statement(Statement { outputs: Outputs::Columns(lineages), .. }) => lineages.as_slice(),
        _ => &[],
    };
    let from = |at: usize| match lineages.get(at) {
        Some(Lineage::Known(columns)) => columns.iter().map(name).collect(),
        _ => Vec::new(),
    };
    let positions = masks.iter().enumerate().filter(|(_, mask)| mask.is_some());
    positions.map(|(at, _)| Hidden::Column { position: at + 1, from: from(at) }).collect()
}

fn name(column: &Column) -> String {
    let mut text = String::new();
    let _ = write_column(&mut text, column);
    text
}

fn show<T: fmt::Display>(columns: &[T]) -> String {
    let names: Vec<_> = columns.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
