//! The agent's side of the kernel programs: load, attach, pin, feed and read them.
//!
//! Links and maps are pinned, so enforcement does not depend on this process: when it dies, jobs keep being
//! refused; when it starts again, it takes over the maps with all jobs and replaces programs behind their
//! links, without a moment in between. Only [`uninstall`] detaches.
//!
//! The only user of aya, and the only unsafe code of the agent (`sys`).

mod about;
mod bpffs;
mod btf;
mod cost;
mod destinations;
mod destroy;
mod error;
mod events;
mod hooks;
mod maps;
mod namespaces;
mod released;
mod require;
mod selftest;
mod status;
mod sys;
mod watch;

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::lpm_trie::LpmTrie;
use gateway_common::{Beat, Config as Settings, DestKey, Job, flags, limits};

pub use about::{About, about};
pub use bpffs::{Removed, prepare as prepare_pin_dir, uninstall};
pub use cost::{Cost, Measuring, costs, measure};
pub use destinations::{Destination, Disposition, Protocol, canonical};
pub use destroy::{Destroyed, destroy_sockets};
pub use error::{Error, Missing};
pub use events::{Events, Process, Refusal};
pub use gateway_common::{Hook, Reason};
pub use namespaces::{NotFollowed, Sockets, trusted};
pub use selftest::{Helper, Probe, SelfTestError, Verdict, help};
pub use status::{HookStatus, MapStatus, Status};
pub use watch::{Drift, Expected};

/// Where and how to attach.
#[derive(Debug, Clone)]
pub struct Config {
    /// A cgroup2 directory; everything below it is subject to the programs, it and its ancestors are not.
    pub cgroup_root: PathBuf,
    /// Directory for the pins, on a BPF file system or where one can be mounted at its parent.
    pub pin_dir: PathBuf,
    /// Loopback port that stands for the gateway. Nothing needs to listen on it; keep it out of the range of
    /// ephemeral ports.
    pub virtual_port: u16,
    /// Redirected sockets that one job may hold open at once, and as many that it closed before they were accepted.
    pub flows_per_job: u32,
    /// Whether questions to resolvers, port 53 of any address, are redirected like flows. Otherwise they are
    /// refused like anything undeclared.
    pub dns: bool,
    pub mode: Mode,
}

/// Whether the programs refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What is not declared is refused. Does not start without every mandatory hook.
    #[default]
    Enforce,
    /// Events and counters tell what [`Mode::Enforce`] would have refused, and it is let through. Declared
    /// resources still go through the gateway.
    Observe,
}

/// What the kernel noted when it redirected a connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Cgroup id of the job.
    pub job: u64,
    /// The cgroup in which the socket was created.
    pub cgroup: u64,
    /// Where the job wanted to go; canonical, so IPv4 is never in a mapped form.
    pub destination: SocketAddr,
    /// CLOCK_MONOTONIC.
    pub at: Duration,
    pub process: Process,
    pub gid: u32,
}

impl From<gateway_common::Origin> for Origin {
    fn from(raw: gateway_common::Origin) -> Self {
        Self {
            job: raw.job,
            cgroup: raw.cgroup,
            destination: SocketAddr::new(raw.addr.ip(), u16::from_be(raw.port)),
            at: Duration::from_nanos(raw.at_ns),
            process: Process { pid: raw.pid, uid: raw.uid, comm: events::comm(&raw.comm) },
            gid: raw.gid,
        }
    }
}

/// A set of destinations inside the kernel, not in force.
pub struct Prepared {
    trie: maps::Trie,
}

/// The attached programs and their maps. Dropping it detaches nothing.
pub struct Kernel {
    config: Config,
    maps: Mutex<maps::Maps>,
    /// Apart from the rest: the heartbeat must not wait for anybody.
    beat: Mutex<maps::BeatMap>,
    origins: maps::Origins,
    swept: Mutex<released::Swept>,
    hooks: Vec<hooks::Attached>,
    /// In which sk_lookup is attached.
    netns: File,
}

impl Kernel {
    /// Loads the programs and attaches them, or takes over what an earlier agent left pinned. Until the first
    /// [`Kernel::beat`], jobs are refused everything.
    ///
    /// Needs root. The `sk_lookup` hook attaches to the network namespace of the calling thread.
    pub fn attach(config: Config) -> Result<Self, Error> {
        let root = File::open(&config.cgroup_root)
            .map_err(|source| Error::Root { path: config.cgroup_root.clone(), source })?;
        let cgroup_id = cgroup_id(&config.cgroup_root)?;
        let root_level = level(&config.cgroup_root)?;
        let netns_path = Path::new("/proc/thread-self/ns/net");
        let system = |what| move |source| Error::System { what, source };
        let netns = File::open(netns_path).map_err(system("opening the network namespace"))?;
        let netns_ino = netns.metadata().map_err(system("reading the network namespace"))?.ino();

        bpffs::prepare(&config.pin_dir)?;
        maps::check_pins(&config.pin_dir)?;
        // Without one, `require` says so.
        let cookie = netns_cookie().unwrap_or(0);
        let lsm = hooks::lsm();
        let known = lsm.as_ref().ok().and_then(|lsm| lsm.offsets.as_ref().ok()).copied().unwrap_or_default();
        let mut ebpf = maps::load(&config.pin_dir, 0, cookie, known)?;
        let (mut maps, beat, origins) = maps::open(&mut ebpf, &config.pin_dir)?;
        // Complete before anything is attached.
        let before = maps.settings(&config.pin_dir)?.unwrap_or_default();
        maps.set_settings(Settings {
            layout: limits::LAYOUT,
            root_level,
            gateway: before.gateway,
            flows_per_job: config.flows_per_job,
            port: config.virtual_port.to_be(),
            flags: flags(&config),
            quarantined: count(&maps.quarantined()?),
            generation: before.generation.wrapping_add(1),
        })?;
        let targets = hooks::Targets { cgroup: root.as_fd(), cgroup_id, netns: netns.as_fd(), netns_ino };
        let hooks = hooks::install(&mut ebpf, &targets, &config, &lsm, require::missing(&origins)?)?;
        #[cfg(feature = "ebpf-log")]
        maps::forward_log(&mut ebpf);
        Ok(Self {
            config,
            maps: Mutex::new(maps),
            beat: Mutex::new(beat),
            origins,
            swept: Mutex::default(),
            hooks,
            netns,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Proves that the agent is alive. Call it several times a second, from a thread that does nothing else:
    /// after [`limits::STALE_NS`] without it, jobs are refused everything.
    pub fn beat(&self) -> Result<(), Error> {
        let at_ns =
            sys::monotonic_ns().map_err(|source| Error::System { what: "reading the clock", source })?;
        self.beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .set(0, Beat { at_ns }, 0)
            .map_err(|source| Error::Map { name: maps::BEAT, source })
    }

    /// Processes in this cgroup and below may reach resources directly: the gateway's own.
    pub fn set_gateway_cgroup(&self, id: u64) -> Result<(), Error> {
        self.maps().change(&self.config.pin_dir, |settings| settings.gateway = id)
    }

    /// Checks that a cgroup can be a job, and returns its id: it lies below the attach root, not too deep, and
    /// neither inside nor around another job.
    pub fn job_cgroup(&self, path: &Path) -> Result<u64, Error> {
        let refused = |reason: String| Error::Job { path: path.to_owned(), reason };
        let path_real = fs::canonicalize(path).map_err(|error| refused(error.to_string()))?;
        let root = fs::canonicalize(&self.config.cgroup_root).map_err(|error| refused(error.to_string()))?;
        let below = path_real
            .strip_prefix(&root)
            .ok()
            .filter(|below| below.components().next().is_some())
            .ok_or_else(|| refused(format!("it does not lie below {}", root.display())))?;
        let depth = below.components().count();
        if depth > limits::MAX_DEPTH as usize {
            return Err(refused(format!(
                "{depth} levels below the attach root; {} at most",
                limits::MAX_DEPTH
            )));
        }
        let id = cgroup_id(&path_real)?;
        let jobs = self.jobs()?;
        for ancestor in path_real.ancestors().skip(1).take_while(|ancestor| *ancestor != root) {
            if jobs.contains(&cgroup_id(ancestor)?) {
                return Err(refused(format!("it lies inside the job {}", ancestor.display())));
            }
        }
        Ok(id)
    }

    /// Enrols a cgroup by its id, see [`cgroup_id`]. From now on everything in it and below is refused what
    /// is not declared. Enrolling twice changes nothing; `false` then.
    pub fn add_job(&self, cgroup: u64) -> Result<bool, Error> {
        let since_ns =
            sys::monotonic_ns().map_err(|source| Error::System { what: "reading the clock", source })?;
        let mut maps = self.maps();
        let new = maps.add_job(cgroup, Job { live: 0, kept: 0, since_ns })?;
        if new {
            maps.forget_returned(cgroup)?;
        }
        maps.change(&self.config.pin_dir, |_| ())?;
        Ok(new)
    }

    /// Releases a job: its processes are like any other's. `false` when it was none.
    pub fn remove_job(&self, cgroup: u64) -> Result<bool, Error> {
        let mut maps = self.maps();
        let removed = maps.remove_job(cgroup)?;
        for (ends, released) in self.origins.released() {
            if released.origin.job == cgroup {
                self.origins.take_released(&ends)?;
            }
        }
        maps.forget_returned(cgroup)?;
        maps.quarantine(cgroup, false)?;
        let quarantined = count(&maps.quarantined()?);
        maps.change(&self.config.pin_dir, |settings| settings.quarantined = quarantined)?;
        Ok(removed)
    }

    /// Refuses a job everything, or lifts that again. Returns whether that changed anything.
    pub fn quarantine(&self, cgroup: u64, on: bool) -> Result<bool, Error> {
        let mut maps = self.maps();
        let changed = maps.quarantine(cgroup, on)?;
        if changed {
            let quarantined = count(&maps.quarantined()?);
            maps.change(&self.config.pin_dir, |settings| settings.quarantined = quarantined)?;
        }
        Ok(changed)
    }

    /// Jobs that are refused everything.
    pub fn quarantined(&self) -> Result<Vec<u64>, Error> {
        self.maps().quarantined()
    }

    /// Cgroup ids of all enrolled jobs.
    pub fn jobs(&self) -> Result<Vec<u64>, Error> {
        self.maps().jobs()
    }

    /// Replaces all declared destinations at once: every connect sees the old set or the new one. A resource
    /// beats an exception that covers the same destination.
    pub fn replace_destinations(&self, destinations: &[Destination]) -> Result<(), Error> {
        self.commit(&Self::prepare(destinations)?)
    }

    /// Puts a prepared set in force: one store of a pointer, and one of a number that ends what was remembered. Each
    /// connect and packet sees the old set or the new one, and from the return of this on the new one.
    pub fn commit(&self, prepared: &Prepared) -> Result<(), Error> {
        let mut maps = self.maps();
        maps.set_destinations(&prepared.trie)?;
        // No program has the old set any more, and what they remember of it counts no more.
        maps.change(&self.config.pin_dir, |_| ())
    }

    /// Fills a set that is not in force yet. This is where a set that is too large or memory that is short is
    /// found out, before anything changed.
    pub fn prepare(destinations: &[Destination]) -> Result<Prepared, Error> {
        let entries = destinations::entries(destinations);
        let count = entries.len();
        if count > limits::MAX_DESTINATIONS as usize {
            return Err(Error::TooManyDestinations { count, limit: limits::MAX_DESTINATIONS });
        }
        let failed = |source| Error::Map { name: maps::DESTINATIONS, source };
        let mut trie: LpmTrie<_, DestKey, u32> =
            LpmTrie::create(limits::MAX_DESTINATIONS, maps::NO_PREALLOC).map_err(failed)?;
        for entry in entries {
            let key = aya::maps::lpm_trie::Key::new(entry.prefix, entry.key);
            trie.insert(&key, entry.flags, 0).map_err(failed)?;
        }
        Ok(Prepared { trie })
    }

    /// Takes the record of a redirected socket. Exactly one caller gets it; `None` when the kernel redirected
    /// no such socket, or it is closed already: see [`Kernel::take_released`].
    pub fn take_origin(&self, cookie: u64) -> Result<Option<Origin>, Error> {
        Ok(self.origins.take(cookie)?.map(Origin::from))
    }

    /// The record of a socket that asks a resolver by datagrams; it stays until the socket is closed. The
    /// destination is that of the latest datagram.
    pub fn origin(&self, cookie: u64) -> Result<Option<Origin>, Error> {
        Ok(self.origins.peek(cookie)?.map(Origin::from))
    }

    /// The reader of refusals; `None` after the first call.
    pub fn events(&self) -> Result<Option<Events>, Error> {
        self.maps().events()
    }

    /// How often each reason was met since the maps were made, over all CPUs.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, Error> {
        self.maps().counters()
    }

    /// What is on, and how full the maps are.
    pub fn status(&self) -> Result<Status, Error> {
        let beat = self
            .beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&0, 0)
            .map_err(|source| Error::Map { name: maps::BEAT, source })?;
        let now =
            sys::monotonic_ns().map_err(|source| Error::System { what: "reading the clock", source })?;
        Ok(Status {
            mode: self.config.mode,
            hooks: self.hooks.iter().map(status::hook).collect(),
            heartbeat_age: (beat.at_ns != 0).then(|| Duration::from_nanos(now.saturating_sub(beat.at_ns))),
            maps: self.maps().fill(&self.origins)?,
        })
    }

    /// The links, by hook, for a service manager's descriptor store.
    pub fn links(&self) -> impl Iterator<Item = (Hook, BorrowedFd<'_>)> {
        self.hooks.iter().filter_map(|hook| Some((hook.hook, hook.link.as_ref().ok()?.as_fd())))
    }

    fn maps(&self) -> std::sync::MutexGuard<'_, maps::Maps> {
        // Every operation on the maps is one system call: a panic in between leaves nothing half done.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flags(config: &Config) -> u16 {
    let dns = if config.dns { flags::DNS } else { 0 };
    let observe = if config.mode == Mode::Observe { flags::OBSERVE } else { 0 };
    dns | observe
}

/// Cookie of the calling thread's network namespace.
pub fn netns_cookie() -> io::Result<u64> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    sys::netns_cookie(socket.as_fd())
}

fn count<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}

/// The id under which the kernel knows a cgroup2 directory.
pub fn cgroup_id(path: &Path) -> Result<u64, Error> {
    const CGROUP2_MAGIC: u32 = 0x6367_7270;
    let failed = |source| Error::Root { path: path.to_owned(), source };
    // The field's type differs by architecture, and so does its sign.
    if rustix::fs::statfs(path).map_err(|errno| failed(errno.into()))?.f_type as u32 != CGROUP2_MAGIC {
        return Err(failed(io::Error::other("not on a cgroup2 file system")));
    }
    // kernfs numbers inodes by node id, which is what the BPF helpers return.
    Ok(fs::metadata(path).map_err(failed)?.ino())
}

/// The mount point of the cgroup2 hierarchy.
pub fn cgroup2_mount() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|source| Error::System { what: "reading /proc/self/mounts", source })?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
        })
        .ok_or(Error::NoCgroup2)
}

/// How many levels a cgroup lies below the root of the hierarchy.
fn level(path: &Path) -> Result<u32, Error> {
    let failed = |source| Error::Root { path: path.to_owned(), source };
    let real = fs::canonicalize(path).map_err(failed)?;
    // The hierarchy's root is the one directory of it without cgroup.type: the mount may show a part only, so
    // counting path components would not do in a cgroup namespace.
    let mut level = 0;
    let mut at = real.as_path();
    while at.join("cgroup.type").exists() {
        level += 1;
        at = at.parent().ok_or_else(|| failed(io::Error::other("it has no cgroup root above it")))?;
    }
    if at.join("cgroup.procs").exists() {
        Ok(level)
    } else {
        Err(failed(io::Error::other(
            "the mount does not show the hierarchy's root; run in the initial cgroup namespace",
        )))
    }
}
