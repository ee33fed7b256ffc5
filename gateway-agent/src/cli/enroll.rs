//! `enroll`: binds a cgroup to an identity, from a CI runner's own hook.

use std::{path::PathBuf, process::ExitCode};

use hyper::Method;
use secrecy::ExposeSecret;

use super::{Global, client, print, token::TokenSource};
use crate::{
    admin::api::{Cgroup, EnrollBegin, EnrollBegun, EnrollComplete},
    identity::{Job, JobUser},
};

/// Bind the caller's cgroup to the identity in a token
///
/// Called by a job's hook inside the job's own cgroup. The first identity that a cgroup is bound to stays; a
/// fresh token of the same identity moves the expiry. `exec` does all of this by itself.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  gateway-agent enroll --token-command 'curl -s \"$TOKEN_URL&audience=$GATEWAY_AUDIENCE\" | jq -r .value'"
)]
pub(super) struct Args {
    #[command(flatten)]
    token: TokenSource,
    /// Bind this cgroup instead of the caller's own (root, outside of jobs)
    #[arg(long, value_name = "DIR", group = "target")]
    cgroup: Option<PathBuf>,
    /// Bind the cgroup of this process (root, outside of jobs)
    #[arg(long, value_name = "PID", group = "target")]
    pid: Option<i32>,
    /// Bind the cgroup of this container, by its id or at least 12 digits of it (root, outside of jobs)
    #[arg(long, value_name = "ID", group = "target")]
    container: Option<String>,
    /// The issuer whose audience the token command is told, when there are several
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let socket = global.socket()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let job = runtime.block_on(enrol(
            &socket,
            &self.token,
            self.issuer.as_deref(),
            self.target(),
            JobUser::Owner,
        ))?;
        match global.json {
            true => print::json(&job)?,
            false => print::line(&format!(
                "{} is {} until {}",
                job.cgroup.display(),
                job.subject,
                humantime::format_rfc3339_seconds(
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(job.expires.0)
                )
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn target(&self) -> Option<Cgroup> {
        let container = || self.container.clone().map(Cgroup::Container);
        self.cgroup.clone().map(Cgroup::Cgroup).or(self.pid.map(Cgroup::Pid)).or_else(container)
    }
}

/// Begin, fetch, complete.
pub(super) async fn enrol(
    socket: &std::path::Path,
    source: &TokenSource,
    issuer: Option<&str>,
    target: Option<Cgroup>,
    user: JobUser,
) -> anyhow::Result<Job> {
    let begin = EnrollBegin { target: target.clone() };
    let begun: EnrollBegun = client::call(socket, Method::POST, "/v1/enroll/begin", Some(&begin)).await?;
    let token = source.fetch(&begun, issuer).await?;
    let complete =
        EnrollComplete { token: token.expose_secret().to_owned(), nonce: Some(begun.nonce), target, user };
    Ok(client::call(socket, Method::POST, "/v1/enroll/complete", Some(&complete)).await?)
}
