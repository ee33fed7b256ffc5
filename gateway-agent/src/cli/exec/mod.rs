//! `exec`: makes a job and runs a command in it.
//!
//! The parent (this module) stays outside of the job: it makes the cgroup, moves a waiting child into it, enrols
//! the cgroup with a token that the child never holds, and only then tells the child to go on (`child`). It
//! forwards signals, renews the identity, and clears the cgroup away at the end.

mod cgroup;
pub(super) mod child;
mod environment;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::Context;
use hyper::Method;
use rustix::{
    io::FdFlags,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process},
};
use tokio::signal::unix::{SignalKind, signal};

use self::cgroup::JobCgroup;
use super::{Global, client, enroll::enrol, print, token::TokenSource};
use crate::{
    admin::api::{Cgroup, Release},
    config::Config,
    identity::{Clock, Job, SystemClock},
};

/// Exit status when the job could not be made.
const FAILED: u8 = 125;
/// Before the token's end, an identity is renewed by this part of what is left.
const RENEW_AT: f64 = 0.7;

/// Run a command as a job
///
/// Makes a cgroup below the attach root, binds it to the identity in the token, and runs the command in it with
/// no_new_privs, without stray file descriptors and, when `jobs.uid` is configured, as that user. The command
/// finds the gateway's CA in PGSSLROOTCERT and, with the host's roots, in SSL_CERT_FILE. It needs no password:
/// the gateway logs in. When the command ends, whatever it left running is killed. Needs root.
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
        Ok(ExitCode::from(code_of(result?)))
    }

    async fn in_cgroup(
        &self,
        config: &Config,
        socket: &Path,
        cgroup: &JobCgroup,
    ) -> anyhow::Result<ExitStatus> {
        let uid = config.jobs.uid;
        if uid.unwrap_or_else(|| rustix::process::getuid().as_raw()) == 0 {
            tell("warning: the job runs as root and can read what root can read; set jobs.uid");
        }
        if config.kernel.mode == crate::kernel::Mode::Observe {
            tell("warning: kernel.mode is observe: the kernel refuses this job nothing, it only reports");
        }
        // Signals that come while the job is being made are kept for it.
        let mut signals = Signals::new()?;
        let (mut child, go) = self.spawn(config, uid)?;
        let pid =
            child.id().and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw).context("no child")?;
        cgroup.move_in(pid)?;
        let dir = || Some(Cgroup::Cgroup(cgroup.dir().to_owned()));
        let job = tokio::select! {
            job = enrol(socket, &self.token, self.issuer.as_deref(), dir(), uid) => job?,
            status = child.wait() => anyhow::bail!("the job's first process ended before it was enrolled: {}", status?),
        };
        // Last thing before the command runs: the child reads this byte, or end of file when we fail.
        rustix::io::write(&go, b"g").context("the job's first process")?;
        drop(go);
        let mut expires = job.expires.0;
        loop {
            let renewal = renewal_in(expires, self.token.renews());
            tokio::select! {
                status = child.wait() => return Ok(status?),
                forwarded = signals.next() => {
                    // The child may have ended just now; its status says so.
                    let _ = kill_process(pid, forwarded);
                }
                () = tokio::time::sleep(renewal) => {
                    match enrol(socket, &self.token, self.issuer.as_deref(), dir(), uid).await {
                        Ok(Job { expires: later, .. }) => expires = later.0,
                        Err(error) => tell(&format!("the identity could not be renewed: {}", super::told(&error))),
                    }
                }
            }
        }
    }

    fn spawn(&self, config: &Config, uid: Option<u32>) -> anyhow::Result<(tokio::process::Child, OwnedFd)> {
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        // Only the reading end crosses into the child, which opens it again by number and closes it at exec.
        rustix::io::fcntl_setfd(&wait, FdFlags::empty()).context("pipe")?;
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.arg("exec-child").arg(format!("--wait={}", wait.as_raw_fd()));
        command.arg(format!("--parent={}", std::process::id()));
        if let Some(uid) = uid {
            command.arg(format!("--uid={uid}"));
        }
        if !std::io::stdin().is_terminal() {
            command.arg("--new-session");
        }
        command.arg("--").args(&self.command);
        environment::prepare(&mut command, config, self.token.token_env.as_deref(), uid);
        command.kill_on_drop(true);
        let child = command.spawn().context("the job's first process")?;
        Ok((child, go))
    }
}

/// What is forwarded to the command.
struct Signals {
    streams: Vec<(tokio::signal::unix::Signal, Signal)>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let mut streams = Vec::new();
        for (kind, number) in [
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ] {
            streams.push((signal(kind)?, number));
        }
        Ok(Self { streams })
    }

    /// The next one to forward. On a terminal the command is in the same process group and had its interrupt
    /// from the terminal already.
    async fn next(&mut self) -> Signal {
        let on_terminal = std::io::stdin().is_terminal();
        std::future::poll_fn(|cx| {
            for (stream, number) in &mut self.streams {
                while let std::task::Poll::Ready(Some(())) = stream.poll_recv(cx) {
                    if !(on_terminal && matches!(*number, Signal::INT | Signal::QUIT)) {
                        return std::task::Poll::Ready(*number);
                    }
                }
            }
            std::task::Poll::Pending
        })
        .await
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

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(i32::from(FAILED));
    u8::try_from(code).unwrap_or(FAILED)
}

fn tell(text: &str) {
    // Nowhere left to complain when this fails.
    let _ = writeln!(std::io::stderr(), "gateway-agent exec: {}", print::printable(text));
}
