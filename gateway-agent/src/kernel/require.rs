//! What enforcement needs of the kernel besides hooks.

use std::{fs, io, os::fd::AsFd as _};

use rustix::net::{AddressFamily, SocketType, socket};

use super::{Error, Missing, maps::Origins, sys};

/// Features that are not there, each with the kernel that brings it.
pub(super) fn missing(origins: &Origins) -> Result<Vec<Missing>, Error> {
    let mut missing = Vec::new();
    // No socket has this cookie.
    if let Err(error) = origins.take(u64::MAX) {
        missing.push(Missing {
            what: "taking an element out of a hash map",
            since: "5.14",
            why: format!("original destinations could be read twice: {error}"),
        });
    }
    let system = |what| move |source: io::Error| Error::System { what, source };
    let probe = socket(AddressFamily::INET, SocketType::STREAM, None)
        .map_err(|errno| system("making a socket")(errno.into()))?;
    if let Err(error) = sys::netns_cookie(probe.as_fd()) {
        missing.push(Missing {
            what: "SO_NETNS_COOKIE",
            since: "5.14",
            why: format!("network namespaces cannot be told apart: {error}"),
        });
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(system("reading /proc/sys/kernel/osrelease"))?;
    let cgroups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if let Some(controller) = socket_stealer(&release, &cgroups) {
        missing.push(Missing {
            what: "cgroups of sockets beside cgroup v1 net_cls and net_prio",
            since: "5.15",
            why: format!(
                "{controller} is in a cgroup v1 hierarchy and takes sockets out of their cgroup: unmount it"
            ),
        });
    }
    Ok(missing)
}

/// Before 5.15 a socket belonged to a v1 net_cls or net_prio group or to a v2 group, never to both. Returns the
/// controller that lives in a v1 hierarchy, if the kernel is so old. `/proc/cgroups`: name, hierarchy, groups,
/// enabled; hierarchy 0 is none or v2.
fn socket_stealer<'a>(release: &str, cgroups: &'a str) -> Option<&'a str> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next()?, numbers.next()?) >= (5, 15) {
        return None;
    }
    cgroups.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, hierarchy) = (fields.next()?, fields.next()?);
        (matches!(name, "net_cls" | "net_prio") && hierarchy != "0").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nnet_cls\t7\t2\t1\n";

    #[test]
    fn old_kernels_must_not_have_net_cls_in_v1() {
        assert_eq!(socket_stealer("5.10.0-28-cloud-amd64", V1), Some("net_cls"));
        assert_eq!(socket_stealer("5.10.0-28-cloud-amd64", &V1.replace("net_cls\t7", "net_cls\t0")), None);
        assert_eq!(socket_stealer("5.15.0", V1), None);
        assert_eq!(socket_stealer("6.18.1", V1), None);
    }
}
