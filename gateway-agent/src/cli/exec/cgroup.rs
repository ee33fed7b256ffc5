//! The job's cgroup: made, filled, killed, removed.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    config::{Config, Limits},
    identity::Cgroups,
};

/// How long killed processes may take to go away.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct JobCgroup {
    dir: PathBuf,
    id: u64,
    tree: Cgroups,
}

impl JobCgroup {
    /// Makes `<attach root>/<jobs.parent>/<name>`; the name must be new.
    pub(super) fn make(config: &Config, name: Option<&str>) -> anyhow::Result<Self> {
        let tree = Cgroups::open(config.kernel.cgroup_root.as_deref()).context("cgroup root")?;
        let parent = tree.root().join(&config.jobs.parent);
        let hint = || format!("{}: making cgroups needs root", parent.display());
        std::fs::create_dir_all(&parent).with_context(hint)?;
        let name = match name {
            Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                bail!("`{name}` cannot name a cgroup")
            }
            Some(name) => name.to_owned(),
            None => {
                let mut bytes = [0; 6];
                aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
                format!("job-{}", hex::encode(bytes))
            }
        };
        let dir = parent.join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        let id = std::fs::metadata(&dir)?.ino();
        let made = Self { dir, id, tree };
        if let Err(error) = limit(made.tree.root(), &made.dir, config.jobs.limits) {
            made.remove()?;
            return Err(error);
        }
        Ok(made)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Kills everything in it and waits until nothing is left.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.tree.populated(&self.dir) {
            // Again each time: a fork may have raced with the last one.
            std::fs::write(self.dir.join("cgroup.kill"), "1").context("cgroup.kill")?;
            if Instant::now() > deadline {
                bail!("its processes do not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes it and what the job made below it.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        remove(&self.dir).with_context(|| self.dir.display().to_string())
    }
}

/// Sets the limits of a new cgroup below the attach root, and hands down the controllers that they need.
fn limit(root: &Path, dir: &Path, limits: Limits) -> anyhow::Result<()> {
    let bytes = limits.memory_mib.map(|mib| u64::from(mib) * 1024 * 1024);
    let wanted = [("pids", limits.pids.map(u64::from)), ("memory", bytes)];
    for (controller, value) in wanted {
        let Some(value) = value else { continue };
        let mut above: Vec<_> = dir.ancestors().skip(1).take_while(|path| path.starts_with(root)).collect();
        above.reverse();
        for parent in above {
            let file = parent.join("cgroup.subtree_control");
            std::fs::write(&file, format!("+{controller}")).with_context(|| {
                format!(
                    "{}: the {controller} controller cannot be handed to jobs; it must be on cgroup v2 and enabled \
                     above the attach root, and no process may live in between",
                    file.display()
                )
            })?;
        }
        let file = dir.join(format!("{controller}.max"));
        std::fs::write(&file, value.to_string()).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Depth first. The files in a cgroup directory go with it.
fn remove(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_and_their_controllers_handed_down() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("gateway-jobs");
        let dir = parent.join("job");
        std::fs::create_dir_all(&dir).unwrap();
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        limit(root.path(), &dir, Limits::default()).unwrap();
        assert!(!dir.join("pids.max").exists(), "no limit is asked for");
        limit(root.path(), &dir, Limits { pids: Some(64), memory_mib: None }).unwrap();
        assert_eq!(read(dir.join("pids.max")), "64");
        assert!(!dir.join("memory.max").exists());
        for above in [root.path(), &parent] {
            assert_eq!(read(above.join("cgroup.subtree_control")), "+pids");
        }
        assert!(!dir.join("cgroup.subtree_control").exists(), "the job's own cgroup has processes");
        limit(root.path(), &dir, Limits { pids: None, memory_mib: Some(3) }).unwrap();
        assert_eq!(read(dir.join("memory.max")), "3145728");
    }

    #[test]
    fn a_controller_that_cannot_be_had_is_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("gone/job");
        let error = limit(root.path(), &dir, Limits { pids: Some(1), memory_mib: None }).unwrap_err();
        assert!(error.to_string().contains("pids controller"), "{error}");
    }
}
