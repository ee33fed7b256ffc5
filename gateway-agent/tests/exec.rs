//! `gateway-agent exec` against a real control socket and real cgroups. Needs root and a writable cgroup2 mount;
//! elsewhere it says that it was skipped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gateway_agent::{
    admin::{Backend, Control, Observation, api, bind_control, serve_control},
    approval::{Approvals, HostDirectory},
    config::Config,
    identity::{Cgroups, Clock, Enrolments, Host, Job, JobEnd, SystemClock, Verifier},
    state::{Lazy, SqliteStore},
    tls::Authority,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use policy::Denial;
use serde_json::{Value, json};

const NOBODY: u32 = 65534;

/// Remembers how jobs ended.
#[derive(Default)]
struct Rest {
    ended: Mutex<Vec<JobEnd>>,
    confined: Mutex<Vec<u64>>,
}

impl Host for Rest {
    fn subject(&self, _issuer: &str, claims: &Value) -> Result<Arc<str>, Denial> {
        match claims["repository"].as_str() {
            Some("acme/payments") => Ok("payments-agent".into()),
            _ => Err(Denial { reason: "no subject".into(), hint: "none".into() }),
        }
    }
    fn confine(&self, cgroup_id: u64, _dir: &Path) -> Result<(), String> {
        self.confined.lock().unwrap().push(cgroup_id);
        Ok(())
    }
    fn forget(&self, cgroup_id: u64) {
        self.confined.lock().unwrap().retain(|c| *c != cgroup_id);
    }
    fn ended(&self, _job: &Job, why: JobEnd) {
        self.ended.lock().unwrap().push(why);
    }
}

impl Backend for Rest {
    fn status(&self) -> api::Status {
        api::Status::default()
    }
    fn sessions(&self) -> Vec<api::Session> {
        Vec::new()
    }
    fn watch_session(
        &self,
        _: &str,
    ) -> Option<tokio::sync::mpsc::Receiver<gateway_agent::session::registry::Shown>> {
        None
    }

    fn kill_session(&self, _id: &str, _reason: &str) -> bool {
        false
    }
    fn reload_policy(&self) -> Result<String, Vec<String>> {
        Ok("v".into())
    }
    fn observe(&self, _what: &Observation<'_>) {}
}

struct Bench {
    dir: tempfile::TempDir,
    tree: PathBuf,
    config: Config,
    rest: Arc<Rest>,
    key: String,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(nonce: bool, uid: Option<u32>) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        gateway_agent::tls::install_providers();
        let name = format!("gateway-exec-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let tree = Cgroups::open(None).ok()?.root().join(name);
        if let Err(error) = std::fs::create_dir(&tree) {
            eprintln!("skipped: {}: {error}", tree.display());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k" }] });
        std::fs::write(dir.path().join("jwks.json"), jwks.to_string()).unwrap();
        std::fs::write(dir.path().join("key.pem"), pair.serialize_pem()).unwrap();
        let uid = uid.map_or("caller".to_owned(), |u| u.to_string());
        let text = format!(
            "state_dir: state\nruntime_dir: run\nkernel: {{ cgroup_root: {} }}\njobs: {{ parent: jobs, uid: {uid}, show: [{}] }}\n\
             identity: {{ issuers: [ {{ issuer: https://i, audience: gw, nonce: {nonce}, jwks_file: jwks.json }} ] }}\n\
             policy: {{ files: [none.yaml] }}\n",
            tree.display(),
            // It is in /tmp, which jobs have their own of.
            dir.path().display(),
        );
        let file = dir.path().join("agent.yaml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        std::fs::create_dir(&config.state_dir).unwrap();
        std::fs::create_dir(&config.runtime_dir).unwrap();
        let authority = Authority::open(&config.state_dir).unwrap();
        authority.publish(&config.trust_files()).unwrap();

        let rest = Arc::new(Rest::default());
        let store = Arc::new(SqliteStore::open(&config.state_file()).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let cgroups = Cgroups::open(config.kernel.cgroup_root.as_deref()).unwrap();
        let verifier = Verifier::new(&config.identity).unwrap();
        let enrolments = Enrolments::open(
            verifier,
            store.clone(),
            rest.clone(),
            clock.clone(),
            cgroups,
            "b".into(),
            config.jobs.uids.clone(),
        )
        .unwrap();
        let directory = Arc::new(HostDirectory);
        let lazy = Lazy::start(store.clone()).unwrap();
        let approvals =
            Approvals::open(&*store, lazy, clock, directory.clone(), vec![], Box::new(|_| ())).unwrap();
        let control = Arc::new(Control {
            approvals,
            enrolments: Arc::new(enrolments),
            backend: rest.clone(),
            directory,
            group: None,
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = config.control.socket.clone();
        runtime.spawn(async move { serve_control(bind_control(&socket).unwrap(), control).await });
        let bench = Self { dir, tree, config, rest, key: pair.serialize_pem(), _runtime: runtime };
        wait(|| bench.config.control.socket.exists());
        Some(bench)
    }

    fn token(&self, repository: &str) -> PathBuf {
        let file = self.dir.path().join("token");
        std::fs::write(&file, sign(&self.key, "gw", repository)).unwrap();
        file
    }

    fn exec(&self, source: &[&str], script: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-agent"));
        command.arg("--config").arg(&self.config.source).arg("exec").args(source).args(["--name", "j"]);
        command.args(["--", "sh", "-c", script]).stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str) -> Output {
        let token = self.token("acme/payments");
        self.exec(&["--token-file", token.to_str().unwrap()], script).output().unwrap()
    }

    fn job_dir(&self) -> PathBuf {
        self.tree.join("jobs/j")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Nothing of a failed test may stay.
        let _ = std::fs::write(self.tree.join("cgroup.kill"), "1");
        for below in ["jobs/j", "jobs", ""] {
            let _ = std::fs::remove_dir(self.tree.join(below));
        }
    }
}

fn sign(key: &str, audience: &str, repository: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemClock.now().0;
    let jti = format!("{}-{now}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let claims = json!({
        "iss": "https://i", "sub": "s", "aud": audience, "iat": now, "exp": now + 300,
        "jti": jti, "repository": repository,
    });
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("k".into());
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_pem(key.as_bytes()).unwrap()).unwrap()
}

fn wait(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited for too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_command_runs_inside_a_job_of_its_own() {
    let Some(b) = Bench::new(false, None) else { return };
    let output = b.run("cat /proc/self/cgroup; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status; env; ls /proc/self/fd; exit 7");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(
        text.contains(&format!("0::/{}/jobs/j", b.tree.file_name().unwrap().to_str().unwrap())),
        "{text}"
    );
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    let capabilities = text.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap();
    let bits = u64::from_str_radix(capabilities, 16).unwrap();
    assert_eq!(bits, 0, "root's too");
    assert!(text.contains(&format!("PGSSLROOTCERT={}", b.config.ca_file().display())), "{text}");
    assert!(text.contains(&format!("SSL_CERT_FILE={}", b.config.ca_bundle().display())), "{text}");
    let fds = output.stdout.split(|c| *c == b'\n').filter(|l| l.len() == 1 && l[0].is_ascii_digit()).count();
    assert_eq!(fds, 4, "0 to 2 and the folder that ls reads: {text}");
    assert_eq!(*b.rest.ended.lock().unwrap(), [JobEnd::Released]);
    assert!(b.rest.confined.lock().unwrap().is_empty());
    assert!(!b.job_dir().exists(), "cleared away");
}

#[test]
fn the_configured_user_is_taken_for_good() {
    let Some(b) = Bench::new(false, Some(NOBODY)) else { return };
    let text = said(&b.run("id -u; id -G; grep -E 'CapEff|CapPrm' /proc/self/status; echo $HOME"));
    assert!(text.starts_with("65534\n65534\n"), "{text}");
    assert!(
        text.contains("CapPrm:\t0000000000000000") && text.contains("CapEff:\t0000000000000000"),
        "{text}"
    );
}

#[test]
fn a_token_in_the_environment_is_not_the_jobs() {
    let Some(b) = Bench::new(false, Some(NOBODY)) else { return };
    let token = sign(&b.key, "gw", "acme/payments");
    let output = b
        .exec(&["--token-env", "THE_TOKEN"], "cat /proc/self/environ /proc/$PPID/environ; true")
        .env("THE_TOKEN", &token)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("Permission denied"), "nor is the launcher's own: {}", said(&output));
    assert!(said(&output).contains("PGSSLROOTCERT"), "{}", said(&output));
    assert!(!said(&output).contains("THE_TOKEN") && !said(&output).contains(&token));
}

#[test]
fn a_refused_token_runs_nothing() {
    let Some(b) = Bench::new(false, None) else { return };
    let witness = b.dir.path().join("ran");
    let script = format!("touch {}", witness.display());
    let wrong = b.token("someone/else");
    let no_subject = b.exec(&["--token-file", wrong.to_str().unwrap()], &script).output().unwrap();
    assert_eq!(no_subject.status.code(), Some(125), "{}", said(&no_subject));
    assert!(said(&no_subject).contains("no subject"));
    let replayed = b.exec(&["--token-file", wrong.to_str().unwrap()], &script).output().unwrap();
    assert!(said(&replayed).contains("used before"), "{}", said(&replayed));
    let broken = b.exec(&["--token-command", "exit 3"], &script).output().unwrap();
    assert!(said(&broken).contains("token command failed"), "{}", said(&broken));
    assert!(!witness.exists());
    assert!(!b.job_dir().exists());
}

#[test]
fn a_nonce_reaches_the_token_command() {
    let Some(b) = Bench::new(true, None) else { return };
    let helper = std::env::current_exe().unwrap();
    let fetch = format!(
        "KEY_FILE={} {} --exact signer --ignored --nocapture | sed -n 's/.*TOKEN //p'",
        b.dir.path().join("key.pem").display(),
        helper.display()
    );
    let output = b.exec(&["--token-command", &fetch], "echo inside").output().unwrap();
    assert!(output.status.success() && said(&output).contains("inside"), "{}", said(&output));
    let without = b.run("echo inside");
    assert_eq!(without.status.code(), Some(125));
    assert!(said(&without).contains("audience"), "{}", said(&without));
}

#[test]
#[ignore = "not a test: the token command of the test above"]
fn signer() {
    gateway_agent::tls::install_providers();
    let (Ok(file), Ok(audience)) = (std::env::var("KEY_FILE"), std::env::var("GATEWAY_AUDIENCE")) else {
        return;
    };
    println!("TOKEN {}", sign(&std::fs::read_to_string(file).unwrap(), &audience, "acme/payments"));
}

#[test]
fn what_the_command_leaves_running_is_killed() {
    let Some(b) = Bench::new(false, None) else { return };
    let output = b.run("setsid sleep 1000 >/dev/null 2>&1 & echo started");
    assert!(output.status.success(), "{}", said(&output));
    assert!(!b.job_dir().exists(), "a cgroup with a process in it could not have been removed");
}

#[test]
fn signals_reach_the_command_and_its_end_is_passed_on() {
    let Some(b) = Bench::new(false, None) else { return };
    let ready = b.dir.path().join("ready");
    let token = b.token("acme/payments");
    let script = format!("trap 'exit 42' TERM; touch {}; while :; do sleep 0.05; done", ready.display());
    let mut child = b.exec(&["--token-file", token.to_str().unwrap()], &script).spawn().unwrap();
    wait(|| ready.exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));

    assert_eq!(b.run("kill -KILL $$").status.code(), Some(128 + 9));
    let token = b.token("acme/payments");
    let absent = Command::new(env!("CARGO_BIN_EXE_gateway-agent"))
        .arg("--config")
        .arg(&b.config.source)
        .args(["exec", "--token-file", token.to_str().unwrap(), "--", "/no/such/command"])
        .output()
        .unwrap();
    assert_eq!(absent.status.code(), Some(127), "{}", said(&absent));
}

#[test]
fn the_command_does_not_outlive_a_killed_launcher() {
    let Some(b) = Bench::new(false, Some(NOBODY)) else { return };
    let token = b.token("acme/payments");
    let mut child = b.exec(&["--token-file", token.to_str().unwrap()], "exec sleep 1000").spawn().unwrap();
    let members = || std::fs::read_to_string(b.job_dir().join("cgroup.procs")).unwrap_or_default();
    let command = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    wait(|| members().lines().any(|pid| command(pid).starts_with("sleep")));
    child.kill().unwrap();
    child.wait().unwrap();
    wait(|| members().is_empty());
}
