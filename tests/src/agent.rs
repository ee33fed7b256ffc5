//! The agent of a world: its configuration, its process, its command line.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    netns::Netns,
    process::{self, Output, Running, wait_for},
};

/// Where the agent's files are, and how to start it.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    folder: PathBuf,
    cgroup: PathBuf,
    space: Netns,
    process: Option<Running>,
    /// Words before the program, for example `taskset -c 0`.
    prefix: Vec<String>,
}

/// The user that jobs run as.
pub const JOB_UID: u32 = 65534;

/// The port of /metrics inside the host namespace.
pub const METRICS: u16 = 9464;

impl Agent {
    pub(crate) fn new(folder: &Path, cgroup: &Path, space: &Netns) -> Result<Self> {
        for made in ["state", "run", "recordings"] {
            fs::create_dir_all(folder.join(made))?;
        }
        let bpf = folder.join("bpf");
        fs::create_dir_all(&bpf)?;
        process::must(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf))?;
        crate::cgroup::make(&cgroup.join("gateway"))?;
        crate::cgroup::make(&cgroup.join("gateway-jobs"))?;
        Ok(Self {
            program: crate::programs()?.join("gateway-agent"),
            folder: folder.to_owned(),
            cgroup: cgroup.to_owned(),
            space: space.clone(),
            process: None,
            prefix: Vec::new(),
        })
    }

    /// The configuration that a world starts from.
    pub(crate) fn config(folder: &Path, cgroup: &Path) -> Value {
        json!({
            "state_dir": folder.join("state"),
            "runtime_dir": folder.join("run"),
            "kernel": { "cgroup_root": cgroup, "pin_dir": folder.join("bpf/gateway") },
            // Whose identity a job has may not approve what it asks for: root approves, so jobs are
            // somebody else.
            // Folders of worlds are in /tmp, which jobs have their own of.
            "jobs": { "parent": "gateway-jobs", "uid": JOB_UID, "show": [folder] },
            "identity": {
                "skew": "5s",
                "issuers": [{
                    "issuer": "https://token.example",
                    "audience": "gateway-agent",
                    "nonce": false,
                    "jwks_file": folder.join("jwks.json"),
                    "algorithms": ["RS256", "ES256", "EdDSA"],
                }],
            },
            "policy": { "files": [folder.join("policy.yaml")] },
            "control": { "socket": folder.join("run/control.sock") },
            "approvals": { "approvers": ["root"] },
            "recording": {
                "dir": folder.join("recordings"),
                "signing_key": folder.join("state/recording.key"),
                "required": true,
                "durability": "batched",
            },
            "audit": { "file": folder.join("state/audit.jsonl") },
            "metrics": { "listen": format!("127.0.0.1:{METRICS}") },
            "sessions": { "workers": 2, "max_per_job": 200, "max_total": 4000, "login_timeout": "10s", "sql_max_bytes": 65536 },
        })
    }

    /// Runs the agent under these words, for example `taskset -c 0`.
    pub fn set_prefix(&mut self, words: &[&str]) {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Runs another agent than the one built beside the tests.
    pub(crate) fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        // JSON is YAML.
        self.folder.join("agent.yaml")
    }

    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.folder.join("state/audit.jsonl")
    }

    #[must_use]
    pub fn recordings(&self) -> PathBuf {
        self.folder.join("recordings")
    }

    /// Public part of the authority that the gateway shows to jobs.
    #[must_use]
    pub fn job_ca(&self) -> PathBuf {
        self.folder.join("run/ca.pem")
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not answer; its log is in the error.
    pub fn start(&mut self) -> Result<()> {
        crate::program("gateway-agent")?;
        let mut command = self.space.command("sh");
        // The shell moves itself, then becomes the agent: the process id stays.
        command
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(self.cgroup.join("gateway"))
            .args(&self.prefix)
            .arg(&self.program)
            .args(["run", "--config"])
            .arg(self.config_file())
            .current_dir(&self.folder)
            .env("RUST_BACKTRACE", "1");
        self.process = Some(Running::logging(&mut command, &self.log_file())?);
        let up = wait_for("the agent", Duration::from_secs(30), || {
            if !self.alive() {
                return Some(false);
            }
            self.json(&["status"]).ok().filter(|status| status["ready"] == true).map(|_| true)
        });
        match up {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the agent ended:\n{}", self.log()),
            Err(error) => bail!("{error:#}\n{}", self.log()),
        }
    }

    /// Ends it without a chance to clean up.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.signal(rustix::process::Signal::TERM);
        process.wait(Duration::from_secs(30))
    }

    /// Makes it read its policy again.
    pub fn hang_up(&self) {
        if let Some(process) = &self.process {
            process.signal(rustix::process::Signal::HUP);
        }
    }

    pub fn alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Running::alive)
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn memory(&self) -> Result<u64> {
        self.status("VmRSS")
    }

    /// The most memory it ever had resident, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status("VmHWM")
    }

    fn status(&self, wanted: &str) -> Result<u64> {
        let pid = self.pid().context("the agent does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'));
        let kib: u64 =
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no such line")?;
        Ok(kib * 1024)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// A command line of this agent, not run yet: outside of any job, as root.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.space.command(&self.program);
        command.args(arguments).env("GATEWAY_CONFIG", self.config_file()).current_dir(&self.folder);
        command
    }

    /// Runs `gateway-agent ARGUMENTS` as an operator would.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        process::run(&mut self.command(arguments))
    }

    /// The same with `--json`, read.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = arguments.to_vec();
        words.push("--json");
        let out = self.cli(&words)?;
        if !out.success() {
            bail!("{out}");
        }
        serde_json::from_str(&out.stdout).with_context(|| format!("reading the JSON of {out}"))
    }

    /// The text of /metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        let response = self.space.enter(|| -> Result<String> {
            let mut stream =
                TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS)).context("connecting to /metrics")?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response)
        })??;
        let (head, body) = response.split_once("\r\n\r\n").context("no HTTP answer")?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("/metrics answers {head}");
        }
        Ok(if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(body)
        } else {
            body.to_owned()
        })
    }

    /// The sum of a metric over all series whose labels contain all of these, such as `verdict="deny"`.
    ///
    /// # Errors
    /// When /metrics does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.metrics()?;
        let series =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let wanted = series.filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        Ok(wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }

    /// The audit log, one event a line.
    ///
    /// # Errors
    /// When it is not JSON lines.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.audit_file()).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("reading {line}")))
            .collect()
    }
}

fn dechunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(piece) = rest.get(..size).filter(|piece| !piece.is_empty()) else { break };
        whole.push_str(piece);
        body = rest.get(size..).unwrap_or_default().trim_start_matches("\r\n");
    }
    whole
}
