//! Where things are, and running other programs with something to look at meanwhile.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// The folders that every command works in.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

impl Host {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
        // The environment, then `.cargo/config.toml`, can move the target folder; cargo knows.
        let metadata = output(Command::new(cargo()).current_dir(root).args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version=1",
        ]))?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("reading cargo metadata")?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
        Ok(Self { root: root.to_owned(), target: target.into() })
    }

    /// Tools that setup installs for this project alone.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    pub(crate) fn venv(&self) -> PathBuf {
        self.tools().join("venv")
    }

    /// PATH with our tools first.
    pub(crate) fn path(&self) -> OsString {
        let mut dirs = vec![self.tools().join("bin")];
        dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        // Debian keeps pgbouncer, haproxy and bpftool where an ordinary user's PATH does not look.
        dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        env::join_paths(dirs).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
    }

    /// A command that runs in the workspace and sees our tools.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", self.path());
        command
    }

    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.command(cargo());
        without_cargo_of_this_run(&mut command);
        command
    }

    /// cargo of the nightly toolchain.
    pub(crate) fn nightly(&self) -> Command {
        let mut command = self.command("cargo");
        without_cargo_of_this_run(&mut command);
        command.arg("+nightly");
        command
    }

    pub(crate) fn which(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path()).map(|dir| dir.join(program)).find(|path| path.is_file())
    }
}

/// What `cargo run` puts in our environment must not reach another cargo: it would pin the
/// toolchain and make build scripts think that they belong to xtask.
fn without_cargo_of_this_run(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let of_this_run = name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "LD_LIBRARY_PATH"].contains(&&*name);
        if of_this_run {
            command.env_remove(&*name);
        }
    }
}

fn cargo() -> OsString {
    "cargo".into()
}

pub(crate) fn is_root() -> bool {
    // The owner of our own /proc entry is our effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !out.status.success() {
        bail!("`{shown}` failed ({}):\n{}", out.status, String::from_utf8_lossy(&out.stderr).trim_end());
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

/// Runs a command that shows its own progress (cargo does).
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a long command quietly: a spinner with its latest line on a terminal, a line every half
/// minute elsewhere, and its whole output only when it fails.
pub(crate) fn quietly(label: &str, command: &mut Command) -> Result<()> {
    const TAIL: usize = 80;
    let shown = show(command);
    let started = Instant::now();
    let progress = Progress::start(label);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let tail = Arc::new(Mutex::new(Vec::<String>::new()));
    let follow = |stream: Option<Box<dyn Read + Send>>| {
        let (tail, progress) = (tail.clone(), progress.clone());
        std::thread::spawn(move || {
            for line in
                stream.into_iter().flat_map(|stream| BufReader::new(stream).lines().map_while(Result::ok))
            {
                progress.line(&line);
                let mut tail = tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if tail.len() == TAIL {
                    tail.remove(0);
                }
                tail.push(line);
            }
        })
    };
    let out = follow(child.stdout.take().map(|stream| Box::new(stream) as _));
    let err = follow(child.stderr.take().map(|stream| Box::new(stream) as _));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick();
        std::thread::sleep(Duration::from_millis(100));
    };
    out.join().ok();
    err.join().ok();
    progress.finish(status.success(), started.elapsed());
    if !status.success() {
        let tail = tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).join("\n");
        bail!("`{shown}` failed ({status}):\n{tail}");
    }
    Ok(())
}

#[derive(Clone)]
enum Progress {
    Bar(ProgressBar),
    Lines { label: String, started: Instant, said: Arc<Mutex<Instant>> },
}

impl Progress {
    fn start(label: &str) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            Self::Bar(bar)
        } else {
            eprintln!("-- {label} …");
            let now = Instant::now();
            Self::Lines { label: label.to_owned(), started: now, said: Arc::new(Mutex::new(now)) }
        }
    }

    fn line(&self, line: &str) {
        if let Self::Bar(bar) = self {
            bar.set_message(line.trim().to_owned());
        }
    }

    fn tick(&self) {
        if let Self::Lines { label, started, said } = self {
            let mut said = said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if said.elapsed() >= Duration::from_secs(30) {
                *said = Instant::now();
                eprintln!("   {label}: still at it after {} s", started.elapsed().as_secs());
            }
        }
    }

    fn finish(&self, ok: bool, took: Duration) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
        let (mark, label) = match self {
            Self::Bar(bar) => (if ok { "✓" } else { "✗" }, bar.prefix()),
            Self::Lines { label, .. } => (if ok { "ok" } else { "failed" }, label.clone()),
        };
        eprintln!("{mark} {label} ({:.1} s)", took.as_secs_f64());
    }
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
