//! What an audit line says, and how it is put together cheaply.
//!
//! What is the same for a whole session is encoded once ([`Context`]), what is the same for every run of a
//! cached decision is encoded with the decision ([`Facts`]); a line is those two copied, and a few numbers.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

/// What kind of event a line tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    AgentStarted,
    AgentStopped,
    JobEnrolled,
    JobReleased,
    /// An enrolment that was not granted.
    EnrolmentRefused,
    /// A connection that never became a session.
    FlowRefused,
    SessionOpened,
    SessionClosed,
    /// Policy's answer to one action.
    Decision,
    /// An allowed action ended.
    Completed,
    ApprovalAsked,
    /// A person said yes or no; a quorum may need more of them.
    ApprovalVoted,
    /// What became of the request.
    ApprovalAnswered,
    PolicyLoaded,
    PolicyRefused,
    KernelDenied,
    /// The kernel would have denied it, and let it through: `kernel.mode` is observe.
    KernelObserved,
    /// The hooks of a job are not what they should be; it is refused everything.
    HookDrift,
    /// A call of the control API by someone who may not make it.
    ControlRefused,
    SessionKilled,
    /// Somebody looks on what a session's job is shown.
    SessionWatched,
    RecordingLost,
    /// A question to a resolver.
    Resolved,
    /// The gateway listens in a job's network namespace.
    NamespaceFollowed,
    /// It does not: a job stays refused in there.
    NamespaceRefused,
    /// Nobody of a job lives there any more.
    NamespaceLeft,
    /// The agent died while a session was open; its recording was closed by a later one.
    SessionCutOff,
    /// A role that was made for a job is gone.
    RoleDropped,
    /// What the server expects a statement to cost.
    Estimated,
    /// A statement waits for a lock, and who holds it.
    LockWait,
    /// A statement that ran was cancelled because of a limit.
    LimitExceeded,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::AgentStarted => "agent_started",
            Kind::AgentStopped => "agent_stopped",
            Kind::JobEnrolled => "job_enrolled",
            Kind::JobReleased => "job_released",
            Kind::EnrolmentRefused => "enrolment_refused",
            Kind::FlowRefused => "flow_refused",
            Kind::SessionOpened => "session_opened",
            Kind::SessionClosed => "session_closed",
            Kind::Decision => "decision",
            Kind::Completed => "completed",
            Kind::ApprovalAsked => "approval_asked",
            Kind::ApprovalVoted => "approval_voted",
            Kind::ApprovalAnswered => "approval_answered",
            Kind::PolicyLoaded => "policy_loaded",
            Kind::PolicyRefused => "policy_refused",
            Kind::KernelDenied => "kernel_denied",
            Kind::KernelObserved => "kernel_observed",
            Kind::HookDrift => "hook_drift",
            Kind::ControlRefused => "control_refused",
            Kind::SessionKilled => "session_killed",
            Kind::SessionWatched => "session_watched",
            Kind::RecordingLost => "recording_lost",
            Kind::Resolved => "resolved",
            Kind::NamespaceFollowed => "namespace_followed",
            Kind::NamespaceRefused => "namespace_refused",
            Kind::NamespaceLeft => "namespace_left",
            Kind::SessionCutOff => "session_cut_off",
            Kind::RoleDropped => "role_dropped",
            Kind::Estimated => "estimated",
            Kind::LockWait => "lock_wait",
            Kind::LimitExceeded => "limit_exceeded",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    /// Nanoseconds since 1970.
    pub at_unix_ns: u64,
    pub kind: Kind,
    pub context: Option<&'a Context>,
    pub facts: Option<&'a Facts>,
    /// What the gateway added: from the question's arrival to its answer.
    pub latency: Option<Duration>,
    /// The PostgreSQL error code that the client saw.
    pub sqlstate: Option<&'a str>,
    /// Anything else. Keys are JSON-safe literals.
    pub extra: &'a [(&'static str, Value<'a>)],
}

impl AuditEvent<'_> {
    /// An event about no session.
    pub fn new(at_unix_ns: u64, kind: Kind) -> Self {
        Self { at_unix_ns, kind, context: None, facts: None, latency: None, sqlstate: None, extra: &[] }
    }
}

/// A value of [`AuditEvent::extra`].
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Bool(bool),
    List(&'a [Arc<str>]),
    /// Shown in hexadecimal.
    Hash(&'a blake3::Hash),
}

/// Who and where; absent parts are left out of the line.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Scope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<&'a record::Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
}

/// A [`Scope`], encoded.
#[derive(Debug, Clone)]
pub struct Context(Box<[u8]>);

impl Context {
    pub fn new(scope: &Scope<'_>) -> Self {
        Self(fragment(scope))
    }
}

/// What was decided and why, encoded.
#[derive(Debug, Clone)]
pub struct Facts(Box<[u8]>);

#[derive(Serialize)]
struct FactsFields<'a> {
    verdict: &'a str,
    rules: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    statement_kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    masks: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Facts {
    /// `masks` are the ids of the masks that apply. `statement_hash` in the line is BLAKE3 of the text; the
    /// text itself is there only `with_text`. Facts about several texts have none.
    pub fn statement(
        verdict: &str,
        rules: &[Arc<str>],
        kind: &str,
        sql: Option<&str>,
        with_text: bool,
        masks: &[Arc<str>],
        reason: Option<&str>,
    ) -> Self {
        Self(fragment(&FactsFields {
            verdict,
            rules,
            statement_kind: Some(kind),
            statement_hash: sql.map(|sql| statement_hash(sql).to_hex().to_string()),
            statement: sql.filter(|_| with_text),
            masks,
            reason,
        }))
    }

    /// A decision about something other than a statement.
    pub fn verdict(verdict: &str, rules: &[Arc<str>], reason: Option<&str>) -> Self {
        Self(fragment(&FactsFields {
            verdict,
            rules,
            statement_kind: None,
            statement_hash: None,
            statement: None,
            masks: &[],
            reason,
        }))
    }
}

/// By which lines about one text are found, without telling it.
pub fn statement_hash(sql: &str) -> blake3::Hash {
    blake3::hash(sql.as_bytes())
}

/// The members of an object, each followed by the comma that the next one needs.
fn fragment(of: &impl Serialize) -> Box<[u8]> {
    // Plain structs of strings always serialise; an empty fragment still makes a valid line.
    let object = serde_json::to_vec(of).unwrap_or_default();
    let inner = object.strip_prefix(b"{").and_then(|inner| inner.strip_suffix(b"}")).unwrap_or_default();
    let comma: &[u8] = if inner.is_empty() { b"" } else { b"," };
    [inner, comma].concat().into()
}

/// Encodes lines; keeps the part of the time stamp that seldom changes.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    second: u64,
    stamp: String,
}

impl Encoder {
    /// Appends one line.
    pub(super) fn line(&mut self, event: &AuditEvent<'_>, to: &mut Vec<u8>) {
        to.extend_from_slice(b"{\"ts\":\"");
        self.time(event.at_unix_ns, to);
        to.extend_from_slice(b"\",");
        for part in [event.context.map(|c| &c.0), event.facts.map(|f| &f.0)].into_iter().flatten() {
            to.extend_from_slice(part);
        }
        if let Some(latency) = event.latency {
            let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            to.extend_from_slice(b"\"latency_us\":");
            number(ns / 1000, to);
            to.push(b'.');
            digits::<3>(ns % 1000, to);
            to.push(b',');
        }
        if let Some(sqlstate) = event.sqlstate {
            to.extend_from_slice(b"\"sqlstate\":");
            text(sqlstate, to);
            to.push(b',');
        }
        for (key, value) in event.extra {
            to.push(b'"');
            to.extend_from_slice(key.as_bytes());
            to.extend_from_slice(b"\":");
            match value {
                Value::Text(value) => text(value, to),
                Value::Number(value) => number(*value, to),
                Value::Hash(hash) => {
                    to.push(b'"');
                    to.extend_from_slice(hash.to_hex().as_bytes());
                    to.push(b'"');
                }
                Value::Bool(true) => to.extend_from_slice(b"true"),
                Value::Bool(false) => to.extend_from_slice(b"false"),
                Value::List(names) => {
                    to.push(b'[');
                    for (i, name) in names.iter().enumerate() {
                        if i > 0 {
                            to.push(b',');
                        }
                        text(name, to);
                    }
                    to.push(b']');
                }
            }
            to.push(b',');
        }
        to.extend_from_slice(b"\"event\":\"");
        to.extend_from_slice(event.kind.as_str().as_bytes());
        to.extend_from_slice(b"\"}\n");
    }

    /// RFC 3339 with microseconds.
    fn time(&mut self, unix_ns: u64, to: &mut Vec<u8>) {
        let (second, ns) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
        if second != self.second || self.stamp.is_empty() {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(second);
            self.stamp = humantime::format_rfc3339_seconds(at).to_string();
            self.stamp.pop();
            self.second = second;
        }
        to.extend_from_slice(self.stamp.as_bytes());
        to.push(b'.');
        digits::<6>(ns / 1000, to);
        to.push(b'Z');
    }
}

fn text(value: &str, to: &mut Vec<u8>) {
    // Tags, ids and codes need no escapes.
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        to.push(b'"');
        to.extend_from_slice(value.as_bytes());
        to.push(b'"');
        return;
    }
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(to, value);
}

fn number(mut value: u64, to: &mut Vec<u8>) {
    let start = to.len();
    loop {
        to.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    to[start..].reverse();
}

/// The last `N` decimal digits, with leading zeros.
fn digits<const N: usize>(mut value: u64, to: &mut Vec<u8>) {
    let mut out = [b'0'; N];
    for digit in out.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    to.extend_from_slice(&out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &AuditEvent<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        Encoder::default().line(event, &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_decision_says_everything() {
        let process = record::Process { pid: 7, uid: 1000, command: "ps\"ql\n".into() };
        let context = Context::new(&Scope {
            session: Some("s1"),
            subject: Some("payments-agent"),
            job: Some("j1"),
            process: Some(&process),
            resource: Some("orders"),
            database: Some("orders\u{2028}"),
            ..Scope::default()
        });
        let rules = ["read".into(), "pii".into()];
        let sql = "SELECT \"a\\\" FROM t -- \u{1}\n";
        let facts = Facts::statement("allow", &rules, "select", Some(sql), true, &rules[1..], None);
        let event = AuditEvent {
            context: Some(&context),
            facts: Some(&facts),
            latency: Some(Duration::from_nanos(12_045)),
            sqlstate: Some("42501"),
            extra: &[("rows", Value::Number(0)), ("tls", Value::Bool(true)), ("by", Value::List(&rules))],
            ..AuditEvent::new(1_800_000_000_000_012_999, Kind::Decision)
        };
        assert_eq!(
            line(&event),
            serde_json::json!({
                "ts": "2027-01-15T08:00:00.000012Z", "event": "decision",
                "session": "s1", "subject": "payments-agent", "job": "j1", "resource": "orders",
                "process": {"pid": 7, "uid": 1000, "command": "ps\"ql\n"},
                "database": "orders\u{2028}",
                "verdict": "allow", "rules": ["read", "pii"], "masks": ["pii"], "statement_kind": "select",
                "statement_hash": blake3::hash(sql.as_bytes()).to_hex().as_str(), "statement": sql,
                "latency_us": 12.045, "sqlstate": "42501", "rows": 0, "tls": true, "by": ["read", "pii"],
            })
        );
    }

    #[test]
    fn an_empty_event_is_still_a_line() {
        let context = Context::new(&Scope::default());
        let event = AuditEvent { context: Some(&context), ..AuditEvent::new(0, Kind::AgentStarted) };
        assert_eq!(
            line(&event),
            serde_json::json!({"ts": "1970-01-01T00:00:00.000000Z", "event": "agent_started"})
        );
    }

    #[test]
    fn statement_text_stays_out_unless_wanted() {
        let facts =
            Facts::statement("deny", &[], "select", Some("SELECT 'secret'"), false, &[], Some("no rule"));
        let event = AuditEvent { facts: Some(&facts), ..AuditEvent::new(0, Kind::Decision) };
        assert!(!line(&event).to_string().contains("secret"));
    }
}
