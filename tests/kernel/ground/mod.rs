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

mod actor;
mod canary;
mod doors;
mod gateway;

use std::{
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use gateway_agent::kernel::{self, Destination, Disposition, Kernel, Protocol};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use canary::Canary;

pub(crate) use actor::{Actor, Agent, User};
pub(crate) use doors::Doors;
pub(crate) use gateway::Gateway;

use crate::{bpf, options, vectors::RESOURCE};

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
    /// The gateway answers resolvers' questions.
    dns: bool,
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
        // As far as the kernel is concerned, everybody may use ping sockets here.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let ground = Self { name, cgroup, scratch, pin_dir, dns: false, canary };
        // Links up.
        ground.canary.drain_until_marker();
        ground
    }

    /// The same, and every resolver is the gateway.
    pub(crate) fn with_dns() -> Self {
        let mut ground = Self::new();
        ground.dns = true;
        ground
    }

    pub(crate) fn config(&self) -> kernel::Config {
        kernel::Config {
            cgroup_root: self.cgroup.clone(),
            pin_dir: self.pin_dir.clone(),
            virtual_port: PORT,
            flows_per_job: 1000,
            dns: self.dns,
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

    /// Attaches, or takes over what is attached. A hook that is broken on purpose is so afterwards.
    pub(crate) fn attach(&self) -> Kernel {
        self.attach_with(self.config())
    }

    pub(crate) fn attach_with(&self, config: kernel::Config) -> Kernel {
        let kernel = Kernel::attach(config).unwrap_or_else(|error| panic!("{error}"));
        self.break_on_purpose();
        kernel
    }

    /// Takes the hook off that `--break` names, behind the back of whoever attached it.
    pub(crate) fn break_on_purpose(&self) {
        if let Some(hook) = options().broken {
            bpf::detach(&self.pin_dir, hook);
        }
    }

    /// Root, in the host namespace and this cgroup below the attach root.
    pub(crate) fn actor(&self, below: &str) -> Actor {
        self.actor_as(below, User::Root)
    }

    pub(crate) fn actor_as(&self, below: &str, user: User) -> Actor {
        Actor::start(&self.host(), &self.cgroup.join(below), user)
    }

    /// A process in the far namespace, outside the attach root.
    pub(crate) fn far_actor(&self) -> Actor {
        Actor::start(&self.far(), self.cgroup.parent().unwrap(), User::Root)
    }

    /// A process in the far namespace, below the attach root.
    pub(crate) fn actor_in_far(&self, below: &str) -> Actor {
        Actor::start(&self.far(), &self.cgroup.join(below), User::Root)
    }

    /// An agent process, ready.
    pub(crate) fn agent(&self) -> Agent {
        let agent = Agent::start(self);
        self.break_on_purpose();
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

/// Whether this kernel runs in an emulator, where everything takes longer.
pub(crate) fn emulated() -> bool {
    std::env::var_os("GATEWAY_EMULATED").is_some()
}

fn destination(net: &str, port: u16, protocol: Protocol, disposition: Disposition) -> Destination {
    let net = net.parse().unwrap();
    Destination { net, port, protocol, disposition }
}

/// The far end's port 5432 is a resource; UDP port 53 there is open to jobs.
pub(crate) fn declared() -> Vec<Destination> {
    vec![
        destination("198.51.100.2/32", RESOURCE, Protocol::Tcp, Disposition::Redirect),
        destination("2001:db8:51::2/128", RESOURCE, Protocol::Tcp, Disposition::Redirect),
        destination("198.51.100.2/32", 53, Protocol::Udp, Disposition::Allow),
        destination("2001:db8:51::/64", 53, Protocol::Udp, Disposition::Allow),
    ]
}

/// Resources alone: whatever arrives at the far end then is a leak.
pub(crate) fn resources_only() -> Vec<Destination> {
    declared().into_iter().filter(|declared| declared.disposition == Disposition::Redirect).collect()
}

/// Ground, gateway, and root in an enrolled job.
pub(crate) struct World {
    // In this order they end: the processes before the ground they stand on.
    pub(crate) job: Actor,
    pub(crate) gateway: Gateway,
    pub(crate) ground: Ground,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::declaring(&declared())
    }

    pub(crate) fn declaring(destinations: &[Destination]) -> Self {
        let ground = Ground::new();
        let gateway = Gateway::start(&ground);
        gateway.kernel.replace_destinations(destinations).unwrap();
        let id = gateway.kernel.job_cgroup(&ground.cgroup.join("job")).unwrap();
        gateway.kernel.add_job(id).unwrap();
        let job = ground.actor("job");
        assert_eq!(ground.canary(), 0);
        Self { job, gateway, ground }
    }
}
