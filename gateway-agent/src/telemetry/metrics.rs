//! The metric registry.
//!
//! Everything that is counted per query is an array element or a handle kept with the decision: counting never looks
//! a label up. Label values come from code and from policy, never from a peer.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, proto::MetricType,
};

use super::source::{Sample, Source};
use crate::audit::{Audit, Recorder};

/// Rule ids that get a series of their own; later ones count as `other`.
const RULES: usize = 500;

/// Why the registry could not be made.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// A closed set of values of one label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

labels! {
    /// What became of an intercepted connection.
    FlowResult {
        /// Became a session.
        Opened = "opened",
        /// No original destination, unknown job, or the kernel and the socket disagree.
        Unidentified = "unidentified",
        /// No subject for the job's identity.
        NoSubject = "no_subject",
        /// No resource at the destination.
        NoResource = "no_resource",
        /// Not the protocol of the resource, or malformed.
        Protocol = "protocol",
        /// Policy refused the connection.
        Denied = "denied",
        /// Too many sessions.
        Limit = "limit",
        /// Nothing came in time.
        Timeout = "timeout",
        /// The client left before it had a session.
        Abandoned = "abandoned",
        /// The upstream could not be reached or refused the login.
        Upstream = "upstream",
        /// Required recording or audit could not be written.
        Unrecorded = "unrecorded",
        /// A cancel request, forwarded.
        Cancel = "cancel",
    }
}

labels! {
    /// What became of a question to a resolver.
    DnsResult {
        /// Asked upstream and answered.
        Allowed = "allowed",
        /// Answered with the addresses of a resource.
        Resource = "resource",
        /// Not allowed by policy.
        Refused = "refused",
        /// Over a limit.
        Limited = "limited",
        /// Not a question, or not one that can be read.
        Malformed = "malformed",
        /// No job could be found that asked it.
        Unidentified = "unidentified",
        /// The upstream did not answer, or the answer could not be audited.
        Failed = "failed",
        /// Too many questions or connections at once.
        Overloaded = "overloaded",
    }
}

labels! {
    /// How policy answered.
    Verdict { Allow = "allow", Approve = "approve", Deny = "deny" }
}

labels! {
    /// How an approval ended.
    ApprovalOutcome {
        Approved = "approved",
        Denied = "denied",
        Expired = "expired",
        /// The client went away while it waited.
        Abandoned = "abandoned",
    }
}

labels! {
    /// Where time goes.
    Phase {
        /// TCP and TLS to the upstream.
        Connect = "connect",
        /// From the client's first byte until it may send statements.
        Login = "login",
        /// Parsing and deciding a statement that is not in the cache.
        Analyse = "analyse",
        /// Asking the server what a statement will cost.
        Estimate = "estimate",
        /// Waiting for a lock, as seen from beside the session.
        LockWait = "lock_wait",
        /// From forwarding a statement to its end.
        Statement = "statement",
        /// A human's answer.
        Approval = "approval_wait",
    }
}

labels! {
    /// Which way bytes went, seen from the job.
    Direction { FromJob = "from_job", ToJob = "to_job" }
}

/// All metrics of one agent. Handles are cheap to clone and safe to use from any thread.
pub struct Metrics {
    registry: Registry,
    flows: Vec<IntCounter>,
    dns: Vec<IntCounter>,
    pub sessions: IntGauge,
    decisions: IntCounterVec,
    rules: Mutex<HashSet<String>>,
    pub approvals_waiting: IntGauge,
    approvals: Vec<IntCounter>,
    phases: Vec<Histogram>,
    transferred: Vec<IntCounter>,
    pub masked_cells: IntCounter,
    pub jobs: IntGauge,
    enrolments: IntCounterVec,
    pub control_refused: IntCounter,
    policy: IntGaugeVec,
    policy_loaded: Gauge,
    policy_reloads: [IntCounter; 2],
    limits: IntCounterVec,
    lock_waits: IntCounterVec,
}

impl Metrics {
    /// Its own registry: two agents in one process do not meet.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("gateway_build_info", "Version of the running agent; always 1."),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let buckets = prometheus::exponential_buckets(1e-6, 4.0, 15)?;
        let phases = HistogramVec::new(
            HistogramOpts::new(
                "gateway_phase_duration_seconds",
                "Time spent, by phase of a session or statement.",
            )
            .buckets(buckets),
            &["phase"],
        )?;
        registry.register(Box::new(phases.clone()))?;

        let reloads = counters(
            &registry,
            "gateway_policy_reloads_total",
            "Attempts to load a policy, by result.",
            "result",
            &["success", "failure"],
        )?;
        let [success, failure] =
            <[IntCounter; 2]>::try_from(reloads).map_err(|_| prometheus::Error::Msg("two results".into()))?;

        let metrics = Self {
            flows: counters(
                &registry,
                "gateway_flows_total",
                "Intercepted connections, by what became of them.",
                "result",
                &FlowResult::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>(),
            )?,
            dns: counters(
                &registry,
                "gateway_dns_questions_total",
                "Questions of jobs to resolvers, by what became of them.",
                "result",
                &DnsResult::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>(),
            )?,
            sessions: register(&registry, IntGauge::new("gateway_sessions_active", "Sessions open now.")?)?,
            decisions: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("gateway_decisions_total", "Decisions, by verdict and deciding rule."),
                    &["verdict", "rule"],
                )?,
            )?,
            rules: Mutex::default(),
            approvals_waiting: register(
                &registry,
                IntGauge::new("gateway_approvals_waiting", "Actions that wait for a human now.")?,
            )?,
            approvals: counters(
                &registry,
                "gateway_approvals_total",
                "Approval requests that ended, by outcome.",
                "outcome",
                &ApprovalOutcome::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>(),
            )?,
            phases: Phase::ALL.iter().map(|phase| phases.with_label_values(&[phase.as_str()])).collect(),
            transferred: counters(
                &registry,
                "gateway_transferred_bytes_total",
                "Bytes forwarded, by direction.",
                "direction",
                &Direction::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>(),
            )?,
            masked_cells: register(
                &registry,
                IntCounter::new("gateway_masked_cells_total", "Result cells replaced by a mask.")?,
            )?,
            jobs: register(&registry, IntGauge::new("gateway_jobs", "Jobs that are enrolled now.")?)?,
            enrolments: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("gateway_enrolments_total", "Enrolments, by result: enrolled, or why not."),
                    &["result"],
                )?,
            )?,
            control_refused: register(
                &registry,
                IntCounter::new(
                    "gateway_control_refused_total",
                    "Calls of the control API by someone who may not make them.",
                )?,
            )?,
            policy: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("gateway_policy_info", "Version of the policy in force; always 1."),
                    &["version"],
                )?,
            )?,
            policy_loaded: register(
                &registry,
                Gauge::new(
                    "gateway_policy_last_success_timestamp_seconds",
                    "When a policy was last loaded successfully.",
                )?,
            )?,
            policy_reloads: [success, failure],
            limits: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "gateway_limits_exceeded_total",
                        "Limits that were exceeded, and what was done.",
                    ),
                    &["limit", "action"],
                )?,
            )?,
            lock_waits: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "gateway_lock_waits_total",
                        "Statements seen waiting for a lock, by who held it: a session of a job, or someone else.",
                    ),
                    &["blocker"],
                )?,
            )?,
            registry,
        };
        Ok(metrics)
    }

    pub fn flow(&self, result: FlowResult) -> &IntCounter {
        &self.flows[result as usize]
    }

    pub fn dns(&self, result: DnsResult) -> &IntCounter {
        &self.dns[result as usize]
    }

    /// A handle to keep with a cached decision. Rules beyond the first 500 share the label `other`.
    pub fn decision(&self, verdict: Verdict, rule: &str) -> IntCounter {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rules.contains(rule) || (rules.len() < RULES && rules.insert(rule.to_owned()));
        drop(rules);
        self.decisions.with_label_values(&[verdict.as_str(), if known { rule } else { "other" }])
    }

    /// A decision by these rules, counted once each.
    pub fn decided(&self, verdict: Verdict, rules: &[Arc<str>]) {
        rules.iter().for_each(|rule| self.decision(verdict, rule).inc());
    }

    /// `result` is one of a fixed set of words.
    pub fn enrolment(&self, result: &'static str) {
        self.enrolments.with_label_values(&[result]).inc();
    }

    /// Both are of a fixed set of words.
    pub fn limit_exceeded(&self, limit: &'static str, action: &'static str) {
        self.limits.with_label_values(&[limit, action]).inc();
    }

    /// `by_job`: the lock is held by a session of this gateway.
    pub fn lock_wait(&self, by_job: bool) {
        self.lock_waits.with_label_values(&[if by_job { "job" } else { "other" }]).inc();
    }

    pub fn approval(&self, outcome: ApprovalOutcome) -> &IntCounter {
        &self.approvals[outcome as usize]
    }

    pub fn phase(&self, phase: Phase) -> &Histogram {
        &self.phases[phase as usize]
    }

    pub fn observe(&self, phase: Phase, took: Duration) {
        self.phase(phase).observe(took.as_secs_f64());
    }

    pub fn transferred(&self, direction: Direction) -> &IntCounter {
        &self.transferred[direction as usize]
    }

    /// A policy is in force from now on.
    pub fn policy_loaded(&self, version: &str, at: SystemTime) {
        self.policy.reset();
        self.policy.with_label_values(&[version]).set(1);
        self.policy_loaded.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.policy_reloads[0].inc();
    }

    /// A policy was refused; the one before stays in force.
    pub fn policy_refused(&self) {
        self.policy_reloads[1].inc();
    }

    /// Denials counted by the kernel programs: reason and count since they were loaded.
    pub fn kernel_denials(
        &self,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.source(
            MetricType::COUNTER,
            "gateway_kernel_denials_total",
            "Operations that the kernel programs denied, by reason.",
            Some("reason"),
            move || read().into_iter().map(|(reason, count)| (reason, count as f64)).collect(),
        )
    }

    /// Kernel events that did not fit into the ring buffer. Decisions are never dropped.
    pub fn kernel_events_dropped(
        &self,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.counter("gateway_kernel_events_dropped_total", "Kernel events lost to a full ring buffer.", read)
    }

    /// Jobs whose hooks were not what they should be.
    pub fn hook_drift(&self, read: impl Fn() -> u64 + Send + Sync + 'static) -> Result<(), MetricsError> {
        self.counter(
            "gateway_hook_drift_total",
            "Jobs on whose cgroup foreign or missing programs were found.",
            read,
        )
    }

    /// Jobs that are refused everything now.
    pub fn quarantined_jobs(
        &self,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.source(
            MetricType::GAUGE,
            "gateway_quarantined_jobs",
            "Jobs that are refused everything because of their hooks.",
            None,
            move || vec![(String::new(), read() as f64)],
        )
    }

    /// 1 while the kernel programs let through what they would refuse.
    pub fn kernel_observing(&self, observing: bool) -> Result<(), MetricsError> {
        self.source(
            MetricType::GAUGE,
            "gateway_kernel_observing",
            "1 while kernel.mode is observe: nothing is refused by the kernel.",
            None,
            move || vec![(String::new(), f64::from(u8::from(observing)))],
        )
    }

    /// Age of the heartbeat that the kernel programs look at; beyond their limit they deny everything.
    pub fn heartbeat_age(
        &self,
        read: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.source(
            MetricType::GAUGE,
            "gateway_heartbeat_age_seconds",
            "Time since the kernel programs last heard from the agent.",
            None,
            move || vec![(String::new(), read().as_secs_f64())],
        )
    }

    pub fn recorder(&self, recorder: &Recorder) -> Result<(), MetricsError> {
        let stats = recorder.stats();
        let bytes = stats.clone();
        self.counter("gateway_recording_bytes_total", "Bytes written to recordings.", move || {
            bytes.bytes.load(Relaxed)
        })?;
        let lost = stats.clone();
        self.counter(
            "gateway_recordings_lost_total",
            "Recordings that ended early because they could not be written.",
            move || lost.lost.load(Relaxed),
        )?;
        let recovered = stats.clone();
        self.counter(
            "gateway_recordings_recovered_total",
            "Recordings of an earlier agent that were closed.",
            move || recovered.recovered.load(Relaxed),
        )?;
        self.source(MetricType::GAUGE, "gateway_recordings_open", "Recordings open now.", None, move || {
            vec![(String::new(), stats.open.load(Relaxed) as f64)]
        })
    }

    pub fn audit(&self, audit: &Audit) -> Result<(), MetricsError> {
        let (bytes, lost) = (audit.clone(), audit.clone());
        self.counter("gateway_audit_bytes_total", "Bytes written to the audit log.", move || bytes.bytes())?;
        self.counter(
            "gateway_audit_lost_total",
            "Events that the audit log could not take; their actions were refused.",
            move || lost.lost(),
        )
    }

    /// Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be encoded");
            text.clear();
        }
        String::from_utf8(text).unwrap_or_default()
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.source(MetricType::COUNTER, name, help, None, move || vec![(String::new(), read() as f64)])
    }

    fn source(
        &self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: Option<&str>,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        Ok(self.registry.register(Box::new(Source::new(kind, name, help, label, read)?))?)
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// One counter per value, in order; all are shown from the start.
fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<Vec<IntCounter>, MetricsError> {
    let vec = register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)?;
    Ok(values.iter().map(|value| vec.with_label_values(&[value])).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::audit::{AuditConfig, Durability, RecorderConfig};

    /// Every metric there is.
    fn full() -> (Metrics, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        for verdict in Verdict::ALL {
            metrics.decision(*verdict, "read").inc();
        }
        metrics.policy_loaded("v1", UNIX_EPOCH + Duration::from_secs(5));
        metrics.policy_loaded("v2", UNIX_EPOCH + Duration::from_secs(6));
        metrics.policy_refused();
        metrics.observe(Phase::Analyse, Duration::from_micros(3));
        metrics.flow(FlowResult::NoResource).inc();
        metrics.transferred(Direction::ToJob).inc_by(7);
        metrics.approval(ApprovalOutcome::Expired).inc();
        metrics.kernel_denials(|| vec![("not_allowed".into(), 3), ("mark".into(), 1)]).unwrap();
        metrics.kernel_events_dropped(|| 4).unwrap();
        metrics.heartbeat_age(|| Duration::from_millis(250)).unwrap();
        metrics.kernel_observing(true).unwrap();
        metrics.hook_drift(|| 2).unwrap();
        metrics.quarantined_jobs(|| 1).unwrap();
        let key = record::SigningKey::generate().unwrap();
        let config =
            RecorderConfig { dir: dir.path().join("r"), key, durability: Durability::Batched, audit: None };
        metrics.recorder(&Recorder::start(config).unwrap()).unwrap();
        metrics.audit(&Audit::start(AuditConfig { file: dir.path().join("a") }).unwrap()).unwrap();
        (metrics, dir)
    }

    #[test]
    fn what_is_counted_is_shown() {
        let (metrics, _dir) = full();
        let text = metrics.render();
        for line in [
            "gateway_flows_total{result=\"no_resource\"} 1",
            "gateway_flows_total{result=\"opened\"} 0",
            "gateway_decisions_total{rule=\"read\",verdict=\"deny\"} 1",
            "gateway_phase_duration_seconds_bucket{phase=\"analyse\",le=\"0.000004\"} 1",
            "gateway_transferred_bytes_total{direction=\"to_job\"} 7",
            "gateway_approvals_total{outcome=\"expired\"} 1",
            "gateway_kernel_denials_total{reason=\"not_allowed\"} 3",
            "gateway_kernel_events_dropped_total 4",
            "gateway_heartbeat_age_seconds 0.25",
            "gateway_kernel_observing 1",
            "gateway_hook_drift_total 2",
            "gateway_quarantined_jobs 1",
            "gateway_policy_info{version=\"v2\"} 1",
            "gateway_policy_last_success_timestamp_seconds 6",
            "gateway_policy_reloads_total{result=\"success\"} 2",
            "gateway_recordings_open 0",
            "gateway_audit_lost_total 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("version=\"v1\""), "the policy before is gone");
    }

    #[test]
    fn rules_cannot_make_endless_series() {
        let metrics = Metrics::new().unwrap();
        for i in 0..2000 {
            metrics.decision(Verdict::Deny, &format!("rule-{i}")).inc();
        }
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("gateway_decisions_total{")).count();
        assert_eq!(series, RULES + 1);
        assert!(text.contains("gateway_decisions_total{rule=\"other\",verdict=\"deny\"} 1500"));
    }

    #[test]
    fn promtool_finds_nothing_to_complain_about() {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            eprintln!("skipped: promtool is not installed");
            return;
        };
        let (metrics, _dir) = full();
        promtool.stdin.take().unwrap().write_all(metrics.render().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}
