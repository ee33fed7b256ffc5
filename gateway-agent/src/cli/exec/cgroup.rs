//! The job's cgroup: made, filled, killed, removed.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{config::Config, identity::Cgroups};

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
        Ok(Self { dir, id, tree })
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
