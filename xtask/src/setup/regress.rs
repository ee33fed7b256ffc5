//! PostgreSQL's own tests, of exactly the version that is installed: from the Debian source package, with what the
//! runners need beside it. Everything goes into the target folder; the machine's own package lists are not touched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{host, host::Host};

/// Where the tests are kept.
const FOLDER: &str = "postgresql-tests";

/// Fetches and builds them, unless that was done for this version.
pub(crate) fn ensure(host: &Host) -> Result<()> {
    let (major, programs) = newest().context("no PostgreSQL server is installed: `cargo xtask setup`")?;
    let (server, client) = (format!("postgresql-{major}"), format!("postgresql-client-{major}"));
    let version = installed(host, &server)?;
    let of_client = installed(host, &client)?;
    ensure!(
        version == of_client,
        "{server} is {version} and {client} is {of_client}: the tests compare what one version prints; \
         install both of the same"
    );
    let kept = host.tools().join(FOLDER);
    if fs::read_to_string(kept.join("version")).is_ok_and(|made| made == version) {
        return Ok(());
    }
    let build = host.tools().join("postgresql-tests.build");
    fs::remove_dir_all(&build).ok();
    fs::create_dir_all(&build)?;
    let made = make(host, &build, &server, &major, &version, &programs)?;
    fs::write(made.join("version"), &version)?;
    fs::remove_dir_all(&kept).ok();
    fs::rename(&made, &kept)?;
    fs::remove_dir_all(&build)?;
    Ok(())
}

fn make(
    host: &Host,
    build: &Path,
    server: &str,
    major: &str,
    version: &str,
    programs: &Path,
) -> Result<PathBuf> {
    let apt = Apt::new(host, build, server, version)?;
    apt.run("package sources", &["update"], build)?;
    let package = format!("{server}={version}");
    apt.run("PostgreSQL's source", &["source", "--download-only", &package], build)?;
    let tarball = find(build, |name| name.contains(".orig.tar."))?;
    let source = build.join("source");
    fs::create_dir_all(&source)?;
    let mut tar = host.command("tar");
    tar.arg("-C").arg(&source).args(["--strip-components=3", "--wildcards", "-xf"]).arg(&tarball);
    tar.args(["*/src/test/regress", "*/src/test/isolation"]);
    host::quietly("unpacking PostgreSQL's tests", &mut tar)?;

    // Headers to build one library with; the runners too, where the client's package does not bring them.
    let headers = format!("postgresql-server-dev-{major}={version}");
    let mut download = host.command("apt-get");
    download.args(["-o", "APT::Sandbox::User=root", "download", &headers]).current_dir(build);
    host::quietly("PostgreSQL's headers", &mut download)?;
    let package = find(build, |name| name.starts_with("postgresql-server-dev-"))?;
    let dev = build.join("dev");
    host::quietly("unpacking PostgreSQL's headers", host.command("dpkg").arg("-x").arg(&package).arg(&dev))?;

    let made = build.join("made");
    for folder in ["lib", "bin"] {
        fs::create_dir_all(made.join(folder))?;
    }
    for suite in ["regress", "isolation"] {
        fs::rename(source.join(suite), made.join(suite))?;
    }
    let include = dev.join("usr/include/postgresql");
    let mut cc = host.command("cc");
    cc.args(["-O1", "-fPIC", "-shared", "-I"]).arg(include.join(major).join("server"));
    cc.arg("-I").arg(include.join("internal")).arg("-I").arg("/usr/include/postgresql").arg("-o");
    cc.arg(made.join("lib/regress.so")).arg(made.join("regress/regress.c"));
    host::quietly("compiling the tests' library", &mut cc)?;
    let root = programs.parent().context("a folder of PostgreSQL")?;
    for library in ["autoinc.so", "refint.so"] {
        fs::copy(root.join("lib").join(library), made.join("lib").join(library)).with_context(|| {
            format!("{library} of package {server} (or postgresql-contrib) belongs in {}", root.display())
        })?;
    }
    let unpacked = dev.join(root.strip_prefix("/").unwrap_or(root));
    for runner in ["regress/pg_regress", "isolation/pg_isolation_regress", "isolation/isolationtester"] {
        let place = Path::new("lib/pgxs/src/test").join(runner);
        let found = [root, &unpacked].iter().map(|root| root.join(&place)).find(|path| path.is_file());
        let found = found.with_context(|| format!("neither package brings {}", place.display()))?;
        fs::copy(&found, made.join("bin").join(found.file_name().unwrap_or_default()))?;
    }
    Ok(made)
}

/// apt with lists of its own, which name the sources of what the machine's lists name binaries of.
struct Apt<'a> {
    host: &'a Host,
    options: Vec<String>,
}

impl<'a> Apt<'a> {
    fn new(host: &'a Host, build: &Path, package: &str, version: &str) -> Result<Self> {
        let state = build.join("apt");
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(state.join(folder))?;
        }
        let known = host::output(host.command("apt-cache").args(["madison", package]))?;
        // `name | version | URI suite/component arch Packages`
        let lines: Vec<String> = known
            .lines()
            .filter_map(|line| {
                let mut fields = line.split('|').map(str::trim);
                let (_, found, place) = (fields.next()?, fields.next()?, fields.next()?);
                let mut words = place.split_whitespace();
                let (uri, suite) = (words.next()?, words.next()?);
                let (suite, component) = suite.rsplit_once('/')?;
                (found == version).then(|| format!("deb-src {uri} {suite} {component}\n"))
            })
            .collect();
        if lines.is_empty() {
            bail!(
                "apt knows no source of {package} {version}, the version that is installed: `apt-get update`, or \
                 install a version that it knows:\n{known}"
            );
        }
        fs::write(state.join("sources.list"), lines.concat())?;
        let option = |name: &str, place: &str| format!("-o{name}={}", state.join(place).display());
        let options = vec![
            option("Dir::State::Lists", "lists"),
            option("Dir::Etc::SourceList", "sources.list"),
            "-oDir::Etc::SourceParts=/dev/null".to_owned(),
            option("Dir::Cache", ""),
            option("Dir::Cache::Archives", "archives"),
            "-oAPT::Sandbox::User=root".to_owned(),
        ];
        // Keys that the machine's own sources name apart are found here too.
        let trusted = state.join("trusted");
        fs::create_dir_all(&trusted)?;
        for folder in ["/etc/apt/trusted.gpg.d", "/usr/share/keyrings"] {
            for key in fs::read_dir(folder).into_iter().flatten().flatten() {
                let usable = |name: &str| {
                    name.contains("debian") && (name.ends_with(".gpg") || name.ends_with(".asc"))
                };
                if usable(&key.file_name().to_string_lossy()) {
                    fs::copy(key.path(), trusted.join(key.file_name()))?;
                }
            }
        }
        let options = options.into_iter().chain([option("Dir::Etc::TrustedParts", "trusted")]).collect();
        Ok(Self { host, options })
    }

    fn run(&self, label: &str, words: &[&str], folder: &Path) -> Result<()> {
        let mut apt = self.host.command("apt-get");
        apt.args(&self.options).arg("--quiet").args(words).current_dir(folder);
        host::quietly(label, &mut apt)
    }
}

fn installed(host: &Host, package: &str) -> Result<String> {
    let asked = host::output(host.command("dpkg-query").args(["--show", "--showformat=${Version}", package]));
    asked.with_context(|| {
        format!("{package} is not a Debian package here, so its own tests of the same version cannot be had")
    })
}

fn newest() -> Option<(String, PathBuf)> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let programs = entry.path().join("bin");
        Some((name.parse::<u32>().ok()?, (name, programs)))
    });
    let newest = versions.filter(|(_, (_, programs))| programs.join("initdb").exists()).max();
    newest.map(|(_, found)| found)
}

fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.flatten();
    let mut found = entries.filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    Ok(found.next().with_context(|| format!("apt left nothing of the kind in {}", folder.display()))?.path())
}
