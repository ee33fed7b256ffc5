//! The resolver that jobs reach at port 53 of any address.
//!
//! Every question belongs to a job, exactly as a flow does. Policy says which names and record types its subject may
//! ask for; limits bound what it could tell the world by asking. Names of resources are answered from the addresses
//! that the kernel redirects, the rest by the upstream resolvers. Answers open nothing.

mod asked;
mod message;
mod serve;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata},
};
use policy::{NameEffect, NameQuestion, RecordKind, builtin};
use tokio::sync::Semaphore;

use self::{
    asked::Asked,
    message::{Extended, Question},
};
use crate::{
    audit::{AuditEvent, Context, Facts, Kind, Scope, Value, unix_ns},
    identity::{Enrolments, Job},
    intercept::Flow,
    session::Shared,
    telemetry::{DnsResult, Verdict},
    upstream::Names,
};

/// Questions that are being answered at once, over all jobs.
const IN_FLIGHT: usize = 1024;

/// The resolver.
pub struct Front {
    shared: Arc<Shared>,
    enrolments: Arc<Enrolments>,
    names: Names,
    jobs: Mutex<HashMap<u64, Asked>>,
    in_flight: Arc<Semaphore>,
}

/// Why a question is not answered with records.
struct Refusal {
    result: DnsResult,
    code: ResponseCode,
    why: Extended,
    rules: Vec<Arc<str>>,
    reason: String,
    hint: String,
}

impl Refusal {
    fn by(result: DnsResult, why: Extended, rule: &str, reason: String, hint: &str) -> Self {
        let (rules, hint) = (vec![rule.into()], hint.to_owned());
        Self { result, code: ResponseCode::Refused, why, rules, reason, hint }
    }

    fn limit(reason: String) -> Self {
        let hint = "ask less, or raise `dns.limits` in the policy";
        Self::by(DnsResult::Limited, Extended::Prohibited, builtin::DNS_LIMIT, reason, hint)
    }
}

/// What the records of an answer come from.
struct Granted {
    rules: Vec<Arc<str>>,
    result: DnsResult,
    code: ResponseCode,
    records: Vec<Record>,
}

impl Front {
    pub fn new(shared: Arc<Shared>, enrolments: Arc<Enrolments>, names: Names) -> Self {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { shared, enrolments, names, jobs: Mutex::default(), in_flight }
    }

    /// The name under which a job was told of an address, for whoever reads the log.
    pub fn name_of(&self, job: u64, address: IpAddr) -> Option<Arc<str>> {
        self.jobs().get(&job)?.name_of(address)
    }

    /// Forgets jobs that are gone. Call it now and then.
    pub fn sweep(&self) {
        let known: std::collections::HashSet<u64> =
            self.enrolments.all().iter().map(|job| job.cgroup_id).collect();
        self.jobs().retain(|job, _| known.contains(job));
    }

    /// The answer to one message of a job, if it gets one.
    async fn answer(&self, bytes: &[u8], flow: &Flow, udp: bool) -> Option<Vec<u8>> {
        let question = match message::read(bytes) {
            message::Asked::Question(question) => question,
            message::Asked::Not(request, code) => {
                self.count(DnsResult::Malformed);
                return message::not_a_question(&request, code);
            }
            message::Asked::Malformed => {
                self.count(DnsResult::Malformed);
                return None;
            }
        };
        let job = self.enrolments.job(flow.job);
        let decided = match &job {
            Some(job) => self.decide(&question, job).await,
            None => Err(Refusal::by(
                DnsResult::Refused,
                Extended::Prohibited,
                "builtin:admission",
                "the job's identity has ended".to_owned(),
                "enrol again",
            )),
        };
        let limit = usize::from(self.shared.policy.load().policy.name_limits().response_bytes);
        let decided = decided.and_then(|granted| {
            let message = question.answer(granted.code, granted.records.clone());
            // What it is on the wire, whichever way it goes.
            match question.encode(&message, false) {
                Some(bytes) if bytes.len() <= limit => Ok((granted, message)),
                _ => Err(Refusal::limit(format!("the answer is longer than {limit} bytes"))),
            }
        });
        let response = match decided {
            Ok((granted, message)) => self.grant(&question, flow, job.as_deref(), &granted, message),
            Err(refusal) => self.refuse(&question, flow, job.as_deref(), &refusal),
        };
        question.encode(&response, udp)
    }

    async fn decide(&self, question: &Question, job: &Job) -> Result<Granted, Refusal> {
        let in_force = self.shared.policy.load_full();
        let limits = in_force.policy.name_limits();
        let now = Instant::now();
        let allowed =
            self.jobs().entry(job.cgroup_id).or_insert_with(|| Asked::new(limits, now)).question(limits, now);
        if !allowed {
            return Err(Refusal::limit(format!("more than {} questions a second", limits.per_second)));
        }
        let kind = question.query.query_type();
        let verdict = in_force.policy.resolve(&NameQuestion {
            subject: &job.subject,
            name: &question.name,
            kind: RecordKind::from_name(kind.into()),
            now: crate::clock::now(),
        });
        match verdict.effect {
            NameEffect::Deny(denial) => Err(Refusal {
                result: DnsResult::Refused,
                code: ResponseCode::Refused,
                why: Extended::Blocked,
                rules: verdict.rules,
                reason: denial.reason,
                hint: denial.hint,
            }),
            NameEffect::Resource => {
                let Some((addresses, ttl)) = in_force.addresses.of_name(&question.name) else {
                    return Err(
                        self.failed(verdict.rules, "the resource's name does not resolve now".to_owned())
                    );
                };
                let ttl = u32::try_from(ttl.as_secs()).unwrap_or(1).max(1);
                let records = addresses.into_iter().filter_map(|address| {
                    let data = match (address, kind) {
                        (IpAddr::V4(v4), RecordType::A) => RData::A(rdata::A(v4)),
                        (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(rdata::AAAA(v6)),
                        _ => return None,
                    };
                    Some(Record::from_rdata(question.query.name().clone(), ttl, data))
                });
                Ok(Granted {
                    rules: verdict.rules,
                    result: DnsResult::Resource,
                    code: ResponseCode::NoError,
                    records: records.collect(),
                })
            }
            NameEffect::Allow => {
                self.bounded(question, job, limits)?;
                match self.names.ask(question.query.name(), kind).await {
                    Ok(answer) => Ok(Granted {
                        rules: verdict.rules,
                        result: DnsResult::Allowed,
                        code: answer.code,
                        records: answer.records,
                    }),
                    Err(error) => Err(self.failed(verdict.rules, error.to_string())),
                }
            }
        }
    }

    /// What a name could carry out is bounded before it goes out.
    fn bounded(&self, question: &Question, job: &Job, limits: &policy::NameLimits) -> Result<(), Refusal> {
        if question.name.len() > usize::from(limits.name_bytes) {
            return Err(Refusal::limit(format!("the name is longer than {} bytes", limits.name_bytes)));
        }
        if question.query.name().num_labels() > limits.labels {
            return Err(Refusal::limit(format!("the name has more than {} labels", limits.labels)));
        }
        let now = Instant::now();
        let mut jobs = self.jobs();
        let asked = jobs.entry(job.cgroup_id).or_insert_with(|| Asked::new(limits, now));
        if !asked.name(&question.name, limits, now) {
            return Err(Refusal::limit(format!(
                "more than {} different names in a minute",
                limits.names_per_minute
            )));
        }
        Ok(())
    }

    fn failed(&self, rules: Vec<Arc<str>>, reason: String) -> Refusal {
        Refusal {
            result: DnsResult::Failed,
            code: ResponseCode::ServFail,
            why: Extended::NetworkError,
            rules,
            reason,
            hint: "see `dns.upstreams` in the agent's configuration".to_owned(),
        }
    }

    /// Writes about an answer and gives it, or refuses what cannot be written about.
    fn grant(
        &self,
        question: &Question,
        flow: &Flow,
        job: Option<&Job>,
        granted: &Granted,
        message: Message,
    ) -> Message {
        let addresses: Vec<IpAddr> =
            granted.records.iter().filter_map(|record| record.data.ip_addr()).collect();
        let shown: Vec<Arc<str>> = addresses.iter().map(|address| address.to_string().into()).collect();
        let facts = Facts::verdict("allow", &granted.rules, None);
        let extra = [("addresses", Value::List(&shown))];
        if !self.log(question, flow, job, &facts, &extra) {
            let text = "the question cannot be written to the audit log";
            self.count(DnsResult::Failed);
            return question.refuse(ResponseCode::ServFail, Extended::Other, text);
        }
        self.count(granted.result);
        self.shared.metrics.decided(Verdict::Allow, &granted.rules);
        if let Some(asked) = self.jobs().get_mut(&flow.job) {
            asked.tell(&question.name.as_str().into(), addresses.into_iter());
        }
        message
    }

    fn refuse(&self, question: &Question, flow: &Flow, job: Option<&Job>, refusal: &Refusal) -> Message {
        self.count(refusal.result);
        let denied = refusal.result != DnsResult::Failed;
        if denied {
            self.shared.metrics.decided(Verdict::Deny, &refusal.rules);
        }
        let due = refusal.result != DnsResult::Limited
            || self.jobs().get_mut(&flow.job).is_none_or(|asked| asked.complain(Instant::now()));
        if due {
            let verdict = if denied { "deny" } else { "failed" };
            let facts = Facts::verdict(verdict, &refusal.rules, Some(&refusal.reason));
            self.log(question, flow, job, &facts, &[]);
        }
        let text = match refusal.rules.first() {
            Some(rule) if denied => format!("rule {rule}: {}; {}", refusal.reason, refusal.hint),
            _ => format!("{}; {}", refusal.reason, refusal.hint),
        };
        question.refuse(refusal.code, refusal.why, &text)
    }

    fn log(
        &self,
        question: &Question,
        flow: &Flow,
        job: Option<&Job>,
        facts: &Facts,
        more: &[(&'static str, Value<'_>)],
    ) -> bool {
        let context = Context::new(&Scope {
            subject: job.map(|job| &*job.subject),
            job: Some(&flow.job.to_string()),
            process: Some(&record::Process {
                pid: flow.process.pid,
                uid: flow.process.uid,
                command: flow.process.comm.clone(),
            }),
            destination: Some(&flow.original.to_string()),
            ..Scope::default()
        });
        let kind = question.query.query_type().to_string();
        let mut extra = vec![("name", Value::Text(&question.name)), ("type", Value::Text(&kind))];
        extra.extend(more);
        let event = AuditEvent {
            context: Some(&context),
            facts: Some(facts),
            extra: &extra,
            ..AuditEvent::new(unix_ns(), Kind::Resolved)
        };
        match self.shared.audit.log(&event) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, event = Kind::Resolved.as_str(), "audit event lost");
                false
            }
        }
    }

    fn count(&self, result: DnsResult) {
        self.shared.metrics.dns(result).inc();
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<u64, Asked>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
