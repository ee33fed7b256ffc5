//! From an accepted connection to a session on a worker, or to a refusal that says why.

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use policy::Resource;
use tokio::net::TcpStream;

use super::Agent;
use crate::{
    audit::{AuditEvent, Context, Facts, Kind, Scope, Value, unix_ns},
    identity::Job,
    intercept::{Flow, Refused},
    kernel,
    session::{
        registry::{AtomicState, Live, Registration, State, Watchers, session_id},
        worker::Admitted,
    },
    telemetry::FlowResult,
};

/// Why a flow does not become a session.
#[derive(Debug, thiserror::Error)]
enum NotAdmitted {
    #[error("the job is not enrolled")]
    NoJob,
    #[error("the job's identity has ended; enrol again")]
    Ended,
    #[error("no resource at {0}")]
    NoResource(std::net::SocketAddr),
    #[error(transparent)]
    Full(#[from] crate::session::registry::Full),
    #[error("the accepted socket cannot be used: {0}")]
    Socket(std::io::Error),
    #[error("no session worker is running")]
    NoWorker,
}

impl NotAdmitted {
    fn result(&self) -> FlowResult {
        match self {
            Self::NoJob => FlowResult::Unidentified,
            Self::Ended => FlowResult::NoSubject,
            Self::NoResource(_) => FlowResult::NoResource,
            Self::Full(_) => FlowResult::Limit,
            Self::Socket(_) | Self::NoWorker => FlowResult::Abandoned,
        }
    }
}

impl Agent {
    /// Takes one intercepted connection on.
    pub(super) fn admit(self: &Arc<Self>, tcp: TcpStream, flow: &Flow) {
        // What becomes of the others is counted by their session.
        if let Err(why) = self.hand_over(tcp, flow) {
            self.shared.metrics.flow(why.result()).inc();
            self.log_refused(flow, &why.to_string());
        }
    }

    fn hand_over(&self, tcp: TcpStream, flow: &Flow) -> Result<(), NotAdmitted> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (resource, registration) = self.enter(flow)?;
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let worker = self.workers.get(turn % self.workers.len().max(1)).ok_or(NotAdmitted::NoWorker)?;
        // Sockets belong to a runtime; this one moves to the worker's.
        let tcp = tcp.into_std().map_err(NotAdmitted::Socket)?;
        match worker.serve(Admitted { flow: flow.clone(), resource, registration, tcp }) {
            true => Ok(()),
            false => Err(NotAdmitted::NoWorker),
        }
    }

    /// A connection that reached the listener without being a job's redirected one.
    pub(super) fn refuse(&self, refused: &Refused) {
        self.shared.metrics.flow(FlowResult::Unidentified).inc();
        tracing::warn!(%refused, "connection refused before it became a flow");
        let facts = Facts::verdict("deny", &["builtin:flow".into()], Some(&refused.to_string()));
        self.log(&AuditEvent { facts: Some(&facts), ..AuditEvent::new(unix_ns(), Kind::FlowRefused) });
    }

    fn enter(&self, flow: &Flow) -> Result<(Arc<Resource>, Registration), NotAdmitted> {
        let now = crate::clock::now();
        let job = self.enrolments.job(flow.job).ok_or(NotAdmitted::NoJob)?;
        if !job.active(now) {
            return Err(NotAdmitted::Ended);
        }
        let in_force = self.shared.policy.load();
        let resource =
            in_force.addresses.find(flow.original).ok_or(NotAdmitted::NoResource(flow.original))?;
        let limits = &self.shared.config.sessions;
        let registration = self.shared.registry.register(
            live(flow, &job, resource),
            limits.max_total,
            limits.max_per_job,
        )?;
        // Whatever ended the job before it was registered could not tell the session.
        if !self.enrolments.job(flow.job).is_some_and(|job| job.active(now)) {
            return Err(NotAdmitted::Ended);
        }
        Ok((Arc::clone(resource), registration))
    }

    /// The kernel refused something; whoever debugs a job wants to know.
    pub(super) fn kernel_refused(&self, refusal: &kernel::Refusal) {
        if let (kernel::Reason::UnknownNetns, Some(job), Some(namespaces)) =
            (refusal.reason, refusal.job, &self.namespaces)
        {
            let pid = refusal.process.as_ref().and_then(|process| i32::try_from(process.pid).ok());
            namespaces.refused(job, pid);
        }
        let process = refusal.process.as_ref().map(|p| record::Process {
            pid: p.pid,
            uid: p.uid,
            command: p.comm.clone(),
        });
        let context = Context::new(&Scope {
            job: refusal.job.map(|job| job.to_string()).as_deref(),
            process: process.as_ref(),
            destination: refusal.peer.map(|peer| peer.to_string()).as_deref(),
            ..Scope::default()
        });
        let mut extra =
            vec![("reason", Value::Text(refusal.reason.name())), ("hook", Value::Text(refusal.hook.name()))];
        let name = refusal.job.zip(refusal.peer).and_then(|(job, peer)| self.dns.name_of(job, peer.ip()));
        if let Some(name) = &name {
            extra.push(("name", Value::Text(name)));
        }
        let kind = if refusal.observed { Kind::KernelObserved } else { Kind::KernelDenied };
        self.log(&AuditEvent { context: Some(&context), extra: &extra, ..AuditEvent::new(unix_ns(), kind) });
    }

    fn log_refused(&self, flow: &Flow, why: &str) {
        tracing::warn!(job = flow.job, destination = %flow.original, pid = flow.process.pid, why, "connection refused");
        let context = Context::new(&Scope {
            job: Some(&flow.job.to_string()),
            process: Some(&record::Process {
                pid: flow.process.pid,
                uid: flow.process.uid,
                command: flow.process.comm.clone(),
            }),
            destination: Some(&flow.original.to_string()),
            ..Scope::default()
        });
        let facts = Facts::verdict("deny", &["builtin:admission".into()], Some(why));
        self.log(&AuditEvent {
            context: Some(&context),
            facts: Some(&facts),
            ..AuditEvent::new(unix_ns(), Kind::FlowRefused)
        });
    }
}

fn live(flow: &Flow, job: &Job, resource: &Resource) -> Live {
    Live {
        id: session_id(),
        job: job.cgroup_id,
        cgroup: job.cgroup.display().to_string(),
        subject: Arc::clone(&job.subject),
        resource: RwLock::new(Arc::clone(&resource.name)),
        client: flow.peer,
        upstream: flow.original,
        job_uid: job.uid,
        pid: flow.process.pid,
        uid: flow.process.uid,
        command: flow.process.comm.clone(),
        started: crate::clock::now(),
        login: std::sync::OnceLock::new(),
        state: AtomicState::new(State::Login),
        statements: AtomicU64::new(0),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
        backend: AtomicU32::new(0),
        watchers: Watchers::default(),
    }
}
