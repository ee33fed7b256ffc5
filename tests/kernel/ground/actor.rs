//! Processes that do what a test asks, and the agent that a test kills.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self},
    time::Duration,
};

use super::{Ground, PORT};
use crate::{
    ask::{Answer, Ask},
    attempt::patience_micros,
};

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root with everything.
    Root,
    /// Root without CAP_SYS_ADMIN and its like.
    Contained,
    /// uid 1000.
    Plain,
}

impl User {
    /// What a job can be.
    pub(crate) const JOBS: [Self; 2] = [Self::Plain, Self::Contained];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Contained => "contained",
            Self::Plain => "plain",
        }
    }
}

fn program() -> Command {
    Command::new(tests::program("kernel-actor").unwrap())
}

/// A process that does what it is asked.
pub(crate) struct Actor {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    pub(super) fn start(netns: &str, cgroup: &Path, user: User) -> Self {
        let mut child = program()
            .arg(netns)
            .arg(cgroup)
            .arg(user.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asks = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut actor = Self { child, asks, answers };
        // Inside, once it answers.
        actor.ask(&Ask::CloseAll);
        actor
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self, ask: &Ask) {
        let line = serde_json::to_string(ask).unwrap();
        writeln!(self.asks, "{line}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(ask);
        self.answer()
    }

    /// Asks for something that must work.
    pub(crate) fn done(&mut self, ask: &Ask) {
        match self.ask(ask) {
            Answer::Done { .. } => {}
            other => panic!("{ask:?}: {other:?}"),
        }
    }

    /// Connects, and returns what getpeername said.
    pub(crate) fn connect(&mut self, to: &str) -> SocketAddr {
        match self.ask(&Ask::Connect { to: to.parse().unwrap() }) {
            Answer::Done { peer: Some(peer), .. } => peer,
            other => panic!("connect to {to}: {other:?}"),
        }
    }

    /// Asks for something that has to be refused at once; returns the errno.
    pub(crate) fn refused(&mut self, ask: &Ask) -> i32 {
        match self.ask(ask) {
            Answer::Failed { errno, micros, .. } => {
                assert!(
                    micros < patience_micros(),
                    "{ask:?} was refused after {micros} µs only: a timeout is no refusal"
                );
                errno
            }
            done => panic!("{ask:?} was not refused: {done:?}"),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent process.
pub(crate) struct Agent {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Agent {
    pub(super) fn start(ground: &Ground) -> Self {
        let outside = ground.cgroup.parent().unwrap();
        let mut child = program()
            .args([&ground.host(), outside.to_str().unwrap(), "root", "agent"])
            .args([ground.cgroup.as_os_str(), ground.pin_dir.as_os_str()])
            .arg(PORT.to_string())
            .arg(if ground.dns { "dns" } else { "" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let agent = Self { child, lines };
        assert_eq!(agent.line(), "ready");
        agent
    }

    /// What it says next: `ready`, then where each flow wanted to go.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("the agent says nothing")
    }

    /// The same, if it comes within this time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// By the kernel where it can be made to: in a cgroup whose memory does not suffice.
    pub(crate) fn kill_for_its_memory(mut self, ground: &Ground) {
        let starved = ground.cgroup.join("starved");
        let parent = ground.cgroup.parent().unwrap();
        let controlled = std::fs::write(parent.join("cgroup.subtree_control"), "+memory").is_ok()
            && std::fs::write(ground.cgroup.join("cgroup.subtree_control"), "+memory").is_ok();
        std::fs::create_dir(&starved).unwrap();
        if controlled && starved.join("memory.max").exists() {
            std::fs::write(starved.join("cgroup.procs"), self.child.id().to_string()).unwrap();
            // What it has stays charged where it was; the next page is one too many.
            std::fs::write(starved.join("memory.max"), "0").unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while self.child.try_wait().unwrap().is_none() {
                if std::time::Instant::now() > deadline {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        // Where the controller belongs to the old hierarchy: the signal that it would have sent.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir(&starved).unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
