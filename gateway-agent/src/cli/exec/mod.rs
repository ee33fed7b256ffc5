//! `exec`: makes a job and runs a command in it.
//!
//! The parent (this module) stays outside of the job: it makes the cgroup, starts a waiting child inside of it,
//! enrols the cgroup with a token that the child never holds, and only then tells the child which sandbox to put
//! on before it goes on (`child`). It forwards signals, renews the identity, and clears the cgroup away at the end.

mod cgroup;
pub(super) mod child;
mod environment;
mod init;
mod signals;
mod spec;

use std::{
    ffi::{CString, OsString},
    io::{IsTerminal, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStringExt, net::UnixStream as StdUnixStream},
    },
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use hyper::Method;
use rustix::{
    io::FdFlags,
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::UnixStream,
};

use self::{cgroup::JobCgroup, signals::Signals, spec::Who};
use super::{Global, client, enroll::enrol, print, token::TokenSource};
use crate::{
    admin::api::{Cgroup, Release},
    config::Config,
    identity::{Clock, Job, JobUser, SystemClock},
    sandbox::sys,
};

/// Exit status when the job could not be made.
const FAILED: u8 = 125;
/// Longest description of a sandbox, in bytes.
const MAX_SPEC: u64 = 1024 * 1024;
/// Before the token's end, an identity is renewed by this part of what is left.
const RENEW_AT: f64 = 0.7;

/// Run a command as a job
///
/// Makes a cgroup below the attach root, binds it to the identity in the token, and runs the command in it: as a
/// user that no other job has, with its own /tmp and pids, without capabilities, sockets of the host, credentials
/// in its environment, or the calls that go around the gateway; `jobs:` in the configuration opens single parts.
/// The command finds the gateway's CA in PGSSLROOTCERT and, with the host's roots, in SSL_CERT_FILE. It needs no
/// password: the gateway logs in. When the command ends, whatever it left running is killed. Needs root.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  gateway-agent exec --token-env CI_JOB_JWT -- psql -h db.internal orders\n  gateway-agent exec --token-command 'fetch-token \"$GATEWAY_AUDIENCE\"' -- ./agent.sh"
)]
pub(crate) struct Args {
    #[command(flatten)]
    token: TokenSource,
    /// The issuer whose audience the token command is told, when there are several
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Name of the cgroup [default: job- and a random number]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        // The command's own status uses 1 to 4: failing to make the job must not look like one of them.
        match self.job(global) {
            Ok(code) => Ok(code),
            Err(error) => {
                // Nowhere left to complain when this fails.
                let _ = writeln!(std::io::stderr(), "gateway-agent exec: {}", super::told(&error));
                Ok(ExitCode::from(FAILED))
            }
        }
    }

    fn job(&self, global: &Global) -> anyhow::Result<ExitCode> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "making a job needs root: a cgroup, namespaces and another user; see SECURITY.md for who may call it"
            );
        }
        let config = global.config()?;
        let socket = global.socket()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cgroup = JobCgroup::make(&config, self.name.as_deref())?;
        let result = runtime.block_on(self.in_cgroup(&config, &socket, &cgroup));
        let cleared = cgroup.clear();
        runtime.block_on(release(&socket, cgroup.id()));
        if let Err(error) = cleared.and_then(|()| cgroup.remove()) {
            tell(&format!("cgroup {} stays: {}", cgroup.dir().display(), super::told(&error)));
        }
        Ok(ExitCode::from(result?))
    }

    async fn in_cgroup(&self, config: &Config, socket: &Path, cgroup: &JobCgroup) -> anyhow::Result<u8> {
        let who = Who::new(config.jobs.user)?;
        if who.enrolled_as() == JobUser::Uid(0) {
            tell("warning: the job runs as root and can read what root can read; leave jobs.uid out");
        }
        if config.kernel.mode == crate::kernel::Mode::Observe {
            tell("warning: kernel.mode is observe: the kernel refuses this job nothing, it only reports");
        }
        // Signals that come while the job is being made are kept for it.
        let mut signals = Signals::new(std::io::stdin().is_terminal())?;
        let (first, mut channel) = self.spawn(config, &who, cgroup)?;
        let enrol = || {
            let dir = Some(Cgroup::Cgroup(cgroup.dir().to_owned()));
            enrol(socket, &self.token, self.issuer.as_deref(), dir, who.enrolled_as())
        };
        let job = tokio::select! {
            job = enrol() => job?,
            ended = first.ended() => bail!("the job's first process ended with status {} before it was enrolled", ended?),
        };
        let mut line =
            serde_json::to_vec(&spec::make(config, &who, job.uid)?).context("the job's sandbox")?;
        line.push(b'\n');
        // Last thing before the command runs: the child reads this, or end of file when we fail.
        channel.write_all(&line).await.context("the job's first process")?;
        // A byte, or the end: the command runs, or never will.
        let mut word = [0];
        channel.read(&mut word).await.context("the job's first process")?;
        let mut expires = job.expires.0;
        loop {
            let renewal = renewal_in(expires, self.token.renews());
            tokio::select! {
                status = first.ended() => return status,
                // The child may have ended just now; its status says so.
                forwarded = signals.next() => first.signal(forwarded),
                () = tokio::time::sleep(renewal) => match enrol().await {
                    Ok(Job { expires: later, .. }) => expires = later.0,
                    Err(error) => tell(&format!("the identity could not be renewed: {}", super::told(&error))),
                }
            }
        }
    }

    /// The first process, born in the job's cgroup, and the socket to it.
    fn spawn(&self, config: &Config, who: &Who, cgroup: &JobCgroup) -> anyhow::Result<(First, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair().context("socket pair")?;
        ours.set_nonblocking(true).context("socket pair")?;
        // Crosses into the child, which takes it over by its number.
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).context("socket pair")?;
        let mut arguments: Vec<OsString> = ["gateway-agent", "exec-child"].map(OsString::from).to_vec();
        arguments.push(format!("--channel={}", theirs.as_raw_fd()).into());
        if !std::io::stdin().is_terminal() {
            arguments.push("--new-session".into());
        }
        arguments.push("--".into());
        arguments.extend(self.command.iter().cloned());
        let arguments =
            arguments.into_iter().map(|a| CString::new(a.into_vec())).collect::<Result<Vec<_>, _>>();
        let arguments = arguments.context("an argument with a NUL in it")?;
        let environment = environment::make(
            config,
            self.token.token_env.as_deref(),
            who.account.as_ref(),
            who.home(config),
        )?;
        let dir = std::fs::File::open(cgroup.dir()).with_context(|| cgroup.dir().display().to_string())?;
        let pidfd = sys::spawn_in_cgroup(
            dir.as_fd(),
            c"/proc/self/exe",
            &arguments,
            &environment,
            config.jobs.private_pids,
        )
        .with_context(|| format!("starting a process in cgroup {}", cgroup.dir().display()))?;
        let stream = UnixStream::from_std(ours).context("socket pair")?;
        Ok((First::new(pidfd)?, stream))
    }
}

/// The job's first process; killed when dropped.
struct First(AsyncFd<OwnedFd>);

impl First {
    #[expect(
        deprecated,
        reason = "the warning is about types that hand out a descriptor they may close; this one owns it"
    )]
    fn new(pidfd: OwnedFd) -> anyhow::Result<Self> {
        Ok(Self(AsyncFd::new(pidfd).context("pidfd")?))
    }

    /// Waits for its end and returns its status as shells write it.
    async fn ended(&self) -> anyhow::Result<u8> {
        // Readable from its end on.
        let _ready = self.0.readable().await.context("pidfd")?;
        let status = waitid(WaitId::PidFd(self.0.get_ref().as_fd()), WaitIdOptions::EXITED);
        let status = status.context("waiting for the job")?.context("waiting for the job")?;
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
    }

    fn signal(&self, signal: Signal) {
        // It may have ended just now; its status says so.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // After its end was waited for, there is nothing left to reap.
        let _ = waitid(WaitId::PidFd(self.0.get_ref().as_fd()), WaitIdOptions::EXITED);
    }
}

/// How long until the identity is renewed; for ever when the token cannot be.
fn renewal_in(expires: u64, renews: bool) -> Duration {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
    let left = Duration::from_secs(expires.saturating_sub(SystemClock.now().0));
    match renews {
        // After a failure nearly nothing may be left: then try every few seconds.
        true => left.mul_f64(RENEW_AT).max(Duration::from_secs(5)),
        false => NEVER,
    }
}

async fn release(socket: &Path, job: u64) {
    let which = Release { job: Some(job), cgroup: None };
    let result: Result<(), _> = client::call(socket, Method::POST, "/v1/release", Some(&which)).await;
    match result {
        // 404: it never came to an enrolment, or the daemon has noticed the end by itself.
        Ok(()) | Err(client::ClientError::Refused { status: 404, .. }) => {}
        Err(error) => tell(&format!("the job could not be released: {error}")),
    }
}

fn tell(text: &str) {
    // Nowhere left to complain when this fails.
    let _ = writeln!(std::io::stderr(), "gateway-agent exec: {}", print::printable(text));
}
