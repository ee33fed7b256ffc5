//! What a job's command finds in its environment.

use nix::unistd::{Uid, User};
use tokio::process::Command;

use crate::config::Config;

/// Variables that only the launcher had use for.
const OURS: &[&str] =
    &["GATEWAY_CONFIG", "GATEWAY_SOCKET", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS"];

/// Takes the token away, adds the gateway's CA, and the user's own variables when the user changes.
pub(super) fn prepare(command: &mut Command, config: &Config, token: Option<&str>, uid: Option<u32>) {
    for name in OURS.iter().copied().chain(token) {
        command.env_remove(name);
    }
    let (ca, bundle) = (config.ca_file(), config.ca_bundle());
    if ca.exists() {
        command.env("PGSSLROOTCERT", &ca);
        // Adds to Node's built-in roots, so the CA alone is right.
        command.env("NODE_EXTRA_CA_CERTS", &ca);
    }
    if bundle.exists() {
        for replaces_roots in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            command.env(replaces_roots, &bundle);
        }
    }
    if let Some(uid) = uid
        && let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid))
    {
        command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    }
}
