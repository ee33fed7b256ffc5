//! From configuration to a running agent, and back to nothing.
//!
//! Start order: state, policy, recording and audit, kernel programs, listeners, workers, enrolled jobs,
//! control socket; only then does the kernel hear a heartbeat, and once the self-test has shown that it refuses
//! what it should, jobs are served. Ending: no heartbeat, no new flows, sessions
//! told and given time, records closed. Enforcement stays.

mod admit;
mod guard;
mod host;
mod keep;
mod namespaces;
mod policies;

use std::{
    collections::HashSet,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use policy::UnixTime;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::interval,
};

pub use policies::load as load_policy;

use crate::{
    admin::{self, Backend, Control},
    approval::{Approvals, Directory, HostDirectory, State},
    audit::{self, Audit, AuditConfig, AuditEvent, Kind, Recorder, RecorderConfig, Value, unix_ns},
    config::{self, Config, Transport},
    credential::{Roles, SWEEP},
    dns,
    identity::{Cgroups, Clock, Enrolments, SystemClock, Verifier, boot_id},
    intercept::Intercept,
    kernel::{self, Destination, Disposition, Kernel, Mode, Protocol, Reason},
    sandbox,
    session::{InForce, Shared, registry::Registry, worker},
    state::{Lazy, SqliteStore, Store},
    telemetry::{ApprovalOutcome, Metrics},
    tls::Authority,
    upstream::{Addresses, Catalogues, Names, Tls},
};

/// The kernel denies when it has not heard of the agent for 2 s; four chances to be heard before that.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often the log says that the kernel refuses nothing.
const REMINDER: Duration = Duration::from_secs(60);
/// Where resolvers listen.
const DNS_PORT: u16 = 53;
/// Sessions get this long to say goodbye.
const DRAIN: Duration = Duration::from_secs(5);

/// The running agent.
pub struct Agent {
    pub(super) shared: Arc<Shared>,
    kernel: Arc<Kernel>,
    enrolments: Arc<Enrolments>,
    namespaces: Option<Arc<namespaces::Namespaces>>,
    names: Names,
    dns: Arc<dns::Front>,
    workers: Vec<worker::Handle>,
    reloading: policies::Reloading,
    started: UnixTime,
    draining: AtomicBool,
    myself: host::Myself,
    guard: guard::Guard,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Fails when anything that enforcement needs cannot be had; jobs then stay confined without service.
pub fn run(config: Config) -> Result<()> {
    crate::tls::install_providers();
    // Links that systemd kept meanwhile. They stay open here, and no helper inherits them.
    sd_notify::listen_fds().context("descriptors from systemd")?.for_each(drop);
    // First of all: the sandbox runs no program any more.
    let helper = guard::helper()?;
    if config.sandbox {
        // The sandbox allows no mount any more.
        kernel::prepare_pin_dir(&config.kernel.pin_dir)?;
        sandbox::daemon::enter()
            .context("the agent's own sandbox; `sandbox: off` in the configuration goes without it")?;
    } else {
        tracing::warn!("the agent runs without its own sandbox: `sandbox: off` in the configuration");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(async { start(config).await?.serve(helper).await })
}

/// Everything `serve` needs besides the agent.
struct Started {
    agent: Arc<Agent>,
    intercept: Intercept,
    arrivals: Option<mpsc::UnboundedReceiver<namespaces::Arrival>>,
    control: Arc<Control>,
    control_socket: tokio::net::UnixListener,
    metrics_socket: Option<tokio::net::TcpListener>,
}

async fn start(config: Config) -> Result<Started> {
    make_dir(&config.state_dir, 0o700)?;
    make_dir(&config.runtime_dir, 0o755)?;
    let control_socket = admin::bind_control(&config.control.socket)
        .with_context(|| format!("control socket {}", config.control.socket.display()))?;
    let metrics_socket = match &config.metrics {
        Some(metrics) => Some(
            tokio::net::TcpListener::bind(metrics.listen)
                .await
                .with_context(|| format!("metrics.listen {}", metrics.listen))?,
        ),
        None => None,
    };

    let policy = match policies::load(&config.policy.files) {
        Ok(policy) => Arc::new(policy),
        Err(problems) => bail!("policy refused:\n{}", problems.join("\n")),
    };
    let names = Names::new(&config.dns).context("dns")?;
    let nobody = HashSet::new();
    let addresses = Addresses::resolve(&policy, &Addresses::default(), &names, &nobody).await;

    let metrics = Arc::new(Metrics::new().context("metrics")?);
    metrics.policy_loaded(policy.version(), std::time::SystemTime::now());
    let audit = Audit::start(AuditConfig { file: config.audit.file.clone() })
        .with_context(|| format!("audit.file {}", config.audit.file.display()))?;
    let recorder = Recorder::start(RecorderConfig {
        dir: config.recording.dir.clone(),
        key: audit::load_or_create(&config.recording.signing_key)?,
        durability: config.recording.durability,
        audit: Some(audit.clone()),
    })?;

    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.state_file())?);
    let lazy = Lazy::start(Arc::clone(&store))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let directory: Arc<dyn Directory> = Arc::new(HostDirectory);
    store.end_sessions(clock.now(), "the gateway was restarted")?;
    let approvals = Arc::new(Approvals::open(
        &*store,
        lazy.clone(),
        Arc::clone(&clock),
        Arc::clone(&directory),
        config.approvals.approvers.clone(),
        {
            let metrics = Arc::clone(&metrics);
            Box::new(move |record| count_approval(&metrics, record.state))
        },
    )?);
    let mask_key = mask_key(&config.state_dir)?;
    let authority = Authority::open(&config.state_dir)?;
    authority.publish(&config.trust_files())?;
    let ssh = crate::ssh::Authority::open(&config.state_dir)?;

    let cgroups = Cgroups::open(config.kernel.cgroup_root.as_deref()).context("kernel.cgroup_root")?;
    let kernel = Arc::new(
        Kernel::attach(kernel::Config {
            cgroup_root: cgroups.root().to_owned(),
            pin_dir: config.kernel.pin_dir.clone(),
            virtual_port: config.kernel.virtual_port,
            flows_per_job: config.sessions.max_per_job.saturating_mul(2),
            dns: config.dns.answer,
            mode: config.kernel.mode,
        })
        .context("kernel enforcement cannot start")?,
    );
    watch_numbers(&metrics, &kernel, &recorder, &audit)?;
    kernel.set_gateway_cgroup(kernel::cgroup_id(cgroups.own())?)?;
    let intercept = Intercept::bind(&kernel)?;
    kernel.replace_destinations(&kernel_destinations(&config, &addresses))?;

    let tls = Arc::new(Tls::new(authority));
    tls.speak_for(&policy, &config.trust_files())?;
    let mask_key = Arc::new(mask_key);
    let roles = Roles::open(Arc::clone(&store), Arc::clone(&tls), Arc::clone(&mask_key))?;
    let shared = Arc::new(Shared {
        roles,
        kubernetes: crate::credential::KubernetesTokens::default(),
        policy: ArcSwap::from_pointee(InForce { policy, addresses }),
        approvals: Arc::clone(&approvals),
        registry: Arc::new(Registry::default()),
        catalogues: Catalogues::default(),
        budgets: crate::session::budget::Budgets::default(),
        tls,
        ssh,
        sftp_room: Arc::default(),
        mask_key,
        recorder,
        audit,
        metrics,
        state: lazy,
        config,
    });
    policies::publish_known_hosts(&shared);
    policies::publish_kubeconfig(&shared);
    let workers = start_workers(&shared)?;
    let (namespaces, arrivals) = match shared.config.kernel.namespaces {
        config::Namespaces::Follow => {
            let (namespaces, arrivals) =
                namespaces::Namespaces::new(Arc::clone(&kernel), Arc::clone(&shared), cgroups.clone())?;
            (Some(Arc::new(namespaces)), Some(arrivals))
        }
        config::Namespaces::Deny => (None, None),
    };
    let host = Arc::new(host::EnrolmentHost {
        shared: Arc::clone(&shared),
        kernel: Arc::clone(&kernel),
        namespaces: namespaces.clone(),
    });
    let verifier = Verifier::new(&shared.config.identity)?;
    let enrolments = Arc::new(Enrolments::open(
        verifier,
        store,
        host,
        clock,
        cgroups,
        boot_id()?,
        shared.config.jobs.uids.clone(),
    )?);

    let front = dns::Front::new(Arc::clone(&shared), Arc::clone(&enrolments), names.clone());
    kernel.leave_unknown().context("network namespaces of an earlier agent")?;

    let guard = guard::Guard::default();
    shared.metrics.hook_drift({
        let drifted = Arc::clone(&guard.drifted);
        move || drifted.load(Ordering::Relaxed)
    })?;
    let agent = Arc::new(Agent {
        kernel,
        enrolments: Arc::clone(&enrolments),
        namespaces,
        names,
        dns: Arc::new(front),
        workers,
        reloading: policies::Reloading::default(),
        started: crate::clock::now(),
        draining: AtomicBool::new(false),
        myself: OnceLock::new(),
        guard,
        shared,
    });
    // Set exactly once, here.
    let _ = agent.myself.set(Arc::downgrade(&agent));
    let control = Arc::new(Control {
        approvals: (*approvals).clone(),
        enrolments,
        backend: Arc::clone(&agent) as Arc<dyn Backend>,
        directory,
        group: agent.shared.config.control.group.clone(),
    });
    Ok(Started { agent, intercept, arrivals, control, control_socket, metrics_socket })
}

/// Workers, and all threads that they ever start, inherit from a thread that confined itself.
fn start_workers(shared: &Arc<Shared>) -> Result<Vec<worker::Handle>> {
    let start = || {
        if shared.config.sandbox {
            sandbox::daemon::confine_thread().context("the workers' own sandbox")?;
        }
        // Their threads end with the process: sessions were told to end by then.
        let one = |number| Ok(worker::start(number, Arc::clone(shared))?.0);
        (0..shared.config.sessions.workers).map(one).collect()
    };
    let ended = thread::scope(|scope| scope.spawn(start).join());
    ended.unwrap_or_else(|_| bail!("the workers could not be started"))
}

impl Started {
    async fn serve(self, helper: kernel::Helper) -> Result<()> {
        let Self { agent, intercept, arrivals, control, control_socket, metrics_socket } = self;
        let beat = Heartbeat::start(Arc::clone(&agent))?;
        watch_kernel_events(Arc::clone(&agent))?;
        if let Err(error) = agent.prove(helper).await {
            beat.stop();
            return Err(error);
        }
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(admin::serve_control(control_socket, control));
        if let Some(listener) = metrics_socket {
            tasks.spawn(admin::serve_metrics(listener, Arc::clone(&agent) as Arc<dyn admin::MetricsSource>));
        }
        tasks.spawn(follow(Arc::clone(&agent).watch_policy()));
        tasks.spawn(follow(Arc::clone(&agent).watch_names()));
        tasks.spawn(follow(sweep(Arc::clone(&agent))));
        tasks.spawn(follow(sweep_roles(Arc::clone(&agent))));
        if let Some(arrivals) = arrivals {
            tasks.spawn(follow(accept_elsewhere(Arc::clone(&agent), arrivals)));
        }
        tasks.spawn(follow(Arc::clone(&agent).watch_hooks()));
        tasks.spawn(follow(warn_of_observing(agent.kernel.config().mode)));
        tasks.spawn(follow(accept(Arc::clone(&agent), intercept)));

        agent.log(&AuditEvent::new(unix_ns(), Kind::AgentStarted));
        tracing::info!(policy = %agent.shared.policy.load().policy.version(), "gateway is ready");
        let links = agent.kernel.links().map(|(hook, link)| (hook.name(), link));
        if let Err(error) = keep::with_systemd(links) {
            tracing::warn!(%error, "systemd does not keep the kernel links; their pins do");
        }
        notify(&[sd_notify::NotifyState::Ready]);

        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let failed = loop {
            tokio::select! {
                _ = term.recv() => break None,
                _ = int.recv() => break None,
                _ = hup.recv() => {
                    // Reported where it happens.
                    let _ = agent.reload();
                    agent.shared.audit.reopen();
                }
                ended = tasks.join_next() => break Some(ended),
            }
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        agent.draining.store(true, Ordering::Relaxed);
        beat.stop();
        tasks.abort_all();
        agent.drain().await;
        match failed {
            None => Ok(()),
            Some(ended) => bail!("a part of the agent ended by itself: {ended:?}"),
        }
    }
}

impl Agent {
    async fn drain(&self) {
        let told = self.shared.registry.end_all("the gateway is shutting down");
        tracing::info!(sessions = told, "shutting down");
        let end = tokio::time::Instant::now() + DRAIN;
        let mut ticks = interval(Duration::from_millis(20));
        while !self.shared.registry.is_empty() && tokio::time::Instant::now() < end {
            ticks.tick().await;
        }
        self.log(&AuditEvent::new(unix_ns(), Kind::AgentStopped));
        let shared = Arc::clone(&self.shared);
        let closing = tokio::task::spawn_blocking(move || {
            shared.recorder.shutdown();
            shared.audit.shutdown();
        });
        if closing.await.is_err() {
            tracing::error!("recordings were not closed; the next start recovers them");
        }
    }
}

/// Tells the kernel that the agent lives, from a thread that nothing else can hold up, as long as the control
/// runtime still turns.
struct Heartbeat {
    stop: Arc<AtomicBool>,
}

impl Heartbeat {
    fn start(agent: Arc<Agent>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicBool::new(true));
        let turning = Arc::clone(&turns);
        tokio::spawn(async move {
            let mut ticks = interval(HEARTBEAT / 2);
            loop {
                ticks.tick().await;
                turning.store(true, Ordering::Relaxed);
            }
        });
        let stopped = Arc::clone(&stop);
        agent.kernel.beat()?;
        thread::Builder::new().name("heartbeat".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if turns.swap(false, Ordering::Relaxed) {
                    if let Err(error) = agent.kernel.beat() {
                        tracing::error!(%error, "heartbeat");
                    }
                    notify(&[sd_notify::NotifyState::Watchdog]);
                }
                thread::sleep(HEARTBEAT);
            }
        })?;
        Ok(Self { stop })
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn accept(agent: Arc<Agent>, mut intercept: Intercept) {
    // They end with this task.
    let mut questions = tokio::task::JoinSet::new();
    for socket in intercept.questions() {
        let (front, kernel, agent) = (Arc::clone(&agent.dns), Arc::clone(&agent.kernel), Arc::clone(&agent));
        questions.spawn(front.serve_datagrams(socket, kernel, move |refused| agent.refuse(refused)));
    }
    loop {
        match intercept.accept().await {
            Ok((tcp, _)) => match intercept.identify(&agent.kernel, &tcp) {
                // Only redirected connections have this port: no resource can be there.
                Ok(flow) if flow.original.port() == DNS_PORT && agent.shared.config.dns.answer => {
                    tokio::spawn(Arc::clone(&agent.dns).serve_connection(tcp, flow));
                }
                Ok(flow) => agent.admit(tcp, &flow),
                Err(refused) => agent.refuse(&refused),
            },
            Err(error) => {
                // Out of descriptors, say: what waits meanwhile is accepted later or gives up.
                tracing::error!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves namespaces of jobs from when they are followed until they are left.
async fn accept_elsewhere(agent: Arc<Agent>, mut arrivals: mpsc::UnboundedReceiver<namespaces::Arrival>) {
    let mut spaces = tokio::task::JoinSet::new();
    while let Some(namespaces::Arrival { intercept, left }) = arrivals.recv().await {
        let agent = Arc::clone(&agent);
        spaces.spawn(async move {
            tokio::select! {
                () = accept(agent, intercept) => {}
                // Its sender is dropped when the namespace is left.
                _ = left => {}
            }
        });
        // Those that ended.
        while spaces.try_join_next().is_some() {}
    }
    // The sender lives as long as the agent.
    std::future::pending::<()>().await;
}

/// Nobody should forget that nothing is refused.
async fn warn_of_observing(mode: Mode) {
    let mut ticks = interval(REMINDER);
    loop {
        ticks.tick().await;
        match mode {
            Mode::Enforce => std::future::pending().await,
            Mode::Observe => tracing::warn!(
                "kernel.mode is observe: jobs are NOT confined, the kernel only reports what it would refuse"
            ),
        }
    }
}

async fn sweep(agent: Arc<Agent>) {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let enrolments = Arc::clone(&agent.enrolments);
        let kernel = Arc::clone(&agent.kernel);
        let namespaces = agent.namespaces.clone();
        let front = Arc::clone(&agent.dns);
        // It writes to SQLite and reads /proc.
        let sweeping = tokio::task::spawn_blocking(move || {
            enrolments.sweep();
            if let Some(namespaces) = namespaces {
                namespaces.sweep();
            }
            front.sweep();
            match kernel.sweep_released(Duration::from_nanos(gateway_common::limits::RELEASED_NS)) {
                Ok(0) => {}
                Ok(gone) => tracing::info!(gone, "connections that jobs closed were never accepted"),
                Err(error) => tracing::error!(%error, "sweeping connections that jobs closed"),
            }
        });
        if sweeping.await.is_err() {
            tracing::error!("sweeping jobs failed");
        }
    }
}

/// Drops roles whose jobs have ended, and at the start those that a dead agent left.
async fn sweep_roles(agent: Arc<Agent>) {
    let roles = &agent.shared.roles;
    loop {
        let policy = Arc::clone(&agent.shared.policy.load().policy);
        let alive = |job| agent.enrolments.job(job).is_some_and(|job| job.active(crate::clock::now()));
        match roles.sweep(&policy, alive).await {
            Ok(dropped) => {
                for role in dropped {
                    let extra = [("role", Value::Text(&role))];
                    agent.log(&AuditEvent { extra: &extra, ..AuditEvent::new(unix_ns(), Kind::RoleDropped) });
                }
            }
            Err(error) => tracing::error!(%error, "roles made for jobs cannot be looked for"),
        }
        // Told, or after a while: what failed may work by then.
        let _ = tokio::time::timeout(SWEEP, roles.due.notified()).await;
    }
}

fn watch_kernel_events(agent: Arc<Agent>) -> Result<()> {
    let mut events = agent.kernel.events()?.context("kernel events are read already")?;
    thread::Builder::new().name("kernel-events".into()).spawn(move || {
        loop {
            match events.next(Duration::from_secs(1)) {
                Ok(Some(refusal)) => agent.kernel_refused(&refusal),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "kernel events are no longer read; decisions do not depend on them");
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// Numbers that others count are read when metrics are.
fn watch_numbers(metrics: &Metrics, kernel: &Arc<Kernel>, recorder: &Recorder, audit: &Audit) -> Result<()> {
    metrics.recorder(recorder)?;
    metrics.audit(audit)?;
    let counted = Arc::clone(kernel);
    metrics.kernel_denials(move || {
        let counters = counted.counters().unwrap_or_default();
        counters
            .into_iter()
            .filter(|(reason, _)| reason.is_denial())
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect()
    })?;
    let counted = Arc::clone(kernel);
    metrics.kernel_events_dropped(move || {
        let counters = counted.counters().unwrap_or_default();
        counters.into_iter().find(|(reason, _)| *reason == Reason::EventLost).map_or(0, |(_, count)| count)
    })?;
    let beating = Arc::clone(kernel);
    metrics.kernel_observing(kernel.config().mode == Mode::Observe)?;
    let quarantined = Arc::clone(kernel);
    metrics.quarantined_jobs(move || quarantined.quarantined().map_or(u64::MAX, |jobs| jobs.len() as u64))?;
    // A heart that cannot be asked has not beaten for as long as anyone can tell.
    metrics.heartbeat_age(move || {
        beating.status().ok().and_then(|status| status.heartbeat_age).unwrap_or(Duration::MAX)
    })?;
    Ok(())
}

fn count_approval(metrics: &Metrics, state: State) {
    let outcome = match state {
        State::Waiting | State::Used => return,
        State::Approved => ApprovalOutcome::Approved,
        State::Denied => ApprovalOutcome::Denied,
        State::Expired => ApprovalOutcome::Expired,
        State::Withdrawn => ApprovalOutcome::Abandoned,
    };
    metrics.approval(outcome).inc();
}

/// A task that has no end of its own.
async fn follow(task: impl Future<Output = ()>) -> std::io::Result<()> {
    task.await;
    Ok(())
}

/// What jobs may reach: resources through the gateway, the configured rest directly.
fn kernel_destinations(config: &Config, addresses: &Addresses) -> Vec<Destination> {
    let redirected = addresses.redirected().map(|(net, port, disposition)| Destination {
        net,
        port,
        protocol: Protocol::Tcp,
        disposition,
    });
    let allowed = config.kernel.allow.iter().map(|d| Destination {
        net: d.net,
        port: d.port,
        protocol: match d.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        },
        disposition: Disposition::Allow,
    });
    redirected.chain(allowed).collect()
}

/// The key of masks that hash, made once per host.
fn mask_key(state_dir: &Path) -> Result<mask::Key> {
    let file = state_dir.join("mask.key");
    let seed = audit::load_or_create(&file)?.seed().context("mask key")?;
    let secret: secrecy::SecretSlice<u8> = seed.to_vec().into();
    Ok(mask::Key::new(&secret)?.derive("masks"))
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(|| format!("directory {}", dir.display()))
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}
