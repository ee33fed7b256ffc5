//! What a job's command finds in its environment.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use anyhow::Context;
use nix::unistd::User;

use crate::{config::Config, tls::JAVA_PASSWORD};

/// For clients that insist on a user or a password: the gateway takes any, and logs in with its own.
const PLACEHOLDERS: &[(&str, &str)] = &[("PGUSER", "job"), ("PGPASSWORD", "placeholder")];

/// Each names a file that its clients trust instead of what they brought along: OpenSSL and whoever follows it (Python, Ruby, Go, Rust),
/// requests, curl, pip, Cargo, git, npm, the AWS SDKs.
const REPLACE_ROOTS: &[&str] = &[
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "npm_config_cafile",
    "AWS_CA_BUNDLE",
];

/// The launcher's variables without credentials and without the token, with the gateway's CA, placeholders where
/// clients want credentials, and the user's own variables. `home`: where a user without an entry lives.
pub(super) fn make(
    config: &Config,
    token: Option<&str>,
    user: Option<&User>,
    home: Option<&Path>,
) -> anyhow::Result<Vec<CString>> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| {
            // A name that is not text matches no pattern that anybody wrote: out with it.
            name.to_str().is_some_and(|name| config.jobs.environment.passes(name) && token != Some(name))
        })
        .collect();
    let mut java_options = variables.get(OsStr::new("JAVA_TOOL_OPTIONS")).cloned().unwrap_or_default();
    let mut set = |name: &str, value: OsString| variables.insert(name.into(), value);
    let (ca, bundle) = (config.ca_file(), config.ca_bundle());
    if ca.exists() {
        set("PGSSLROOTCERT", ca.clone().into());
        // Adds to Node's built-in roots, so the CA alone is right.
        set("NODE_EXTRA_CA_CERTS", ca.into());
    }
    if bundle.exists() {
        for replaces_roots in REPLACE_ROOTS {
            set(replaces_roots, bundle.clone().into());
        }
    }
    let java = config.java_roots();
    if java.exists() {
        java_options.push(java_roots(&java));
        set("JAVA_TOOL_OPTIONS", java_options);
    }
    if config.kubeconfig().exists() {
        set("KUBECONFIG", config.kubeconfig().into());
    }
    match (user, home) {
        (Some(user), _) => {
            set("HOME", user.dir.clone().into());
            set("USER", user.name.clone().into());
            set("LOGNAME", user.name.clone().into());
        }
        (None, Some(home)) => {
            set("HOME", home.into());
            set("USER", "job".into());
            set("LOGNAME", "job".into());
        }
        (None, None) => {}
    }
    for (name, value) in PLACEHOLDERS {
        variables.entry(name.into()).or_insert_with(|| value.into());
    }
    let joined = variables.into_iter().map(|(name, value)| {
        let mut line = name.into_vec();
        line.push(b'=');
        line.extend_from_slice(value.as_bytes());
        CString::new(line).context("a variable with a NUL in it")
    });
    joined.collect()
}

/// What a Java virtual machine reads before its own arguments, which may say otherwise. It splits it at blanks.
fn java_roots(path: &Path) -> String {
    let path = path.display();
    format!(
        " -Djavax.net.ssl.trustStore='{path}' -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword={JAVA_PASSWORD}"
    )
}
