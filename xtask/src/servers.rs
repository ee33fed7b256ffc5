//! PostgreSQL servers of other Debian releases, unpacked into the target folder. Nothing of them is installed.
//!
//! The programs of another release need its libraries, and mostly its C library: each is put behind a script that
//! starts it by the loader beside it. 14 and 16 are in no release.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{archive::Archive, host::Host};

/// Releases, and the server that each has.
const SERVERS: [(&str, u32); 3] = [("bullseye", 13), ("trixie", 17), ("sid", 18)];

/// An unpacked server, with its clients.
pub(crate) struct Server {
    pub(crate) version: u32,
    pub(crate) root: PathBuf,
}

/// All of them, oldest first; fetched once.
pub(crate) fn servers(host: &Host) -> Result<Vec<Server>> {
    SERVERS.iter().map(|(suite, version)| server(host, suite, *version)).collect()
}

fn server(host: &Host, suite: &str, version: u32) -> Result<Server> {
    let root = host.target.join("servers").join(format!("postgresql-{version}"));
    if !root.join("complete").exists() {
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(&root)?;
        let wanted = [format!("postgresql-{version}"), format!("postgresql-client-{version}")];
        let archive = Archive::new(host.target.join("apt").join(suite), suite)?;
        archive.update()?;
        let mut packages = archive.needed(&wanted)?;
        // What it needs to run, not what an installation would set up; compiling expressions is left out.
        packages.retain(|name| {
            wanted.contains(name)
                || name == "zlib1g"
                || (name.starts_with("lib") && !name.starts_with("libllvm"))
        });
        ensure!(packages.contains(&wanted[0]), "{suite} has no {}", wanted[0]);
        archive.unpack(&packages, &root)?;
        let programs = root.join(format!("usr/lib/postgresql/{version}"));
        fs::remove_file(programs.join("lib/llvmjit.so")).ok();
        wrap(&root, &programs.join("bin"))?;
        fs::write(root.join("complete"), "")?;
    }
    Ok(Server { version, root })
}

/// Puts every program behind a script of its name. The tree may be mounted elsewhere: the script finds it by its own path.
fn wrap(root: &Path, programs: &Path) -> Result<()> {
    let libraries = libraries(root)?;
    let loader = libraries
        .iter()
        .find_map(|folder| {
            let names = fs::read_dir(root.join(folder)).ok()?.flatten().map(|entry| entry.file_name());
            let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
            names.sort();
            let is_loader = |name: &&String| name.starts_with("ld-") && name.contains(".so");
            names.iter().find(is_loader).map(|name| folder.join(name))
        })
        .with_context(|| format!("{} has no loader", root.display()))?;
    let path: Vec<_> = libraries.iter().map(|folder| format!("$root/{}", folder.display())).collect();
    for entry in fs::read_dir(programs)? {
        let program = entry?.path();
        let name = program.file_name().and_then(|name| name.to_str()).context("a program's name")?.to_owned();
        fs::rename(&program, program.with_file_name(format!("{name}.program")))?;
        let script = format!(
            "#!/bin/sh\nroot=${{0%/usr/lib/postgresql/*}}\nexec \"$root/{}\" --library-path \"{}\" \"$0.program\" \"$@\"\n",
            loader.display(),
            path.join(":"),
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Folders of libraries, below the root.
fn libraries(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for below in ["lib", "usr/lib"] {
        for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.ends_with("-linux-gnu")) {
                found.push(Path::new(below).join(name));
            }
        }
    }
    ensure!(!found.is_empty(), "{} has no libraries", root.display());
    Ok(found)
}
