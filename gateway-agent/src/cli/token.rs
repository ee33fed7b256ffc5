//! Where an enrolment's token comes from.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};

use crate::admin::api::EnrollBegun;

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX: usize = 64 * 1024;

/// Exactly one source.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct TokenSource {
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read the token from this environment variable, which the command will not see
    #[arg(long, value_name = "NAME")]
    pub(super) token_env: Option<String>,
    /// Run this by `sh -c` and read the token from its output. GATEWAY_NONCE, GATEWAY_ISSUER and
    /// GATEWAY_AUDIENCE tell it what to ask the issuer for
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl TokenSource {
    /// Whether asking again gives another token.
    pub(super) fn renews(&self) -> bool {
        self.token_env.is_none()
    }

    /// Fetches a token for a begun enrolment. `issuer`: which one is meant, by default the first.
    pub(super) async fn fetch(
        &self,
        begun: &EnrollBegun,
        issuer: Option<&str>,
    ) -> anyhow::Result<SecretString> {
        let token = match (&self.token_file, &self.token_env, &self.token_command) {
            (Some(file), _, _) => tokio::fs::read_to_string(file)
                .await
                .map(SecretString::from)
                .with_context(|| format!("token file {}", file.display()))?,
            (_, Some(name), _) => std::env::var(name)
                .map(SecretString::from)
                .map_err(|_| anyhow::anyhow!("environment variable {name} is not set or not text"))?,
            (_, _, Some(command)) => run(command, begun, issuer).await?,
            (None, None, None) => bail!("no token source was given"),
        };
        match token.expose_secret().trim() {
            "" => bail!("the token is empty"),
            t if t.len() > MAX => bail!("the token is longer than 64 KiB"),
            t => Ok(t.to_owned().into()),
        }
    }
}

async fn run(command: &str, begun: &EnrollBegun, issuer: Option<&str>) -> anyhow::Result<SecretString> {
    let wanted = match issuer {
        Some(name) => begun
            .audiences
            .iter()
            .find(|a| a.issuer == name)
            .with_context(|| format!("the gateway knows no issuer `{name}`"))?,
        None => begun.audiences.first().context("the gateway has no issuers")?,
    };
    let mut child = tokio::process::Command::new("/bin/sh");
    child
        .args(["-c", command])
        .env("GATEWAY_NONCE", &begun.nonce)
        .env("GATEWAY_ISSUER", &wanted.issuer)
        .env("GATEWAY_AUDIENCE", &wanted.audience)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, child.output())
        .await
        .map_err(|_| anyhow::anyhow!("the token command took longer than 60 s"))?
        .context("the token command")?;
    if !output.status.success() {
        bail!("the token command failed: {}", output.status);
    }
    String::from_utf8(output.stdout)
        .map(SecretString::from)
        .map_err(|_| anyhow::anyhow!("the token command printed something that is not text"))
}
