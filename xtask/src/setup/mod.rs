//! `xtask setup`: finds what building, demo and tests need, installs what it can, and says plainly
//! what it cannot. Tools go into the target folder; only Debian packages and the rust-src
//! component touch the machine.

mod debian;
mod drivers;
mod kubernetes;
mod python;
mod regress;
mod toolchain;

use anyhow::{Result, bail};

use crate::host::Host;

pub(crate) use kubernetes::types as kubernetes_types;
pub(crate) use regress::ensure as postgresql_tests;
pub(crate) use toolchain::cargo_tool;

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// Also what only some tests use, and what takes long: `kubernetes`, an API server that is built in 20 minutes.
    #[arg(value_enum)]
    more: Option<More>,
    /// Also what `bench` compares with: pgbouncer and haproxy.
    #[arg(long)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum More {
    Kubernetes,
}

/// What is missing, and how a person gets it.
#[derive(Debug)]
struct Lack {
    what: String,
    remedy: String,
}

impl Lack {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

pub(crate) fn run(host: &Host, arguments: &Arguments) -> Result<()> {
    let mut lacks = building(host);
    lacks.extend(worlds(host));
    if arguments.more == Some(More::Kubernetes) {
        lacks.extend(kubernetes::ensure(host));
    }
    if arguments.bench {
        lacks.extend(debian::ensure(host, debian::BENCH));
    }
    report(lacks)?;
    println!("setup: everything is there (tools in {})", host.tools().display());
    Ok(())
}

/// What the compiler needs.
pub(crate) fn for_building(host: &Host) -> Result<()> {
    report(building(host))
}

/// What demo, bench and the end-to-end tests need.
pub(crate) fn for_worlds(host: &Host) -> Result<()> {
    let mut lacks = building(host);
    lacks.extend(worlds(host));
    report(lacks)
}

/// What the tests of drivers need besides.
pub(crate) fn for_drivers(host: &Host) -> Result<()> {
    report(drivers::ensure(host))
}

/// What OpenSSH's own tests need besides.
pub(crate) fn for_openssh_tests(host: &Host) -> Result<()> {
    report(debian::ensure(host, debian::OPENSSH_TESTS))
}

/// What the tests of Kubernetes need besides.
pub(crate) fn for_kubernetes(host: &Host) -> Result<()> {
    report(kubernetes::ensure(host))
}

/// What guests with other kernels need.
pub(crate) fn for_guests(host: &Host) -> Result<()> {
    report(debian::ensure(host, debian::GUEST))
}

fn building(host: &Host) -> Vec<Lack> {
    let mut lacks = debian::ensure(host, debian::BUILD);
    lacks.extend(toolchain::ensure(host));
    lacks
}

fn worlds(host: &Host) -> Vec<Lack> {
    let mut lacks = debian::ensure(host, debian::WORLD);
    lacks.extend(python::ensure(host));
    lacks
}

fn report(lacks: Vec<Lack>) -> Result<()> {
    if lacks.is_empty() {
        return Ok(());
    }
    for Lack { what, remedy } in &lacks {
        eprintln!("missing: {what}\n  to get it: {}", remedy.replace('\n', "\n  "));
    }
    bail!("setup could not provide {} thing(s), listed above", lacks.len())
}
