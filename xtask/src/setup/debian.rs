//! Debian packages.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::Result;

use super::Lack;
use crate::{host, host::Host};

/// A package, and how to see that it (or an equal from elsewhere) is there already.
pub(super) struct Package {
    name: &'static str,
    present: fn(&Host) -> bool,
    purpose: &'static str,
}

/// For the compiler: build scripts compile C and read headers with libclang.
pub(super) const BUILD: &[Package] = &[
    Package { name: "gcc", present: |host| host.which("cc").is_some(), purpose: "C sources of dependencies" },
    Package {
        name: "libc6-dev",
        present: |_| exists("/usr/include/stdlib.h"),
        purpose: "C sources of dependencies",
    },
    Package { name: "g++", present: |host| host.which("c++").is_some(), purpose: "libFuzzer, which is C++" },
    Package { name: "make", present: |host| host.which("make").is_some(), purpose: "PostgreSQL's grammar" },
    Package { name: "libclang-dev", present: |_| libclang(), purpose: "bindings to PostgreSQL's grammar" },
];

/// For demo and tests.
pub(super) const WORLD: &[Package] = &[
    Package { name: "postgresql", present: |_| postgresql(), purpose: "the server that demo and tests run" },
    Package {
        name: "postgresql-client",
        present: |host| host.which("psql").is_some(),
        purpose: "psql, the job's client",
    },
    Package { name: "iproute2", present: |host| host.which("ip").is_some(), purpose: "network namespaces" },
    Package { name: "util-linux", present: |host| host.which("nsenter").is_some(), purpose: "entering them" },
    Package {
        name: "python3-venv",
        present: |_| super::python::interpreter().is_some(),
        purpose: "psycopg, asyncpg, paramiko and others, tested clients",
    },
    Package {
        name: "openssh-server",
        present: |_| exists("/usr/sbin/sshd"),
        purpose: "the SSH host that tests run; its service is not needed",
    },
    Package {
        name: "openssh-client",
        present: |host| host.which("ssh").is_some(),
        purpose: "ssh, scp and sftp, tested clients",
    },
    Package {
        name: "skopeo",
        present: |host| host.which("skopeo").is_some(),
        purpose: "a tested client of container registries",
    },
    Package {
        name: "docker-registry",
        present: |host| host.which("docker-registry").is_some(),
        purpose: "the registry that it pulls from and pushes to; its service is not needed",
    },
    Package { name: "rsync", present: |host| host.which("rsync").is_some(), purpose: "a tested client" },
    Package {
        name: "git",
        present: |host| host.which("git").is_some(),
        purpose: "a tested client, and the server that it pushes to",
    },
    Package {
        name: "nodejs",
        present: |host| host.which("node").is_some(),
        purpose: "runs what npm installs",
    },
    Package { name: "npm", present: |host| host.which("npm").is_some(), purpose: "a tested client" },
    Package {
        name: "sshpass",
        present: |host| host.which("sshpass").is_some(),
        purpose: "passwords for ssh, as scripts give them",
    },
    Package {
        name: "prometheus",
        present: |host| host.which("promtool").is_some(),
        purpose: "promtool, which checks the metrics",
    },
    Package {
        name: "curl",
        present: |host| host.which("curl").is_some(),
        purpose: "tested clients of HTTP and, with another SSH library, of SFTP",
    },
    Package {
        name: "openssl",
        present: |host| host.which("openssl").is_some(),
        purpose: "passwords and digests of test hosts",
    },
    Package {
        name: "shellcheck",
        present: |host| host.which("shellcheck").is_some(),
        purpose: "checks the CI systems' hooks",
    },
    Package {
        name: "systemd",
        present: |_| exists("/lib/systemd/systemd"),
        purpose: "runs the units, in namespaces of its own",
    },
];

/// For bench: what it compares with.
pub(super) const BENCH: &[Package] = &[
    Package {
        name: "pgbouncer",
        present: |host| host.which("pgbouncer").is_some(),
        purpose: "comparison in bench",
    },
    Package {
        name: "nginx-light",
        present: |host| host.which("nginx").is_some(),
        purpose: "the server and the comparison in bench https; its service is not needed",
    },
    Package {
        name: "nghttp2-client",
        present: |host| host.which("h2load").is_some(),
        purpose: "h2load, which bench https loads with",
    },
    Package { name: "wrk", present: |host| host.which("wrk").is_some(), purpose: "latencies in bench https" },
    Package {
        name: "haproxy",
        present: |host| host.which("haproxy").is_some(),
        purpose: "comparison in bench",
    },
];

/// For the tests of drivers.
pub(super) const DRIVERS: &[Package] = &[
    Package {
        name: "libpostgresql-jdbc-java",
        present: |_| exists("/usr/share/java/postgresql.jar"),
        purpose: "pgjdbc, a tested driver",
    },
    Package {
        name: "default-jdk-headless",
        present: |host| host.which("javac").is_some(),
        purpose: "running pgjdbc",
    },
    Package {
        name: "nodejs",
        present: |host| host.which("node").is_some(),
        purpose: "running node-postgres",
    },
    Package { name: "npm", present: |host| host.which("npm").is_some(), purpose: "installing node-postgres" },
];

/// For OpenSSH's own tests.
pub(super) const OPENSSH_TESTS: &[Package] = &[
    Package {
        name: "openssh-tests",
        present: |_| exists("/usr/lib/openssh/regress/test-exec.sh"),
        purpose: "the tests, as Debian packs them",
    },
    Package {
        name: "putty-tools",
        present: |host| host.which("plink").is_some() && host.which("puttygen").is_some(),
        purpose: "plink, a client that they test with",
    },
];

/// For the tests of Kubernetes, and for building its API server.
pub(super) const KUBERNETES: &[Package] = &[
    Package {
        name: "etcd-server",
        present: |host| host.which("etcd").is_some(),
        purpose: "what the API server keeps its objects in",
    },
    Package {
        name: "golang-go",
        present: |host| host.which("go").is_some(),
        purpose: "building the API server",
    },
    Package { name: "make", present: |host| host.which("make").is_some(), purpose: "building it" },
    Package { name: "jq", present: |host| host.which("jq").is_some(), purpose: "building it" },
    Package {
        name: "default-jdk-headless",
        present: |host| host.which("javac").is_some(),
        purpose: "a client in Java",
    },
    Package {
        name: "dpkg-dev",
        present: |host| host.which("dpkg-source").is_some(),
        purpose: "unpacking its source",
    },
];

/// For other kernels: what the guest boots into. The emulator is not the machine's.
pub(super) const GUEST: &[Package] = &[
    Package {
        name: "busybox-static",
        present: |host| host.which("busybox").is_some(),
        purpose: "the guest's init",
    },
    Package {
        name: "xz-utils",
        present: |host| host.which("xz").is_some(),
        purpose: "kernel modules, which are compressed",
    },
    Package {
        name: "binutils",
        present: |host| host.which("strip").is_some(),
        purpose: "smaller programs for the guest",
    },
];

pub(super) fn ensure(host: &Host, packages: &[Package]) -> Vec<Lack> {
    let absent: Vec<&Package> = packages.iter().filter(|package| !(package.present)(host)).collect();
    if absent.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = absent.iter().map(|package| package.name).collect();
    let lacks = |why: String| {
        let purposes: Vec<_> =
            absent.iter().map(|package| format!("{} ({})", package.name, package.purpose)).collect();
        let remedy = format!("as root: apt-get install --no-install-recommends {}\n({why})", names.join(" "));
        vec![Lack::new(format!("Debian packages: {}", purposes.join(", ")), remedy)]
    };
    if host.which("apt-get").is_none() {
        return lacks("there is no apt-get here; other systems have these under similar names".into());
    }
    if !host::is_root() {
        return lacks("setup can do it when run as root".into());
    }
    match install(host, &names) {
        Ok(()) => {
            let still: Vec<_> =
                absent.iter().filter(|package| !(package.present)(host)).map(|p| p.name).collect();
            if still.is_empty() {
                Vec::new()
            } else {
                lacks(format!("installed, but not found: {}", still.join(" ")))
            }
        }
        Err(error) => lacks(format!("{error:#}")),
    }
}

fn install(host: &Host, names: &[&str]) -> Result<()> {
    let _quiet = NoServices::start();
    let install = || {
        let mut apt = apt(host);
        apt.args(["install", "--yes", "--no-install-recommends"]).args(names);
        apt
    };
    let label = format!("apt-get install {}", names.join(" "));
    // Package lists may be absent or old; only then are they worth fetching.
    if host::quietly(&label, &mut install()).is_ok() {
        return Ok(());
    }
    host::quietly("apt-get update", apt(host).arg("update"))?;
    host::quietly(&label, &mut install())
}

fn apt(host: &Host) -> Command {
    let mut apt = host.command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "-o", "Dpkg::Use-Pty=0"]);
    apt
}

/// While this lives, packages do not start the services they bring: we want programs, not a
/// database on the machine's port 5432.
struct NoServices(bool);

impl NoServices {
    const FILE: &str = "/usr/sbin/policy-rc.d";

    fn start() -> Self {
        let path = Path::new(Self::FILE);
        let ours = !path.exists() && fs::write(path, "#!/bin/sh\nexit 101\n").is_ok();
        if ours {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).ok();
        }
        Self(ours)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.0 {
            fs::remove_file(Self::FILE).ok();
        }
    }
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn children(folder: &str) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// bindgen loads libclang, and libclang its own headers.
fn libclang() -> bool {
    std::env::var_os("LIBCLANG_PATH").is_some()
        || children("/usr/lib").iter().any(|folder| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("llvm-"))
                && folder.join("lib/libclang.so").exists()
        })
}

fn postgresql() -> bool {
    children("/usr/lib/postgresql").iter().any(|version| version.join("bin/initdb").exists())
}
