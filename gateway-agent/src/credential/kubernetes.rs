//! How the gateway logs in to API servers.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use policy::{ClientCertificate, ExecPlugin, KubernetesMethod, Permit, Resource};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use super::{CredentialError, MAX, check, read};

/// How long a plugin may take.
const PLUGIN: Duration = Duration::from_secs(30);
/// How long a token is used before it is read again: mounted ones are replaced.
const FRESH: Duration = Duration::from_secs(60);

/// What requests are authenticated by.
#[derive(Debug, Clone, Default)]
pub struct KubernetesAccess {
    pub bearer: Option<SecretString>,
    /// Shown in the TLS handshake.
    pub certificate: Option<ClientCertificate>,
}

/// What is good for a while, by resource. One for the whole agent: tokens that the cluster makes are few.
#[derive(Debug, Default)]
pub struct KubernetesTokens(Mutex<HashMap<Arc<str>, Kept>>);

#[derive(Debug)]
struct Kept {
    /// Of which it was made: another policy may have another login.
    of: Arc<Resource>,
    access: KubernetesAccess,
    until: Instant,
}

impl KubernetesTokens {
    /// What is still good for a resource. Only a permit for that resource opens it.
    ///
    /// # Errors
    /// When the permit is for something else.
    pub fn kept(
        &self,
        permit: &Permit,
        resource: &Arc<Resource>,
    ) -> Result<Option<KubernetesAccess>, CredentialError> {
        check(permit, resource)?;
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = kept.get(&resource.name).filter(|of| of.of == *resource && of.until > Instant::now());
        Ok(of.map(|of| of.access.clone()))
    }

    /// Keeps what is good for this long.
    pub fn keep(&self, resource: &Arc<Resource>, access: KubernetesAccess, good: Duration) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|_, of| of.until > now);
        kept.insert(resource.name.clone(), Kept { of: Arc::clone(resource), access, until: now + good });
    }

    /// The server no longer takes it.
    pub fn forget(&self, resource: &Resource) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&resource.name);
    }
}

/// What the resource's own login says, and how long that is good. Only a permit for that resource opens it.
///
/// # Errors
/// When the secret cannot be had, the plugin fails, or the permit is for something else.
pub async fn kubernetes_login(
    permit: &Permit,
    resource: &Resource,
) -> Result<(KubernetesAccess, Duration), CredentialError> {
    check(permit, resource)?;
    let Some(of) = resource.kubernetes() else {
        return Err(CredentialError::Unusable(format!("resource {} is no API server", resource.name)));
    };
    match &of.login.method {
        KubernetesMethod::Token(secret) => {
            let bearer = Some(read(secret)?);
            Ok((KubernetesAccess { bearer, certificate: None }, FRESH))
        }
        KubernetesMethod::Certificate(certificate) => {
            Ok((KubernetesAccess { bearer: None, certificate: Some(certificate.clone()) }, FRESH))
        }
        KubernetesMethod::Plugin(plugin) => {
            let (bearer, good) = run(plugin).await?;
            Ok((KubernetesAccess { bearer: Some(bearer), certificate: None }, good))
        }
    }
}

/// What a plugin prints: `ExecCredential` of client.authentication.k8s.io.
#[derive(Deserialize)]
struct Credential {
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    expiration_timestamp: Option<String>,
}

async fn run(plugin: &ExecPlugin) -> Result<(SecretString, Duration), CredentialError> {
    let shown = plugin.program.display();
    let failed = |why: String| CredentialError::Unusable(format!("the credential plugin {shown} {why}"));
    let mut command = Command::new(&plugin.program);
    command.args(&plugin.arguments).env_clear().kill_on_drop(true);
    for name in ["PATH", "HOME"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let info = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}"#;
    command.env("KUBERNETES_EXEC_INFO", info);
    for (name, value) in &plugin.env {
        command.env(name, read(value)?.expose_secret());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut output = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?.take(MAX + 1);
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let ended = timeout(PLUGIN, async {
        output.read_to_end(&mut text).await?;
        child.wait().await
    });
    match ended.await {
        Err(_) => return Err(failed(format!("took more than {} s", PLUGIN.as_secs()))),
        Ok(Err(error)) => return Err(failed(format!("cannot be read: {error}"))),
        Ok(Ok(status)) if !status.success() => return Err(failed(format!("failed: {status}"))),
        Ok(Ok(_)) => {}
    }
    // Its words may be the secret: no error repeats them.
    let credential: Credential =
        serde_json::from_slice(&text).map_err(|_| failed("prints no ExecCredential".to_owned()))?;
    let status = credential.status.filter(|_| credential.kind == "ExecCredential");
    let status = status.ok_or_else(|| failed("prints no ExecCredential with a status".to_owned()))?;
    let good = status.expiration_timestamp.as_deref().and_then(left).unwrap_or(FRESH);
    let token = status.token.map(SecretString::from).filter(|token| !token.expose_secret().is_empty());
    Ok((token.ok_or_else(|| failed("gives no token".to_owned()))?, good))
}

/// How long something is good that ends at this time: half of what is left.
pub fn left(end: &str) -> Option<Duration> {
    let end = humantime::parse_rfc3339(end).ok()?;
    Some(end.duration_since(std::time::SystemTime::now()).unwrap_or_default() / 2)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn plugin(script: &str) -> (tempfile::TempDir, ExecPlugin) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("plugin");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, ExecPlugin { program, arguments: vec!["get-token".into()], env: Vec::new() })
    }

    fn ran(script: &str) -> Result<(SecretString, Duration), CredentialError> {
        let (_folder, plugin) = plugin(script);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(&plugin))
    }

    #[test]
    fn a_plugin_gives_a_token_or_says_why_not() {
        let (token, good) = ran(
            r#"echo "{\"kind\":\"ExecCredential\",\"status\":{\"token\":\"t-$1-${SECRET:-none}\",\"expirationTimestamp\":\"2999-01-01T00:00:00Z\"}}""#,
        )
        .unwrap();
        assert_eq!(token.expose_secret(), "t-get-token-none");
        assert!(good > FRESH);
        for (script, why) in [
            ("exit 3", "failed: exit status: 3"),
            ("echo hunter2", "prints no ExecCredential"),
            (r#"echo '{"kind":"ExecCredential"}'"#, "with a status"),
            (r#"echo '{"kind":"ExecCredential","status":{"token":""}}'"#, "gives no token"),
        ] {
            let error = ran(script).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
        let gone = ExecPlugin { program: "/nonexistent".into(), arguments: Vec::new(), env: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(run(&gone)).unwrap_err().to_string().contains("cannot be started"));
    }
}
