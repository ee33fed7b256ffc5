//! Which container a cgroup is, by the names that engines give.
//!
//! For people and for finding the cgroup of a container by its id; no decision rests on a name.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use gateway_common::limits::MAX_DEPTH;
use serde::{Deserialize, Serialize};

use super::PlaceError;

/// Ids are 64 hexadecimal digits; people may shorten them to this many.
const SHORT: usize = 12;
const LONG: usize = 64;

/// Directories that are looked at for an id.
const MAX_DIRS: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Docker,
    Podman,
    Containerd,
    Crio,
    /// A pod's container whose runtime does not show in its path.
    Kubernetes,
}

impl Engine {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// A container, as its engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub engine: Engine,
    pub id: String,
}

impl fmt::Display for Container {
    /// Short, as engines list them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.engine.as_str(), self.id.get(..SHORT).unwrap_or(&self.id))
    }
}

impl Container {
    /// The innermost container whose cgroup this is, or lies in.
    pub fn of(cgroup: &Path) -> Option<Self> {
        cgroup.ancestors().find_map(Self::at)
    }

    /// The container whose cgroup is exactly this one.
    fn at(cgroup: &Path) -> Option<Self> {
        let name = cgroup.file_name()?.to_str()?;
        let found = |engine, id: &str| Some(Self { engine, id: id.to_owned() });
        // The systemd driver's scopes, and podman's directories.
        let unit = name.strip_suffix(".scope").unwrap_or(name);
        // A slice that systemd did not make: `….slice:cri-containerd:ID`.
        if let Some((rest, id)) = unit.rsplit_once([':', '-'])
            && is_id(id)
        {
            let prefix = rest.rsplit(':').next().unwrap_or(rest);
            return match prefix {
                "docker" => found(Engine::Docker, id),
                "libpod" => found(Engine::Podman, id),
                "cri-containerd" | "nerdctl" | "containerd" => found(Engine::Containerd, id),
                "crio" => found(Engine::Crio, id),
                // Among them the monitors of podman and cri-o, which are not the container.
                _ => None,
            };
        }
        // The cgroupfs driver's directories are named by the id alone.
        if !is_id(name) {
            return None;
        }
        let parent = cgroup.parent()?;
        if parent.file_name()? == "docker" {
            return found(Engine::Docker, name);
        }
        let in_pod = parent.file_name()?.to_str()?.starts_with("pod")
            && parent
                .ancestors()
                .skip(1)
                .any(|above| above.file_name().is_some_and(|name| name == "kubepods"));
        if in_pod { found(Engine::Kubernetes, name) } else { None }
    }

    /// The cgroup below `root` of the container with this id, or with the one id that begins so.
    pub(super) fn find(root: &Path, id: &str) -> Result<PathBuf, PlaceError> {
        let plain = id.len() >= SHORT && id.len() <= LONG && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plain {
            return Err(PlaceError::ContainerId(id.to_owned()));
        }
        let mut found: Vec<PathBuf> = Vec::new();
        let mut waiting = vec![(root.to_owned(), 0)];
        let mut looked_at = 0;
        while let Some((dir, depth)) = waiting.pop() {
            looked_at += 1;
            if looked_at > MAX_DIRS {
                return Err(PlaceError::TooMany(root.to_owned()));
            }
            if Self::at(&dir).is_some_and(|container| container.id.starts_with(id)) {
                found.push(dir);
                continue;
            }
            // A directory that goes away meanwhile holds nobody.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if depth < MAX_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push((entry.path(), depth + 1));
                }
            }
        }
        match found.pop() {
            Some(dir) if found.is_empty() => Ok(dir),
            Some(_) => Err(PlaceError::Ambiguous(id.to_owned())),
            None => Err(PlaceError::NoContainer(id.to_owned())),
        }
    }
}

/// Container ids are written in lower case.
fn is_id(text: &str) -> bool {
    text.len() == LONG && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "0123456789abffff0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(path: &str) -> Option<(Engine, String)> {
        let container = Container::of(Path::new(&path.replace("ID", ID)))?;
        Some((container.engine, container.id))
    }

    #[test]
    fn engines_are_known_by_the_shapes_of_their_paths() {
        for (path, engine) in [
            ("/docker/ID", Engine::Docker),
            ("/system.slice/docker-ID.scope", Engine::Docker),
            ("/actions_job/docker/ID", Engine::Docker),
            ("/machine.slice/libpod-ID.scope", Engine::Podman),
            ("/machine.slice/libpod-ID.scope/container", Engine::Podman),
            ("/libpod_parent/libpod-ID", Engine::Podman),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", Engine::Podman),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
                Engine::Containerd,
            ),
            ("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID", Engine::Containerd),
            ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", Engine::Crio),
            ("/kubepods/besteffort/pod0f-1/ID", Engine::Kubernetes),
            ("/kubepods/pod0f-1/ID/nested", Engine::Kubernetes),
        ] {
            assert_eq!(of(path), Some((engine, ID.to_owned())), "{path}");
        }
    }

    #[test]
    fn the_innermost_container_counts() {
        let path = format!("/docker/{OTHER}/docker/{ID}");
        assert_eq!(Container::of(Path::new(&path)).unwrap().id, ID);
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/gateway-jobs/ID",
            "/ID",
            "/docker/short",
            "/docker-ID.scopes",
            "/system.slice/docker.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/pods/pod1/ID",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(of(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id() {
        let tree = tempfile::tempdir().unwrap();
        let dir = tree.path().join("docker").join(ID);
        std::fs::create_dir_all(dir.join("inner")).unwrap();
        std::fs::create_dir_all(tree.path().join("docker").join(OTHER)).unwrap();
        let find = |id: &str| Container::find(tree.path(), id);
        assert_eq!(find(ID).unwrap(), dir);
        assert_eq!(find("0123456789abcdef").unwrap(), dir);
        assert!(matches!(find("0123456789ab"), Err(PlaceError::Ambiguous(_))));
        assert!(matches!(find("ffffffffffff"), Err(PlaceError::NoContainer(_))));
        for bad in ["", "0123", "../../../../etc", "0123456789ag"] {
            assert!(matches!(find(bad), Err(PlaceError::ContainerId(_))), "{bad}");
        }
    }
}
