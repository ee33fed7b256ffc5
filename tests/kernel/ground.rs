//! Namespaces, a cgroup subtree and a BPF file system of the test's own, and actors inside them.
//!
//! ```text
//! netns host  --veth--  netns far
//! 198.51.100.1          198.51.100.2        the far end counts every packet that arrives
//! 2001:db8:51::1        2001:db8:51::2
//!
//! cgroup  <unified>/gateway-test-PID-N          attach root
//!                       /job /job/nested        enrolled
//!                       /bystander /gateway     not enrolled
//! ```

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use gateway_agent::{
    intercept,
    kernel::{self, Kernel},
};
use rustix::{
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::ask::{Answer, Ask};

pub(crate) const PORT: u16 = 15001;
pub(crate) const FAR_V4: &str = "198.51.100.2";
pub(crate) const FAR_V6: &str = "2001:db8:51::2";

const MAC_HOST: &str = "02:00:00:00:51:01";
const MAC_FAR: &str = "02:00:00:00:51:02";

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Ground {
    name: String,
    pub(crate) cgroup: PathBuf,
    scratch: PathBuf,
    pub(crate) pin_dir: PathBuf,
    canary: Canary,
}

impl Ground {
    /// Moves the calling thread into the host namespace.
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make namespaces and load BPF programs: run them as root"
        );
        let name = format!("gwk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (host, far) = (format!("{name}-host"), format!("{name}-far"));
        // Everything inside its own namespaces: the two ends are moved by the same command that makes them.
        for command in [
            format!("netns add {host}"),
            format!("netns add {far}"),
            format!(
                "-n {host} link add veth0 address {MAC_HOST} type veth peer name veth0 address {MAC_FAR} netns {far}"
            ),
            format!("-n {host} addr add 198.51.100.1/24 dev veth0"),
            format!("-n {host} addr add 2001:db8:51::1/64 dev veth0 nodad"),
            format!("-n {far} addr add {FAR_V4}/24 dev veth0"),
            format!("-n {far} addr add {FAR_V6}/64 dev veth0 nodad"),
            format!("-n {host} link set lo up"),
            format!("-n {far} link set lo up"),
            format!("-n {host} link set veth0 up"),
            format!("-n {far} link set veth0 up"),
            // Known from the start: a packet that waits for its neighbour would arrive behind the marker.
            format!("-n {host} neigh add {FAR_V4} lladdr {MAC_FAR} dev veth0"),
            format!("-n {host} neigh add {FAR_V6} lladdr {MAC_FAR} dev veth0"),
            format!("-n {far} neigh add 198.51.100.1 lladdr {MAC_HOST} dev veth0"),
            format!("-n {far} neigh add 2001:db8:51::1 lladdr {MAC_HOST} dev veth0"),
            format!("-n {host} route add default via {FAR_V4}"),
            format!("-n {host} -6 route add default via {FAR_V6}"),
        ] {
            ip(&command);
        }
        let cgroup = kernel::cgroup2_mount().unwrap().join(format!("gateway-test-{name}"));
        for below in ["", "job", "job/nested", "bystander", "gateway", "other"] {
            fs::create_dir(cgroup.join(below)).unwrap();
        }
        let scratch = std::env::temp_dir().join(&name);
        fs::create_dir(&scratch).unwrap();
        let pin_dir = scratch.join("bpf/gateway");
        let canary = Canary::new(&format!("/run/netns/{far}"));
        enter(&format!("/run/netns/{host}"));
        let ground = Self { name, cgroup, scratch, pin_dir, canary };
        // Links up.
        ground.canary.drain_until_marker();
        ground
    }

    pub(crate) fn config(&self) -> kernel::Config {
        kernel::Config {
            cgroup_root: self.cgroup.clone(),
            pin_dir: self.pin_dir.clone(),
            virtual_port: PORT,
            flows_per_job: 1000,
            dns: false,
            mode: kernel::Mode::Enforce,
        }
    }

    pub(crate) fn host(&self) -> String {
        format!("/run/netns/{}-host", self.name)
    }

    pub(crate) fn far(&self) -> String {
        format!("/run/netns/{}-far", self.name)
    }

    pub(crate) fn id(&self, below: &str) -> u64 {
        kernel::cgroup_id(&self.cgroup.join(below)).unwrap()
    }

    /// A process in the host namespace and this cgroup below the root.
    pub(crate) fn actor(&self, below: &str) -> Actor {
        Actor::start(&self.host(), &self.cgroup.join(below))
    }

    /// A process in the far namespace, outside the attach root.
    pub(crate) fn far_actor(&self) -> Actor {
        Actor::start(&self.far(), self.cgroup.parent().unwrap())
    }

    /// An agent process, ready.
    pub(crate) fn agent(&self) -> Agent {
        let outside = self.cgroup.parent().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kernel-actor"))
            .args([&self.host(), outside.to_str().unwrap(), "agent"])
            .args([self.cgroup.as_os_str(), self.pin_dir.as_os_str()])
            .arg(PORT.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Agent { child, lines };
        assert_eq!(agent.line(), "ready");
        agent
    }

    /// Packets that reached the far end since the last call.
    pub(crate) fn canary(&self) -> u32 {
        self.canary.drain_until_marker()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Best effort throughout: a failed assertion must not hide behind a failed clean-up.
        if let Err(error) = kernel::uninstall(&self.pin_dir) {
            eprintln!("uninstall: {error}");
        }
        let bpffs = self.scratch.join("bpf");
        if bpffs.exists()
            && let Err(error) = rustix::mount::unmount(&bpffs, rustix::mount::UnmountFlags::DETACH)
        {
            eprintln!("unmounting {}: {error}", bpffs.display());
        }
        let _ = fs::remove_dir_all(&self.scratch);
        for below in ["job/nested", "job", "bystander", "gateway", "other", ""] {
            let path = self.cgroup.join(below);
            let _ = fs::write(path.join("cgroup.kill"), "1");
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(&path).is_err() && path.exists() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
        for end in ["host", "far"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{end}", self.name)]).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Moves the calling thread.
fn enter(netns: &str) {
    let netns = fs::File::open(netns).unwrap();
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Sees every IP packet that arrives at the far end. Neighbour discovery does not count.
struct Canary {
    packets: OwnedFd,
    /// Of the last marker: an older one says nothing about what came after it.
    marker: AtomicU64,
}

impl Canary {
    fn new(netns: &str) -> Self {
        let netns = netns.to_owned();
        let packets = std::thread::spawn(move || {
            enter(&netns);
            const ETH_P_ALL: u32 = 3;
            let all = rustix::net::RawProtocol::new(ETH_P_ALL.to_be() >> 16).unwrap();
            let protocol = rustix::net::Protocol::from_raw(all);
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::NONBLOCK, Some(protocol))
                .unwrap()
        })
        .join()
        .unwrap();
        Self { packets, marker: AtomicU64::new(0) }
    }

    /// Sends a marker from the host, which no program concerns, and counts what arrived before it.
    fn drain_until_marker(&self) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 2048];
        let mut count = 0;
        let sender = UdpSocket::bind("198.51.100.1:0").unwrap();
        let mut sent = None::<Instant>;
        let first = self.marker.load(Ordering::Relaxed) + 1;
        loop {
            // Sent again, because the first ones of a new namespace may be lost.
            if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(200)) {
                let number = self.marker.fetch_add(1, Ordering::Relaxed) + 1;
                sender.send_to(&marker(number), (FAR_V4, 9)).unwrap();
                sent = Some(Instant::now());
            }
            match recv(&self.packets, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => match classify(&buffer[..length]) {
                    Packet::Marker(number) if number >= first => return count,
                    Packet::Marker(_) | Packet::Noise => {}
                    Packet::Canary => count += 1,
                },
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => panic!("canary: {error}"),
            }
            assert!(Instant::now() < deadline, "the marker never arrived");
        }
    }
}

enum Packet {
    Marker(u64),
    Noise,
    Canary,
}

const MARKER: &[u8] = b"marker of the canary";

fn marker(number: u64) -> Vec<u8> {
    [MARKER, &number.to_be_bytes()].concat()
}

fn classify(frame: &[u8]) -> Packet {
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    // Own transmissions are seen as well: only what comes from the host arrived here.
    let from_host = match ethertype {
        0x0800 => frame[26..30] == [198, 51, 100, 1],
        // Hop-by-hop (MLD) and ICMPv6 are the kernel's own; a test of those would need its own canary.
        0x86dd => frame[20] != 0 && frame[20] != 58 && frame[22..24] == [0x20, 0x01] && frame[37] == 1,
        _ => false,
    };
    if !from_host {
        return Packet::Noise;
    }
    match frame.split_last_chunk::<8>() {
        Some((head, number)) if head.ends_with(MARKER) => Packet::Marker(u64::from_be_bytes(*number)),
        _ => Packet::Canary,
    }
}

/// A process that does what it is asked.
pub(crate) struct Actor {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    fn start(netns: &str, cgroup: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kernel-actor"))
            .arg(netns)
            .arg(cgroup)
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
            Answer::Failed { errno, micros } => {
                assert!(
                    micros < 500_000,
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
    lines: BufReader<ChildStdout>,
}

impl Agent {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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

/// An attached kernel with a heartbeat and a gateway that identifies flows, in this process.
pub(crate) struct Gateway {
    pub(crate) kernel: std::sync::Arc<Kernel>,
    flows: std::sync::mpsc::Receiver<Result<intercept::Flow, String>>,
    pub(crate) events: kernel::Events,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    stop_accepting: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Gateway {
    /// Runs in the calling thread's network namespace, which new threads inherit.
    pub(crate) fn start(ground: &Ground) -> Self {
        let kernel = std::sync::Arc::new(Kernel::attach(ground.config()).unwrap());
        let events = kernel.events().unwrap().unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        kernel.beat().unwrap();
        let beating = {
            let (kernel, stop) = (std::sync::Arc::clone(&kernel), std::sync::Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    kernel.beat().unwrap();
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            })
        };
        let (send, flows) = std::sync::mpsc::channel();
        let (stop_accepting, stopped) = tokio::sync::oneshot::channel();
        let (listening, ready) = std::sync::mpsc::channel();
        let accepting = {
            let kernel = std::sync::Arc::clone(&kernel);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let intercept = intercept::Intercept::bind(&kernel).unwrap();
                    listening.send(()).unwrap();
                    let mut streams = Vec::new();
                    let serve = async {
                        loop {
                            let (stream, _) = intercept.accept().await.unwrap();
                            let flow =
                                intercept.identify(&kernel, &stream).map_err(|error| error.to_string());
                            // Kept open for a while when it is a flow, closed when it is none.
                            streams.truncate(64);
                            if flow.is_ok() {
                                streams.insert(0, stream);
                            }
                            if send.send(flow).is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = serve => {}, _ = stopped => {} }
                });
            })
        };
        ready.recv().unwrap();
        Self {
            kernel,
            flows,
            events,
            stop,
            threads: vec![beating, accepting],
            stop_accepting: Some(stop_accepting),
        }
    }

    pub(crate) fn flow(&self) -> Result<intercept::Flow, String> {
        self.flows.recv_timeout(Duration::from_secs(5)).expect("nobody came to the gateway")
    }

    /// A flow that came already.
    pub(crate) fn try_flow(&self) -> Result<Result<intercept::Flow, String>, std::sync::mpsc::TryRecvError> {
        self.flows.try_recv()
    }

    /// The next event with this reason.
    pub(crate) fn event(&mut self, reason: kernel::Reason) -> kernel::Refusal {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(refusal) = self.events.next(Duration::from_millis(200)).unwrap()
                && refusal.reason == reason
            {
                return refusal;
            }
        }
        panic!("no event says {reason:?}");
    }

    pub(crate) fn count(&self, reason: kernel::Reason) -> u64 {
        let counters = self.kernel.counters().unwrap();
        counters.iter().find(|(counted, _)| *counted == reason).unwrap().1
    }

    /// The listeners close, the heartbeat goes on.
    pub(crate) fn stop_listening(&mut self) {
        drop(self.stop_accepting.take());
        self.threads.pop().unwrap().join().unwrap();
    }

    /// The heartbeat stops; returns when it counts as dead.
    pub(crate) fn stop_beating(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let beating = self.threads.remove(0);
        beating.thread().unpark();
        beating.join().unwrap();
        let stale = Duration::from_nanos(2_000_000_000);
        while self.kernel.status().unwrap().heartbeat_age.unwrap() <= stale {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.stop_accepting.take());
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
