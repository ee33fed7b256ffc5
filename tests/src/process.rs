//! Running things: with their errors shown, with a time limit, and ended when dropped.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before the test is told that it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a finished program said.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    shown: String,
}

impl Output {
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Panics with everything it said, unless it ended well. For tests.
    ///
    /// # Panics
    /// When the program failed.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.success(), "{self}");
        self
    }

    /// The same, when it should have failed.
    ///
    /// # Panics
    /// When the program ended well.
    #[must_use]
    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.success(), "this should have failed: {self}");
        self
    }

    /// Standard output without the space around it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr, shown, .. } = self;
        write!(f, "`{shown}` ended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    started: Instant,
    readers: Option<(Reader, Reader)>,
}

type Reader = std::thread::JoinHandle<Vec<u8>>;

impl Running {
    /// Starts a program whose output goes to a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn logging(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Self::start(command, None)
    }

    /// Starts a program whose output is kept until [`Running::finish`], with this on its standard
    /// input. Without any, standard input stays open until [`Running::close_stdin`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn capturing(command: &mut Command, stdin: Option<&[u8]>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start(command, stdin)
    }

    fn start(command: &mut Command, stdin: Option<&[u8]>) -> Result<Self> {
        let shown = show(command);
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let readers = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => Some((follow(out), follow(err))),
            _ => None,
        };
        if let Some(bytes) = stdin
            && let Some(mut pipe) = child.stdin.take()
        {
            let bytes = bytes.to_owned();
            // On a thread of its own: the program may want its output read first.
            std::thread::spawn(move || pipe.write_all(&bytes).ok());
        }
        Ok(Self { child, shown, started: Instant::now(), readers })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a program that has ended already is left alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, signal).ok();
        }
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// When it has closed it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let pipe = self.child.stdin.as_mut().context("standard input is closed")?;
        pipe.write_all(bytes)?;
        Ok(pipe.flush()?)
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// True when it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes longer than the limit; it is killed then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                let (out, err) = self.take_output();
                bail!("`{}` did not end within {limit:?}\n--- stdout\n{out}\n--- stderr\n{err}", self.shown);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end and returns what it said.
    ///
    /// # Errors
    /// When it takes longer than the limit; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<Output> {
        self.close_stdin();
        let status = self.wait(limit)?;
        let took = self.started.elapsed();
        let (stdout, stderr) = self.take_output();
        Ok(Output { status, stdout, stderr, took, shown: self.shown.clone() })
    }

    fn take_output(&mut self) -> (String, String) {
        let read = |reader: Reader| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
        self.readers.take().map(|(out, err)| (read(out), read(err))).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn follow(mut stream: impl Read + Send + 'static) -> Reader {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok();
        all
    })
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or hangs; a failure of its own is in the result.
pub fn run(command: &mut Command) -> Result<Output> {
    Running::capturing(command, Some(b""))?.finish(LIMIT)
}

/// Runs a program that must succeed.
///
/// # Errors
/// When it does not, with what it said.
pub fn must(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Standard output of a program that must succeed.
///
/// # Errors
/// When it does not, with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let out = run(command)?;
    if !out.success() {
        bail!("{out}");
    }
    Ok(out.stdout)
}

/// Asks again and again until the answer is there.
///
/// # Errors
/// When it is not there in time.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Finds a program on PATH, or where Debian keeps what it does not put there.
#[must_use]
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
