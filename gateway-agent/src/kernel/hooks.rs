//! Loading the programs and putting them behind their links.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use gateway_common::{Hook, Offsets};

use super::{
    Config, Error, Missing, Mode,
    about::about,
    bpffs, btf,
    sys::{self, AttachType},
};

/// Where programs are attached.
pub(super) struct Targets<'a> {
    pub(super) cgroup: BorrowedFd<'a>,
    pub(super) cgroup_id: u64,
    pub(super) netns: BorrowedFd<'a>,
    pub(super) netns_ino: u64,
}

/// A hook and the link that holds it, if it is on.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) hook: Hook,
    pub(super) link: Result<OwnedFd, String>,
}

/// In the order in which a fresh start attaches them: what stamps sockets comes before what asks for stamps.
const ORDER: &[(Hook, AttachType)] = &[
    (Hook::SockCreate, AttachType::SockCreate),
    (Hook::SockRelease, AttachType::SockRelease),
    (Hook::SkLookup, AttachType::SkLookup),
    (Hook::Getpeername4, AttachType::Getpeername4),
    (Hook::Getpeername6, AttachType::Getpeername6),
    (Hook::Recvmsg4, AttachType::Recvmsg4),
    (Hook::Recvmsg6, AttachType::Recvmsg6),
    (Hook::Bind4, AttachType::Bind4),
    (Hook::Bind6, AttachType::Bind6),
    (Hook::Setsockopt, AttachType::Setsockopt),
    (Hook::Connect4, AttachType::Connect4),
    (Hook::Connect6, AttachType::Connect6),
    (Hook::Sendmsg4, AttachType::Sendmsg4),
    (Hook::Sendmsg6, AttachType::Sendmsg6),
    (Hook::Egress, AttachType::Egress),
    (Hook::Ingress, AttachType::Ingress),
    (Hook::SocketCreate, AttachType::LsmCgroup),
    (Hook::Bpf, AttachType::LsmCgroup),
    (Hook::UnixStreamConnect, AttachType::LsmCgroup),
    (Hook::UnixMaySend, AttachType::LsmCgroup),
    (Hook::FileReceive, AttachType::LsmCgroup),
    (Hook::PtraceAccessCheck, AttachType::LsmCgroup),
    (Hook::TaskKill, AttachType::LsmCgroup),
];

/// Where on a cgroup the hook's programs are listed; `None` for those of other places, and for LSM hooks, whose
/// programs come from all over the host.
pub(super) fn cgroup_attach_type(hook: Hook) -> Option<AttachType> {
    let listed =
        |attach_type: &AttachType| !matches!(attach_type, AttachType::SkLookup | AttachType::LsmCgroup);
    ORDER.iter().find(|(ours, _)| *ours == hook).map(|(_, attach_type)| *attach_type).filter(listed)
}

/// Loads every program first, then attaches: what the kernel refuses to load leaves everything as it was. To
/// enforce, every mandatory hook has to be had; `missing` comes with what else was found missing before.
pub(super) fn install(
    ebpf: &mut Ebpf,
    targets: &Targets<'_>,
    config: &Config,
    lsm: &Result<Lsm, String>,
    mut missing: Vec<Missing>,
) -> Result<Vec<Attached>, Error> {
    let (mode, pin_dir) = (config.mode, &config.pin_dir);
    let loaded: Vec<_> = ORDER
        .iter()
        .map(|(hook, attach_type)| {
            let off = match (attach_type, lsm) {
                (AttachType::LsmCgroup, Err(why)) => Some(why.clone()),
                (AttachType::LsmCgroup, Ok(Lsm { offsets: Err(why), .. })) if looks_inside(*hook) => {
                    Some(why.clone())
                }
                _ => {
                    let btf = lsm.as_ref().ok().map(|lsm| &lsm.btf);
                    load(ebpf, *hook, btf).err().map(|error| reason(&error))
                }
            };
            missing.extend(off.as_ref().and_then(|why| lack(*hook, why)));
            (*hook, *attach_type, off)
        })
        .collect();
    if mode == Mode::Enforce && !missing.is_empty() {
        return Err(Error::Missing(missing));
    }
    let mut hooks = Vec::new();
    for (hook, attach_type, off) in loaded {
        let link = match off {
            Some(why) => Err(why),
            None => put(ebpf, hook, attach_type, targets, pin_dir),
        };
        missing.extend(link.as_ref().err().and_then(|why| lack(hook, why)));
        hooks.push(Attached { hook, link });
    }
    match mode {
        // What is attached by now only refuses more.
        Mode::Enforce if !missing.is_empty() => Err(Error::Missing(missing)),
        _ => Ok(hooks),
    }
}

/// Whether the program follows the kernel's own pointers.
const fn looks_inside(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::UnixStreamConnect
            | Hook::UnixMaySend
            | Hook::FileReceive
            | Hook::PtraceAccessCheck
            | Hook::TaskKill
    )
}

/// What LSM programs need of a kernel that runs them.
pub(super) struct Lsm {
    btf: Btf,
    pub(super) offsets: Result<Offsets, String>,
}

/// Or why there is none here. Costs some milliseconds where there is.
pub(super) fn lsm() -> Result<Lsm, String> {
    lsm_runs()?;
    let btf = Btf::from_sys_fs().map_err(|error| reason(&error.into()))?;
    Ok(Lsm { btf, offsets: btf::offsets() })
}

/// A kernel takes programs for its security module also when it does not run them.
fn lsm_runs() -> Result<(), String> {
    const LIST: &str = "/sys/kernel/security/lsm";
    let list = fs::read_to_string(LIST).map_err(|error| {
        format!("{LIST}: {error}: whether the kernel runs them cannot be told; mount securityfs")
    })?;
    if list.trim().split(',').any(|name| name == "bpf") {
        return Ok(());
    }
    Err(format!(
        "the kernel does not run them: bpf is not in {}; boot with lsm={},bpf",
        list.trim(),
        list.trim()
    ))
}

/// A hook that is off, unless it may be.
fn lack(hook: Hook, why: &str) -> Option<Missing> {
    let about = about(hook);
    (!about.optional).then(|| Missing { what: hook.name(), since: about.since, why: why.to_owned() })
}

fn put(
    ebpf: &Ebpf,
    hook: Hook,
    attach_type: AttachType,
    targets: &Targets<'_>,
    pin_dir: &Path,
) -> Result<OwnedFd, String> {
    let program = program(ebpf, hook).and_then(Program::fd).map_err(|error| reason(&error))?;
    let target = if attach_type == AttachType::SkLookup {
        (targets.netns, targets.netns_ino)
    } else {
        (targets.cgroup, targets.cgroup_id)
    };
    attach(program.as_fd(), hook.name(), attach_type, target, pin_dir)
        .map_err(|(step, source)| format!("{step}: {source}"))
}

fn load(ebpf: &mut Ebpf, hook: Hook, btf: Option<&Btf>) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(name(hook)).ok_or(ProgramError::NotLoaded)?;
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::LsmCgroup(program) => program.load(hook.name(), btf.ok_or(ProgramError::NotLoaded)?),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn program(ebpf: &Ebpf, hook: Hook) -> Result<&Program, ProgramError> {
    ebpf.program(name(hook)).ok_or(ProgramError::NotLoaded)
}

/// The function's name in the object.
fn name(hook: Hook) -> &'static str {
    if hook == Hook::SkLookup { "listener" } else { hook.name() }
}

/// Puts sk_lookup of one more network namespace behind a link of its own, under this name.
pub(super) fn install_in(
    ebpf: &mut Ebpf,
    netns: BorrowedFd<'_>,
    netns_ino: u64,
    name: &str,
    pin_dir: &Path,
) -> Result<OwnedFd, Error> {
    let hook = Hook::SkLookup;
    let off = |error| Error::Elsewhere(reason(&error));
    load(ebpf, hook, None).map_err(off)?;
    let program = program(ebpf, hook).and_then(Program::fd).map_err(off)?;
    attach(program.as_fd(), name, AttachType::SkLookup, (netns, netns_ino), pin_dir)
        .map_err(|(step, source)| Error::Elsewhere(format!("{step}: {source}")))
}

/// Replaces the program behind the pinned link, or makes and pins a new link when there is none or when it
/// belongs to another cgroup or namespace, before the old one goes.
fn attach(
    program: BorrowedFd<'_>,
    name: &str,
    attach_type: AttachType,
    (target, target_id): (BorrowedFd<'_>, u64),
    pin_dir: &Path,
) -> Result<OwnedFd, (&'static str, io::Error)> {
    let path = bpffs::link_path(pin_dir, name);
    match sys::object_get(&path) {
        Ok(link) => {
            let info = sys::link_info(link.as_fd()).map_err(|error| ("reading the pinned link", error))?;
            if info.target == target_id {
                sys::link_update(link.as_fd(), program).map_err(|error| ("replacing the program", error))?;
                return Ok(link);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(("opening the pinned link", error)),
    }
    let link = sys::link_create(program, target, attach_type).map_err(|error| ("attaching", error))?;
    // The file system reserves dots in names.
    let fresh = bpffs::link_path(pin_dir, &format!("{name}_new"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(("removing a left-over pin", error));
        }
        _ => {}
    }
    sys::object_pin(link.as_fd(), &fresh).map_err(|error| ("pinning the link", error))?;
    fs::rename(&fresh, &path).map_err(|error| ("renaming the pin", error))?;
    Ok(link)
}

/// The whole chain of an error in one line: aya keeps the cause apart, and the verifier's log is long. What it did not
/// like stands at its end, before the statistics.
fn reason(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    // The system's error is told again after the log.
    let told = |line: &&str| {
        ["processed ", "verification time ", "stack depth ", ": "]
            .iter()
            .all(|begin| !line.starts_with(begin))
    };
    match lines.rfind(told) {
        Some(last) => format!("{first} … {last}"),
        None => first.to_owned(),
    }
}
