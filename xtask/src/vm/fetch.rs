//! Kernels from Debian's archive.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    archive::Archive,
    host::{self, Host},
};

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// The newest kernel of this release whose version begins like that; fetched once.
pub(super) fn kernel(host: &Host, suite: &str, version: &str) -> Result<Kernel> {
    let archive = Archive::new(host.target.join("vm/apt").join(suite), suite)?;
    let found = match newest(&archive, version)? {
        Some(found) => found,
        None => {
            archive.update()?;
            newest(&archive, version)?.with_context(|| {
                format!(
                    "{suite} has no linux-image-{version}*-cloud-amd64; `apt-get update` said nothing wrong"
                )
            })?
        }
    };
    let release = found.strip_prefix("linux-image-").unwrap_or(&found).to_owned();
    let folder = host.target.join("vm/kernels").join(&release);
    if !folder.join("complete").exists() {
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder)?;
        // Newer packages keep image and modules apart.
        let mut packages = vec![found.clone()];
        packages.extend(
            depends(&archive, &found)?
                .into_iter()
                .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-")),
        );
        archive.unpack(&packages, &folder)?;
        fs::write(folder.join("complete"), "")?;
    }
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|below| folder.join(below).join(&release))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no modules", folder.display()))?;
    let vmlinuz = [folder.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no kernel", folder.display()))?;
    Ok(Kernel { release, vmlinuz, modules })
}

/// The newest image whose version begins like that.
fn newest(archive: &Archive, version: &str) -> Result<Option<String>> {
    let mut search = archive.command("apt-cache");
    search.args(["search", "--names-only", "^linux-image-[0-9].*-cloud-amd64$"]);
    let text = host::output(&mut search)?;
    let wanted = format!("linux-image-{version}");
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with(&wanted))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned))
}

fn depends(archive: &Archive, package: &str) -> Result<Vec<String>> {
    let text = host::output(archive.command("apt-cache").args(["depends", package]))?;
    Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
}

/// The numbers in a name, so that 6.1.0-50 is newer than 6.1.0-9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let newer = numbers("linux-image-6.1.0-50-cloud-amd64");
        assert!(newer > numbers("linux-image-6.1.0-9-cloud-amd64"));
        assert!(
            numbers("linux-image-6.12.107+deb13-cloud-amd64")
                > numbers("linux-image-6.12.94+deb13-cloud-amd64")
        );
    }
}
