//! A real API server and its etcd in the far namespace, with an audit log of everything that was asked, and a node behind which a
//! stand-in for a kubelet answers ([`crate::kubelet`]).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    issuer,
    kubelet::Kubelet,
    netns::Netns,
    pki::Authority,
    process::{self, Output, Running, must, wait_for},
};

/// Where `cargo xtask setup kubernetes` keeps the server.
const SERVER: &str = "/var/cache/gateway-tests/kube-apiserver-1.20.2";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    apiserver: Running,
    _etcd: Running,
    pub kubelet: Kubelet,
    folder: PathBuf,
    space: Netns,
    address: String,
    admin: String,
    gateway: String,
}

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kubectl {
    /// 1.20, of the server's own age.
    Old,
    /// 1.32.
    New,
}

impl Kubectl {
    /// Its program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn program(self) -> Result<PathBuf> {
        let suite = match self {
            Self::Old => "bookworm",
            Self::New => "trixie",
        };
        let path = crate::target()?.join(format!("tools/kubectl-{suite}/usr/bin/kubectl"));
        ensure!(path.is_file(), "{} is missing: `cargo xtask setup kubernetes` gets it", path.display());
        Ok(path)
    }
}

/// The sources of Kubernetes' types, of each release: folders with `api` and `apimachinery`.
///
/// # Errors
/// When they are not there.
pub fn types() -> Result<Vec<PathBuf>> {
    ["trixie", "sid"]
        .iter()
        .map(|suite| {
            let path = format!("tools/kubernetes-types-{suite}/usr/share/gocode/src/k8s.io");
            let path = crate::target()?.join(path);
            ensure!(path.is_dir(), "{} is missing: `cargo xtask setup kubernetes` gets it", path.display());
            Ok(path)
        })
        .collect()
}

impl Cluster {
    pub const PORT: u16 = 6443;
    /// The user that the gateway's token belongs to.
    pub const USER: &str = "gateway";

    /// Starts one in a namespace. `address` is the server's, `node` the stand-in's.
    ///
    /// # Errors
    /// When a program is missing, or does not start; its log is in the error.
    pub fn start(folder: &Path, space: &Netns, address: &str, node: &str, ca: &Authority) -> Result<Self> {
        ensure!(Path::new(SERVER).is_file(), "{SERVER} is missing: `cargo xtask setup kubernetes` builds it");
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let file = |name: &str| folder.join(name).display().to_string();
        ca.write(&folder.join("ca.pem"))?;
        for (name, names) in [
            ("server", vec![address, "127.0.0.1", "kubernetes.default.svc"]),
            ("client", vec!["kubelet-client"]),
        ] {
            let identity = ca.server(&names)?;
            fs::write(folder.join(format!("{name}.pem")), identity.certificate)?;
            fs::write(folder.join(format!("{name}.key")), identity.key)?;
        }
        must(Command::new("openssl").args(["genrsa", "-out", &file("accounts.key"), "2048"]))?;
        let (admin, gateway) = (issuer::random(), issuer::random());
        fs::write(
            folder.join("tokens.csv"),
            format!("{admin},admin,1,system:masters\n{gateway},{},2,system:masters\n", Self::USER),
        )?;
        fs::write(
            folder.join("audit.yaml"),
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{ level: Metadata }]\n",
        )?;
        let mut etcd = space.command("etcd");
        etcd.args(["--data-dir", &file("etcd"), "--log-level", "error"]);
        for name in ["--listen-client-urls", "--advertise-client-urls"] {
            etcd.args([name, "http://127.0.0.1:2379"]);
        }
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
        let etcd = Running::logging(&mut etcd, &folder.join("etcd.log"))?;
        let mut server = space.command(SERVER);
        server.args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--secure-port={}", Self::PORT),
            format!("--tls-cert-file={}", file("server.pem")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.pem")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--kubelet-certificate-authority={}", file("ca.pem")),
            format!("--kubelet-client-certificate={}", file("client.pem")),
            format!("--kubelet-client-key={}", file("client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.key")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // There is no controller that makes accounts for namespaces.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file("audit.jsonl")),
            "--profiling=false".to_owned(),
        ]);
        let apiserver = Running::logging(&mut server, &folder.join("apiserver.log"))?;
        let kubelet = Kubelet::start(space, node, ca, &folder.join("pods"))?;
        let mut cluster = Self {
            apiserver,
            _etcd: etcd,
            kubelet,
            folder: folder.to_owned(),
            space: space.clone(),
            address: address.to_owned(),
            admin,
            gateway,
        };
        cluster.wait_until_ready()?;
        cluster.prepare(node)?;
        Ok(cluster)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.url());
        let ready = wait_for("the API server to start", Duration::from_secs(120), || {
            let mut curl = self.space.command("curl");
            curl.args(["--silent", "--fail", "--insecure", "--header"]);
            curl.arg(format!("Authorization: Bearer {}", self.admin)).arg(&url);
            if curl.output().is_ok_and(|out| out.status.success()) {
                return Some(true);
            }
            (!self.apiserver.alive()).then_some(false)
        });
        match ready {
            Ok(true) => Ok(()),
            _ => bail!("the API server does not start:\n{}", self.log()),
        }
    }

    /// A namespace, an account in it, and the node.
    fn prepare(&self, node: &str) -> Result<()> {
        let port = crate::kubelet::PORT;
        let objects = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}},
            {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"bank"}},
            {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"shop"}},
            {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"jobs","namespace":"bank"}},
            {"apiVersion":"v1","kind":"Node","metadata":{"name":"node"}}]}"#;
        self.direct(Kubectl::New, &["apply", "-f", "-"], objects)?;
        let status = format!(
            r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{node}"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{port}}}}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        );
        self.raw("PATCH", "/api/v1/nodes/node/status", Some(("application/merge-patch+json", &status)))?;
        Ok(())
    }

    /// kubectl past the gateway, as the administrator.
    ///
    /// # Errors
    /// When it fails.
    pub fn direct(&self, which: Kubectl, words: &[&str], stdin: &str) -> Result<Output> {
        let out = self.attempt(which, words, stdin)?;
        ensure!(out.success(), "{out}");
        Ok(out)
    }

    /// The same, however it ends.
    ///
    /// # Errors
    /// When it does not run.
    pub fn attempt(&self, which: Kubectl, words: &[&str], stdin: &str) -> Result<Output> {
        let mut command = self.space.command(which.program()?);
        command.env("HOME", &self.folder).env("KUBECONFIG", "/dev/null");
        command.arg("--server").arg(self.url()).arg("--token").arg(&self.admin);
        command.arg("--certificate-authority").arg(self.folder.join("ca.pem")).args(words);
        Running::capturing(&mut command, Some(stdin.as_bytes()))?.finish(process::LIMIT)
    }

    /// helm past the gateway, as the administrator, in the namespace of the tests.
    ///
    /// # Errors
    /// When it fails.
    pub fn helm(&self, program: &Path, words: &[&str]) -> Result<Output> {
        let mut command = self.space.command(program);
        command.env("HOME", &self.folder).env("KUBECONFIG", "/dev/null").args(["--namespace", "shop"]);
        command.arg("--kube-apiserver").arg(self.url()).arg("--kube-token").arg(&self.admin);
        command.arg("--kube-ca-file").arg(self.folder.join("ca.pem")).args(words);
        let out = Running::capturing(&mut command, Some(b""))?.finish(process::LIMIT)?;
        ensure!(out.success(), "{out}");
        Ok(out)
    }

    /// One request past the gateway, as the administrator: the body of the answer.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn raw(&self, method: &str, target: &str, body: Option<(&str, &str)>) -> Result<String> {
        let mut curl = self.space.command("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--cacert"])
            .arg(self.folder.join("ca.pem"));
        curl.args(["--request", method, "--header"]).arg(format!("Authorization: Bearer {}", self.admin));
        if let Some((kind, text)) = body {
            curl.arg("--header").arg(format!("Content-Type: {kind}")).arg("--data-binary").arg(text);
        }
        let out = Running::capturing(curl.arg(format!("{}{target}", self.url())), Some(b""))?;
        let out = out.finish(process::LIMIT)?;
        ensure!(out.success(), "{out}");
        Ok(out.stdout)
    }

    /// What etcd holds below a key, byte by byte, as it prints it.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn stored(&self, key: &str) -> Result<Vec<u8>> {
        let mut curl = self.space.command("curl");
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let question = format!(r#"{{"key":"{}"}}"#, encode(key));
        curl.args(["--silent", "--fail", "http://127.0.0.1:2379/v3/kv/range", "--data", &question]);
        let answer: Value = serde_json::from_str(&process::output(&mut curl)?)?;
        let value =
            answer.pointer("/kvs/0/value").and_then(Value::as_str).with_context(|| format!("no {key}"))?;
        Ok(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value)?)
    }

    /// Everything that the server was asked: the lines of its audit log.
    ///
    /// # Errors
    /// When there is none.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("audit.jsonl"))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, Self::PORT)
    }

    /// The gateway's own token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.gateway
    }

    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Everything the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("apiserver.log")).unwrap_or_default()
    }
}
