//! The pinned maps, each under its type.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SockMap, lpm_trie::LpmTrie,
        of_maps::ArrayOfMaps,
    },
};
use gateway_common::{
    Beat, Config as Settings, DestKey, Ends, Job, Kin, Offsets, Origin, Reason, Released, Seen, Stamp,
    decide::{self, IPPROTO_TCP, IPPROTO_UDP},
    limits,
};

use super::{Error, Events, MapStatus, Sockets, sys};

pub(super) const CONFIG: &str = "CONFIG";
pub(super) const BEAT: &str = "BEAT";
pub(super) const JOBS: &str = "JOBS";
pub(super) const KIN: &str = "KIN";
pub(super) const QUARANTINE: &str = "QUARANTINE";
pub(super) const STAMPS: &str = "STAMPS";
pub(super) const ORIGINS: &str = "ORIGINS";
pub(super) const RELEASED: &str = "RELEASED";
pub(super) const RETURNED: &str = "RETURNED";
pub(super) const DESTINATIONS: &str = "DESTINATIONS";
pub(super) const SEEN: &str = "SEEN";
pub(super) const NETNS: &str = "NETNS";
pub(super) const LISTENERS: &str = "LISTENERS";
pub(super) const EVENTS: &str = "EVENTS";
pub(super) const COUNTERS: &str = "COUNTERS";

/// Key bytes, value bytes and entries of every map, as this version makes it. 0 entries: any number.
const SHAPES: [(&str, usize, usize, u32); 15] = [
    (CONFIG, 4, size_of::<Settings>(), 1),
    (BEAT, 4, size_of::<Beat>(), 1),
    (JOBS, 8, size_of::<Job>(), limits::MAX_JOBS),
    (KIN, 4, size_of::<Kin>(), limits::MAX_KIN),
    (QUARANTINE, 8, 4, limits::MAX_JOBS),
    (STAMPS, 4, size_of::<Stamp>(), 0),
    (ORIGINS, 8, size_of::<Origin>(), limits::MAX_ORIGINS),
    (RELEASED, size_of::<Ends>(), size_of::<Released>(), limits::MAX_RELEASED),
    (RETURNED, 8, 8, limits::MAX_JOBS),
    (DESTINATIONS, 4, 4, 1),
    (SEEN, 4, size_of::<Seen>(), limits::MAX_SEEN),
    (NETNS, 8, 4, limits::MAX_NETNS),
    (LISTENERS, 4, 4, limits::MAX_LISTENERS),
    (EVENTS, 0, 0, limits::EVENT_BYTES),
    (COUNTERS, 4, 8, limits::MAX_REASONS),
];

/// BPF_F_NO_PREALLOC, which tries demand.
pub(super) const NO_PREALLOC: u32 = 1;
/// BPF_NOEXIST.
const NOEXIST: u64 = 1;

pub(super) type BeatMap = Array<MapData, Beat>;
pub(super) type Trie = LpmTrie<MapData, DestKey, u32>;

/// Parses the programs and makes or opens the pinned maps. Nothing is loaded yet. `slot` and `cookie`: the network
/// namespace for which sk_lookup will be. `offsets`: of the running kernel, where LSM programs are to be loaded.
pub(super) fn load(pin_dir: &Path, slot: u32, cookie: u64, offsets: Offsets) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.override_global("SLOT", &slot, true);
    loader.override_global("NETNS_COOKIE", &cookie, true);
    loader.override_global("OFFSETS", &offsets, true);
    for (name, ..) in SHAPES {
        loader.map_pin_path(name, pin_dir.join(name));
    }
    Ok(loader.load(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway")))?)
}

/// Checks what an earlier agent left pinned before anything is taken over. Maps are never made anew under the
/// jobs that rely on them: those of another version are refused.
pub(super) fn check_pins(pin_dir: &Path) -> Result<(), Error> {
    for (name, key, value, entries) in SHAPES {
        let failed = |source| Error::MapSyscall { name, source };
        let map = match sys::object_get(&pin_dir.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            map => map.map_err(failed)?,
        };
        if name == CONFIG {
            let found = sys::map_first_word(map.as_fd()).map_err(failed)?;
            if !matches!(found, 0 | limits::LAYOUT) {
                let expected = limits::LAYOUT;
                return Err(Error::Layout { path: pin_dir.to_owned(), found, expected });
            }
        }
        let found = sys::map_shape(map.as_fd()).map_err(failed)?;
        let entries = if entries == 0 { found.entries } else { entries };
        let expected = sys::Shape { key, value, entries };
        if found != expected {
            let found = format!("{found:?}, expected {expected:?}");
            return Err(Error::MapShape { path: pin_dir.to_owned(), name, found });
        }
    }
    Ok(())
}

/// Takes every map but STAMPS, which only the programs look into. They must outlive the loading of the
/// programs, whose code names them by descriptor until then.
pub(super) fn open(ebpf: &mut Ebpf, pin_dir: &Path) -> Result<(Maps, BeatMap, Origins), Error> {
    let settings: Array<_, Settings> = typed(ebpf, CONFIG)?;
    // Before any other map: when this one has another layout, theirs cannot be told.
    check_layout(&settings, pin_dir)?;
    let again =
        |name| sys::object_get(&pin_dir.join(name)).map_err(|source| Error::MapSyscall { name, source });
    let origins = Origins {
        map: typed(ebpf, ORIGINS)?,
        fd: again(ORIGINS)?,
        released: typed(ebpf, RELEASED)?,
        released_fd: again(RELEASED)?,
    };
    let maps = Maps {
        settings,
        jobs: typed(ebpf, JOBS)?,
        returned: typed(ebpf, RETURNED)?,
        quarantine: typed(ebpf, QUARANTINE)?,
        destinations: typed(ebpf, DESTINATIONS)?,
        netns: typed(ebpf, NETNS)?,
        listeners: typed(ebpf, LISTENERS)?,
        counters: typed(ebpf, COUNTERS)?,
        events: Some(typed(ebpf, EVENTS)?),
    };
    Ok((maps, typed(ebpf, BEAT)?, origins))
}

fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::NoMap { name })?;
    T::try_from(map).map_err(|source| Error::Map { name, source })
}

fn check_layout(settings: &Array<MapData, Settings>, pin_dir: &Path) -> Result<Option<Settings>, Error> {
    let found = settings.get(&0, 0).map_err(|source| Error::Map { name: CONFIG, source })?;
    match found.layout {
        0 => Ok(None),
        limits::LAYOUT => Ok(Some(found)),
        other => Err(Error::Layout { path: pin_dir.to_owned(), found: other, expected: limits::LAYOUT }),
    }
}

/// Sends the programs' own log lines to tracing, on a thread that ends with the process.
#[cfg(feature = "ebpf-log")]
pub(super) fn forward_log(ebpf: &mut Ebpf) {
    let logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the kernel programs' log is not available");
            return;
        }
    };
    std::thread::spawn(move || {
        let mut logger = logger;
        loop {
            logger.flush();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
}

/// Records of redirected sockets, and of those that are closed already.
pub(super) struct Origins {
    map: HashMap<MapData, u64, Origin>,
    /// The same map: aya has no lookup-and-delete.
    fd: OwnedFd,
    released: HashMap<MapData, Ends, Released>,
    released_fd: OwnedFd,
}

impl Origins {
    pub(super) fn take(&self, cookie: u64) -> Result<Option<Origin>, Error> {
        // The typed map checked key and value sizes when it was opened.
        sys::map_take(self.fd.as_fd(), &cookie).map_err(|source| Error::MapSyscall { name: ORIGINS, source })
    }

    pub(super) fn peek(&self, cookie: u64) -> Result<Option<Origin>, Error> {
        match self.map.get(&cookie, 0) {
            Ok(origin) => Ok(Some(origin)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(Error::Map { name: ORIGINS, source }),
        }
    }

    /// The caller owes the job its place: [`Maps::give_back`].
    pub(super) fn take_released(&self, ends: &Ends) -> Result<Option<Released>, Error> {
        sys::map_take(self.released_fd.as_fd(), ends)
            .map_err(|source| Error::MapSyscall { name: RELEASED, source })
    }

    /// What waits now; entries that go meanwhile may be missing.
    pub(super) fn released(&self) -> Vec<(Ends, Released)> {
        self.released.iter().filter_map(Result::ok).collect()
    }
}

/// Everything but the heartbeat and the origins, behind one lock.
pub(super) struct Maps {
    settings: Array<MapData, Settings>,
    jobs: HashMap<MapData, u64, Job>,
    returned: HashMap<MapData, u64, u64>,
    quarantine: HashMap<MapData, u64, u32>,
    destinations: ArrayOfMaps<MapData, Trie>,
    netns: HashMap<MapData, u64, u32>,
    listeners: SockMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    events: Option<RingBuf<MapData>>,
}

impl Maps {
    /// `None` before the first start.
    pub(super) fn settings(&self, pin_dir: &Path) -> Result<Option<Settings>, Error> {
        check_layout(&self.settings, pin_dir)
    }

    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<(), Error> {
        self.settings.set(0, settings, 0).map_err(|source| Error::Map { name: CONFIG, source })
    }

    /// Changes settings, and tells the programs that what they remember of cgroups counts no more.
    pub(super) fn change(&mut self, pin_dir: &Path, change: impl FnOnce(&mut Settings)) -> Result<(), Error> {
        let mut settings = self.settings(pin_dir)?.unwrap_or_default();
        change(&mut settings);
        settings.generation = settings.generation.wrapping_add(1);
        self.set_settings(settings)
    }

    /// `false` when it was one already.
    pub(super) fn add_job(&mut self, cgroup: u64, job: Job) -> Result<bool, Error> {
        match self.jobs.insert(cgroup, job, NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(false)
            }
            Err(source) => Err(Error::Map { name: JOBS, source }),
        }
    }

    /// A record of the job that the kernel programs counted is gone. Jobs that ended have nothing to be given back.
    pub(super) fn give_back(&mut self, job: u64) -> Result<(), Error> {
        match self.jobs.get(&job, 0) {
            Ok(_) => {}
            Err(error) if is_missing(&error) => return Ok(()),
            Err(source) => return Err(Error::Map { name: JOBS, source }),
        }
        let failed = |source| Error::Map { name: RETURNED, source };
        let before = match self.returned.get(&job, 0) {
            Ok(count) => count,
            Err(error) if is_missing(&error) => 0,
            Err(source) => return Err(failed(source)),
        };
        self.returned.insert(job, before.wrapping_add(1), 0).map_err(failed)
    }

    /// The job's count begins anew.
    pub(super) fn forget_returned(&mut self, job: u64) -> Result<(), Error> {
        match self.returned.remove(&job) {
            Err(error) if !is_missing(&error) => Err(Error::Map { name: RETURNED, source: error }),
            _ => Ok(()),
        }
    }

    pub(super) fn remove_job(&mut self, cgroup: u64) -> Result<bool, Error> {
        match self.jobs.remove(&cgroup) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(source) => Err(Error::Map { name: JOBS, source }),
        }
    }

    /// `true` when that changed anything.
    pub(super) fn quarantine(&mut self, cgroup: u64, on: bool) -> Result<bool, Error> {
        let result =
            if on { self.quarantine.insert(cgroup, 1, NOEXIST) } else { self.quarantine.remove(&cgroup) };
        match result {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(false)
            }
            Err(error) if is_missing(&error) => Ok(false),
            Err(source) => Err(Error::Map { name: QUARANTINE, source }),
        }
    }

    /// Jobs that are refused everything.
    pub(super) fn quarantined(&self) -> Result<Vec<u64>, Error> {
        let keys = self.quarantine.keys().collect::<Result<_, _>>();
        keys.map_err(|source| Error::Map { name: QUARANTINE, source })
    }

    pub(super) fn jobs(&self) -> Result<Vec<u64>, Error> {
        self.jobs.keys().collect::<Result<_, _>>().map_err(|source| Error::Map { name: JOBS, source })
    }

    pub(super) fn set_destinations(&mut self, trie: &Trie) -> Result<(), Error> {
        self.destinations.set(0, trie, 0).map_err(|source| Error::Map { name: DESTINATIONS, source })
    }

    /// The sockets of a namespace's slot. Closing them takes them out.
    pub(super) fn set_listeners(&mut self, slot: u32, sockets: &Sockets<'_>) -> Result<(), Error> {
        let failed = |source| Error::Map { name: LISTENERS, source };
        for (v4, socket) in [true, false].into_iter().zip(sockets.tcp) {
            self.listeners.set(decide::listener(slot, IPPROTO_TCP, v4), socket, 0).map_err(failed)?;
        }
        for (v4, socket) in [true, false].into_iter().zip(sockets.udp.into_iter().flatten()) {
            self.listeners.set(decide::listener(slot, IPPROTO_UDP, v4), socket, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Namespaces by cookie, with their slots.
    pub(super) fn namespaces(&self) -> Result<Vec<(u64, u32)>, Error> {
        let all: Result<_, _> = self.netns.iter().collect();
        all.map_err(|source| Error::Map { name: NETNS, source })
    }

    pub(super) fn add_namespace(&mut self, cookie: u64, slot: u32) -> Result<(), Error> {
        self.netns.insert(cookie, slot, 0).map_err(|source| Error::Map { name: NETNS, source })
    }

    pub(super) fn remove_namespace(&mut self, cookie: u64) -> Result<(), Error> {
        match self.netns.remove(&cookie) {
            Err(error) if !is_missing(&error) => Err(Error::Map { name: NETNS, source: error }),
            _ => Ok(()),
        }
    }

    pub(super) fn events(&mut self) -> Result<Option<Events>, Error> {
        Ok(self.events.take().map(Events::new))
    }

    pub(super) fn counters(&self) -> Result<Vec<(Reason, u64)>, Error> {
        Reason::ALL
            .iter()
            .map(|reason| {
                let counts = self
                    .counters
                    .get(&u32::from(reason.code()), 0)
                    .map_err(|source| Error::Map { name: COUNTERS, source })?;
                Ok((*reason, counts.iter().sum()))
            })
            .collect()
    }

    pub(super) fn fill(&self, origins: &Origins) -> Result<Vec<MapStatus>, Error> {
        Ok(vec![
            MapStatus {
                name: JOBS,
                used: self.jobs.keys().filter(Result::is_ok).count(),
                limit: limits::MAX_JOBS,
            },
            MapStatus {
                name: ORIGINS,
                used: origins.map.keys().filter(Result::is_ok).count(),
                limit: limits::MAX_ORIGINS,
            },
            MapStatus { name: RELEASED, used: origins.released().len(), limit: limits::MAX_RELEASED },
            MapStatus {
                name: NETNS,
                used: self.netns.keys().filter(Result::is_ok).count(),
                limit: limits::MAX_NETNS,
            },
        ])
    }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
