//! A real OpenSSH server in the far namespace: keys, users and files of its own, and a note of every command that it ran.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    issuer,
    netns::Netns,
    process::{self, Running, must, wait_for},
};

/// A running server.
#[derive(Debug)]
pub struct Sshd {
    server: Running,
    folder: PathBuf,
    address: String,
    password: String,
}

/// Who it runs programs as.
const UID: u32 = 61_234;

impl Sshd {
    /// The account that the gateway logs in to.
    pub const USER: &str = "deploy";
    pub const PORT: u16 = 22;

    /// Makes keys and an account in a folder, and starts a server in a namespace, listening on this address. `settings`: lines
    /// for its configuration, before all others.
    ///
    /// # Errors
    /// When OpenSSH is not installed, or does not start; its log is in the error.
    pub fn start(folder: &Path, space: &Netns, address: &str, settings: &[&str]) -> Result<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            bail!("no OpenSSH server is installed: `cargo xtask setup` does it");
        }
        for made in ["keys", "etc", "home"] {
            fs::create_dir_all(folder.join(made))?;
        }
        for open in ["", "home"] {
            fs::set_permissions(folder.join(open), fs::Permissions::from_mode(0o755))?;
        }
        chown(folder.join("home"), Some(UID), Some(UID))?;
        for (name, kind) in [
            ("host_ed25519", "ed25519"),
            ("host_ecdsa", "ecdsa"),
            ("login", "ed25519"),
            ("user_ca", "ed25519"),
            ("host_ca", "ed25519"),
        ] {
            keygen(&["-q", "-t", kind, "-N", "", "-C", name, "-f"], &folder.join("keys").join(name))?;
        }
        // What the host's authority says of it, for those who ask.
        must(
            Command::new("ssh-keygen")
                .args(["-q", "-I", "host", "-h", "-n", address, "-s"])
                .arg(folder.join("keys/host_ca"))
                .arg(folder.join("keys/host_ed25519.pub")),
        )?;
        let password = format!("ssh-password-{}", issuer::random());
        accounts(folder, &password)?;
        let keys = folder.join("keys");
        let note = folder.join("ran");
        fs::write(&note, "")?;
        chown(&note, Some(UID), Some(UID))?;
        // The login shell notes what it is given, then does it.
        let shell = folder.join("etc/shell");
        fs::write(
            &shell,
            format!("#!/bin/bash\nprintf '%s\\0' \"$*\" >> {}\nexec /bin/bash \"$@\"\n", note.display()),
        )?;
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755))?;
        fs::copy(keys.join("login.pub"), folder.join("etc/authorized_keys"))?;
        let config = format!(
            "{}\nListenAddress {address}\nPort {}\nHostKey {k}/host_ed25519\nHostKey {k}/host_ecdsa\nHostCertificate {k}/host_ed25519-cert.pub\n\
             AuthorizedKeysFile {f}/etc/authorized_keys\nTrustedUserCAKeys {k}/user_ca.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nLogLevel DEBUG1\nAcceptEnv LANG LC_* GIT_PROTOCOL\nSubsystem sftp /usr/lib/openssh/sftp-server -l VERBOSE\n\
             MaxStartups 200\nMaxSessions 200\nPrintMotd no\nPrintLastLog no\n",
            settings.join("\n"),
            Self::PORT,
            k = keys.display(),
            f = folder.display(),
        );
        fs::write(folder.join("etc/sshd_config"), config)?;
        let mut command = space.command("unshare");
        // Accounts and /run of its own, in a mount namespace that ends with it.
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(
                "mount --bind \"$0/etc/passwd\" /etc/passwd && mount --bind \"$0/etc/shadow\" /etc/shadow && \
                 mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -m 0755 /run/sshd && \
                 exec /usr/sbin/sshd -D -e -f \"$0/etc/sshd_config\"",
            )
            .arg(folder);
        let server = Running::logging(&mut command, &folder.join("server.log"))?;
        let mut sshd = Self { server, folder: folder.to_owned(), address: address.to_owned(), password };
        sshd.wait_until_ready()?;
        Ok(sshd)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = wait_for("sshd to start", Duration::from_secs(30), || {
            if self.log().contains("Server listening on") {
                return Some(true);
            }
            (!self.server.alive()).then_some(false)
        });
        match ready {
            Ok(true) => Ok(()),
            _ => bail!("sshd does not start:\n{}", self.log()),
        }
    }

    /// A public key of [`Sshd::start`], one line without its comment.
    ///
    /// # Panics
    /// When there is none. For tests.
    #[must_use]
    #[track_caller]
    pub fn public_key(&self, name: &str) -> String {
        let text = fs::read_to_string(self.key(&format!("{name}.pub"))).unwrap_or_default();
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(key)) => format!("{kind} {key}"),
            _ => panic!("no key {name}"),
        }
    }

    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join("keys").join(name)
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The account's home, which is a real folder of the host that tests run on.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Every command line that a login shell was started with, and a `-` for each without one.
    #[must_use]
    pub fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("ran")).unwrap_or_default();
        text.split_terminator('\0').map(|line| line.strip_prefix("-c ").unwrap_or("-").to_owned()).collect()
    }

    /// Everything the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Processes of the account that run now, by their command lines.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let of = |entry: fs::DirEntry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let ours = fs::read_to_string(entry.path().join("environ")).ok()?;
            (uid == UID.to_string() && ours.contains(&self.folder.display().to_string()))
                .then(|| String::from_utf8_lossy(&line).replace('\0', " "))
        };
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
    }
}

fn keygen(arguments: &[&str], file: &Path) -> Result<()> {
    must(Command::new("ssh-keygen").args(arguments).arg(file))
}

/// The host's accounts and one more.
fn accounts(folder: &Path, password: &str) -> Result<()> {
    let hash = process::output(Command::new("openssl").args(["passwd", "-6", password]))?;
    let home = folder.join("home");
    let shell = folder.join("etc/shell");
    let name = Sshd::USER;
    let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    fs::write(
        folder.join("etc/passwd"),
        format!("{passwd}{name}:x:{UID}:{UID}::{}:{}\n", home.display(), shell.display()),
    )?;
    let shadow = folder.join("etc/shadow");
    fs::write(
        &shadow,
        format!("root:*:19000::::::\nsshd:*:19000::::::\n{name}:{}:19000::::::\n", hash.trim()),
    )?;
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
